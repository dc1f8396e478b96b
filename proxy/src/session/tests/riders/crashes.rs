//! Groups whose backend goes down, or whose link is cut.

use std::sync::Arc;
use std::time::Duration;

use super::super::game::group;
use super::super::world::{A, B, WINDOW, World, service, surviving};
use super::{EXACT, LEVELS, THREE_PARTS, fresh, pad, until};
use crate::routing::table::OnCrash;
use crate::telemetry::counters::CloseReason;

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
fn nobody_boards_with_a_state_that_a_recovery_has_not_completed() {
    for recovery in EXACT {
        let mut world = World::with_service(2, surviving(recovery));
        world.frames(0, 3);
        world.frame(0, b"burst");
        world.advance(Duration::from_millis(120));
        world.kill(A);
        world.restart(A);
        world.wire(A).draining = true;
        world.give_turns();
        // B says that it has the session; what it is given again goes down with the link.
        while world.phase(0) != "active" {
            assert!(world.step(B, true) | world.step(B, false));
        }
        world.seats[0].company.wanted = Some(group(1));
        world.try_board(0);
        assert_eq!(world.phase(0), "freezing");
        world.cut(B);
        world.connect(B);
        world.settle();
        world.advance(Duration::from_secs(3));
        world.assert_aboard(0);
        world.frames(0, 1);
        world.settle();
        world.assert_content(0);
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
