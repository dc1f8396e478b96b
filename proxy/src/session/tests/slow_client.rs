//! Windows when the client takes nothing: bounded however often the session moves, and never a deadlock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{A, B, WINDOW, World};
use crate::session::Otherwise;
use crate::session::inbound::{Arrival, Inbound};

use holdfast_protocol::Seq;
use holdfast_protocol::message::Rule;

#[test]
fn a_slow_client_bounds_what_the_proxy_holds_over_many_moves() {
    let mut world = World::new(2);
    for link in [A, B] {
        world.knobs(link).ticks.store(true, Ordering::Relaxed);
    }
    world.cut(A);
    world.connect(A);
    world.seats[0].slow = true;
    for _ in 0..30 {
        for _ in 0..6 {
            world.frame(0, b"burst");
        }
        world.advance(Duration::from_millis(120));
        let from = world.sessions[0].link().unwrap();
        world.leave(0, Otherwise::Thaw);
        world.advance(Duration::from_millis(20));
        world.undrain(from);
    }
    let largest = world.seats[0].largest_backlog;
    assert!(largest <= 2 * WINDOW as usize, "{largest} bytes for a client that reads nothing");
    world.seats[0].slow = false;
    world.advance(Duration::from_secs(20));
    world.frames(0, 1);
    world.advance(Duration::from_secs(2));
    world.assert_flawless(0);
    world.assert_all_answered(0);
}

#[test]
fn a_thaw_tells_the_backend_no_less_than_it_may_have_sent_meanwhile() {
    for moves in 1..8 {
        let mut world = World::new(2);
        world.seats[0].slow = true;
        for round in 0..moves {
            for _ in 0..12 {
                world.frame(0, b"burst");
            }
            let from = world.sessions[0].link().unwrap();
            let to = if from == A { B } else { A };
            if round % 2 == 1 {
                world.refuse(to, 2);
            }
            world.leave(0, Otherwise::Thaw);
            world.advance(Duration::from_millis(100));
            world.refuse(to, 0);
            world.undrain(from);
        }
        world.wire(world.sessions[0].link().unwrap()).stalled = true;
        world.leave(0, Otherwise::Thaw);
        world.advance(Duration::from_millis(400));
        for link in [A, B] {
            world.wire(link).stalled = false;
        }
        world.settle();
        world.seats[0].slow = false;
        world.advance(Duration::from_secs(20));
        world.frames(0, 1);
        world.advance(Duration::from_secs(2));
        world.assert_flawless(0);
        world.assert_all_answered(0);
    }
}

#[test]
fn acks_that_fall_due_while_a_session_moves_are_said_when_it_is_back() {
    let mut world = World::new(2);
    world.refuse(B, 2);
    world.seats[0].slow = true;
    for _ in 0..20 {
        world.frame(0, b"burst");
    }
    world.settle();
    world.leave(0, Otherwise::Thaw);
    world.wire(A).stalled = true;
    world.seats[0].slow = false;
    world.advance(Duration::from_millis(200));
    world.wire(A).stalled = false;
    world.advance(Duration::from_secs(1));
    world.assert_all_answered(0);
    assert_eq!(world.shown(0).len(), 400);
    world.assert_flawless(0);
}

#[test]
fn a_close_counts_nothing_in_a_window() {
    let mut inbound = Inbound::default();
    assert_eq!(inbound.open_window(100), 100);
    assert_eq!(inbound.arrive(Seq(1), &[0; 150]), Ok(Arrival::New), "one frame may exceed it");
    assert_eq!(inbound.arrive(Seq(2), &[0; 1]), Err(Rule::WindowExceeded));
    assert_eq!(inbound.arrive_close(Seq(2)), Ok(Arrival::New));
}

#[test]
fn a_window_that_was_promised_is_kept_when_the_attachment_goes_on() {
    let mut inbound = Inbound::default();
    inbound.open_window(100);
    inbound.arrive(Seq(1), &[0; 80]).unwrap();
    assert_eq!(inbound.open_window(100), 25, "a quarter at least");
    inbound.arrive(Seq(2), &[0; 20]).unwrap();
    // Five more bytes may be on their way when THAW is sent, in five frames.
    let window = inbound.open_window(100);
    assert_eq!(window, 5);
    for seq in 3..8 {
        assert_eq!(inbound.arrive(Seq(seq), &[0; 1]), Ok(Arrival::New));
    }
    assert_eq!(inbound.arrive(Seq(8), &[0; 1]), Err(Rule::WindowExceeded));
}
