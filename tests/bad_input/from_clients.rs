//! Clients that don't speak the game's framing, or not to the end.

use super::{scene, unharmed};
use crate::support::client::Client;
use crate::support::impostor::Impostor;
use crate::support::scene::Scene;

/// Waits until one more session has ended for that reason, and only the players are left.
fn ended(scene: &mut Scene, case: &str, reason: &str, before: u64) {
    scene.wait(&format!("{case}: one session ended by {reason}"), |scene| {
        scene.closed(reason) == before + 1 && scene.metric("holdfast_sessions", "") == 20
    });
}

#[test]
fn bytes_that_are_no_frames_end_their_session_alone() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::turning(|_, _| ());
    scene.cast("echo", &impostor);
    let (game, odd) = (scene.proxy.address(), scene.proxy.listener("odd").unwrap());
    let too_long = 65_537u32.to_be_bytes();
    let line = [b'x'; 1001];
    let cases: [(&str, _, &[u8]); 5] = [
        ("HTTP", game, b"GET / HTTP/1.1\r\nHost: game\r\n\r\n"),
        ("binary garbage", game, &[0xff; 64]),
        ("a length over the maximum", game, &too_long),
        ("an endless line", odd, &line),
        ("a line over the maximum", odd, &[&line[..], b"\n"].concat()),
    ];
    for (case, address, bytes) in cases {
        let before = scene.closed("bad_frame");
        let mut client = Client::connect(address);
        client.send(bytes);
        assert!(client.until_closed().is_empty(), "{case}");
        ended(&mut scene, case, "bad_frame", before);
    }
    let log = scene.log();
    assert!(
        log.contains("bad frame") && log.contains("65537") && log.contains("1000"),
        "the log says too little"
    );
    unharmed(&mut scene, players);
}

#[test]
fn clients_that_stop_in_the_middle_of_a_frame_just_leave() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::turning(|_, _| ());
    scene.cast("echo", &impostor);
    let (game, odd) = (scene.proxy.address(), scene.proxy.listener("odd").unwrap());
    let cases: [(&str, _, &[u8]); 5] = [
        ("nothing at all", game, b""),
        ("half a length", game, &[0, 0]),
        ("half a frame", game, &[0, 0, 0, 100, 1, 2, 3]),
        ("half a line", odd, b"hel"),
        ("no line at all", odd, b""),
    ];
    for (case, address, bytes) in cases {
        let before = scene.closed("client_close");
        let mut client = Client::connect(address);
        client.send(bytes);
        // Silence harms nobody; the session is there until its client goes.
        scene.wait(case, |scene| scene.metric("holdfast_sessions", "") == 21);
        drop(client);
        ended(&mut scene, case, "client_close", before);
    }
    unharmed(&mut scene, players);
}

#[test]
fn good_frames_before_a_bad_one_still_reach_the_game() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::turning(|_, _| ());
    scene.cast("echo", &impostor);
    let before = scene.closed("bad_frame");
    let mut client = scene.odd_client();
    client.send(b"one\ntwo\n");
    client.expect(b"one\ntwo\n");
    client.send(&[b"three\n", &[b'x'; 2000][..]].concat());
    client.until_closed();
    impostor.wait("the frame before", |heard| {
        *heard == crate::support::impostor::Heard::Frame(b"three".to_vec())
    });
    impostor.wait("the end", |heard| matches!(heard, crate::support::impostor::Heard::Close { .. }));
    ended(&mut scene, "three", "bad_frame", before);
    unharmed(&mut scene, players);
}
