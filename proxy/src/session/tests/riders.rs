//! Groups: sessions that come, are addressed, and leave. Each member's frames are in one place at every step.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Departure};
use holdfast_protocol::message::{Data, Message, Rule, Subject};
use holdfast_protocol::{Seq, SessionId, TraceContext};

use super::game::{chain_of, common, group};
use super::world::{A, B, WINDOW, World, service, surviving};
use crate::routing::table::{OnCrash, Recovery, Service};
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::CloseReason;

const EXACT: [Recovery; 2] = [Recovery::Replay, Recovery::Delta];
const LEVELS: [Recovery; 3] = [Recovery::None, Recovery::Replay, Recovery::Delta];
/// A state that travels in three parts.
const THREE_PARTS: usize = 40_000;

fn fresh() -> Service {
    service(OnCrash::Fresh)
}

fn pad(world: &World, bytes: usize) {
    [A, B].into_iter().for_each(|link| world.knobs(link).padding.store(bytes, Ordering::Relaxed));
}

/// Lets A and the proxy talk until that holds.
#[track_caller]
fn until(world: &mut World, holds: impl Fn(&World) -> bool) {
    for _ in 0..1000 {
        if holds(world) {
            return;
        }
        world.send_chunks();
        let _ = world.step(A, true) || world.step(A, false) || world.step(B, true) || world.step(B, false);
    }
    panic!("it doesn't come to that");
}

#[test]
fn frames_that_wait_when_a_session_boards_are_the_first_that_the_group_has_of_it() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 1);
        let late = world.open(Arc::new(surviving(recovery)));
        let newcomer = 2;
        assert_eq!(late, newcomer);
        world.settle();
        world.frame(newcomer, b"join 1");
        until(&mut world, |world| world.phase(newcomer) == "freezing");
        world.frames(newcomer, 3);
        world.frames(0, 1);
        assert_eq!(world.members(1), [0], "its state isn't here");
        world.settle();
        world.assert_aboard(newcomer);
        world.frame(newcomer, b"all");
        world.settle();
        world.assert_content(0);
        world.assert_content(newcomer);
        world.assert_together();
        let of_the_group =
            world.seats[newcomer].received.iter().filter(|frame| common(frame).is_some()).count();
        assert_eq!(of_the_group, 4, "{recovery:?}: the frame by which it came was its session's");
        assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 1, "the group's alone");
    }
}

#[test]
fn a_member_that_leaves_takes_its_later_frames_along_and_a_state_of_any_size() {
    for recovery in LEVELS {
        for padding in [0, THREE_PARTS] {
            let mut world = World::party(surviving(recovery), 2);
            pad(&world, padding);
            world.frames(1, 2);
            world.frame(0, b"leave");
            world.frames(0, 3);
            world.frames(1, 2);
            world.advance(Duration::from_secs(1));
            assert!(matches!(world.sessions[0].phase(), Phase::Active { .. }), "{:?}", world.sessions[0]);
            let [departed] = &world.seats[0].departures[..] else { panic!("it left once") };
            assert_eq!((departed.frames.len(), departed.came_back), (3, None), "{recovery:?}, {padding}");
            assert!(departed.state.as_ref().is_some_and(|(state, _)| state.len() > padding));
            world.assert_aboard(1);
            world.frames(0, 1);
            world.frames(1, 1);
            world.settle();
            world.assert_content(0);
            world.assert_content(1);
            world.assert_together();
        }
    }
}

#[test]
fn a_group_ends_when_its_last_member_has_left_and_the_same_may_be_formed_anew() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 2);
        for round in 0..3 {
            let before = world.party_index();
            for index in 0..2 {
                world.frames(index, 2);
                world.asks(index, "leave");
                world.frames(index, 1);
            }
            world.advance(Duration::from_secs(1));
            world.assert_ended(before, CloseReason::BackendClose);
            assert_eq!(world.group(group(1)), None);
            let last = world.sessions[before].epoch();
            assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 2, "round {round}");
            for index in 0..2 {
                world.asks(index, "join 1");
                world.assert_aboard(index);
            }
            let now = world.sessions[world.party_index()].epoch();
            assert!(now > last, "what is still said of the group that was isn't taken for this one's: {now}");
        }
        world.frame(0, b"all");
        world.settle();
        world.assert_content(0);
        world.assert_in_order(1);
    }
}

