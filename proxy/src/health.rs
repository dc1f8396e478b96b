//! Who is fit to get new sessions: active checks, outliers among the backends, and orders from outside, put together
//! into one [`Fitness`](crate::routing::Fitness) that the workers act by.
//!
//! All of it is control plane. Judging is pure and knows no clock; only `prober` opens sockets, only `monitor` talks to
//! workers.

pub mod monitor;
pub mod outliers;
pub mod probe;
pub mod prober;
pub mod streak;
pub mod subset;

use std::sync::Arc;

use tokio::sync::watch;

use crate::routing::Fitness;
use crate::routing::fitness::UnfitCause;
use crate::telemetry::counters::Cell;

pub use monitor::Monitor;

/// What the monitor shows to those who ask.
#[derive(Debug, Clone)]
pub struct Health {
    pub fitness: watch::Receiver<Arc<Fitness>>,
    pub counts: Arc<Counts>,
}

/// Written by the monitor alone.
#[derive(Debug, Default)]
pub struct Counts {
    pub checks_passed: Cell,
    pub checks_failed: Cell,
    /// Of outliers.
    pub ejections: Cell,
}

/// What a scrape shows of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct HealthView {
    /// Backends that are unfit, by cause.
    pub unfit: [u64; UnfitCause::ALL.len()],
    pub checks_passed: u64,
    pub checks_failed: u64,
    pub ejections: u64,
}

impl Health {
    #[must_use]
    pub fn view(&self) -> HealthView {
        let fitness = self.fitness.borrow();
        let of = |cause| fitness.iter().filter(|(_, unfit)| unfit.cause == cause).count() as u64;
        HealthView {
            unfit: UnfitCause::ALL.map(of),
            checks_passed: self.counts.checks_passed.get(),
            checks_failed: self.counts.checks_failed.get(),
            ejections: self.counts.ejections.get(),
        }
    }
}
