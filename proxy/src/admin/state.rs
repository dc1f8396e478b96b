//! What the servers may look at and whom they may ask. `main` fills it in; nothing here is on the hot path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::drains::DrainWriter;
use super::view::RefusedView;
use crate::routing::Table;
use crate::telemetry::counters::{Cell, Counters};
use crate::telemetry::metrics::{ControlView, Metrics};
use crate::worker::command::Command;

/// The routing as the workers have it, with what its source has to say.
#[derive(Debug, Clone)]
pub struct Published {
    pub table: Arc<Table>,
    pub origin: Origin,
    /// `etcd` or `files`.
    pub source: &'static str,
    pub connected: bool,
    /// When the source was last heard; of no interest while it is connected.
    pub last_contact: Option<SystemTime>,
    /// Why it doesn't answer.
    pub source_error: Option<String>,
    pub refused: Vec<RefusedView>,
    pub warnings: Vec<String>,
}

/// Where the table in force was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// No document was ever read: there is no table in force.
    Nothing,
    /// The last good documents on disk; the source has not answered yet.
    Disk,
    Source,
}

impl Published {
    /// What `/metrics` shows of it.
    #[must_use]
    pub fn control_view(&self, started_at: SystemTime) -> ControlView {
        ControlView {
            table_revision: self.table.revision,
            refused_documents: self.refused.len() as u64,
            silent_since: self.silent_since(started_at),
        }
    }

    /// None while the source is connected.
    pub(super) fn silent_since(&self, started_at: SystemTime) -> Option<SystemTime> {
        (!self.connected).then(|| self.last_contact.unwrap_or(started_at))
    }
}

/// A public address as it is bound.
#[derive(Debug, Clone)]
pub struct ListenerInfo {
    pub name: String,
    pub address: SocketAddr,
}

/// Everything the servers need.
pub struct AdminState {
    pub proxy_id: String,
    pub version: &'static str,
    pub started_at: SystemTime,
    /// By worker number.
    pub workers: Vec<mpsc::Sender<Command>>,
    /// By worker number.
    pub counters: Vec<Arc<Counters>>,
    /// What is in force at this moment.
    pub published: Box<dyn Fn() -> Published + Send + Sync>,
    pub listeners: Vec<ListenerInfo>,
    pub metrics: Metrics,
    pub drains: DrainWriter,
    /// Set by `main` once every listener is bound.
    pub listeners_bound: AtomicBool,
    /// Set by `main` when the shutdown begins.
    pub stopping: AtomicBool,
}

impl AdminState {
    pub fn set_listeners_bound(&self) {
        self.listeners_bound.store(true, Ordering::Release);
    }

    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn published(&self) -> Published {
        (self.published)()
    }

    /// Whom to ask: nobody before there are listeners and a table, since no worker runs until then.
    pub(super) fn running_workers(&self) -> &[mpsc::Sender<Command>] {
        if self.listeners_bound.load(Ordering::Acquire) { &self.workers } else { &[] }
    }

    pub(super) fn sum(&self, cell: impl Fn(&Counters) -> &Cell) -> u64 {
        self.counters.iter().fold(0, |sum, counters| sum.wrapping_add(cell(counters).get()))
    }
}