#[test]
fn what_the_game_sends_a_member_who_goes_is_had_in_full_and_the_proxy_says_so() {
    let mut world = World::party(fresh(), 2);
    for frame in ["kick", "quiet", "leave"] {
        world.frame(0, frame.as_bytes());
    }
    world.settle();
    world.assert_ended(1, CloseReason::BackendClose);
    world.assert_flawless(1);
    // Nothing was sent to a member since: that the departure has arrived is said nevertheless.
    world.advance(Duration::from_secs(1));
    assert_eq!(world.group(group(1)), None);
    world.frames(0, 1);
    world.settle();
    world.assert_content(0);

    let mut others = World::party(fresh(), 2);
    others.asks(0, "leave");
    others.frame(1, b"quiet");
    others.settle();
    let group = others.party_index();
    others.advance(Duration::from_secs(1));
    assert!(
        others.sessions[group].is_idle(),
        "the game's acks aren't held back: {:?}",
        others.sessions[group]
    );
}

#[test]
fn frames_to_members_who_are_gone_use_up_no_window() {
    let mut world = World::party(fresh(), 2);
    let group = world.party_index();
    world.gone(1, CloseReason::ClientError);
    let epoch = world.sessions[group].epoch();
    let from = world.sessions[group].server_seq();
    let frame = [&Addressed::head(AddressedKind::Frame, world.sessions[1].id())[..], &[7; 500]].concat();
    let mut seq = from;
    for _ in 0..40 {
        seq = seq.next();
        let data = group_data(&world, seq, Seq::NONE, &frame);
        world.give(A, &Message::Data(data));
        assert_eq!(world.sessions[group].epoch(), epoch);
        assert_eq!(world.seats[group].faults, [], "a window's worth of them comes again and again");
    }
}

fn group_data<'a>(world: &World, seq: Seq, ack: Seq, frame: &'a [u8]) -> Data<'a> {
    Data {
        subject: Subject::Group(group(1)),
        epoch: world.sessions[world.party_index()].epoch(),
        seq,
        ack,
        record: Seq::NONE,
        again: false,
        trace: TraceContext::default(),
        frame,
    }
}

fn departure(member: SessionId, client_seq: Seq) -> Vec<u8> {
    let departure = Departure { client_seq, state: b"" }.to_bytes();
    [&Addressed::head(AddressedKind::Passage, member)[..], &departure].concat()
}

/// The fault that a frame of the group's backend is, after two frames of member 0 that were processed and one that
/// wasn't.
#[track_caller]
fn fault_of(frame: impl FnOnce(&World) -> Vec<u8>) -> (Vec<Rule>, usize) {
    let mut world = World::party(fresh(), 2);
    world.frames(0, 2);
    world.settle();
    world.advance(Duration::from_secs(1));
    world.frames(0, 1);
    let group = world.party_index();
    let before = world.seats[group].stale;
    let frame = frame(&world);
    let seq = world.sessions[group].server_seq().next();
    let data = group_data(&world, seq, Seq::NONE, &frame);
    world.give(A, &Message::Data(data));
    (world.seats[group].faults.clone(), world.seats[group].stale - before)
}

#[test]
fn a_departure_that_an_ack_has_passed_or_that_never_was_sent_breaks_a_rule() {
    let member = |world: &World| world.sessions[0].id();
    let sent = |world: &World| world.sessions[world.party_index()].client_seq();
    let leaves = |add: u64, less: u64| {
        fault_of(move |world| departure(member(world), Seq(sent(world).0 + add - less))).0
    };
    assert_eq!(leaves(0, 0), [], "after the last frame that was sent");
    assert_eq!(leaves(0, 1), [], "after the last that was processed");
    assert_eq!(leaves(0, 2), [Rule::OutOfSequence], "an ack has passed it");
    assert_eq!(leaves(1, 0), [Rule::AckBeyondSent]);
}

