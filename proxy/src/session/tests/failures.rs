//! What can go wrong while a session moves: refusals, silence, death, and states that don't fit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::seat::WireState;
use super::world::{A, ATTACH_TIMEOUT, B, C, FREEZE_TIMEOUT, PARK_DEADLINE, World, limits, service};
use crate::routing::table::OnCrash;
use crate::session::handoff::Begun;
use crate::session::{LinkId, Otherwise, Phase};
use crate::telemetry::counters::{CloseReason, HandoffResult};

fn finish(world: &mut World) {
    world.frames(0, 1);
    world.advance(Duration::from_secs(2));
    world.assert_flawless(0);
    world.assert_all_answered(0);
    assert_eq!(world.seats[0].ended, None);
}

/// Runs until the session is where `reached` says, one message at a time.
fn run_until(world: &mut World, reached: impl Fn(&World) -> bool) {
    for _ in 0..1000 {
        if reached(world) {
            return;
        }
        world.send_chunks();
        let _ = [A, B].iter().any(|link| world.step(*link, true) || world.step(*link, false));
    }
    panic!("never reached: {:?}", world.sessions[0]);
}

fn attaches_at(world: &World, link: LinkId) -> bool {
    matches!(world.sessions[0].phase(), Phase::Attaching { link: at, .. } if *at == link)
}

#[test]
fn a_new_player_whose_only_backend_dies_while_taking_him_waits_for_the_next() {
    for steps in 0..2 {
        let mut world = World::empty(1);
        world.open(Arc::new(service(OnCrash::Fresh)));
        if steps > 0 {
            world.step(A, true);
        }
        assert!(attaches_at(&world, A));
        world.kill(A);
        world.settle();
        assert_eq!(world.phase(0), "parked", "after {steps} steps");
        world.restart(A);
        finish(&mut world);
        world.assert_active_on(0, A);
    }
}

#[test]
fn a_target_that_dies_before_attached_costs_nothing() {
    for (backends, expected) in [(2, A), (3, C)] {
        let mut world = World::new(backends);
        world.frames(0, 3);
        world.step(A, true);
        world.leave(0, Otherwise::Thaw);
        run_until(&mut world, |world| attaches_at(world, B));
        world.kill(B);
        world.settle();
        world.assert_active_on(0, expected);
        finish(&mut world);
    }
}

/// A session in the middle of its replay on B: the client reads nothing, so the games leave frames unprocessed, and B
/// takes them one at a time.
fn replaying(backends: u32) -> World {
    let mut world = World::new(backends);
    world.wire(B).client_window_bytes = 64;
    world.seats[0].slow = true;
    for _ in 0..10 {
        world.frame(0, b"burst");
    }
    world.settle();
    world.leave(0, Otherwise::Thaw);
    run_until(&mut world, |world| matches!(world.sessions[0].phase(), Phase::Replaying { .. }));
    world
}

#[test]
fn a_target_that_dies_between_attached_and_start_leaves_the_session_where_it_was() {
    let mut world = replaying(2);
    world.kill(B);
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
    world.seats[0].slow = false;
    finish(&mut world);
}

#[test]
fn a_target_that_dies_after_start_but_before_any_sign_of_life_costs_nothing() {
    let mut world = World::new(3);
    world.frames(0, 3);
    world.settle();
    world.frames(0, 3);
    world.leave(0, Otherwise::Thaw);
    run_until(&mut world, |world| *world.sessions[0].phase() == Phase::Active { link: B });
    world.step(B, true);
    world.kill(B);
    world.settle();
    assert!(matches!(world.sessions[0].phase(), Phase::Active { .. }));
    finish(&mut world);
}

#[test]
fn a_target_that_dies_later_takes_with_it_what_was_in_flight_and_that_is_counted() {
    let mut world = World::new(2);
    world.frames(0, 3);
    world.settle();
    world.wire(A).stalled = true;
    world.frames(0, 4);
    world.kill(A);
    world.advance(Duration::from_millis(200));
    world.assert_active_on(0, B);
    assert_eq!(world.seats[0].lost, 4);
    world.frames(0, 2);
    world.settle();
    world.assert_in_order(0);
    assert_eq!(world.shown(0).last().unwrap().count, 2);
    assert_eq!(world.seats[0].results, [HandoffResult::Moved]);
}

#[test]
fn a_crash_in_a_freeze_gives_its_reservation_back_once() {
    for on_crash in [OnCrash::Fresh, OnCrash::Close] {
        let mut world = World::with_service(2, service(on_crash));
        let other = world.open(Arc::new(service(on_crash)));
        world.wire(B).draining = true;
        world.settle();
        assert_eq!(world.leave(0, Otherwise::Park), Begun::Yes);
        assert_eq!(world.leave(other, Otherwise::Park), Begun::Yes);
        let link = world.sessions[0].link().unwrap();
        world.drive(0, |session, fx| session.attachment_lost(link, fx));
        assert_eq!(world.hub.reserved, world.seats[other].reserved, "the other's is still there");
        world.settle();
        assert_eq!(world.hub.reserved, 0);
    }
}

