//! What is explored, and how far.

use std::sync::Arc;

use holdfast_protocol::message::Recovery;

use super::check::explore;
use super::world::{Budget, Setup};
use crate::routing::table::OnCrash;
use crate::session::planted::Bug;
use crate::session::tests::world::service;

fn setup(budget: Budget) -> Setup {
    Setup {
        service: Arc::new(service(OnCrash::Fresh)),
        budget,
        slow: false,
        chunks: false,
        slow_client: false,
        bug: None,
    }
}

#[track_caller]
fn holds(name: &str, setup: Setup, least: usize) {
    let verdict = explore(name, setup);
    assert!(verdict.broken.is_none(), "{}", verdict.trace);
    assert!(verdict.states >= least, "{} states, {least} are there to be found", verdict.states);
}


fn at(recovery: Recovery, budget: Budget) -> Setup {
    let mut service = service(OnCrash::Fresh);
    service.recovery = recovery;
    Setup { service: Arc::new(service), ..setup(budget) }
}

#[test]
fn replay() {
    let budget = Budget { frames: 2, kills: 1, ticks: 1, checkpoints: 1, ..Budget::default() };
    holds("replay", at(Recovery::Replay, budget), 1);
}

#[test]
fn delta() {
    let budget = Budget { frames: 2, kills: 1, ticks: 1, checkpoints: 1, ..Budget::default() };
    holds("delta", at(Recovery::Delta, budget), 1);
}

#[test]
fn checkpoint() {
    let budget = Budget { frames: 2, kills: 1, ticks: 1, checkpoints: 1, ..Budget::default() };
    holds("checkpoint", at(Recovery::Checkpoint, budget), 1);
}

#[test]
fn planned() {
    let budget = Budget { frames: 2, drains: 1, refusals: 1, early: 2, ..Budget::default() };
    holds("planned", setup(budget), 1);
}

#[test]
fn planned_parks() {
    let budget = Budget { frames: 2, drains: 2, park: true, early: 1, ..Budget::default() };
    holds("planned_parks", setup(budget), 1);
}

#[test]
fn cuts() {
    let budget = Budget { frames: 2, drains: 1, cuts: 2, park: true, ..Budget::default() };
    holds("cuts", setup(budget), 1);
}

#[test]
fn cuts_and_late() {
    let budget = Budget { frames: 2, drains: 1, cuts: 1, early: 1, refusals: 1, ..Budget::default() };
    holds("cuts_and_late", setup(budget), 1);
}

#[test]
fn kills() {
    let budget = Budget { frames: 3, drains: 1, kills: 1, cuts: 1, park: true, ..Budget::default() };
    holds("kills", setup(budget), 1);
}

#[test]
fn silences() {
    let budget = Budget { frames: 3, drains: 1, silences: 1, cuts: 1, ..Budget::default() };
    holds("silences", setup(budget), 1);
}

#[test]
fn leaving() {
    let budget = Budget { frames: 2, drains: 1, cuts: 1, halves: 1, departures: 1, park: true, ..Budget::default() };
    holds("leaving", setup(budget), 1);
}

#[test]
fn closing() {
    let budget = Budget { frames: 2, drains: 1, cuts: 1, closes: 1, departures: 1, park: true, ..Budget::default() };
    holds("closing", setup(budget), 1);
}

#[test]
fn slow() {
    let budget = Budget { frames: 2, drains: 1, cuts: 1, early: 1, ..Budget::default() };
    holds("slow", Setup { slow: true, chunks: true, slow_client: true, ..setup(budget) }, 1);
}