#[test]
fn a_departure_of_who_has_only_come_since_breaks_a_rule() {
    let mut world = World::party(fresh(), 1);
    let newcomer = world.open(Arc::new(fresh()));
    world.settle();
    world.frame(newcomer, b"join 1");
    until(&mut world, |world| world.sessions[newcomer].is_aboard());
    let group = world.party_index();
    let frame = departure(world.sessions[newcomer].id(), Seq(world.sessions[group].client_seq().0 - 1));
    let seq = world.sessions[group].server_seq().next();
    let data = group_data(&world, seq, Seq::NONE, &frame);
    world.give(A, &Message::Data(data));
    assert_eq!(world.seats[group].faults, [Rule::OutOfSequence]);
}

#[test]
fn frames_of_a_group_that_say_nothing_that_can_be_done_break_a_rule() {
    let to = |world: &World, kind| Addressed::head(kind, world.sessions[0].id()).to_vec();
    assert_eq!(fault_of(|_| b"no address".to_vec()).0, [Rule::Malformed]);
    assert_eq!(fault_of(|_| vec![9; 40]).0, [Rule::Malformed]);
    assert_eq!(fault_of(|world| to(world, AddressedKind::Half)).0, [Rule::Unexpected]);
    assert_eq!(fault_of(|world| to(world, AddressedKind::Passage)).0, [Rule::Malformed], "no departure");
    let endless = |world: &World| [to(world, AddressedKind::Part), vec![0; 300 * 1024]].concat();
    assert_eq!(fault_of(endless).0, [Rule::StateOverrun]);
}

#[test]
fn what_is_for_somebody_else_is_dropped_and_counted() {
    for kind in [AddressedKind::Frame, AddressedKind::Close, AddressedKind::Part, AddressedKind::Passage] {
        let stranger = |_: &World| Addressed::head(kind, SessionId([3; 16])).to_vec();
        assert_eq!(fault_of(stranger), (vec![], 1), "{kind:?}");
    }
}

#[test]
fn a_player_who_goes_is_told_of_to_the_group_that_has_every_frame_and_the_others_play_on() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 2);
        world.frames(0, 3);
        world.gone(0, CloseReason::ClientError);
        world.frames(1, 2);
        world.settle();
        let closed = world.knobs(A).closed.lock().unwrap().clone();
        assert_eq!(closed, [(4, chain_of(&world.seats[0].frames))], "{recovery:?}");
        world.assert_ended(0, CloseReason::ClientError);
        world.assert_content(1);

        world.frames(1, 1);
        world.finished(1);
        world.settle();
        assert_eq!(world.knobs(A).closed.lock().unwrap().len(), 2);
        world.assert_ended(1, CloseReason::ClientClose);
        world.assert_all_answered(1);
        assert_eq!(world.group(group(1)), None);
    }
}

#[test]
fn a_player_who_goes_before_a_backend_has_the_group_is_saved_when_one_does() {
    let mut world = World::with_service(2, fresh());
    [A, B].into_iter().for_each(|link| world.knobs(link).refuses_parties.store(1, Ordering::Relaxed));
    world.asks(0, "join 1");
    world.frames(0, 2);
    let group = world.party_index();
    assert_eq!(*world.sessions[group].phase(), Phase::Parked);
    world.gone(0, CloseReason::ClientError);
    world.settle();
    world.assert_aboard(0);
    world.knobs(B).refuses_parties.store(0, Ordering::Relaxed);
    world.advance(Duration::from_secs(1));
    let closed = world.knobs(B).closed.lock().unwrap().clone();
    assert_eq!(closed, [(3, chain_of(&world.seats[0].frames))]);
    world.assert_ended(0, CloseReason::ClientError);
    world.assert_ended(group, CloseReason::BackendClose);
}

#[test]
fn a_player_who_leaves_the_group_and_then_the_game_is_saved_with_every_frame() {
    for finishes in [true, false] {
        let mut world = World::party(fresh(), 2);
        world.frame(0, b"leave");
        world.frames(0, 2);
        if finishes {
            world.finished(0)
        } else {
            world.gone(0, CloseReason::ClientError)
        }
        world.advance(Duration::from_secs(1));
        let closed = world.knobs(A).closed.lock().unwrap().clone();
        assert_eq!(closed, [(4, chain_of(&world.seats[0].frames))], "half: {finishes}");
        assert!(world.seats[0].ended.is_some());
        assert_eq!(world.members(world.party_index()), [1]);
    }
}

