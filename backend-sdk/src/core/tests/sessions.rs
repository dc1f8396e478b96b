//! Fresh sessions: frames, acks, timers, work, faults.

use std::time::Duration;

use holdfast_protocol::Message;
use holdfast_protocol::message::{Attach, AttachMode, FaultScope, Ping, Rule, Subject};

use crate::core::LinkEnd;
use crate::settings::Settings;

use super::world::*;

#[test]
fn a_fresh_session_answers_frames_in_order_and_acks_with_them() {
    let mut world = World::new();
    world.begin(1);
    let out = world.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "b")]);
    assert_eq!(brief(&out), ["data 1: a", "data 2: b"]);
    let Message::Data(last) = out[1] else { unreachable!() };
    assert_eq!(last.ack.0, 2);
    assert_eq!(world.pass(Duration::from_secs(1)), [], "nothing is left to be acked");
}

#[test]
fn a_frame_without_a_reply_is_acked_within_20_ms() {
    let mut world = World::new();
    world.begin(1);
    assert_eq!(world.say_all(&[data(1, 1, 1, "quiet"), data(1, 1, 2, "quiet")]), []);
    assert_eq!(brief(&world.pass(Duration::from_millis(20))), ["ack 2"]);
    assert_eq!(world.pass(Duration::from_secs(1)), []);
}

#[test]
fn a_quarter_of_the_window_is_acked_at_the_end_of_the_batch() {
    let mut world = World::new();
    world.begin(1);
    let frame = format!("quiet {}", "y".repeat(WINDOW as usize / 8));
    assert_eq!(world.say(data(1, 1, 1, &frame)), []);
    let out = world.say_all(&[data(1, 1, 2, &frame), data(1, 1, 3, &frame)]);
    assert_eq!(brief(&out), ["ack 3"]);
}

#[test]
fn a_gap_is_a_fault_of_that_session_alone() {
    let mut world = World::new();
    world.begin(1);
    world.begin(2);
    let out = world.say(data(1, 1, 2, "a"));
    assert_eq!(fault_of(&out, 1), Rule::OutOfSequence);
    assert_eq!(brief(&world.say(data(2, 1, 1, "b"))), ["data 1: b"]);
    assert_eq!(world.say(data(1, 1, 1, "a")), [], "session 1 is gone");
    assert_eq!((world.peer.counts().stale, world.population.get()), (1, 1));
}

#[test]
fn a_frame_that_was_had_is_dropped_counted_and_acked_again() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "a"));
    assert_eq!(world.say(again(data(1, 1, 1, "a"))), []);
    assert_eq!(brief(&world.pass(Duration::from_millis(20))), ["ack 1"]);
    assert_eq!(world.say(data(1, 1, 1, "a")), []);
    assert_eq!(world.peer.counts().repeated, 2);
}

#[test]
fn a_stale_epoch_is_dropped_and_counted() {
    let mut world = World::new();
    world.begin(1);
    for message in [data(1, 0, 1, "a"), freeze(1, 0, 1000), release(1, 2), ack(1, 3, 5), start(1, 9)] {
        assert_eq!(world.say(message), []);
    }
    assert_eq!(world.peer.counts().stale, 5);
    assert_eq!(brief(&world.say(data(1, 1, 1, "a"))), ["data 1: a"]);
}

#[test]
fn a_panic_is_a_fault_of_that_session_alone() {
    let mut world = World::new();
    world.begin(1);
    world.begin(2);
    assert_eq!(fault_of(&world.say(data(1, 1, 1, "panic")), 1), Rule::Handler);
    assert_eq!(brief(&world.say(data(2, 1, 1, "b"))), ["data 1: b"]);
}

#[test]
fn live_frames_before_start_are_a_fault() {
    let mut world = World::new();
    world.say(attach(1, 1, AttachMode::Fresh));
    assert_eq!(fault_of(&world.say(data(1, 1, 1, "a")), 1), Rule::LiveBeforeStart);
}

#[test]
fn an_ack_beyond_what_was_sent_is_a_fault() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "a"));
    assert_eq!(fault_of(&world.say(ack(1, 1, 2)), 1), Rule::AckBeyondSent);
}

#[test]
fn timers_run_at_their_period_until_cancelled() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "tick 100"));
    assert_eq!(brief(&world.pass(Duration::from_millis(99))), ["ack 1"]);
    assert_eq!(
        brief(&world.pass(Duration::from_millis(201))),
        ["data 1: tick", "data 2: tick", "data 3: tick"]
    );
    world.say(data(1, 1, 2, "cancel"));
    assert_eq!(brief(&world.pass(Duration::from_secs(1))), ["ack 2"]);
    assert_eq!(world.peer.next_due(), None);
}

