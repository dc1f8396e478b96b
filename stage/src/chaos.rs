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
    pub recovery: Recovery,
    pub kinds: Vec<Kind>,
}

impl Options {
    /// 500 players, every kind of fault that the service's recovery survives.
    pub fn new(seed: u64, storm: Duration, recovery: Recovery) -> Self {
        let kinds = recovery.kinds();
        Self { seed, storm, players: 500, swarms: 4, rate_hz: 10.0, recovery, kinds }
    }

    fn minutes(&self) -> f64 {
        self.storm.as_secs_f64() / 60.0
    }

    /// What to type to play it again.
    pub fn command(&self) -> String {
        let (minutes, recovery) = (self.minutes(), self.recovery.name());
        let Self { seed, players, rate_hz, kinds, .. } = self;
        let mut command = format!(
            "./dev chaos --minutes {minutes} --seed {seed} --players {players} --rate {rate_hz} --recovery {recovery}"
        );
        if *kinds != self.recovery.kinds() {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            command.push_str(&format!(" --kinds {}", names.join(",")));
        }
        command
    }
}

/// The service's `recovery`, as it stands in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    None,
    Replay,
    Delta,
}

impl Recovery {
    /// What the proxies can do today.
    pub const BEST: Self = Self::Replay;

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Replay => "replay",
            Self::Delta => "delta",
        }
    }

    /// Without recovery a killed game takes its players' state along: by design, so that isn't asked for.
    fn kinds(self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self != Self::None || *kind != Kind::Kill).collect()
    }

    /// How long a game may be frozen. Without recovery it isn't given up for its silence.
    fn freeze_ms(self) -> (u64, u64) {
        if self == Self::None { (50, 1_500) } else { (50, 4_000) }
    }

    /// At `delta` all that an input makes travels in one record, which has a bound of 128 KiB.
    fn most_burst_ticks(self) -> u32 {
        if self == Self::Delta { 3_500 } else { 20_000 }
    }

    /// How long a game may be silent, or its link be lost.
    fn patience_ms(self) -> u64 {
        if self == Self::None { 30_000 } else { 1_500 }
    }
}

impl std::str::FromStr for Recovery {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = [Self::None, Self::Replay, Self::Delta].into_iter().find(|level| level.name() == name);
        found.ok_or_else(|| "expected none, replay or delta".to_owned())
    }
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
