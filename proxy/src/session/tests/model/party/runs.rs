//! What is explored of groups, and how far.

use std::sync::Arc;

use super::super::liveness::stuck;
use super::super::runs::is_deep;
use super::check::explore;
use super::world::{Budget, Setup, World};
use crate::routing::table::OnCrash;
use crate::session::planted::Bug;
use crate::session::tests::world::service;

const NONE: Budget = Budget {
    frames: [0, 0],
    drains: 0,
    park: false,
    cuts: 0,
    kills: 0,
    early: 0,
    refusals: 0,
    refusals_for_good: 0,
};
/// It boards, leaves again, and goes on.
const ROUND_TRIP: [u8; 2] = [0, 3];

fn setup(budget: Budget) -> Setup {
    Setup { service: Arc::new(service(OnCrash::Fresh)), budget, bug: None, ack_passes: false }
}

#[track_caller]
fn holds(name: &str, budget: Budget, deep: Budget, least: usize) {
    let verdict = explore(name, setup(if is_deep() { deep } else { budget }));
    assert!(verdict.broken.is_none(), "{}", verdict.trace);
    assert!(verdict.states >= least, "{} states, {least} are there to be found", verdict.states);
}

#[test]
fn invariant_8_whoever_boards_and_leaves_a_group_that_moves_has_every_frame_once() {
    let budget = Budget { frames: [1, 1], drains: 1, ..NONE };
    holds("group: moves beside a boarding", budget, Budget { frames: [2, 1], ..budget }, 50_000);
    let budget = Budget { frames: [0, 2], drains: 1, park: true, ..NONE };
    holds("group: moves", budget, Budget { frames: [1, 3], ..budget }, 85_000);
}

#[test]
fn invariant_8_a_group_is_whole_over_cut_links() {
    let budget = Budget { frames: [0, 3], cuts: 2, ..NONE };
    holds("group: cuts", budget, Budget { frames: [1, 3], ..budget }, 45_000);
    let budget = Budget { frames: [0, 1], cuts: 1, drains: 1, ..NONE };
    holds("group: cuts in moves", budget, Budget { frames: [1, 3], ..budget }, 85_000);
}

#[test]
fn invariant_8_refusals_and_late_answers_leave_everybody_in_one_place() {
    let budget = Budget { frames: [0, 1], drains: 1, refusals: 1, refusals_for_good: 1, ..NONE };
    holds("group: refusals", budget, Budget { early: 1, ..budget }, 160_000);
    let budget = Budget { frames: [0, 1], drains: 1, early: 1, ..NONE };
    holds("group: late answers", budget, Budget { frames: [0, 2], ..budget }, 160_000);
}

#[test]
fn invariant_8_a_crash_ends_a_group_and_nobody_else() {
    let budget = Budget { frames: [1, 2], kills: 1, ..NONE };
    holds("group: crashes", budget, Budget { frames: [1, 3], drains: 1, ..budget }, 60_000);
}

#[test]
fn no_group_and_nobody_on_the_way_into_one_is_stuck_for_ever() {
    for budget in [
        Budget { frames: [0, 2], drains: 1, park: true, ..NONE },
        Budget { frames: [0, 2], cuts: 1, ..NONE },
        Budget { frames: [0, 2], kills: 1, ..NONE },
        Budget { frames: [0, 1], drains: 1, refusals: 1, ..NONE },
    ] {
        let setup = setup(budget);
        let (states, stuck) = stuck(World::new(&setup), &setup);
        println!("liveness of groups: {states} states");
        assert!(states > 1000, "{states} states");
        assert_eq!(stuck, 0, "of {states} states can't come to rest: {budget:?}");
    }
}

/// The checker finds what it is there to find.
#[test]
fn every_bug_planted_in_a_group_is_caught() {
    let cuts = setup(Budget { frames: ROUND_TRIP, cuts: 1, ..NONE });
    for bug in [Bug::ForgottenQueue, Bug::ForgottenFarewell, Bug::EarlyBoarding] {
        caught(&format!("{bug:?}"), Setup { bug: Some(bug), ..cuts.clone() });
    }
    // The scenario of SPEC.md section 12.
    caught("an ack that passes a departure", Setup { ack_passes: true, ..cuts });
}

fn caught(name: &str, setup: Setup) {
    let verdict = explore(name, setup);
    let Some((promise, way)) = verdict.broken else { panic!("{name} isn't caught") };
    println!("  breaks {promise:?} in {} steps: {way:?}", way.len());
}