#[test]
fn spawned_work_comes_back_as_an_input() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "work"));
    let job = world.jobs[0];
    world.peer.finished(job, Some(b"result".to_vec()), world.now);
    assert_eq!(brief(&world.out()), ["data 1: result"]);
    assert_eq!(brief(&world.say(data(1, 1, 2, "state"))), ["data 2: fresh work finished 7 state"]);
}

#[test]
fn work_that_panics_is_a_fault_of_its_session() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "work"));
    world.peer.finished(world.jobs[0], None, world.now);
    assert_eq!(fault_of(&world.out(), 1), Rule::Handler);
}

#[test]
fn what_the_game_refuses_is_refused_with_its_reason() {
    let mut world = World::with(settings(), Puppets { refuses: true, ..Puppets::default() });
    let out = world.say(attach(1, 1, AttachMode::Fresh));
    assert_eq!(brief(&out), ["refused full"]);
    assert_eq!(world.population.get(), 0);
}

#[test]
fn a_lost_session_is_opened_as_lost_and_its_inputs_have_numbers_of_their_own() {
    let mut world = World::new();
    let Message::Attach(message) = attach(1, 3, AttachMode::Fresh) else { unreachable!() };
    world.say_all(&[Message::Attach(Attach { lost: true, ..message }), start(1, 3)]);
    assert_eq!(brief(&world.say(data(1, 3, 1, "state"))), ["data 1: lost state"]);
    let number = (3_u64 << 32) + 2;
    assert_eq!(brief(&world.say(data(1, 3, 2, "input"))), [format!("data 2: {number}")]);
}

#[test]
fn a_group_is_refused_by_a_game_that_has_none() {
    let mut world = World::new();
    let Message::Attach(message) = attach(1, 1, AttachMode::Fresh) else { unreachable!() };
    let subject = Subject::Group(holdfast_protocol::GroupId([1; 16]));
    assert_eq!(
        brief(&world.say(Message::Attach(Attach { subject, ..message }))),
        ["refused groups aren't served: the game has none (Builder::groups)"]
    );
}

#[test]
fn pong_tells_the_attachments_of_the_process() {
    let mut world = World::new();
    world.begin(1);
    world.begin(2);
    let out = world.say(Message::Ping(Ping { nonce: 5 }));
    let [Message::Pong(pong)] = out[..] else { panic!("{out:?}") };
    assert_eq!((pong.nonce, pong.attachments), (5, 2));
}

#[test]
fn pong_tells_capacity_and_load_when_asked_when_told_to_and_after_a_welcome() {
    let load = crate::Load::default();
    let mut world = World::with(Settings { load: load.clone(), ..settings() }, Puppets::default());
    load.set_capacity(800);
    load.set(0.25);
    let told = |out: &[Message<'_>]| {
        let Some(Message::Pong(pong)) = out.last() else { panic!("{out:?}") };
        (pong.nonce, pong.capacity.map(std::num::NonZeroU32::get), pong.load_permille)
    };
    assert_eq!(told(&world.say(Message::Ping(Ping { nonce: 5 }))), (5, Some(800), Some(250)));
    load.set(1.5);
    world.peer.say_load();
    assert_eq!(told(&world.out()), (0, Some(800), Some(1500)));
    world.cut();
    world.peer.say_load();
    let again = world.link_up(2);
    assert!(matches!(again[..], [Message::Welcome(_), Message::Pong(_)]), "{again:?}");
    assert_eq!(told(&again), (0, Some(800), Some(1500)));
}

#[test]
fn a_message_that_only_a_backend_sends_is_a_fault_of_the_link() {
    let mut world = World::new();
    let end = world.peer.receive(&Message::Undrain, world.now).unwrap_err();
    assert!(matches!(end, LinkEnd::Fault(fault) if fault.rule == Rule::Unexpected));
}

#[test]
fn a_fault_of_the_link_is_never_answered_with_one() {
    let mut world = World::new();
    let (scope, rule) = (FaultScope::Link, Rule::Malformed);
    let fault = Message::Fault(holdfast_protocol::message::Fault { scope, rule, text: "nonsense" });
    assert!(matches!(world.peer.receive(&fault, world.now).unwrap_err(), LinkEnd::Told(_)));
    assert_eq!(world.out(), []);
}
