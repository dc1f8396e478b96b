//! Records: who makes them, in what order they leave, and what a session does with those that it is given.

use std::time::Duration;

use holdfast_protocol::codec::delta::Delta;
use holdfast_protocol::message::{Ack, Attach, AttachMode, Recovery, Rule};
use holdfast_protocol::{Message, Seq};

use super::world::*;
use crate::Settings;

fn with_deltas() -> World {
    World::with(Settings { deltas: true, ..settings() }, Puppets::default())
}

fn attach_at(level: Recovery, record_seq: u64) -> Message<'static> {
    let Message::Attach(base) = attach(1, 1, AttachMode::Fresh) else { unreachable!() };
    Message::Attach(Attach { recovery: level, record_seq: Seq(record_seq), opened_us: 5_000_000, ..base })
}

/// An active session at that level.
fn begun(level: Recovery) -> World {
    let mut world = with_deltas();
    world.say_all(&[attach_at(level, 0), start(1, 1)]);
    world
}

/// The records among the messages, to be given again.
fn records(out: &[Message<'static>]) -> Vec<Message<'static>> {
    let again = out.iter().filter_map(|message| match message {
        Message::Record(record) => {
            Some(Message::Record(holdfast_protocol::message::Record { again: true, ..*record }))
        }
        _ => None,
    });
    again.collect()
}

fn ack_record(record: u64) -> Message<'static> {
    let Message::Ack(base) = ack(1, 1, 0) else { unreachable!() };
    Message::Ack(Ack { record: Seq(record), ..base })
}

#[test]
fn a_frame_whose_handler_asks_for_no_time_makes_no_record_and_needs_no_buffer() {
    let mut world = begun(Recovery::Replay);
    assert_eq!(brief(&world.say(data(1, 1, 1, "a"))), ["data 1: a"]);
    assert_eq!(brief(&world.say(data(1, 1, 2, "random")))[0][..7], *"data 2:");
    world.say(ack(1, 1, 2));
    assert!(world.peer.attachments[&subject(1)].holds_no_buffer());
}

#[test]
fn a_record_leaves_before_the_frames_that_depend_on_it() {
    let mut world = begun(Recovery::Replay);
    let out = world.say(data(1, 1, 1, "now"));
    assert_eq!(brief(&out), ["record 1 Values 1", "data 1: 0ns"]);
    let Message::Data(reply) = out[1] else { unreachable!() };
    assert_eq!(reply.record, Seq(1));
    world.say(data(1, 1, 2, "tick 5"));
    let out = world.pass(Duration::from_millis(5));
    assert_eq!(brief(&out), ["record 2 Input 2", "data 2: tick"]);
}

#[test]
fn levels_without_records_make_none_and_take_none() {
    for level in [Recovery::None, Recovery::Checkpoint] {
        let mut world = begun(level);
        assert_eq!(brief(&world.say(data(1, 1, 1, "now"))), ["data 1: 0ns"]);
        let mut other = begun(Recovery::Replay);
        let given = records(&other.say(data(1, 1, 1, "now")));
        assert_eq!(fault_of(&world.say(given[0].clone()), 1), Rule::Unexpected);
    }
}

#[test]
fn a_level_that_was_not_agreed_on_is_refused_with_the_reason() {
    let mut world = World::new();
    let out = world.say(attach_at(Recovery::Delta, 0));
    assert_eq!(
        brief(&out),
        ["refused recovery level \"delta\": the game tells no changes (Builder::deltas)"]
    );
}

#[test]
fn a_replay_is_told_the_recorded_times_and_sends_before_start() {
    let mut first = begun(Recovery::Replay);
    first.pass(Duration::from_secs(3));
    let given = records(&first.say(data(1, 1, 1, "now")));
    let mut again = with_deltas();
    again.pass(Duration::from_secs(100));
    again.say(attach_at(Recovery::Replay, 1));
    assert_eq!(again.say(given[0].clone()), []);
    let out = again.say(super::world::again(data(1, 1, 1, "now")));
    assert_eq!(brief(&out), ["data 1: 3s"], "before START, and not recorded again");
    let beyond = again.say_all(&[start(1, 1), data(1, 1, 2, "now")]);
    assert_eq!(brief(&beyond), ["record 2 Values 2", "data 2: 100s"]);
}

#[test]
fn a_time_that_the_journal_lacks_or_has_too_much_is_diverged() {
    let mut first = begun(Recovery::Replay);
    let given = records(&first.say_all(&[data(1, 1, 1, "quiet"), data(1, 1, 2, "now")]));
    let mut asks = with_deltas();
    asks.say(attach_at(Recovery::Replay, 1));
    assert_eq!(fault_of(&asks.say(again(data(1, 1, 1, "now"))), 1), Rule::Diverged);
    let mut leaves = with_deltas();
    leaves.say_all(&[attach_at(Recovery::Replay, 1), again(data(1, 1, 1, "quiet")), given[0].clone()]);
    assert_eq!(fault_of(&leaves.say(again(data(1, 1, 2, "quiet"))), 1), Rule::Diverged);
}

#[test]
fn records_out_of_place_and_start_before_the_last_are_faults() {
    let mut first = begun(Recovery::Replay);
    let given = records(&first.say_all(&[data(1, 1, 1, "now"), data(1, 1, 2, "now")]));
    let mut gap = with_deltas();
    gap.say(attach_at(Recovery::Replay, 2));
    assert_eq!(fault_of(&gap.say(given[1].clone()), 1), Rule::OutOfSequence);
    let mut early = with_deltas();
    early.say_all(&[attach_at(Recovery::Replay, 2), given[0].clone()]);
    assert_eq!(fault_of(&early.say(start(1, 1)), 1), Rule::OutOfSequence);
    let mut live = begun(Recovery::Replay);
    let Message::Record(record) = given[0] else { unreachable!() };
    let record = Message::Record(holdfast_protocol::message::Record { again: false, ..record });
    assert_eq!(fault_of(&live.say(record), 1), Rule::Unexpected);
}

#[test]
fn work_whose_result_is_in_the_journal_is_not_begun_again_and_the_rest_is() {
    let mut first = begun(Recovery::Replay);
    first.say_all(&[data(1, 1, 1, "work"), data(1, 1, 2, "work")]);
    first.peer.finished(first.jobs[0], Some(b"one".to_vec()), first.now);
    let given = records(&first.out());
    let mut again = with_deltas();
    let frames = [again_data(1, "work"), again_data(2, "work")];
    again.say(attach_at(Recovery::Replay, 1));
    again.say_all(&frames);
    assert_eq!(brief(&again.say(given[0].clone())), ["data 1: one"]);
    assert_eq!(again.jobs.len(), 0);
    again.say(start(1, 1));
    assert_eq!(again.jobs.len(), 1, "the second only");
}

fn again_data(seq: u64, text: &str) -> Message<'_> {
    again(data(1, 1, seq, text))
}

