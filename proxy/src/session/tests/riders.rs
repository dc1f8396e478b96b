//! Groups: sessions that come, are addressed, and leave. Each member's frames are in one place at every step.

mod crashes;
mod faults;
mod flow;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::game::{chain_of, common, group};
use super::world::{A, B, World, service, surviving};
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
fn a_player_who_goes_just_as_its_group_lets_go_of_it_is_saved() {
    for finishes in [true, false] {
        let mut world = World::with_service(2, fresh());
        [A, B].into_iter().for_each(|link| world.knobs(link).refuses_parties.store(2, Ordering::Relaxed));
        world.frames(0, 2);
        world.frame(0, b"join 1");
        until(&mut world, |world| {
            world.group(group(1)).is_some_and(|group| world.sessions[group].link() == Some(B))
        });
        // What the group asks for is done at the end of the turn; the client goes in the same one.
        world.answering = true;
        while world.sessions[1].riders().is_some_and(|riders| !riders.is_empty()) {
            assert!(world.step(B, true) | world.step(B, false));
        }
        world.assert_aboard(0);
        if finishes {
            world.finished(0)
        } else {
            world.gone(0, CloseReason::ClientError)
        }
        world.answering = false;
        world.answer();
        world.advance(Duration::from_secs(3));
        let closed = [A, B].map(|link| world.knobs(link).closed.lock().unwrap().clone()).concat();
        assert_eq!(closed, [(3, chain_of(&world.seats[0].frames))], "half: {finishes}");
        assert!(world.seats[0].ended.is_some());
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