#[test]
fn a_backend_that_is_late_with_its_state_goes_on_with_the_session() {
    let mut world = World::new(2);
    world.frames(0, 3);
    world.wire(A).stalled = true;
    world.leave(0, Otherwise::Thaw);
    world.frames(0, 3);
    world.advance(FREEZE_TIMEOUT + Duration::from_millis(100));
    assert_eq!(world.phase(0), "thawing");
    world.wire(A).stalled = false;
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
    finish(&mut world);
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::Yes, "and may be asked again");
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_backend_that_answers_neither_freeze_nor_thaw_is_given_up() {
    let mut world = World::new(2);
    world.frames(0, 1);
    world.settle();
    world.wire(A).stalled = true;
    world.leave(0, Otherwise::Thaw);
    world.advance(4 * FREEZE_TIMEOUT);
    assert_eq!(
        world.phase(0),
        "thawing",
        "its state is there and nowhere else: the link's death would be known"
    );
    world.advance(PARK_DEADLINE);
    world.assert_active_on(0, B);
    world.wire(A).stalled = false;
    world.settle();
    assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0, "and told so");
}

#[test]
fn a_thaw_that_nobody_answers_falls_back_on_the_kept_state() {
    let mut world = World::new(2);
    world.frames(0, 3);
    world.settle();
    world.refuse(B, 2);
    world.leave(0, Otherwise::Thaw);
    run_until(&mut world, |world| matches!(world.sessions[0].phase(), Phase::Thawing { .. }));
    world.kill(A);
    world.settle();
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.refuse(B, 0);
    world.look_again();
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_target_that_is_late_is_told_to_forget_and_the_next_is_tried() {
    let mut world = World::new(3);
    world.frames(0, 3);
    world.wire(B).stalled = true;
    world.leave(0, Otherwise::Thaw);
    world.advance(ATTACH_TIMEOUT + Duration::from_millis(50));
    world.assert_active_on(0, C);
    world.wire(B).stalled = false;
    world.settle();
    assert_eq!(world.node(B).peer.as_ref().unwrap().attachments(), 0);
    finish(&mut world);
}

#[test]
fn a_target_that_never_gets_on_with_its_replay_is_given_up_while_the_state_is_there() {
    let mut world = replaying(3);
    world.wire(B).stalled = true;
    world.advance(ATTACH_TIMEOUT + Duration::from_millis(50));
    world.assert_active_on(0, C);
    assert_eq!(world.seats[0].results, [HandoffResult::Moved]);
    world.seats[0].slow = false;
    finish(&mut world);
}

#[test]
fn a_backend_that_refuses_for_now_is_asked_again_without_anybodys_help() {
    let mut world = World::new(2);
    world.frames(0, 2);
    world.refuse(B, 1);
    world.leave(0, Otherwise::Park);
    world.advance(Duration::from_secs(2));
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.refuse(B, 0);
    world.advance(Duration::from_secs(1));
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_park_deadline_that_passes_while_a_backend_is_asked_waits_for_its_answer() {
    for takes in [true, false] {
        let mut world = World::new(1);
        world.frames(0, 2);
        world.leave(0, Otherwise::Park);
        world.settle();
        world.advance(PARK_DEADLINE - Duration::from_millis(100));
        world.wire(A).stalled = true;
        world.undrain(A);
        world.advance(Duration::from_millis(150));
        assert!(attaches_at(&world, A));
        world.refuse(A, if takes { 0 } else { 2 });
        world.wire(A).stalled = false;
        world.settle();
        if takes {
            world.assert_active_on(0, A);
            finish(&mut world);
        } else {
            world.assert_ended(0, CloseReason::ParkDeadline);
            assert_eq!(world.seats[0].states_dropped, 1);
        }
    }
}

#[test]
fn a_state_that_outgrew_its_reservation_is_granted_the_rest() {
    let mut world = World::new(2);
    world.knobs(A).padding.store(100_000, Ordering::Relaxed);
    world.frames(0, 3);
    world.leave(0, Otherwise::Thaw);
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_state_with_no_room_is_thawed_and_asked_for_again_when_there_is() {
    let mut world = World::new(2);
    world.knobs(A).padding.store(100_000, Ordering::Relaxed);
    world.hub.pool_bytes = 50_000;
    world.frames(0, 3);
    world.leave(0, Otherwise::Thaw);
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::NotNow, "its size is known now");
    world.assert_active_on(0, A);
    world.hub.pool_bytes = 200_000;
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::Yes);
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_state_over_the_limit_stays_where_it_is_and_the_session_goes_on() {
    let mut world = World::new(2);
    world.knobs(A).padding.store(300_000, Ordering::Relaxed);
    assert!(limits().max_state_bytes < 300_000);
    world.frames(0, 3);
    world.leave(0, Otherwise::Park);
    world.frames(0, 1);
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
    assert!(world.seats[0].too_large > 0, "the operator hears of it");
    finish(&mut world);
    world.knobs(A).padding.store(0, Ordering::Relaxed);
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::Yes);
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_backend_whose_link_must_be_dialled_first_is_asked_when_it_is_up() {
    let mut world = World::new(2);
    world.cut(B);
    world.wire(B).state = WireState::Idle;
    world.frames(0, 3);
    world.leave(0, Otherwise::Thaw);
    world.settle();
    assert!(attaches_at(&world, B));
    world.connect(B);
    world.settle();
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn no_fault_of_one_session_touches_another() {
    let mut world = World::new(2);
    let other = world.open(Arc::new(service(OnCrash::Close)));
    world.settle();
    world.frames(other, 3);
    world.leave(0, Otherwise::Thaw);
    world.drive(0, |session, fx| session.attachment_lost(A, fx));
    world.frames(other, 3);
    world.advance(Duration::from_secs(1));
    world.assert_flawless(other);
    world.assert_all_answered(other);
}
