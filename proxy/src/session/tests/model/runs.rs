//! What is explored, and how far. Each run's promises are in [`super::check`].

use std::sync::Arc;

use holdfast_protocol::message::Recovery;

use super::bound::{Budget, Setup};
use super::check::explore;
use super::liveness::stuck;
use super::world::World;
use crate::routing::table::OnCrash;
use crate::session::planted::Bug;
use crate::session::tests::world::service;

const NONE: Budget = Budget {
    frames: 0,
    drains: 0,
    park: false,
    cuts: 0,
    kills: 0,
    silences: 0,
    early: 0,
    refusals: 0,
    refusals_for_good: 0,
    halves: 0,
    departures: 0,
    closes: 0,
    ticks: 0,
    parks_end: 0,
    checkpoints: 0,
};

/// Most of what happens to a live session at `replay` and `delta`.
const PROTECTED: Budget = Budget { frames: 2, kills: 1, ticks: 1, checkpoints: 1, ..NONE };
const MOVED: Budget = Budget { frames: 2, drains: 1, refusals: 1, early: 1, ..NONE };

fn setup(recovery: Recovery, budget: Budget) -> Setup {
    let mut service = service(OnCrash::Fresh);
    service.recovery = recovery;
    let service = Arc::new(service);
    Setup { service, budget, slow: false, narrow: false, chunks: false, slow_client: false, bug: None }
}

/// `HOLDFAST_MODEL=deep`: as far as a night's run goes.
pub fn is_deep() -> bool {
    std::env::var("HOLDFAST_MODEL").is_ok_and(|value| value == "deep")
}

#[track_caller]
fn holds(name: &str, setup: Setup, deep: Budget, least: usize) {
    let budget = if is_deep() { deep } else { setup.budget };
    let verdict = explore(name, Setup { budget, ..setup });
    assert!(verdict.broken.is_none(), "{}", verdict.trace);
    assert!(verdict.states >= least, "{} states, {least} are there to be found", verdict.states);
}

#[test]
fn moves_late_answers_and_refusals_keep_every_promise() {
    let deep = Budget { drains: 2, early: 2, ..MOVED };
    holds("moves", setup(Recovery::None, MOVED), deep, 60_000);
}

#[test]
fn drains_that_park_and_drains_in_drains_keep_every_promise() {
    let budget = Budget { frames: 1, drains: 2, park: true, ..NONE };
    let deep = Budget { frames: 2, early: 2, refusals: 1, ..budget };
    holds("parks", setup(Recovery::None, budget), deep, 6_000);
}

#[test]
fn refusals_for_good_and_the_park_deadline_keep_every_promise() {
    let budget = Budget { frames: 2, drains: 1, refusals_for_good: 1, parks_end: 1, park: true, ..NONE };
    let deep = Budget { early: 1, cuts: 1, ..budget };
    holds("refused", setup(Recovery::None, budget), deep, 8_000);
}

#[test]
fn cuts_keep_every_promise() {
    let budget = Budget { frames: 2, drains: 1, cuts: 2, park: true, ..NONE };
    holds("cuts", setup(Recovery::None, budget), Budget { cuts: 3, ticks: 1, ..budget }, 60_000);
}

#[test]
fn cuts_beside_late_answers_keep_every_promise() {
    let budget = Budget { frames: 1, drains: 1, cuts: 1, early: 1, ..NONE };
    let deep = Budget { frames: 2, refusals: 1, early: 2, ..budget };
    holds("cuts and late answers", setup(Recovery::None, budget), deep, 20_000);
}

#[test]
fn slow_games_slow_clients_and_chunks_keep_every_promise() {
    let budget = Budget { frames: 2, drains: 1, cuts: 1, ..NONE };
    let setup = Setup { slow: true, chunks: true, slow_client: true, ..setup(Recovery::None, budget) };
    holds("slow", setup, Budget { early: 1, ticks: 1, ..budget }, 30_000);
}

#[test]
fn a_player_who_leaves_is_told_of_to_a_game_that_has_every_frame() {
    let budget = Budget { frames: 1, drains: 1, cuts: 1, halves: 1, departures: 1, ..NONE };
    holds("leaving", setup(Recovery::None, budget), Budget { frames: 2, park: true, ..budget }, 30_000);
}

#[test]
fn a_game_that_ends_the_session_keeps_every_promise() {
    let budget = Budget { frames: 1, drains: 1, cuts: 1, closes: 1, departures: 1, ..NONE };
    holds("closing", setup(Recovery::None, budget), Budget { frames: 2, park: true, ..budget }, 20_000);
}

#[test]
fn a_crash_without_recovery_costs_only_what_was_there() {
    let budget = Budget { frames: 2, drains: 1, kills: 1, ..NONE };
    holds(
        "crashes at none",
        setup(Recovery::None, budget),
        Budget { frames: 3, cuts: 1, park: true, ..budget },
        20_000,
    );
}