#[test]
fn a_newcomer_whom_the_group_turns_away_goes_on_as_it_was_and_is_told() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 1);
        world.knobs(A).turns_away.store(true, Ordering::Relaxed);
        let newcomer = world.open(Arc::new(surviving(recovery)));
        world.settle();
        world.frames(newcomer, 2);
        world.frame(newcomer, b"join 1");
        world.frames(newcomer, 2);
        world.advance(Duration::from_secs(3));
        assert!(matches!(world.sessions[newcomer].phase(), Phase::Active { .. }), "{recovery:?}");
        let told =
            world.knobs(A).told_off.load(Ordering::Relaxed) + world.knobs(B).told_off.load(Ordering::Relaxed);
        assert_eq!(told, 1, "{recovery:?}");
        assert_eq!(world.seats[newcomer].departures.len(), 1, "and isn't tried again");
        world.frames(newcomer, 1);
        world.settle();
        world.assert_content(newcomer);
    }
}

#[test]
fn a_full_group_takes_nobody_and_says_so_before_anything_is_frozen() {
    let mut service = fresh();
    service.limits.max_group_members = 1;
    let mut world = World::party(service.clone(), 1);
    let newcomer = world.open(Arc::new(service));
    world.settle();
    world.asks(newcomer, "join 1");
    world.assert_active_on(newcomer, A);
    assert_eq!(world.knobs(A).told_off.load(Ordering::Relaxed), 1);
    assert_eq!(world.seats[newcomer].freezes, 0);
    world.assert_content(newcomer);
}

#[test]
fn a_group_that_every_backend_refuses_for_good_leaves_its_members_as_they_came() {
    for padding in [0, THREE_PARTS] {
        let mut world = World::with_service(2, fresh());
        pad(&world, padding);
        [A, B].into_iter().for_each(|link| world.knobs(link).refuses_parties.store(2, Ordering::Relaxed));
        world.frames(0, 2);
        world.frame(0, b"join 1");
        world.frames(0, 2);
        world.advance(Duration::from_secs(3));
        let [departed] = &world.seats[0].departures[..] else { panic!("{:?}", world.seats[0].departures) };
        assert!(departed.came_back.is_some() && departed.state.is_some());
        assert_eq!(world.group(group(1)), None);
        let told =
            world.knobs(A).told_off.load(Ordering::Relaxed) + world.knobs(B).told_off.load(Ordering::Relaxed);
        assert_eq!(told, 1);
        world.frames(0, 1);
        world.settle();
        world.assert_content(0);
    }
}

#[test]
fn a_crash_at_none_ends_the_group_and_its_members_begin_anew_alone() {
    let mut world = World::party(fresh(), 2);
    let group = world.party_index();
    world.frames(0, 2);
    world.settle();
    world.wire(A).stalled = true;
    world.frames(1, 1);
    world.finished(1);
    world.kill(A);
    world.settle();
    world.assert_ended(group, CloseReason::Crash);
    world.assert_active_on(0, B);
    assert!(world.seats[0].departures[0].state.is_none());
    world.frames(0, 1);
    world.settle();
    assert_eq!(world.shown(0).last().unwrap().count, 1, "another history");
    world.assert_in_order(0);
    // That member 1 says nothing more went down with the group: the next game is told once more.
    assert_eq!(world.knobs(B).closed.lock().unwrap().len(), 1);
    assert!(world.seats[1].ended.is_some(), "{:?}", world.sessions[1]);
}

#[test]
fn a_crash_that_takes_a_players_farewell_along_ends_its_session() {
    let mut world = World::party(fresh(), 2);
    world.wire(A).stalled = true;
    world.gone(0, CloseReason::ClientError);
    world.kill(A);
    world.assert_ended(0, CloseReason::ClientError);
    world.settle();
    world.assert_active_on(1, B);
}

