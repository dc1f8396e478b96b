//! A link that is cut and comes back to the same process loses nothing, whatever the session was doing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_protocol::{MAX_MESSAGE_BYTES, Message, decode};

use super::world::{A, B, FREEZE_TIMEOUT, World, service, surviving};
use crate::routing::table::{OnCrash, Recovery};
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::HandoffResult;

fn finish(world: &mut World) {
    world.frames(0, 1);
    world.advance(Duration::from_secs(3));
    world.assert_flawless(0);
    world.assert_all_answered(0);
    assert_eq!(world.seats[0].ended, None);
}

#[test]
fn a_cut_link_loses_nothing_of_an_active_session() {
    for steps in 0..12 {
        let mut world = World::new(1);
        world.frames(0, 6);
        for step in 0..steps {
            world.step(A, step % 3 != 2);
        }
        world.cut(A);
        world.frames(0, 3);
        world.advance(Duration::from_millis(200));
        world.connect(A);
        finish(&mut world);
        world.assert_active_on(0, A);
    }
}

#[test]
fn a_cut_in_every_step_of_a_handoff_is_survived() {
    for (link, other) in [(A, B), (B, A)] {
        for steps in 0..16 {
            let mut world = World::new(2);
            world.frames(0, 4);
            world.step(A, true);
            world.leave(0, Otherwise::Thaw);
            world.frames(0, 2);
            for _ in 0..steps {
                let near = world.step(link, true) || world.step(link, false);
                let any = near || world.step(other, true) || world.step(other, false);
                if !any {
                    world.send_chunks();
                }
            }
            world.cut(link);
            world.advance(Duration::from_millis(100));
            world.connect(link);
            world.advance(Duration::from_secs(1));
            finish(&mut world);
            assert_eq!(
                world.seats[0].results.len(),
                1,
                "{link:?} after {steps}: {:?}",
                world.seats[0].results
            );
            assert!(matches!(world.sessions[0].phase(), Phase::Active { .. }));
        }
    }
}

#[test]
fn a_cut_that_lasts_longer_than_the_freeze_loses_nothing() {
    for steps in 0..3 {
        let mut world = World::new(2);
        world.frames(0, 4);
        world.step(A, true);
        world.leave(0, Otherwise::Thaw);
        for step in 0..steps {
            world.step(A, step % 2 == 0);
        }
        if !matches!(world.sessions[0].phase(), Phase::Freezing { .. }) {
            continue;
        }
        world.cut(A);
        world.advance(10 * FREEZE_TIMEOUT);
        assert_eq!(world.phase(0), "thawing");
        world.connect(A);
        world.settle();
        world.assert_active_on(0, A);
        assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
        finish(&mut world);
    }
}

#[test]
fn a_cut_while_thawing_ends_in_a_thaw_that_is_told_once() {
    for steps in 0..6 {
        let mut world = World::new(2);
        world.frames(0, 4);
        world.settle();
        world.refuse(B, 2);
        world.leave(0, Otherwise::Thaw);
        while !matches!(world.sessions[0].phase(), Phase::Thawing { .. }) {
            world.send_chunks();
            let _ =
                world.step(A, true) || world.step(A, false) || world.step(B, true) || world.step(B, false);
        }
        world.frames(0, 2);
        for step in 0..steps {
            world.step(A, step % 2 == 0);
        }
        world.cut(A);
        world.connect(A);
        finish(&mut world);
        assert_eq!(world.seats[0].results, [HandoffResult::Thawed], "after {steps}");
    }
}

#[test]
fn acks_that_went_down_with_a_link_are_said_again() {
    let mut world = World::new(1);
    world.knobs(A).ticks.store(true, Ordering::Relaxed);
    world.cut(A);
    world.connect(A);
    world.frames(0, 1);
    world.settle();
    world.cut(A);
    // The ack falls due while there is no link.
    world.advance(Duration::from_millis(500));
    world.connect(A);
    finish(&mut world);
}

#[test]
fn records_that_a_checkpoint_covers_are_acked_again_after_a_cut() {
    let mut service = surviving(Recovery::Delta);
    service.limits.checkpoint_interval = Duration::from_millis(20);
    let mut world = World::with_service(1, service);
    world.frames(0, 3);
    world.advance(Duration::from_millis(50));
    assert_eq!(world.seats[0].checkpoints, 1);
    // The ack falls due, and goes down with the link.
    world.wire(A).stalled = true;
    world.advance(Duration::from_millis(100));
    // The frame that is sent again tells what else is to be acked, and of records nothing.
    world.frames(0, 1);
    world.cut(A);
    world.connect(A);
    world.wire(A).stalled = true;
    world.advance(Duration::from_millis(200));
    let said = &world.hub.wires[0].to_backend;
    let acks = |bytes: &Vec<u8>| match decode(bytes, MAX_MESSAGE_BYTES).unwrap().unwrap().0 {
        Message::Ack(ack) => ack.record.0,
        _ => 0,
    };
    assert_eq!(said.iter().map(acks).max(), Some(3), "else the backend keeps them for ever");
    world.wire(A).stalled = false;
    finish(&mut world);
}

#[test]
fn a_link_cut_while_the_backends_last_frames_go_out_takes_none_of_them() {
    for comes_back in [true, false] {
        let mut world = World::new(1);
        world.seats[0].slow = true;
        world.frames(0, 3);
        world.frame(0, b"quit");
        world.settle();
        assert_eq!(world.phase(0), "closing");
        if comes_back {
            world.cut(A);
            world.connect(A);
        } else {
            world.kill(A);
        }
        world.settle();
        assert_eq!(world.seats[0].ended, None, "the client hasn't had all");
        world.seats[0].slow = false;
        world.settle();
        world.assert_flawless(0);
        world.assert_all_answered(0);
        world.assert_ended(0, crate::telemetry::counters::CloseReason::BackendClose);
    }
}

#[test]
fn what_a_backend_still_has_of_a_session_that_moved_on_is_released_when_the_link_is_back() {
    let mut world = World::new(2);
    world.frames(0, 2);
    world.settle();
    world.leave(0, Otherwise::Thaw);
    world.step(A, true);
    world.step(A, false);
    world.cut(A);
    world.settle();
    world.assert_active_on(0, B);
    world.connect(A);
    finish(&mut world);
    assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0);
}

#[test]
fn an_attachment_that_was_given_up_while_the_link_was_down_is_released() {
    let mut world = World::empty(2);
    world.open(std::sync::Arc::new(service(OnCrash::Fresh)));
    world.step(A, true);
    world.wire(B).draining = true;
    world.cut(A);
    world.advance(Duration::from_secs(1));
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.wire(A).draining = true;
    world.connect(A);
    world.settle();
    assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0);
}
