//! The design's invariants, one test each; the other files have their corners.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{
    A, ATTACH_TIMEOUT, B, C, FREEZE_TIMEOUT, PARK_DEADLINE, WINDOW, World, limits, service, surviving,
};
use crate::routing::table::{OnCrash, Recovery};
use crate::session::handoff::Begun;
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::{CloseReason, HandoffResult};

#[test]
fn invariant_1_a_clients_connection_is_never_closed_by_a_handoff() {
    for otherwise in [Otherwise::Thaw, Otherwise::Park, Otherwise::ParkForHome] {
        for refuses in [0, 1, 2] {
            let mut world = World::new(2);
            world.frames(0, 3);
            world.settle();
            world.refuse(B, refuses);
            assert_eq!(world.leave(0, otherwise), Begun::Yes);
            world.frames(0, 3);
            world.advance(Duration::from_secs(1));
            world.refuse(B, 0);
            world.undrain(A);
            world.frames(0, 1);
            world.advance(Duration::from_secs(1));
            assert!(!world.seats[0].finishing, "{otherwise:?}, {refuses}");
            assert!(matches!(world.sessions[0].phase(), Phase::Active { .. }), "{:?}", world.sessions[0]);
            world.assert_flawless(0);
            world.assert_all_answered(0);
        }
    }
}

#[test]
fn invariant_2_every_frame_arrives_exactly_once_and_in_order_over_many_moves() {
    let mut world = World::new(3);
    for link in [A, B, C] {
        world.knobs(link).ticks.store(true, Ordering::Relaxed);
    }
    world.cut(A);
    world.connect(A);
    for round in 0..40 {
        world.frames(0, 5);
        let at = world.sessions[0].link().unwrap();
        for _ in 0..round % 7 {
            world.step(at, round % 2 == 0);
        }
        world.leave(0, Otherwise::Thaw);
        world.frames(0, 2);
        world.advance(Duration::from_millis(30));
        world.undrain(at);
        assert_eq!(world.seats[0].results.len(), round + 1);
    }
    world.advance(Duration::from_secs(1));
    assert!(world.seats[0].results.iter().all(|result| *result == HandoffResult::Moved));
    world.assert_flawless(0);
    world.assert_all_answered(0);
}

/// `Seat::watch` refuses a START or THAW beside an attachment that runs, in every test of this folder.
#[test]
fn invariant_3_at_most_one_attachment_is_active() {
    let mut world = World::new(2);
    world.leave(0, Otherwise::Thaw);
    world.step(A, true);
    assert!(matches!(world.sessions[0].phase(), Phase::Freezing { link: A, .. }));
    assert_eq!(world.seats[0].running, [(A, world.sessions[0].epoch())], "the old backend is the owner");
    world.step(A, false);
    assert!(matches!(world.sessions[0].phase(), Phase::Attaching { link: B, .. }));
    assert_eq!(world.seats[0].running, [], "the proxy is the owner");
    world.settle();
    assert_eq!(world.seats[0].running, [(B, world.sessions[0].epoch())], "the new backend is the owner");
    assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0, "the old one was released");
}

#[test]
fn invariant_4_a_failed_handoff_thaws_tries_the_next_or_parks() {
    let mut thawed = World::new(2);
    thawed.frames(0, 2);
    thawed.refuse(B, 2);
    thawed.leave(0, Otherwise::Thaw);
    thawed.frames(0, 2);
    thawed.settle();
    thawed.assert_active_on(0, A);
    assert_eq!(thawed.seats[0].results, [HandoffResult::Thawed]);
    thawed.assert_flawless(0);
    thawed.assert_all_answered(0);

    let mut next = World::new(3);
    next.frames(0, 2);
    next.refuse(B, 2);
    next.leave(0, Otherwise::Thaw);
    next.frames(0, 2);
    next.settle();
    next.assert_active_on(0, C);
    assert_eq!(next.seats[0].results, [HandoffResult::Moved]);
    next.assert_flawless(0);
    next.assert_all_answered(0);

    let mut parked = World::new(2);
    parked.frames(0, 2);
    parked.refuse(B, 2);
    parked.leave(0, Otherwise::Park);
    parked.frames(0, 2);
    parked.settle();
    assert_eq!(*parked.sessions[0].phase(), Phase::Parked);
    assert_eq!(parked.node(A).peer.as_ref().unwrap().attachments(), 0, "its process may end");
    parked.refuse(B, 0);
    parked.look_again();
    parked.settle();
    parked.assert_active_on(0, B);
    assert_eq!(parked.seats[0].results, [HandoffResult::Parked, HandoffResult::Moved]);
    parked.assert_flawless(0);
    parked.assert_all_answered(0);
}

#[test]
fn invariant_5_a_full_buffer_pushes_back_on_its_sender_and_on_nobody_else() {
    let mut world = World::new(1);
    let other = world.open(std::sync::Arc::new(service(OnCrash::Fresh)));
    world.settle();
    world.seats[0].slow = true;
    let mut sent = 0;
    while !world.seats[0].paused {
        world.frame(0, &[b'x'; 100]);
        sent += 1;
        assert!(sent < 10_000, "the proxy reads on for ever");
        if sent % 16 == 0 {
            world.advance(Duration::from_millis(25));
        }
    }
    assert!(world.sessions[0].kept_bytes() <= 2 * u64::from(WINDOW) + 200);
    assert!(world.seats[0].largest_backlog <= WINDOW as usize);
    world.frames(other, 50);
    world.advance(Duration::from_secs(1));
    world.assert_all_answered(other);
    world.seats[0].slow = false;
    world.advance(Duration::from_secs(5));
    assert!(!world.seats[0].paused, "read again when there is room");
    world.assert_flawless(0);
    world.assert_all_answered(0);
}

