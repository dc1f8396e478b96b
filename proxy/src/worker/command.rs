//! What the control plane may ask of a worker, and the views it answers with.
//!
//! Commands travel over a bounded channel; each question carries the `oneshot` for its answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::routing::BackendId;

pub enum Command {
    /// The table in the shared slot has changed.
    TableChanged,
    Sessions {
        limit: usize,
        answer: oneshot::Sender<Vec<SessionView>>,
    },
    Links {
        answer: oneshot::Sender<Vec<LinkView>>,
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
    /// Causes in force: "key", "local", "backend".
    pub draining: Vec<String>,
    /// Sessions that a running drain has still to move.
    pub left: u64,
    pub last_error: Option<String>,
}
