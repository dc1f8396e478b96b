//! Corners that the model checker has found, as plain tests.

use super::world::{A, B, World, service};
use crate::routing::table::OnCrash;
use crate::session::{Otherwise, Phase};
use crate::telemetry::counters::HandoffResult;

#[test]
fn a_new_session_whose_backend_dies_before_it_answers_is_parked() {
    let mut world = World::empty(1);
    world.open(std::sync::Arc::new(service(OnCrash::Fresh)));
    world.frames(0, 1);
    world.kill(A);
    assert_eq!(world.seats[0].ended, None, "that wasn't a refusal");
    assert_eq!(*world.sessions[0].phase(), Phase::Parked);
    world.restart(A);
    world.settle();
    world.assert_active_on(0, A);
    world.assert_all_answered(0);
}

#[test]
fn the_answer_that_keeps_a_thaw_possible_may_cross_with_the_thaw() {
    let mut world = World::new(2);
    world.frames(0, 2);
    world.settle();
    world.refuse(B, 1);
    world.leave(0, Otherwise::Thaw);
    world.step(A, true);
    world.step(A, false);
    assert!(matches!(world.sessions[0].phase(), Phase::Attaching { link: B, .. }));
    world.cut(A);
    world.connect(A);
    world.step(A, true);
    world.send_chunks();
    while world.step(B, true) || world.step(B, false) {}
    assert!(matches!(world.sessions[0].phase(), Phase::Thawing { link: A, .. }), "{:?}", world.sessions[0]);
    world.frames(0, 1);
    world.settle();
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].results, [HandoffResult::Thawed]);
    world.assert_flawless(0);
    world.assert_all_answered(0);
}