#[test]
fn invariant_5_every_wait_has_an_end() {
    let waits = ATTACH_TIMEOUT + 4 * FREEZE_TIMEOUT + 2 * PARK_DEADLINE + limits().close_deadline;
    for steps in 0..8 {
        let mut world = World::empty(2);
        world.open(std::sync::Arc::new(service(OnCrash::Fresh)));
        for step in 0..steps {
            world.step(A, step % 2 == 0);
        }
        if let Phase::Active { .. } = world.sessions[0].phase() {
            world.leave(0, Otherwise::Park);
            world.step(A, true);
        }
        for link in [A, B] {
            world.wire(link).stalled = true;
            world.wire(link).draining = true;
        }
        world.drive(0, |session, fx| session.client_gone(CloseReason::ClientClose, fx));
        world.advance(waits);
        assert!(world.seats[0].ended.is_some(), "after {steps} steps: {:?}", world.sessions[0]);
    }
}

#[test]
fn invariant_6_a_session_ends_once_and_with_the_reason_that_ended_it() {
    let mut by_client = World::new(1);
    by_client.frames(0, 2);
    by_client.drive(0, |session, fx| session.client_gone(CloseReason::BadFrame, fx));
    by_client.settle();
    by_client.assert_ended(0, CloseReason::BadFrame);

    let mut by_backend = World::new(1);
    by_backend.frame(0, b"quit");
    by_backend.settle();
    by_backend.assert_ended(0, CloseReason::BackendClose);
    by_backend.assert_all_answered(0);

    let mut by_crash = World::with_service(2, service(OnCrash::Close));
    by_crash.kill(A);
    by_crash.assert_ended(0, CloseReason::Crash);

    let mut unserved = World::new(0);
    unserved.advance(PARK_DEADLINE);
    unserved.assert_ended(0, CloseReason::NoBackend);

    let mut refused = World::empty(1);
    refused.refuse(A, 2);
    refused.open(std::sync::Arc::new(service(OnCrash::Fresh)));
    refused.settle();
    refused.assert_ended(0, CloseReason::NoBackend);

    let mut parked = World::new(1);
    parked.leave(0, Otherwise::Park);
    parked.advance(PARK_DEADLINE + Duration::from_secs(1));
    parked.assert_ended(0, CloseReason::ParkDeadline);
    assert_eq!(parked.seats[0].states_dropped, 1);

    let mut stopped = World::new(1);
    stopped.drive(0, |session, fx| session.end(CloseReason::Shutdown, fx));
    stopped.drive(0, |session, fx| session.end(CloseReason::Crash, fx));
    stopped.assert_ended(0, CloseReason::Shutdown);
}

#[test]
fn invariant_8_a_group_moves_whole_all_its_sessions_to_the_same_backend_and_its_state_once() {
    for recovery in [Recovery::None, Recovery::Replay, Recovery::Delta] {
        let mut world = World::party(surviving(recovery), 3);
        let group = world.party_index();
        let opened = world.knobs(B).opened.load(Ordering::Relaxed);
        let (freezes, states) = (world.seats[group].freezes, world.seats[group].states_kept);
        for index in 0..3 {
            world.frame(index, b"all");
        }
        world.step(A, true);
        assert_eq!(world.leave(group, Otherwise::Thaw), Begun::Yes);
        for index in 0..3 {
            world.frames(index, 2);
        }
        world.settle();
        world.assert_active_on(group, B);
        let seat = &world.seats[group];
        assert_eq!((seat.freezes - freezes, seat.states_kept - states), (1, 1), "one FREEZE, one state");
        assert_eq!(seat.attaches, [A, B], "one ATTACH");
        assert_eq!(world.knobs(B).parties.load(Ordering::Relaxed), 1);
        assert_eq!(world.knobs(B).opened.load(Ordering::Relaxed), opened, "no member went by itself");
        assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0);
        for index in 0..3 {
            world.assert_aboard(index);
            world.frames(index, 2);
            world.settle();
            world.assert_content(index);
        }
        world.assert_together();
        assert_eq!(world.members(group), [0, 1, 2]);
    }
}

#[test]
fn invariant_8_a_failed_handoff_thaws_the_group_whole() {
    for refuses in [1, 2] {
        let mut world = World::party(service(OnCrash::Fresh), 2);
        let group = world.party_index();
        world.knobs(B).refuses_parties.store(refuses, Ordering::Relaxed);
        world.frame(0, b"all");
        world.leave(group, Otherwise::Thaw);
        for index in 0..2 {
            world.frames(index, 2);
        }
        world.settle();
        world.assert_active_on(group, A);
        assert_eq!(world.seats[group].results, [HandoffResult::Thawed]);
        assert_eq!(world.members(group), [0, 1]);
        for index in 0..2 {
            world.frame(index, b"all");
            world.settle();
            world.assert_aboard(index);
            assert!(!world.seats[index].finishing);
        }
        world.assert_content(1);
        world.assert_flawless(0);
        world.assert_together();
    }
}