#[test]
fn a_timer_in_the_journal_was_its_turn() {
    let mut first = begun(Recovery::Replay);
    let mut given = records(&first.say_all(&[data(1, 1, 1, "once 5"), data(1, 1, 2, "tick 9")]));
    given.extend(records(&first.pass(Duration::from_millis(6))));
    let mut again = with_deltas();
    again.say_all(&[attach_at(Recovery::Replay, 1), again_data(1, "once 5"), again_data(2, "tick 9")]);
    assert_eq!(brief(&again.say(given[0].clone())), ["data 1: tick"]);
    assert_eq!(again.say(start(1, 1)), []);
    let out = again.pass(Duration::from_millis(9));
    assert_eq!(brief(&out), ["record 2 Input 2", "data 2: tick"], "not once more, and the period is whole");
}

#[test]
fn after_a_cut_records_the_proxy_lacks_go_before_the_frames() {
    let mut world = begun(Recovery::Replay);
    world.say_all(&[data(1, 1, 1, "now"), data(1, 1, 2, "now"), ack_record(1)]);
    world.cut();
    world.link_up(2);
    let Message::Attach(base) = attach(1, 1, AttachMode::Resume) else { unreachable!() };
    let resume = Attach { server_seq: Seq(1), record_seq: Seq(1), recovery: Recovery::Replay, ..base };
    let out = world.say(Message::Attach(resume));
    assert_eq!(
        brief(&out),
        ["attached epoch 1 2/1", "record again 2 Values 2", "again 2: 0ns"]
            .map(|text| text.replace("2/1", "2/2"))
    );
}

