//! Crashes, at every level of recovery: what the game processes and what the player sees afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{A, B, CHECKPOINT_INTERVAL, World, surviving};
use crate::routing::table::{OnCrash, Recovery, Service};
use crate::session::handoff::Begun;
use crate::session::{Otherwise, Timer};
use crate::telemetry::counters::{CloseReason, HandoffResult};

const EXACT: [Recovery; 2] = [Recovery::Replay, Recovery::Delta];

fn world(recovery: Recovery) -> World {
    ticking(surviving(recovery))
}

/// Two backends whose game also acts by itself, and one session on A.
fn ticking(service: Service) -> World {
    let mut world = World::empty(2);
    for link in [A, B] {
        world.knobs(link).ticks.store(true, Ordering::Relaxed);
    }
    world.open(Arc::new(service));
    world.settle();
    world
}

#[track_caller]
fn finish(world: &mut World) {
    for link in [A, B] {
        world.knobs(link).ticks.store(false, Ordering::Relaxed);
    }
    world.frames(0, 1);
    world.advance(Duration::from_secs(1));
    world.assert_flawless(0);
    world.assert_all_answered(0);
    assert_eq!((world.seats[0].ended, world.seats[0].diverged, world.seats[0].lost), (None, 0, 0));
}

#[test]
fn a_killed_backend_costs_the_player_nothing_before_the_first_checkpoint() {
    for recovery in EXACT {
        let mut world = world(recovery);
        world.frames(0, 3);
        world.advance(Duration::from_millis(120));
        world.frames(0, 2);
        assert_eq!(world.seats[0].checkpoints, 0);
        world.kill(A);
        world.settle();
        world.assert_active_on(0, B);
        finish(&mut world);
        assert_eq!(world.seats[0].results, [HandoffResult::Moved]);
    }
}

#[test]
fn a_killed_backend_costs_the_player_nothing_after_a_checkpoint() {
    for recovery in EXACT {
        let mut world = world(recovery);
        for _ in 0..20 {
            world.frames(0, 2);
            world.advance(CHECKPOINT_INTERVAL / 7);
        }
        assert!(world.seats[0].checkpoints >= 2, "{recovery:?}: {}", world.seats[0].checkpoints);
        world.frames(0, 2);
        world.kill(A);
        world.settle();
        world.assert_active_on(0, B);
        finish(&mut world);
    }
}

#[test]
fn a_checkpoint_trims_the_journal_and_an_idle_session_takes_no_more_of_them() {
    for recovery in EXACT {
        let mut world = World::with_service(2, surviving(recovery));
        world.frames(0, 10);
        world.settle();
        let kept = world.sessions[0].kept_bytes();
        world.advance(CHECKPOINT_INTERVAL + Duration::from_millis(100));
        assert_eq!(world.seats[0].checkpoints, 1);
        assert!(world.sessions[0].kept_bytes() < kept, "{recovery:?}");
        world.advance(10 * CHECKPOINT_INTERVAL);
        assert_eq!(world.seats[0].checkpoints, 1, "nothing has happened since");
        assert_eq!(world.sessions[0].journal_room_bytes(), 0, "{recovery:?}: room for nothing");
    }
}

#[test]
fn a_journal_that_nears_its_bound_is_trimmed_without_waiting_for_the_interval() {
    for recovery in EXACT {
        let mut service = surviving(recovery);
        service.limits.checkpoint_interval = Duration::from_secs(3600);
        let mut world = World::with_service(2, service);
        for _ in 0..400 {
            world.frame(0, &[7; 300]);
            world.frame(0, b"burst");
            world.advance(Duration::from_millis(12));
        }
        let session = &world.sessions[0];
        assert!(
            world.seats[0].checkpoints > 0,
            "{recovery:?}: {} bytes, {:?}",
            session.kept_bytes(),
            session.phase()
        );
        assert!(world.sessions[0].kept_bytes() < 64 * 1024 + 4096, "{}", world.sessions[0].kept_bytes());
        world.kill(A);
        world.advance(Duration::from_secs(10));
        finish(&mut world);
    }
}

