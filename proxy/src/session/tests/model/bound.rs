//! How far a run goes: how often what may happen, and how the world is set up.

use std::sync::Arc;

use crate::routing::Service;
use crate::session::Timer;
use crate::session::planted::Bug;

/// How often what may still happen: the bound of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    pub frames: u8,
    /// Drains, of either backend; each is lifted some time.
    pub drains: u8,
    /// What those drains may do with a session that nobody takes.
    pub park: bool,
    pub cuts: u8,
    /// A process is killed; another one takes its place some time.
    pub kills: u8,
    /// A link is away for too long, or a backend silent: the proxy gives the process up, though it lives.
    pub silences: u8,
    /// Timers that go off though nothing is stuck.
    pub early: u8,
    pub refusals: u8,
    pub refusals_for_good: u8,
    /// The client ends its stream, and still listens.
    pub halves: u8,
    pub departures: u8,
    /// The game ends the session.
    pub closes: u8,
    /// The game speaks unasked.
    pub ticks: u8,
    pub parks_end: u8,
    /// Checkpoints that fall due.
    pub checkpoints: u8,
}

/// What doesn't change in a run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub service: Arc<Service>,
    pub budget: Budget,
    /// Backends take their time: frames wait in them.
    pub slow: bool,
    /// They take one client frame at a time.
    pub narrow: bool,
    /// State goes out in chunks, each of which may be overtaken by what else happens.
    pub chunks: bool,
    /// The client takes its time to read.
    pub slow_client: bool,
    pub bug: Option<Bug>,
}

impl Budget {
    pub fn of(&mut self, timer: Timer) -> &mut u8 {
        match timer {
            Timer::Park => &mut self.parks_end,
            Timer::Checkpoint => &mut self.checkpoints,
            Timer::Answer | Timer::Home | Timer::Close => &mut self.early,
        }
    }
}

impl Setup {
    pub fn state_credit_bytes(&self) -> u64 {
        if self.chunks { 4 } else { u64::MAX }
    }
}

pub fn spend(budget: &mut u8) {
    *budget -= 1;
}
