//! What the servers may look at and whom they may ask. `main` fills it in; nothing here is on the hot path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use super::drains::DrainWriter;
use super::hooks::HookDesk;
use super::writes::TableWriter;
use crate::rollout::{Progresses, State};
use crate::routing::Fitness;
use crate::source::Published;
use crate::source::etcd::RegistrarHandle;
use crate::source::history::History;
use crate::telemetry::counters::{Cell, Counters};
use crate::telemetry::metrics::{ControlView, Metrics};
use crate::worker::command::Command;

/// What `/metrics` shows of the documents' source and of rollouts; who knows the backends' health adds it.
#[must_use]
pub fn control_view(published: &Published, progresses: &Progresses, started_at: SystemTime) -> ControlView {
    let in_state = |state| progresses.values().filter(|progress| progress.state == state).count() as u64;
    ControlView {
        rollouts: State::ALL.map(in_state),
        table_revision: published.table.revision,
        refused_documents: published.refused.len() as u64,
        held_changes: published.held.len() as u64,
        silent_since: silent_since(published, started_at),
        ..ControlView::default()
    }
}

/// None while the source is connected.
pub(super) fn silent_since(published: &Published, started_at: SystemTime) -> Option<SystemTime> {
    (!published.connected).then(|| published.last_contact.unwrap_or(started_at))
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
    /// `etcd` or `files`.
    pub source: &'static str,
    /// What is in force, and how the source is.
    pub published: watch::Receiver<Arc<Published>>,
    /// How far the fleet's rollouts are.
    pub rollouts: watch::Receiver<Arc<Progresses>>,
    /// Who gets no new sessions, and why.
    pub fitness: watch::Receiver<Arc<Fitness>>,
    pub listeners: Vec<ListenerInfo>,
    pub metrics: Metrics,
    pub drains: DrainWriter,
    pub hooks: HookDesk,
    pub tables: TableWriter,
    /// The tables that were in force, on disk.
    pub history: History,
    /// Who holds the key of the backend beside this proxy, if it does.
    pub registration: Option<RegistrarHandle>,
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

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Whom to ask: nobody before there are listeners and a table, since no worker runs until then.
    pub(super) fn running_workers(&self) -> &[mpsc::Sender<Command>] {
        if self.listeners_bound.load(Ordering::Acquire) { &self.workers } else { &[] }
    }

    pub(super) fn sum(&self, cell: impl Fn(&Counters) -> &Cell) -> u64 {
        self.counters.iter().fold(0, |sum, counters| sum.wrapping_add(cell(counters).get()))
    }
}