#[test]
fn a_crash_at_none_closes_all_members_where_the_service_says_so() {
    let mut world = World::party(service(OnCrash::Close), 2);
    let group = world.party_index();
    world.kill(A);
    world.settle();
    for index in [0, 1, group] {
        world.assert_ended(index, CloseReason::Crash);
    }
}

#[test]
fn a_newcomer_of_whom_the_dead_backend_had_but_a_part_begins_anew() {
    let mut world = World::party(fresh(), 1);
    pad(&world, THREE_PARTS);
    let newcomer = world.open(Arc::new(fresh()));
    // Nothing is in flight, so the first part goes out, and the window keeps the others back.
    world.advance(Duration::from_secs(1));
    world.frame(newcomer, b"join 1");
    until(&mut world, |world| world.sessions[newcomer].is_aboard());
    assert!(world.sessions[world.party_index()].queued_bytes() as usize > THREE_PARTS);
    world.kill(A);
    world.settle();
    assert!(world.seats[newcomer].departures[0].state.is_none(), "a part of a state is none");
    world.frames(newcomer, 1);
    world.settle();
    world.assert_active_on(newcomer, B);
    world.assert_in_order(newcomer);
    assert_eq!(world.shown(newcomer).last().unwrap().count, 1);
}

#[test]
fn a_member_who_comes_again_brings_nothing_of_its_former_stay() {
    let mut world = World::party(fresh(), 2);
    world.frame(0, b"leave");
    while world.sessions[world.party_index()].queued_bytes() < 2 * u64::from(WINDOW) && !world.seats[1].paused
    {
        world.frame(1, &[b'x'; 200]);
    }
    // No backend is given this one before the group goes down.
    world.frame(0, b"later");
    world.wire(A).draining = true;
    until(&mut world, |world| !world.seats[0].departures.is_empty());
    world.wire(A).stalled = true;
    world.settle();
    world.assert_active_on(0, B);
    world.asks(0, "join 1");
    world.assert_aboard(0);
    world.kill(A);
    world.advance(Duration::from_secs(3));
    world.assert_active_on(0, B);
    world.frames(0, 1);
    world.settle();
    world.assert_content(0);
}

#[test]
fn a_member_who_floods_is_not_read_and_the_others_are() {
    let mut world = World::party(fresh(), 3);
    world.wire(A).stalled = true;
    let mut sent = 0;
    while !world.seats[0].paused {
        world.frame(0, &[b'x'; 100]);
        sent += 1;
        assert!(sent < 10_000, "the proxy reads on for ever");
    }
    world.frames(1, 10);
    world.frames(2, 10);
    assert!(!world.seats[1].paused && !world.seats[2].paused);
    world.wire(A).stalled = false;
    world.advance(Duration::from_secs(2));
    assert!(!world.seats[0].paused, "read again when there is room");
    for index in 0..3 {
        world.frames(index, 1);
        world.settle();
        world.assert_content(index);
    }
    world.assert_together();
}

#[test]
fn what_a_state_covers_of_a_member_waits_no_more() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 2);
        let group = world.party_index();
        for _ in 0..40 {
            // It is processed, and nobody says so but the state that follows.
            world.frame(0, &[b'x'; 900]);
            let at = world.sessions[group].link().unwrap();
            while world.step(at, true) {}
            world.wire(at).to_proxy.clear();
            world.leave(group, Otherwise::Thaw);
            world.cut(at);
            world.connect(at);
            world.settle();
            world.undrain(at);
            assert!(!world.seats[0].paused, "{recovery:?}");
        }
        world.frames(0, 1);
        world.settle();
        world.assert_content(0);
        world.assert_content(1);
    }
}

#[test]
fn a_member_who_takes_nothing_holds_up_no_more_than_a_window() {
    let mut world = World::party(fresh(), 2);
    world.seats[0].slow = true;
    for _ in 0..40 {
        world.frame(0, b"burst");
        world.frame(1, b"burst");
        world.advance(Duration::from_millis(20));
    }
    let backlog: usize = world.seats[0].outbox.iter().map(Vec::len).sum();
    assert!(backlog <= 3 * WINDOW as usize, "{backlog}");
    world.gone(0, CloseReason::SlowPlayer);
    world.advance(Duration::from_secs(2));
    world.frames(1, 1);
    world.settle();
    world.assert_content(1);
}

