//! The end of a session, from either side, in every phase.

use std::time::Duration;

use super::game::chain_of;
use super::world::{A, B, CLOSE_DEADLINE, PARK_DEADLINE, World, service};
use crate::routing::table::OnCrash;
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::CloseReason;

const GONE: CloseReason = CloseReason::ClientError;

/// How a client leaves.
const WAYS: [&[bool]; 3] = [&[true], &[false], &[true, false]];

fn depart(world: &mut World, way: &[bool]) {
    for half in way {
        if *half {
            world.drive(0, |session, fx| session.client_finished(fx));
        } else {
            world.drive(0, |session, fx| session.client_gone(GONE, fx));
        }
    }
}

/// The game was told once, with all frames.
fn assert_told(world: &World) {
    let closed: Vec<_> =
        world.nodes.iter().flat_map(|node| node.knobs.closed.lock().unwrap().clone()).collect();
    let frames = &world.seats[0].frames;
    assert_eq!(closed, [(u32::try_from(frames.len()).unwrap(), chain_of(frames))], "{:?}", world.sessions[0]);
}

#[test]
fn a_client_that_leaves_in_any_step_of_a_handoff_is_told_to_the_game_with_all_its_frames() {
    for way in WAYS {
        for refuses in [0, 2] {
            for steps in 0..14 {
                let mut world = World::new(2);
                world.refuse(B, refuses);
                world.frames(0, 3);
                world.step(A, true);
                world.leave(0, Otherwise::Thaw);
                world.frames(0, 2);
                for _ in 0..steps {
                    world.send_chunks();
                    let _ = world.step(A, true)
                        || world.step(A, false)
                        || world.step(B, true)
                        || world.step(B, false);
                }
                depart(&mut world, way);
                world.advance(Duration::from_secs(1));
                assert!(world.seats[0].ended.is_some(), "{way:?} after {steps}: {:?}", world.sessions[0]);
                assert_told(&world);
                assert_eq!(world.seats[0].faults, []);
                assert_eq!(world.faults_of_the_proxy(), 0);
                let left: usize =
                    world.nodes.iter().map(|node| node.peer.as_ref().unwrap().attachments()).sum();
                assert_eq!(left, 0, "no backend keeps it");
            }
        }
    }
}

#[test]
fn a_client_that_leaves_while_parked_is_told_to_the_game_that_comes_next() {
    for way in WAYS {
        let mut world = World::new(1);
        world.frames(0, 2);
        world.leave(0, Otherwise::Park);
        world.frames(0, 2);
        world.settle();
        assert_eq!(*world.sessions[0].phase(), Phase::Parked);
        depart(&mut world, way);
        assert_eq!(world.seats[0].ended, None, "its state is to be saved");
        world.undrain(A);
        world.advance(Duration::from_secs(1));
        assert!(world.seats[0].ended.is_some());
        assert_told(&world);
    }
}

#[test]
fn a_client_that_leaves_with_nothing_said_needs_no_backend() {
    for way in WAYS {
        let mut world = World::new(0);
        depart(&mut world, way);
        assert!(world.seats[0].ended.is_some(), "{way:?}");
    }
}

#[test]
fn a_client_that_resets_after_its_end_of_stream_is_told_as_gone() {
    let mut world = World::new(1);
    world.frames(0, 1);
    world.settle();
    world.wire(A).stalled = true;
    depart(&mut world, &[true]);
    depart(&mut world, &[false]);
    let closes = world.wire(A).to_backend.len();
    assert_eq!(closes, 2, "CLOSE(half), then CLOSE");
    world.wire(A).stalled = false;
    world.settle();
    assert_told(&world);
    world.assert_ended(0, CloseReason::ClientClose);
    assert_eq!(world.faults_of_the_proxy(), 0);
}

