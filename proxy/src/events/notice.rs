//! What workers notice: a word to the control plane, and never a wait.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Stats, add};
use crate::routing::BackendId;
use crate::telemetry::counters::Breaker;

/// That may wait for the control plane.
const MAX_WAITING: usize = 256;

/// One worker's word of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub worker: u16,
    pub backend: BackendId,
    pub what: Noticed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    DrainBegan {
        causes: String,
        reason: String,
    },
    /// Nobody is left.
    Drained {
        moved: u64,
        parked: u64,
        ended: u64,
    },
    DrainOverdue {
        left: u64,
    },
    /// It was lifted, or the backend is gone.
    DrainEnded {
        left: u64,
    },
    /// Its process is gone, and these were on it.
    Crashed {
        sessions: u64,
    },
    Tripped {
        breaker: Breaker,
    },
}

/// Where workers tell; the default tells nobody.
#[derive(Debug, Clone, Default)]
pub struct Notices(Option<(mpsc::Sender<Notice>, Arc<Stats>)>);

impl Notices {
    pub(super) fn new(stats: &Arc<Stats>) -> (Self, Option<mpsc::Receiver<Notice>>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(Some((sender, Arc::clone(stats)))), Some(receiver))
    }

    /// `what` is only made if somebody wants to know.
    pub fn tell(&self, worker: u16, backend: &BackendId, what: impl FnOnce() -> Noticed) {
        let Some((sender, stats)) = &self.0 else { return };
        let notice = Notice { worker, backend: backend.clone(), what: what() };
        if sender.try_send(notice).is_err() {
            add(&stats.dropped, 1);
        }
    }
}
