//! Real games, proxies and players under faults that a seed decides: every frame is checked all the while.
//!
//! [`run`] starts everything, lets the storm of a [`plan`] loose, calms it, and judges: no frame lost, repeated or
//! reordered, nobody disconnected, nobody stuck, and no memory kept. How long anything takes doesn't count.

mod backend;
mod operator;
mod outcome;
mod plan;
mod theatre;
mod wire;

use std::time::Duration;

use anyhow::Result;

pub use outcome::{Happened, Outcome};
pub use plan::Kind;

/// What is played.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    /// How long faults come.
    pub storm: Duration,
    /// Over all swarms, each a process of its own.
    pub players: usize,
    pub swarms: usize,
    /// Frames a second, each player.
    pub rate_hz: f64,
    pub kinds: Vec<Kind>,
}

impl Options {
    /// 500 players, every kind of fault that the service's recovery survives.
    pub fn new(seed: u64, storm: Duration) -> Self {
        Self { seed, storm, players: 500, swarms: 4, rate_hz: 10.0, kinds: default_kinds() }
    }
}

/// The service's `recovery`, as it stands in its document.
const RECOVERY: &str = "none";

/// Without recovery a killed game takes its players' state along: by design, so that isn't asked for.
fn default_kinds() -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| RECOVERY != "none" || *kind != Kind::Kill).collect()
}

/// Plays it all; `tell` gets a line for each step and each fault as it happens.
///
/// # Errors
/// Something couldn't be started or steered, so that there is nothing to judge. The run's files stay then, as they do
/// if the outcome isn't good.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let mut theatre = theatre::Theatre::open(options, tell)?;
    let outcome = theatre.play(options, tell);
    if !outcome.as_ref().is_ok_and(Outcome::is_good) {
        theatre.keep();
    }
    outcome
}