#[test]
fn backends_that_die_one_after_the_other_cost_the_player_nothing() {
    for recovery in EXACT {
        let mut service = surviving(recovery);
        service.limits.max_recoveries = 100;
        let mut world = ticking(service);
        for round in 0..12 {
            world.frames(0, 3);
            world.advance(Duration::from_millis(40 * round));
            world.frames(0, 1);
            let there = world.sessions[0].link().unwrap();
            world.kill(there);
            world.advance(Duration::from_millis(7 * round));
            world.restart(there);
        }
        finish(&mut world);
    }
}

#[test]
fn with_every_backend_dead_a_session_waits_with_all_it_has() {
    for recovery in EXACT {
        let mut world = world(recovery);
        world.frames(0, 4);
        world.advance(Duration::from_millis(700));
        world.frames(0, 2);
        world.kill(B);
        world.kill(A);
        world.settle();
        assert_eq!(world.phase(0), "parked");
        world.frames(0, 3);
        world.advance(Duration::from_secs(5));
        world.restart(B);
        world.settle();
        world.assert_active_on(0, B);
        finish(&mut world);
    }
}

#[test]
fn a_target_that_dies_in_the_middle_of_a_replay_costs_nothing() {
    for recovery in EXACT {
        let mut world = world(recovery);
        for _ in 0..30 {
            world.frame(0, b"burst");
            world.advance(Duration::from_millis(3));
        }
        world.kill(A);
        for _ in 0..60 {
            world.send_chunks();
            world.step(B, true);
            world.step(B, false);
        }
        world.kill(B);
        world.restart(A);
        world.settle();
        world.assert_active_on(0, A);
        finish(&mut world);
    }
}

#[test]
fn a_drain_right_after_a_recovery_costs_nothing() {
    for recovery in EXACT {
        let mut world = world(recovery);
        for _ in 0..10 {
            world.frame(0, b"burst");
            world.advance(Duration::from_millis(10));
        }
        world.kill(A);
        world.settle();
        world.restart(A);
        world.frames(0, 2);
        world.leave(0, Otherwise::Thaw);
        world.settle();
        world.assert_active_on(0, A);
        finish(&mut world);
    }
}

#[test]
fn a_player_who_left_before_the_crash_is_still_saved_with_every_frame() {
    for recovery in EXACT {
        let mut world = world(recovery);
        world.frames(0, 4);
        world.advance(Duration::from_millis(60));
        world.frames(0, 1);
        world.drive(0, |session, fx| session.client_gone(CloseReason::ClientError, fx));
        world.kill(A);
        world.advance(Duration::from_secs(1));
        let closed = world.knobs(B).closed.lock().unwrap().clone();
        assert_eq!(closed, [(5, super::game::chain_of(&world.seats[0].frames))], "{recovery:?}");
        assert_eq!(world.seats[0].ended, Some(CloseReason::ClientError));
    }
}

#[test]
fn input_that_fails_wherever_it_is_given_is_poison_and_ends_its_session_alone() {
    for recovery in EXACT {
        let mut world = World::empty(2);
        world.open(Arc::new(surviving(recovery)));
        world.open(Arc::new(surviving(recovery)));
        world.settle();
        world.frames(0, 3);
        world.frames(1, 3);
        world.settle();
        world.frame(0, b"poison");
        world.advance(Duration::from_secs(5));
        assert_eq!(world.seats[0].ended, Some(CloseReason::Poison));
        assert!(world.seats[0].poisoned);
        world.frames(1, 1);
        world.advance(Duration::from_secs(1));
        world.assert_in_order(1);
        world.assert_all_answered(1);
        assert_eq!(
            world.knobs(A).opened.load(Ordering::Relaxed) + world.knobs(B).opened.load(Ordering::Relaxed),
            2 + 3
        );
    }
}

#[test]
fn at_checkpoint_the_game_is_told_and_gets_every_later_frame_again() {
    let mut world = World::with_service(2, surviving(Recovery::Checkpoint));
    world.frames(0, 5);
    world.advance(CHECKPOINT_INTERVAL + Duration::from_millis(100));
    assert_eq!(world.seats[0].checkpoints, 1);
    world.frames(0, 3);
    world.settle();
    world.kill(A);
    world.frames(0, 1);
    world.advance(Duration::from_secs(1));
    world.assert_active_on(0, B);
    assert_eq!(world.knobs(B).recovered.load(Ordering::Relaxed), 1, "the game was told");
    world.assert_all_answered(0);
    let last = *world.shown(0).last().unwrap();
    assert_eq!(last.chain, super::game::chain_of(&world.seats[0].frames));
}