#[test]
fn a_client_that_has_sent_its_last_byte_still_gets_the_games_last_frames() {
    let mut world = World::new(2);
    world.seats[0].slow = true;
    world.frame(0, b"burst");
    world.settle();
    depart(&mut world, &[true]);
    world.leave(0, Otherwise::Thaw);
    world.advance(Duration::from_millis(500));
    world.seats[0].slow = false;
    world.advance(Duration::from_secs(1));
    assert_eq!(world.shown(0).len(), 20);
    world.assert_flawless(0);
    world.assert_ended(0, CloseReason::ClientClose);
}

#[test]
fn a_game_that_never_finishes_is_waited_for_until_the_close_deadline() {
    let mut world = World::new(1);
    world.frames(0, 1);
    world.wire(A).stalled = true;
    depart(&mut world, &[false]);
    world.advance(CLOSE_DEADLINE - Duration::from_millis(1));
    assert_eq!(world.seats[0].ended, None);
    world.advance(Duration::from_millis(1));
    world.assert_ended(0, GONE);
}

#[test]
fn a_backend_that_closes_in_any_step_of_a_drain_ends_the_session_with_all_frames_shown() {
    for steps in 0..10 {
        let mut world = World::new(2);
        world.frames(0, 2);
        world.frame(0, b"quit");
        for _ in 0..3 {
            world.step(A, true);
        }
        world.leave(0, Otherwise::Thaw);
        for _ in 0..steps {
            let _ = world.step(A, true) || world.step(A, false);
        }
        world.advance(Duration::from_secs(2));
        world.assert_ended(0, CloseReason::BackendClose);
        world.assert_flawless(0);
        world.assert_all_answered(0);
    }
}

#[test]
fn a_backend_that_closes_while_it_is_thawed_ends_the_session_in_good_order() {
    let mut world = World::new(2);
    world.frame(0, b"quit");
    world.wire(A).stalled = true;
    world.leave(0, Otherwise::Thaw);
    world.seats[0].slow = true;
    world.advance(Duration::from_millis(400));
    assert_eq!(world.phase(0), "thawing");
    world.wire(A).stalled = false;
    world.settle();
    assert_eq!(world.phase(0), "closing");
    world.seats[0].slow = false;
    world.settle();
    world.assert_ended(0, CloseReason::BackendClose);
    world.assert_flawless(0);
}

#[test]
fn ending_in_any_phase_gives_everything_back() {
    for steps in 0..14 {
        let mut world = World::new(2);
        world.refuse(B, 2);
        world.leave(0, Otherwise::Thaw);
        for _ in 0..steps {
            world.send_chunks();
            let _ =
                world.step(A, true) || world.step(A, false) || world.step(B, true) || world.step(B, false);
        }
        world.drive(0, |session, fx| session.end(CloseReason::Shutdown, fx));
        world.settle();
        world.assert_ended(0, CloseReason::Shutdown);
        assert_eq!(world.hub.reserved, 0);
        let left: usize = world.nodes.iter().map(|node| node.peer.as_ref().unwrap().attachments()).sum();
        assert_eq!(left, 0, "after {steps}");
    }
}

#[test]
fn a_gone_client_whose_game_crashed_is_over_and_a_half_gone_one_is_told_to_the_next_game() {
    let mut gone = World::new(2);
    gone.wire(A).stalled = true;
    depart(&mut gone, &[false]);
    gone.kill(A);
    gone.assert_ended(0, GONE);

    let mut half = World::new(2);
    half.wire(A).stalled = true;
    depart(&mut half, &[true]);
    half.kill(A);
    half.settle();
    half.assert_ended(0, CloseReason::ClientClose);
    assert_eq!(half.knobs(B).closed.lock().unwrap().len(), 1);
}

#[test]
fn a_gone_client_that_nobody_serves_is_dropped_at_the_park_deadline() {
    let mut world = World::with_service(1, service(OnCrash::Fresh));
    world.leave(0, Otherwise::Park);
    world.settle();
    depart(&mut world, &[false]);
    world.advance(PARK_DEADLINE);
    world.assert_ended(0, CloseReason::ParkDeadline);
    assert_eq!(world.seats[0].states_dropped, 1);
}