#[test]
fn records_that_are_not_kept_make_inputs_wait() {
    let mut world = begun(Recovery::Replay);
    world.say(data(1, 1, 1, "tick 1"));
    world.say(ack(1, 1, 0));
    let mut made = 0;
    for _ in 0..50 {
        let out = world.pass(Duration::from_millis(100));
        made += records(&out).len() as u64;
        let frames = out.iter().filter(|message| matches!(message, Message::Data(_))).count() as u64;
        assert!(frames <= made);
        let Message::Ack(base) = ack(1, 1, 0) else { unreachable!() };
        world.say(Message::Ack(Ack { data: Seq(made), ..base }));
    }
    assert!((10..400).contains(&made), "{made} records were made and none is kept");
    world.say(ack_record(made));
    assert!(!records(&world.pass(Duration::from_millis(100))).is_empty(), "now it goes on");
}

#[test]
fn an_ack_of_a_record_that_was_not_sent_is_a_fault() {
    let mut world = begun(Recovery::Replay);
    world.say(data(1, 1, 1, "now"));
    assert_eq!(fault_of(&world.say(ack_record(2)), 1), Rule::AckBeyondSent);
}

#[test]
fn a_full_outbox_does_not_stall_what_is_given_before_start() {
    for level in [Recovery::None, Recovery::Checkpoint] {
        let mut world = with_deltas();
        world.say(attach_at(level, 0));
        world.say_all(&[again_data(1, "send 6 900"), again_data(2, "a"), again_data(3, "state")]);
        assert_eq!(world.say(start(1, 1)).len(), 1, "the window lets one out");
        assert_eq!(world.peer.attachments[&subject(1)].processed_seq(), Seq(3));
    }
}

#[test]
fn start_waits_for_what_was_given_before_it() {
    let mut world = with_deltas();
    world.say(attach_at(Recovery::Replay, 0));
    world.say_all(&[again_data(1, "tick 5"), again_data(2, "send 6 900"), again_data(3, "a"), start(1, 1)]);
    let ticks = |out: &[Message<'_>]| brief(out).iter().filter(|text| text.ends_with("tick")).count();
    assert_eq!(ticks(&world.pass(Duration::from_millis(50))), 0, "frame 3 comes first");
    let seen: Vec<_> = (1..=7).flat_map(|seq| brief(&world.say(ack(1, 1, seq)))).collect();
    assert_eq!(seen.last().unwrap(), "data 7: a");
    assert!(ticks(&world.pass(Duration::from_millis(50))) > 0);
}

#[test]
fn a_freeze_in_the_middle_of_a_replay_names_seqs_of_one_instant_and_a_thaw_goes_on_from_there() {
    let mut first = begun(Recovery::Replay);
    let given =
        records(&first.say_all(&[data(1, 1, 1, "now"), data(1, 1, 2, "quiet"), data(1, 1, 3, "now")]));
    let mut world = with_deltas();
    world.say_all(&[attach_at(Recovery::Replay, 2), given[0].clone(), again_data(1, "now")]);
    world.say_all(&[again_data(2, "quiet"), given[1].clone()]);
    let out = world.say(freeze(1, 1, 1 << 20));
    let Message::State(state) = &out[0] else { panic!("{out:?}") };
    assert_eq!((state.client_seq, state.server_seq, state.record_seq), (Seq(2), Seq(1), Seq(1)));
    let Message::Thaw(base) = thaw(1, 1, 2, 2, 1) else { unreachable!() };
    world.say(Message::Thaw(holdfast_protocol::message::Thaw { record_seq: Seq(2), ..base }));
    let Message::Record(record) = given[1] else { unreachable!() };
    let record = holdfast_protocol::message::Record { epoch: holdfast_protocol::Epoch(2), ..record };
    let out = world.say_all(&[Message::Record(record), again(data(1, 2, 3, "now"))]);
    assert_eq!(brief(&out), ["data 2: 0ns"]);
}

#[test]
fn a_change_carries_its_frames_and_no_bare_frame_leaves() {
    let mut world = begun(Recovery::Delta);
    let out = world.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "send 2 100")]);
    assert_eq!(brief(&out), ["record 1 Delta 1", "record 2 Delta 2"]);
    let Message::Record(record) = out[1] else { unreachable!() };
    let delta = Delta::parse(record.bytes).unwrap();
    assert_eq!((delta.server_seq, delta.count(), delta.last_server_seq()), (Seq(1), 2, Seq(3)));
    let out = world.say(data(1, 1, 3, "close"));
    assert_eq!(brief(&out), ["record 3 Delta 3", "record 4 Delta 3", "close 6"]);
}

