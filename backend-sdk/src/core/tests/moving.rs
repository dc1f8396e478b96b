//! Freeze, restore, thaw: a session's way to another process, and back when that fails.

use std::time::Duration;

use holdfast_protocol::Message;
use holdfast_protocol::message::{AttachMode, Rule};

use super::world::*;

#[test]
fn a_restored_session_goes_on_with_its_state_and_seqs() {
    let mut old = World::new();
    old.begin(1);
    old.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "input")]);
    let kept = old.freeze(1, 1);
    assert_eq!((kept.client_seq.0, kept.server_seq.0), (2, 2));
    assert_eq!(old.say(release(1, 1)), []);
    assert_eq!(old.population.get(), 0);

    let mut new = World::new();
    assert_eq!(brief(&new.say_all(&kept.attach(1, 2))), ["attached epoch 2 2/2"]);
    assert_eq!(new.say(start(1, 2)), []);
    let out = new.say_all(&[data(1, 2, 3, "state"), data(1, 2, 4, "input")]);
    assert_eq!(brief(&out), ["data 3: fresh a input state", "data 4: 4"], "inputs are counted on");
}

#[test]
fn unsent_frames_move_in_the_state_and_leave_before_anything_new() {
    let mut old = World::new();
    old.begin(1);
    let out = old.say(data(1, 1, 1, "send 3 900"));
    assert_eq!(brief(&out), ["data 1: 900 x"], "the window lets one out");
    let kept = old.freeze(1, 1);
    assert_eq!(kept.server_seq.0, 1);

    let mut new = World::new();
    new.say_all(&kept.attach(1, 2));
    assert_eq!(new.say(again(data(1, 2, 2, "b"))), [], "nothing leaves before START");
    assert_eq!(brief(&new.say(start(1, 2))), ["data 2: 900 x"]);
    assert_eq!(brief(&new.say(ack(1, 2, 2))), ["data 3: 900 x", "data 4: b"]);
}

#[test]
fn frames_not_begun_are_thrown_away_by_freeze() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "send 6 900"));
    assert_eq!(world.say(data(1, 1, 2, "waits")), [], "its outbox is over the bound");
    let kept = world.freeze(1, 1);
    assert_eq!(kept.client_seq.0, 1, "frame 2 isn't part of the state");
}

#[test]
fn a_frozen_session_is_still() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "tick 10"), data(1, 1, 2, "send 2 900")]);
    world.freeze(1, 1);
    assert_eq!(world.pass(Duration::from_secs(1)), [], "no timer, no ack");
    assert_eq!(world.say(ack(1, 1, 1)), [], "what the state has isn't sent as well");
}

#[test]
fn a_thawed_session_resends_what_the_proxy_lacks_under_the_new_epoch() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "b"), data(1, 1, 3, "c")]);
    world.freeze(1, 1);
    let out = world.say(thaw(1, 1, 2, 2, 1));
    assert_eq!(brief(&out), ["attached epoch 2 3/3", "again 2: b", "again 3: c"]);
    let out = world.say_all(&[again(data(1, 2, 3, "c")), data(1, 2, 4, "state")]);
    assert_eq!(brief(&out), ["data 4: fresh a b c state"], "frame 3 was processed before");
    assert_eq!(world.say(data(1, 1, 5, "old")), []);
    assert_eq!(world.peer.counts().stale, 1);
}

#[test]
fn a_thawed_session_sends_what_was_unsent_and_its_timers_go_on() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "tick 100"), data(1, 1, 2, "send 2 900")]);
    world.pass(Duration::from_millis(40));
    world.freeze(1, 1);
    world.pass(Duration::from_secs(5));
    let out = world.say(thaw(1, 1, 2, 2, 1));
    assert_eq!(brief(&out), ["attached epoch 2 2/1", "data 2: 900 x"], "the THAW tells the window anew");
    assert_eq!(brief(&world.pass(Duration::from_millis(59))), Vec::<String>::new());
    assert_eq!(brief(&world.pass(Duration::from_millis(1))), ["data 3: tick"]);
}

#[test]
fn a_thaw_whose_answer_was_lost_is_answered_again() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "a"));
    world.freeze(1, 1);
    world.say(thaw(1, 1, 2, 1, 1));
    assert_eq!(brief(&world.say(thaw(1, 1, 2, 1, 0))), ["attached epoch 2 1/1", "again 1: a"]);
}

#[test]
fn a_session_frozen_before_start_is_inert_after_thaw_unless_start_came() {
    for start_comes in [false, true] {
        let mut world = World::new();
        world.say(attach(1, 1, AttachMode::Fresh));
        assert_eq!(world.say(again(data(1, 1, 1, "a"))), []);
        world.freeze(1, 1);
        if start_comes {
            world.say(start(1, 1));
        }
        let sent = brief(&world.say(thaw(1, 1, 2, 1, 0)));
        assert_eq!(sent.len(), if start_comes { 2 } else { 1 }, "{sent:?}");
        let expected = if start_comes { vec![] } else { vec!["data 1: a".to_owned()] };
        assert_eq!(brief(&world.say(start(1, 2))), expected);
    }
}

#[test]
fn frames_for_a_frozen_session_are_dropped_for_they_come_again() {
    let mut world = World::new();
    world.begin(1);
    world.freeze(1, 1);
    assert_eq!(world.say_all(&[data(1, 1, 1, "a"), close(1, 1, 2, false)]), []);
    let out = world.say_all(&[thaw(1, 1, 2, 0, 0), again(data(1, 2, 1, "a"))]);
    assert_eq!(brief(&out), ["attached epoch 2 0/0", "data 1: a"]);
}

