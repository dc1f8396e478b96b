//! Members who send more than is processed, or take less than they are sent.

use std::time::Duration;

use super::super::world::{A, WINDOW, World, surviving};
use super::{LEVELS, fresh};
use crate::session::Otherwise;
use crate::telemetry::counters::CloseReason;

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