#[test]
fn no_input_begins_at_delta_without_a_window_or_a_link() {
    let mut world = begun(Recovery::Delta);
    world.say_all(&[data(1, 1, 1, "tick 5"), data(1, 1, 2, "send 2 600")]);
    assert_eq!(world.say(data(1, 1, 3, "a")), [], "1,200 of 1,000 bytes are in flight");
    assert_eq!(records(&world.pass(Duration::from_millis(50))).len(), 0);
    assert_eq!(brief(&world.say(ack(1, 1, 1))), ["record 3 Delta 3"]);
    world.cut();
    world.pass(Duration::from_secs(1));
    let out = world.link_up(2);
    let Message::Welcome(welcome) = &out[0] else { panic!("{out:?}") };
    assert_eq!(welcome.attachments.iter().next().unwrap().record_seq, Seq(3), "nothing ran meanwhile");
}

#[test]
fn changes_are_applied_and_the_session_goes_on_after_them() {
    let mut first = begun(Recovery::Delta);
    let given = records(&first.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "tick 5")]));
    let mut again = with_deltas();
    let Message::Attach(base) = attach_at(Recovery::Delta, 2) else { unreachable!() };
    again.say(Message::Attach(Attach { server_seq: Seq(1), ..base }));
    assert_eq!(again.say_all(&given), []);
    let out = again.say_all(&[again_data(3, "b"), start(1, 1), data(1, 1, 4, "state")]);
    assert_eq!(brief(&out), ["record 3 Delta 3", "record 4 Delta 4"]);
    let Message::Record(record) = out[1] else { unreachable!() };
    let delta = Delta::parse(record.bytes).unwrap();
    assert_eq!(delta.frames().collect::<Vec<_>>(), [b"fresh a tick 5 b state"]);
    assert_eq!(records(&again.pass(Duration::from_millis(5))).len(), 1, "its timer is set");
}

#[test]
fn a_session_thrown_back_to_a_checkpoint_is_told_and_numbers_its_inputs_anew() {
    let mut first = begun(Recovery::Checkpoint);
    first.say(data(1, 1, 1, "a"));
    let kept = first.freeze(1, 1);
    let [Message::Attach(base), chunk] = kept.attach(1, 2) else { unreachable!() };
    let mut again = with_deltas();
    let recovery = Recovery::Checkpoint;
    again.say_all(&[Message::Attach(Attach { lost: true, recovery, ..base }), chunk, start(1, 2)]);
    let out = again.say_all(&[data(1, 2, 2, "state"), data(1, 2, 3, "input")]);
    let number = (2_u64 << 32) + 2;
    assert_eq!(brief(&out), ["data 2: fresh a recovered state".to_owned(), format!("data 3: {number}")]);
}