#[test]
fn a_backend_that_was_given_up_and_lives_is_heard_by_nobody() {
    let budget = Budget { frames: 2, silences: 1, drains: 1, ..NONE };
    holds("silences at none", setup(Recovery::None, budget), Budget { frames: 3, cuts: 1, ..budget }, 18_000);
    let budget = Budget { frames: 2, silences: 1, kills: 1, ..NONE };
    holds(
        "silences at replay",
        setup(Recovery::Replay, budget),
        Budget { ticks: 1, cuts: 1, ..budget },
        65_000,
    );
}

#[test]
fn a_crash_at_replay_costs_nothing() {
    let deep = Budget { kills: 2, cuts: 1, ..PROTECTED };
    holds("crashes at replay", setup(Recovery::Replay, PROTECTED), deep, 200_000);
    let budget = Budget { frames: 2, kills: 1, cuts: 1, ..NONE };
    holds(
        "crashes and cuts at replay",
        setup(Recovery::Replay, budget),
        Budget { ticks: 1, ..budget },
        15_000,
    );
    let budget = Budget { frames: 1, kills: 1, drains: 1, ticks: 1, ..NONE };
    holds(
        "crashes in moves at replay",
        setup(Recovery::Replay, budget),
        Budget { frames: 2, ..budget },
        75_000,
    );
}

#[test]
fn a_crash_at_delta_costs_nothing() {
    let deep = Budget { kills: 2, cuts: 1, ..PROTECTED };
    holds("crashes at delta", setup(Recovery::Delta, PROTECTED), deep, 220_000);
    let budget = Budget { frames: 2, kills: 1, cuts: 1, ..NONE };
    holds("crashes and cuts at delta", setup(Recovery::Delta, budget), Budget { ticks: 1, ..budget }, 20_000);
    let budget = Budget { frames: 2, kills: 1, drains: 1, ..NONE };
    holds("crashes in moves at delta", setup(Recovery::Delta, budget), Budget { ticks: 1, ..budget }, 65_000);
}

#[test]
fn a_window_of_one_frame_keeps_every_promise() {
    for recovery in [Recovery::None, Recovery::Delta, Recovery::Replay] {
        let budget = Budget { frames: 3, drains: 1, cuts: 1, ..NONE };
        let setup = Setup { narrow: true, ..setup(recovery, budget) };
        let deep = Budget { kills: 1, ..budget };
        holds(&format!("one frame at a time at {}", recovery.name()), setup, deep, 1000);
    }
}

#[test]
fn a_crash_at_checkpoint_takes_the_game_back_and_loses_no_client_frame() {
    holds(
        "crashes at checkpoint",
        setup(Recovery::Checkpoint, PROTECTED),
        Budget { drains: 1, ..PROTECTED },
        50_000,
    );
}

#[test]
fn no_session_is_stuck_for_ever() {
    let parks = Budget { frames: 1, drains: 1, park: true, refusals: 1, ..NONE };
    let cuts = Budget { frames: 1, drains: 1, cuts: 1, early: 1, ..NONE };
    let crashes = Budget { frames: 2, kills: 1, ticks: 1, ..NONE };
    for (recovery, budget) in [
        (Recovery::None, parks),
        (Recovery::None, cuts),
        (Recovery::Replay, crashes),
        (Recovery::Delta, crashes),
    ] {
        let setup = setup(recovery, budget);
        let (states, stuck) = stuck(World::new(&setup), &setup);
        println!("liveness at {}: {states} states", recovery.name());
        assert_eq!(stuck, 0, "of {states} states can't come to rest: {budget:?}");
        assert!(states > 1000, "{states} states");
    }
}

/// The checker finds what it is there to find.
#[test]
fn every_planted_bug_is_caught() {
    let moves = setup(Recovery::None, MOVED);
    let crashes = setup(Recovery::Replay, PROTECTED);
    // One record and no more, so that nothing but a crash can tell.
    let records = setup(Recovery::Replay, Budget { frames: 1, ..PROTECTED });
    for (bug, setup) in [
        (Bug::NoEpochCheck, &moves),
        (Bug::EarlyRelease, &moves),
        (Bug::ForgottenQueue, &moves),
        (Bug::LiveBeforeStart, &moves),
        (Bug::DeliverBeforeKept, &records),
        (Bug::TrimOnAck, &crashes),
    ] {
        let verdict = explore(&format!("{bug:?}"), Setup { bug: Some(bug), ..setup.clone() });
        let Some((promise, way)) = verdict.broken else { panic!("{bug:?} isn't caught") };
        println!("  breaks {promise:?} in {} steps: {way:?}", way.len());
    }
}
