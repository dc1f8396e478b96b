//! One game under attack: its process, the wire to it, and what it is going through.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::chaos::Recovery;
use crate::chaos::wire::Wire;
use crate::{Arena, ArenaSpec, Stage};

/// A game that is told to end gives up its players first; a proxy may need some tries for that.
const END_WITHIN: Duration = Duration::from_secs(60);

pub struct Backend {
    arena: Arena,
    wire: Wire,
    life: Life,
    frozen_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    /// Told to end; to be started again so long after that.
    Ending {
        since: Instant,
        back_after: Duration,
    },
    Down {
        until: Instant,
    },
}

impl Backend {
    pub fn start(stage: &Stage, name: &str, recovery: Recovery) -> Result<Self> {
        let deltas = (recovery == Recovery::Delta).then_some("--deltas");
        let arena = Arena::start(stage, ArenaSpec::new(name).flags(deltas))?;
        let wire = Wire::start(arena.address().parse().context("the game's address")?)?;
        Ok(Self { arena, wire, life: Life::Up, frozen_until: None })
    }

    pub fn key(&self) -> String {
        self.arena.key()
    }

    pub fn drain_key(&self) -> String {
        self.arena.drain_key()
    }

    /// Names the wire.
    pub fn document(&self) -> Value {
        let mut document = self.arena.document();
        document["address"] = json!(self.wire.address().to_string());
        document
    }

    pub fn log(&mut self) -> String {
        self.arena.process().log()
    }

    /// False if it isn't there to be killed; the same below.
    pub fn kill(&mut self, back_after: Duration) -> Result<bool> {
        if matches!(self.life, Life::Down { .. }) {
            return Ok(false);
        }
        self.wire.set_up(false);
        // It may be ending by itself just now.
        if self.arena.process().is_running() {
            self.arena.process().kill()?;
        }
        self.frozen_until = None;
        self.life = Life::Down { until: Instant::now() + back_after };
        Ok(true)
    }

    pub fn freeze(&mut self, lasts: Duration) -> Result<bool> {
        if matches!(self.life, Life::Down { .. }) || !self.arena.process().is_running() {
            return Ok(false);
        }
        self.arena.process().freeze()?;
        self.frozen_until = Some(Instant::now() + lasts);
        Ok(true)
    }

    pub fn restart(&mut self, back_after: Duration) -> Result<bool> {
        if self.life != Life::Up {
            return Ok(false);
        }
        self.arena.process().terminate()?;
        self.life = Life::Ending { since: Instant::now(), back_after };
        Ok(true)
    }

    pub fn cut(&mut self, pick: Option<u64>) -> Result<bool> {
        Ok(self.wire.cut(pick)? > 0)
    }

    /// Ends what is over.
    pub fn go_on(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.arena.process().thaw()?;
            self.frozen_until = None;
        }
        match self.life {
            Life::Up => self.is_up(),
            Life::Ending { since, back_after } => self.end(since, back_after),
            Life::Down { until } if until <= now => {
                self.arena.start_again()?;
                self.wire.set_up(true);
                self.life = Life::Up;
                Ok(())
            }
            Life::Down { .. } => Ok(()),
        }
    }

    fn is_up(&mut self) -> Result<()> {
        let runs = self.arena.process().is_running();
        runs.then_some(()).with_context(|| format!("arena {} has ended by itself", self.arena.name()))
    }

    fn end(&mut self, since: Instant, back_after: Duration) -> Result<()> {
        if self.arena.process().is_running() {
            let patient = since.elapsed() < END_WITHIN || self.frozen_until.is_some();
            return patient
                .then_some(())
                .with_context(|| format!("arena {} doesn't end at SIGTERM", self.arena.name()));
        }
        self.wire.set_up(false);
        let status = self.arena.process().wait(END_WITHIN)?;
        anyhow::ensure!(status.success(), "arena {} ended at SIGTERM with {status}", self.arena.name());
        self.life = Life::Down { until: Instant::now() + back_after };
        Ok(())
    }

    /// Whether no fault is left on it.
    pub fn is_well(&self) -> bool {
        self.life == Life::Up && self.frozen_until.is_none()
    }
}
