//! Windows, bounds, and who has to wait at them.

use std::time::Duration;

use holdfast_protocol::message::Rule;

use super::world::*;

#[test]
fn the_server_window_stops_the_sender_until_acks_come() {
    let mut world = World::new();
    world.begin(1);
    let out = world.say(data(1, 1, 1, "send 5 400"));
    assert_eq!(brief(&out), ["data 1: 400 x", "data 2: 400 x"]);
    assert_eq!(brief(&world.say(ack(1, 1, 1))), ["data 3: 400 x"]);
    assert_eq!(brief(&world.say(ack(1, 1, 3))), ["data 4: 400 x", "data 5: 400 x"]);
}

#[test]
fn one_frame_may_exceed_the_window_when_nothing_is_in_flight() {
    let mut world = World::new();
    world.begin(1);
    assert_eq!(brief(&world.say(data(1, 1, 1, "send 2 1500"))), ["data 1: 1500 x"]);
    assert_eq!(brief(&world.say(ack(1, 1, 1))), ["data 2: 1500 x"]);
}

#[test]
fn client_frames_wait_while_the_outbox_is_over_its_bound_and_others_do_not() {
    let mut world = World::new();
    world.begin(1);
    world.begin(2);
    world.say(data(1, 1, 1, "send 6 900"));
    assert_eq!(world.say(data(1, 1, 2, "a")), []);
    assert_eq!(brief(&world.say(data(2, 1, 1, "b"))), ["data 1: b"]);
    let mut seen = Vec::new();
    for seq in 1..=6 {
        seen.extend(brief(&world.say(ack(1, 1, seq))));
    }
    assert_eq!(seen.last().unwrap(), "data 7: a");
}

#[test]
fn a_player_who_reads_nothing_does_not_make_the_outbox_grow_without_end() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "tick 1"), data(1, 1, 2, "send 17 900")]);
    world.pass(Duration::from_secs(60));
    let mut ticks = 0;
    for seq in 1..=17 {
        ticks += brief(&world.say(ack(1, 1, seq))).iter().filter(|text| text.ends_with("tick")).count();
    }
    assert!(ticks < 100, "{ticks} ticks were queued in a minute");
}

#[test]
fn more_client_bytes_than_the_window_are_a_fault() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "send 6 900"));
    let frame = "y".repeat(600);
    assert_eq!(world.say(data(1, 1, 2, &frame)), []);
    assert_eq!(fault_of(&world.say(data(1, 1, 3, &frame)), 1), Rule::WindowExceeded);
}

#[test]
fn a_client_frame_over_the_limit_is_a_fault() {
    let settings = crate::Settings { max_frame_bytes: 10, ..settings() };
    let mut world = World::with(settings, Puppets::default());
    world.begin(1);
    assert_eq!(fault_of(&world.say(data(1, 1, 1, "12345678901")), 1), Rule::FrameTooLarge);
}

#[test]
fn a_server_frame_over_the_proxys_limit_is_a_fault() {
    let mut world = World::new();
    world.begin(1);
    assert_eq!(fault_of(&world.say(data(1, 1, 1, "send 1 100001")), 1), Rule::FrameTooLarge);
}

#[test]
fn sessions_over_the_limit_are_refused_for_now() {
    let settings = crate::Settings { max_sessions: 1, ..settings() };
    let mut world = World::with(settings, Puppets::default());
    world.begin(1);
    let out = world.say(attach(2, 1, holdfast_protocol::message::AttachMode::Fresh));
    assert_eq!(brief(&out), ["refused 1 sessions are the limit of a proxy worker"]);
}

#[test]
fn states_being_loaded_are_bounded_together() {
    let settings = crate::Settings { max_loading_bytes: 70, ..settings() };
    let mut old = World::new();
    old.begin(1);
    let kept = old.freeze(1, 1);
    let mut new = World::with(settings, Puppets::default());
    let [first, rest] = kept.attach(1, 2);
    let [second, _] = kept.attach(2, 2);
    new.say(first);
    assert_eq!(
        brief(&new.say(second.clone())),
        ["refused 61 bytes of state are being loaded, the limit is 70"]
    );
    new.say(rest);
    assert_eq!(new.say(second), [], "the first is loaded, the second may come");
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "send 2 100"));
    assert!(!world.peer.attachments[&subject(1)].holds_no_buffer());
    world.say(ack(1, 1, 2));
    assert!(world.peer.attachments[&subject(1)].holds_no_buffer());
}
