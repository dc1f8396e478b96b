//! Orders to leave: who begins, who waits at home, and drains that overlap.

use std::time::Duration;

use super::world::{A, B, C, PARK_HOME, World};
use crate::session::handoff::Begun;
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::HandoffResult;

fn finish(world: &mut World) {
    world.frames(0, 1);
    world.advance(Duration::from_secs(2));
    world.assert_flawless(0);
    world.assert_all_answered(0);
}

#[test]
fn a_session_that_waits_for_home_takes_nobody_else_until_its_time_is_up() {
    let mut world = World::new(2);
    world.frames(0, 2);
    world.leave(0, Otherwise::ParkForHome);
    world.advance(PARK_HOME - Duration::from_secs(1));
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.look_again();
    assert_eq!(*world.sessions[0].phase(), Phase::Parked, "the other one isn't asked");
    world.advance(Duration::from_secs(1));
    world.assert_active_on(0, B);
    finish(&mut world);
}

#[test]
fn a_restarted_home_gets_its_sessions_back() {
    let mut world = World::new(2);
    world.frames(0, 2);
    world.leave(0, Otherwise::ParkForHome);
    world.frames(0, 2);
    world.settle();
    assert_eq!(world.node(A).peer.as_ref().unwrap().attachments(), 0, "the process may end");
    world.kill(A);
    world.advance(Duration::from_secs(1));
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.restart(A);
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Parked, HandoffResult::Moved]);
    finish(&mut world);
}

#[test]
fn a_session_leaves_only_from_where_it_is_active() {
    let mut world = World::new(2);
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::Yes);
    assert_eq!(world.leave(0, Otherwise::Park), Begun::NotNow, "it is leaving already");
    world.undrain(A);
    world.undrain(B);
    world.settle();
    world.cut(world.sessions[0].link().unwrap());
    assert_eq!(world.leave(0, Otherwise::Thaw), Begun::NotNow, "there is no link");
}

#[test]
fn a_target_that_drains_too_passes_the_session_on() {
    let mut world = World::new(3);
    world.frames(0, 3);
    world.leave(0, Otherwise::Thaw);
    while *world.sessions[0].phase() != (Phase::Active { link: B }) {
        world.send_chunks();
        let _ = [A, B].iter().any(|link| world.step(*link, true) || world.step(*link, false));
    }
    assert_eq!(world.leave(0, Otherwise::Park), Begun::Yes);
    world.frames(0, 2);
    world.settle();
    world.assert_active_on(0, C);
    assert_eq!(world.seats[0].results, [HandoffResult::Moved, HandoffResult::Moved]);
    finish(&mut world);
}

#[test]
fn a_drain_that_is_lifted_in_the_middle_ends_as_it_would_have() {
    for steps in 0..8 {
        let mut world = World::new(2);
        world.frames(0, 3);
        world.leave(0, Otherwise::Thaw);
        for _ in 0..steps {
            world.send_chunks();
            let _ = [A, B].iter().any(|link| world.step(*link, true) || world.step(*link, false));
        }
        world.undrain(A);
        world.settle();
        assert_eq!(world.seats[0].results, [HandoffResult::Moved]);
        finish(&mut world);
    }
}
