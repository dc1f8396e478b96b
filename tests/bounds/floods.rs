//! More than anybody can take, from either side.

use std::thread;

use holdfast_protocol::Seq;
use holdfast_protocol::codec;
use holdfast_protocol::message::{Message, Rule};
use serde_json::json;

use super::{MIB, kept, play_on};
use crate::support::arena_client::ArenaClient;
use crate::support::impostor::{Heard, Impostor, Peer, Talk};
use crate::support::scene::{Script, clean};

#[test]
fn a_player_who_floods_gets_every_answer_in_order_and_harms_nobody() {
    const INPUTS: u64 = 100_000;
    let scene = Script::new("bounds").open();
    let mut players = scene.players(20);
    let mut flooder = ArenaClient::connect(scene.proxy.address());
    let mut reader = flooder.try_clone();
    let sender = thread::spawn(move || (0..INPUTS).for_each(|_| flooder.send(100)));
    let mut most = 0;
    for answered in 1..=10 {
        assert!(reader.read_replies(answered * INPUTS / 10), "the flooder is closed");
        most = most.max(kept(&scene));
    }
    sender.join().unwrap();
    play_on(&mut players, 100);
    // What its windows allow, and what its backend is being told.
    assert!(most <= 2 * MIB, "{most} bytes were held");
    clean(players);
}

/// Frames with nothing in them: each still takes a byte or more on its way to the player.
fn send_empty_frames(peer: &mut Peer, talk: Talk) {
    let mut bytes = Vec::new();
    for number in 1..=200_000 {
        let mut data = peer.data(talk, b"");
        data.seq = Seq(talk.sent.0 + number);
        codec::encode(&Message::Data(data), &mut bytes);
    }
    peer.raw(&bytes);
}

#[test]
fn a_backend_that_floods_a_player_with_empty_frames_loses_that_session_alone() {
    let narrow = json!({"limits": {"server_window_bytes": 1000}});
    let mut scene = Script::new("bounds").listener("odd").open().with_odd_service(&narrow);
    let mut players = scene.players(20);
    let impostor = Impostor::turning(send_empty_frames);
    scene.cast("floods", &impostor);
    let (mut other, mut victim) = (scene.odd_client(), scene.odd_client());
    for client in [&mut other, &mut victim] {
        client.send(b"before\n");
        client.expect(b"before\n");
    }
    victim.send(b"misbehave\n");
    let got = victim.until_closed();
    // A few windows at most: those that it had time to take.
    assert!(got.len() <= 100_000 && got.iter().all(|byte| *byte == b'\n'), "{} bytes", got.len());
    let told = impostor.wait("FAULT", |heard| matches!(heard, Heard::Fault { .. }));
    assert_eq!(told, Heard::Fault { rule: Rule::WindowExceeded, of_link: false });
    other.send(b"after\n");
    other.expect(b"after\n");
    play_on(&mut players, 100);
    scene.wait("nothing is left of it", |scene| kept(scene) < MIB / 4);
    clean(players);
}
