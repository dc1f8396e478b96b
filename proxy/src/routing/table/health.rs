//! What a service asks of its backends' health, and orders to eject one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::BackendId;

/// When a backend gets no new sessions, and what becomes of those that it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthPolicy {
    /// None: nobody is checked.
    pub check: Option<CheckPolicy>,
    /// None: nobody is ejected for how it treats its sessions.
    pub outliers: Option<OutlierPolicy>,
    pub when_ejected: WhenEjected,
}

/// What becomes of the live sessions of a backend that is unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenEjected {
    #[default]
    Keep,
    Move,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPolicy {
    pub kind: CheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failed checks in a row.
    pub unhealthy_after: u32,
    /// Passed checks in a row.
    pub healthy_after: u32,
    /// Backends of the service, beside the local one, that this proxy checks.
    pub subset: u32,
}

/// What counts as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A PONG on the backend's link.
    Link,
    /// A connection.
    Tcp { port: Option<u16> },
    /// One of these statuses to a GET.
    Http { port: Option<u16>, path: Arc<str>, expect: Arc<[u16]> },
}

/// Which backends are ejected for how they treat their sessions, for how long, and how many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// Judged over so long.
    pub window: Duration,
    /// Fewer attaches, sessions or frames in the window are no evidence.
    pub min_volume: u64,
    /// Of the sessions that were to attach: refused, or not answered in time.
    pub refused_percent: Option<u32>,
    /// Of its sessions: lost with a crash, given up, or come out differently.
    pub failed_percent: Option<u32>,
    /// The 99th percentile of its service time.
    pub slow: Option<Duration>,
    /// The same, as a multiple of the median of the service's backends.
    pub slow_factor: Option<u32>,
    /// The first ejection; each further one is longer by as much.
    pub base_ejection: Duration,
    /// The longest ejection. Who stays fit for so long begins anew.
    pub max_ejection: Duration,
    /// Of the service's backends.
    pub max_ejected_percent: u32,
}

/// An `ejections/` key in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionOrder {
    pub backend: BackendId,
    pub reason: String,
    /// From then on the key means nothing.
    pub until: Option<SystemTime>,
}