#[test]
fn a_freeze_or_start_of_a_session_that_is_not_here_is_told() {
    let mut world = World::new();
    for message in [freeze(1, 1, 100), start(1, 1)] {
        assert_eq!(fault_of(&world.say(message), 1), Rule::Unexpected);
    }
}

#[test]
fn a_thaw_for_an_attachment_it_has_not_is_refused() {
    let mut world = World::new();
    assert_eq!(brief(&world.say(thaw(1, 1, 2, 0, 0))), ["refused no such attachment"]);
}

#[test]
fn work_that_came_back_while_frozen_is_an_input_after_thaw() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "work"));
    world.freeze(1, 1);
    world.peer.finished(world.jobs[0], Some(b"late".to_vec()), world.now);
    assert_eq!(world.out(), []);
    let out = world.say(thaw(1, 1, 2, 1, 0));
    assert_eq!(brief(&out), ["attached epoch 2 1/0", "data 1: late"]);
}

#[test]
fn work_of_a_session_that_has_moved_away_is_aborted() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "work"));
    world.freeze(1, 1);
    world.say(release(1, 1));
    assert_eq!(world.aborted, world.jobs);
    assert!(world.peer.is_idle());
}

#[test]
fn a_released_session_is_not_told_that_it_is_closed() {
    let mut world = World::new();
    world.begin(1);
    world.freeze(1, 1);
    world.say(release(1, 1));
    assert_eq!(world.closed.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn state_is_sent_within_the_credit_and_waits_for_more() {
    let envelope_bytes = crate::core::envelope::MIN_BYTES;
    let mut world = World::new();
    world.begin(1);
    let frame = format!("quiet {}", "y".repeat(900));
    world.say(data(1, 1, 1, &frame));
    let size = |messages: &[Message<'_>]| -> usize {
        messages
            .iter()
            .map(|message| if let Message::State(state) = message { state.chunk.len() } else { 0 })
            .sum()
    };
    let first = world.say(freeze(1, 1, 0));
    assert!(
        matches!(first[..], [Message::State(state)] if state.chunk.is_empty() && state.total_bytes > 900)
    );
    assert_eq!(size(&world.say(credit(1, 1, 100))), 100);
    assert_eq!(size(&world.say(credit(1, 1, 1))), 1);
    let rest = size(&world.say(credit(1, 1, 1 << 40)));
    assert_eq!(rest + 101, envelope_bytes + "fresh quiet ".len() + 900);
    assert_eq!(world.say(credit(1, 1, 1)), [], "nothing is left");
}

#[test]
fn states_of_several_sessions_take_turns() {
    let big = 100_000;
    let settings = crate::Settings { client_window_bytes: 1 << 20, ..settings() };
    let mut world = World::with(settings, Puppets::default());
    let frame = format!("quiet {}", "y".repeat(big));
    for number in [1, 2] {
        world.begin(number);
        world.say(data(number, 1, 1, &frame));
    }
    let out = world.say_all(&[freeze(1, 1, 1 << 20), freeze(2, 1, 1 << 20)]);
    let order: Vec<_> = out
        .iter()
        .filter_map(|message| if let Message::State(state) = message { Some(state.subject) } else { None })
        .collect();
    assert_eq!(order[..4], [subject(1), subject(2), subject(1), subject(2)]);
    assert!(world.peer.has_more(), "a batch of state is bounded");
}

#[test]
fn a_state_larger_than_the_first_credit_is_granted_the_rest() {
    let settings = crate::Settings { state_credit_bytes: 30, ..settings() };
    let mut old = World::new();
    old.begin(1);
    old.say(data(1, 1, 1, "some text"));
    let kept = old.freeze(1, 1);
    let mut new = World::with(settings, Puppets::default());
    let [attach, _] = kept.attach(1, 2);
    let total = kept.bytes.len() as u64;
    assert_eq!(brief(&new.say(attach)), [format!("credit {}", total - 30)]);
    let (first, second) = kept.bytes.split_at(30);
    assert_eq!(new.say(chunk(1, 2, total, 0, first)), []);
    assert_eq!(brief(&new.say(chunk(1, 2, total, 30, second))), ["attached epoch 2 1/1"]);
}

#[test]
fn a_state_over_the_limit_of_another_format_or_of_nonsense_is_refused() {
    let settings = crate::Settings { max_state_bytes: 100, ..settings() };
    let mut world = World::with(settings, Puppets::default());
    let Message::Attach(base) = attach(1, 2, AttachMode::State) else { unreachable!() };
    let mut try_it = |total, format, bytes: &[u8]| {
        let attach = Message::Attach(holdfast_protocol::message::Attach {
            state_total_bytes: total,
            format,
            ..base.clone()
        });
        brief(&world.say_all(&[attach, chunk(1, 2, total, 0, bytes)]))
    };
    assert_eq!(try_it(101, "1", b""), ["refused state of 101 bytes, the limit is 100"]);
    assert_eq!(try_it(50, "x", b""), ["refused state format \"x\" isn't one of \"1\""]);
    assert_eq!(try_it(3, "1", b"abc"), ["refused state envelope: magic needs 4 bytes, 3 are left"]);
}

#[test]
fn a_chunk_out_of_place_or_unasked_for_is_a_fault() {
    let mut old = World::new();
    old.begin(1);
    let kept = old.freeze(1, 1);
    let total = kept.bytes.len() as u64;
    let mut new = World::new();
    let [attach, _] = kept.attach(1, 2);
    new.say(attach);
    assert_eq!(fault_of(&new.say(chunk(1, 2, total, 5, b"abc")), 1), Rule::StateOverrun);
    new.begin(2);
    assert_eq!(fault_of(&new.say(chunk(2, 1, 3, 0, b"abc")), 2), Rule::Unexpected);
}
