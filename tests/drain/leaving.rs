//! A player who leaves in the middle of a move is still saved: the next backend gets the state, what was said last,
//! and the leave.

use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};

use holdfast_protocol::message::{Drain, Message};
use serde_json::{Value, json};

use crate::support::impostor::{Heard, Impostor, MISBEHAVE};
use crate::support::scene::{SOON, Scene, Script};

/// Long enough for a backend that takes its time.
fn patient() -> Value {
    let limits = json!({"liveness_ms": 20_000, "attach_timeout_ms": 20_000, "park_deadline_s": 30});
    json!({"limits": limits})
}

/// That the session's state came, then the last frame, then the leave: in this order.
fn is_saved_at(next: &Impostor, last_words: &[u8]) {
    next.wait("ATTACH with a state", |heard| matches!(heard, Heard::Attach { fresh: false, lost: false }));
    next.wait("the last frame", |heard| matches!(heard, Heard::Frame(frame) if frame == last_words));
    next.wait("CLOSE", |heard| matches!(heard, Heard::Close { .. }));
}

fn wait_gone(scene: &mut Scene) {
    scene.wait("the session has ended", |scene| scene.metric("holdfast_sessions", "") == 0);
    let closed = scene.closed("client_close") + scene.closed("backend_close");
    assert_eq!((closed, scene.metric("holdfast_states_dropped_total", "")), (1, 0));
}

#[test]
fn a_player_who_leaves_while_the_next_backend_is_slow_to_take_him() {
    let mut scene = Script::new("leaving").listener("odd").open().with_odd_service(&patient());
    let old = Impostor::turning(|_, _| ());
    scene.cast("old", &old);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    // It has its link, and reads nothing of it for now.
    let (shut, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let next = Impostor::start(move |peer| {
        if peer.hello() {
            peer.welcome();
            let left = gate.lock().unwrap().recv_timeout(SOON);
            assert_ne!(left, Err(RecvTimeoutError::Timeout), "the player leaves");
            peer.play(&|_, _| ());
        }
    });
    scene.cast("next", &next);
    scene.documents.put("drains/odd/old", &json!({})).unwrap();
    scene.wait("the session is on its way", |scene| scene.in_phase("moving") == 1);
    client.send(b"last words\n");
    scene.wait("the last words are kept", |scene| {
        scene.sessions()[0]["kept_bytes"].as_u64() > scene.sessions()[0]["state_bytes"].as_u64()
    });
    drop(client);
    drop(shut);
    is_saved_at(&next, b"last words");
    wait_gone(&mut scene);
}

#[test]
fn a_player_who_leaves_while_parked_is_saved_by_whoever_comes() {
    let mut scene = Script::new("leaving").listener("odd").open().with_odd_service(&patient());
    // It says that it is about to end, and nobody else is there.
    let old = Impostor::turning(|peer, _| {
        peer.send(&Message::Drain(Drain { deadline_ms: 60_000, returns: false, reason: "the end" }));
    });
    scene.cast("old", &old);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    client.send(&[MISBEHAVE, b"\n"].concat());
    scene.wait("the session is parked", |scene| scene.in_phase("parked") == 1);
    client.send(b"last words\n");
    scene.wait("the last words are kept", |scene| {
        scene.sessions()[0]["kept_bytes"].as_u64() > scene.sessions()[0]["state_bytes"].as_u64()
    });
    drop(client);
    let next = Impostor::turning(|_, _| ());
    scene.cast("next", &next);
    is_saved_at(&next, b"last words");
    wait_gone(&mut scene);
}