#[test]
fn a_backend_without_the_abilities_is_no_place_for_a_journal_and_a_new_session_is_told_of() {
    let mut world = World::with_service(2, surviving(Recovery::Replay));
    world.wire(B).capabilities = 0;
    world.frames(0, 2);
    world.settle();
    world.kill(A);
    world.settle();
    assert_eq!(world.phase(0), "parked", "B could not replay it");
    world.open(Arc::new(Service { on_crash: OnCrash::Close, ..surviving(Recovery::Replay) }));
    world.settle();
    world.assert_active_on(1, B);
    assert_eq!(world.seats[1].unprotected, 1);
    world.restart(A);
    world.settle();
    world.assert_active_on(0, A);
    finish(&mut world);
}

#[test]
fn at_delta_a_state_may_leave_out_changes_that_were_given_and_not_begun() {
    let mut world = world(Recovery::Delta);
    world.frames(0, 3);
    world.advance(Duration::from_millis(120));
    world.kill(A);
    world.restart(A);
    world.wire(A).draining = true;
    world.give_turns();
    // B says that it has the session; the changes, START and FREEZE go down with the link.
    assert!(world.step(B, true) && world.step(B, false));
    world.assert_active_on(0, B);
    world.undrain(A);
    assert_eq!(world.leave(0, Otherwise::Park), Begun::Yes);
    world.cut(B);
    world.connect(B);
    world.settle();
    world.assert_active_on(0, A);
    finish(&mut world);
}

#[test]
fn a_full_journal_whose_state_turns_out_too_large_is_given_up_with_its_room_and_the_player_read_again() {
    let mut service = surviving(Recovery::Replay);
    service.limits.max_journal_bytes = 64_000;
    let mut world = World::with_service(2, service);
    world.knobs(A).padding.store(300_000, Ordering::Relaxed);
    world.hub.pool_bytes = 0;
    for _ in 0..400 {
        world.frame(0, &[7; 300]);
        world.advance(Duration::from_millis(12));
    }
    assert!(!world.sessions[0].is_reading(), "{} bytes", world.sessions[0].kept_bytes());
    assert_eq!(world.seats[0].unprotected, 0);
    world.hub.pool_bytes = 1 << 20;
    world.advance(3 * CHECKPOINT_INTERVAL);
    assert!(world.sessions[0].is_reading());
    assert_eq!(world.seats[0].unprotected, 1, "the operator hears of it");
    assert_eq!(world.sessions[0].journal_room_bytes(), 0, "room for nothing");
    finish(&mut world);
}

#[test]
fn a_checkpoint_that_is_long_in_coming_holds_no_room() {
    let mut world = World::with_service(2, surviving(Recovery::Replay));
    world.frames(0, 3);
    world.settle();
    world.drive(0, |session, fx| session.timer(Timer::Checkpoint, fx));
    assert!(world.hub.reserved > 0);
    world.drive(0, |session, fx| session.timer(Timer::Checkpoint, fx));
    assert_eq!(world.hub.reserved, 0);
    world.settle();
    assert_eq!((world.seats[0].checkpoints, world.hub.reserved), (1, 0));
    finish(&mut world);
}

#[test]
fn records_that_outgrow_their_bound_while_there_is_no_room_for_a_state_are_given_up_and_nobody_is_at_fault() {
    let mut service = surviving(Recovery::Delta);
    service.limits.max_journal_bytes = 4_000;
    let mut world = ticking(service);
    world.hub.pool_bytes = 0;
    world.advance(Duration::from_secs(60));
    assert_eq!((world.seats[0].unprotected, world.seats[0].faults.len()), (1, 0));
    assert!(world.sessions[0].journal_room_bytes() < 1000, "room for one record, no more");
    world.hub.pool_bytes = 1 << 20;
    finish(&mut world);
}
