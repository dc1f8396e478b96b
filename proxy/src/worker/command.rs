//! What the control plane may ask of a worker, and the views it answers with.
//!
//! Commands travel over a bounded channel; each question carries the `oneshot` for its answer.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::InstanceId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::tally::Tally;
use crate::drain::progress::State;
use crate::routing::{Backend, BackendId, Fitness};

pub enum Command {
    /// The table in the shared slot has changed.
    TableChanged,
    /// Who is unfit from here on.
    Fitness(Arc<Fitness>),
    Sessions {
        limit: usize,
        answer: oneshot::Sender<Vec<SessionView>>,
    },
    Links {
        answer: oneshot::Sender<Vec<LinkView>>,
    },
    /// How far the drains are.
    Drains {
        answer: oneshot::Sender<DrainRows>,
    },
    /// How each backend has treated its sessions.
    Tallies {
        answer: oneshot::Sender<Vec<BackendTally>>,
    },
    /// Somebody wants to know what these backends read and write: `Tallies` tells when their links have come up.
    Acquaint {
        backends: Vec<BackendId>,
    },
    /// Ask the backend how many attachments it has; the answer shows in `Links`.
    AskCount {
        backend: BackendId,
    },
    /// Answered when the backend has answered a PING; the link is called for it if there is none.
    CheckLink {
        backend: BackendId,
        answer: oneshot::Sender<()>,
    },
    /// Drain through this proxy alone, until `Undrain`.
    Drain {
        backend: BackendId,
        deadline: Option<Duration>,
        reason: String,
        answer: oneshot::Sender<bool>,
    },
    /// Lifts what `Drain` ordered.
    Undrain {
        backend: BackendId,
        answer: oneshot::Sender<bool>,
    },
    /// Accept no more; live sessions go on until `deadline`, then end; the worker then stops.
    Shutdown {
        deadline: Duration,
    },
}

/// One session, as `/sessions` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionView {
    /// 32 hexadecimal digits.
    pub id: String,
    pub worker: u16,
    pub service: String,
    pub route: String,
    pub client: String,
    /// `service/name`; absent while parked.
    pub backend: Option<String>,
    /// The group that it is in: backend and phase are then the group's.
    #[serde(default)]
    pub group: Option<String>,
    /// The session whose client's frames it is given, too: it is no player's, and not counted as one.
    #[serde(default)]
    pub mirror_of: Option<String>,
    /// attaching, active, freezing, moving, thawing, parked, resuming, closing
    pub phase: String,
    pub epoch: u64,
    pub client_seq: u64,
    pub server_seq: u64,
    /// Client bytes kept: unacknowledged and queued.
    pub kept_bytes: u64,
    pub state_bytes: u64,
    pub age_s: u64,
}

/// One worker's link to one backend, as `/backends` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkView {
    pub worker: u16,
    pub backend: String,
    /// down, connecting, up
    pub link: String,
    /// The backend's instance as 32 hexadecimal digits, when the link has been up.
    pub instance: Option<String>,
    pub backend_version: Option<String>,
    pub sessions: u64,
    /// Causes in force: "key", "local", "backend", "unfit".
    pub draining: Vec<String>,
    /// Sessions that a running drain has still to move.
    pub left: u64,
    pub last_error: Option<String>,
    /// The drain that runs.
    #[serde(default)]
    pub drain: Option<DrainProgress>,
    /// The backend's attachments over all links of all proxies, as it said last; absent while it isn't known.
    #[serde(default)]
    pub attachments: Option<u64>,
    /// Sessions that it is to have at most, as the backend itself says while its link is up; its document's word wins.
    #[serde(default)]
    pub capacity_told: Option<u64>,
    /// Its load in thousandths, as it says itself; from 1000 on it is overloaded.
    #[serde(default)]
    pub load_permille: Option<u16>,
    /// The bound that it has reached on this worker, so that it takes no more: "capacity", "load" (it still takes
    /// sessions if all are at it), or one of its service's `breakers`.
    #[serde(default)]
    pub at_bound: Option<String>,
    /// In its slow start: how much of its weight counts by now.
    #[serde(default)]
    pub slow_start_percent: Option<u64>,
}

/// One worker's account of one backend.
#[derive(Debug, Clone)]
pub struct BackendTally {
    pub backend: Arc<Backend>,
    pub sessions: u64,
    pub tally: Tally,
    /// What it said of itself when its link came up last.
    pub spoken: Option<Spoken>,
}

/// What a backend reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    pub instance: InstanceId,
    pub writes_format: String,
    pub reads_formats: Vec<String>,
}

/// How far a drain is, on one worker or on all of a proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// moving; waiting: tried again in a moment; stuck: nobody can take what is left; deadline: its time is over, what
    /// is left stays; drained.
    pub state: State,
    pub reason: String,
    /// Sessions on the backend, those included that are being frozen.
    pub left: u64,
    /// Moves that have begun and not ended.
    pub in_flight: u64,
    pub moved: u64,
    /// Sessions that wait in the proxy (the backend's own drain).
    pub parked: u64,
    /// Sessions that ended on the way: the player left, or the game closed them.
    pub ended: u64,
    /// Moves that failed: the session went on where it was, and is tried again.
    pub thawed: u64,
    /// Of those left, found to have no other backend that can take them.
    pub homeless: u64,
    /// In words, what it waits for.
    pub waits_for: Option<String>,
    pub running_ms: u64,
    /// Until the deadline.
    pub remaining_ms: u64,
}

/// A worker's draining backends, and the revision of the table by which it acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainRows {
    pub revision: u64,
    pub rows: Vec<DrainRow>,
}

/// Sessions that have still to leave a draining backend. Stands in the proxy's status key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainRow {
    /// `service/name`
    pub backend: String,
    /// Of this proxy, that have still to leave.
    pub sessions: u64,
    /// Moves that have begun and not ended.
    #[serde(default)]
    pub in_flight: u64,
    /// No other backend can take what is left.
    #[serde(default)]
    pub stuck: bool,
}