#[test]
fn a_killed_backend_costs_a_group_nothing() {
    for recovery in EXACT {
        for steps in 0..40 {
            let mut world = World::party(surviving(recovery), 2);
            let newcomer = world.open(Arc::new(surviving(recovery)));
            world.settle();
            world.frames(0, 2);
            world.frame(newcomer, b"join 1");
            world.frame(1, b"leave");
            world.frames(1, 2);
            world.frames(newcomer, 1);
            for _ in 0..steps {
                world.send_chunks();
                let _ = world.step(A, true) | world.step(A, false);
            }
            world.frame(0, b"all");
            world.kill(A);
            world.restart(A);
            world.advance(Duration::from_secs(3));
            for index in [0, 1, newcomer] {
                world.frames(index, 1);
                world.settle();
                world.assert_content(index);
            }
            world.assert_together();
            assert!(world.seats.iter().all(|seat| seat.diverged == 0 && seat.lost == 0), "after {steps}");
            world.assert_aboard(newcomer);
            assert_eq!(world.seats[1].company.aboard, None);
        }
    }
}

#[test]
fn a_cut_in_any_step_of_a_coming_and_a_going_costs_nothing() {
    for recovery in LEVELS {
        for steps in 0..30 {
            let mut world = World::party(surviving(recovery), 2);
            let newcomer = world.open(Arc::new(surviving(recovery)));
            world.settle();
            world.frame(newcomer, b"join 1");
            world.frame(1, b"leave");
            world.frames(1, 2);
            world.frames(newcomer, 1);
            for step in 0..steps {
                world.send_chunks();
                let _ = world.step(A, step % 3 != 2);
            }
            world.cut(A);
            world.frame(0, b"all");
            world.frames(newcomer, 1);
            world.advance(Duration::from_millis(100));
            world.connect(A);
            world.advance(Duration::from_secs(3));
            for index in [0, 1, newcomer] {
                world.frames(index, 1);
                world.settle();
                world.assert_content(index);
            }
            world.assert_together();
            world.assert_aboard(newcomer);
        }
    }
}

#[test]
fn a_session_that_boards_in_its_turn_to_recover_leaves_the_turn_to_others() {
    for recovery in EXACT {
        for steps in 2..24 {
            let mut world = World::with_service(2, surviving(recovery));
            world.frame(0, b"join 1");
            world.frames(0, 3);
            for _ in 0..steps / 2 {
                world.step(A, true);
            }
            if steps % 2 == 1 {
                while world.step(A, false) {}
            }
            world.kill(A);
            world.settle();
            world.advance(Duration::from_secs(2));
            world.assert_aboard(0);
            assert!(!world.seats[0].recovering, "{recovery:?} after {steps}");
            world.frames(0, 1);
            world.settle();
            world.assert_content(0);
        }
    }
}

#[test]
fn a_group_that_parks_takes_newcomers_and_goes_on_with_them() {
    for recovery in LEVELS {
        let mut world = World::party(surviving(recovery), 1);
        let group = world.party_index();
        let newcomer = world.open(Arc::new(surviving(recovery)));
        world.settle();
        world.knobs(B).refuses_parties.store(1, Ordering::Relaxed);
        world.leave(group, Otherwise::Park);
        world.leave(newcomer, Otherwise::Thaw);
        world.frames(0, 2);
        world.settle();
        assert_eq!(*world.sessions[group].phase(), Phase::Parked);
        world.assert_active_on(newcomer, B);
        world.asks(newcomer, "join 1");
        world.assert_aboard(newcomer);
        world.frame(newcomer, b"all");
        world.knobs(B).refuses_parties.store(0, Ordering::Relaxed);
        world.advance(Duration::from_secs(1));
        world.assert_active_on(group, B);
        for index in [0, newcomer] {
            world.frames(index, 1);
            world.settle();
            world.assert_content(index);
        }
        world.assert_together();
    }
}
