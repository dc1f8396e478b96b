//! `/livez`, `/readyz` and the table's age. Ready depends on listeners and a table, never on etcd or a backend.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::state::{AdminState, silent_since};
use super::view::{ReadyView, TableView};
use crate::source::{Origin, Published};

pub(super) fn ready(state: &AdminState) -> ReadyView {
    let published = state.published();
    let stopping = state.stopping.load(Ordering::Acquire);
    let listeners_bound = state.listeners_bound.load(Ordering::Acquire);
    let waiting_for: Vec<String> = [
        (!listeners_bound, "the listeners to be bound"),
        (published.origin == Origin::Nothing, "a first routing table"),
        (stopping, "nothing: the proxy is stopping"),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, what)| what.to_owned())
    .collect();
    ReadyView {
        ready: waiting_for.is_empty(),
        waiting_for,
        stopping,
        listeners_bound,
        backends_known: published.table.backends.len() as u64,
        links_up: state.sum(|counters| &counters.links_up),
        table: table(state, &published),
    }
}

pub(super) fn table(state: &AdminState, published: &Published) -> TableView {
    TableView {
        revision: published.table.revision,
        origin: match published.origin {
            Origin::Nothing => "none",
            Origin::Disk => "disk",
            Origin::Source => "source",
        }
        .to_owned(),
        in_force_s: match published.origin {
            Origin::Nothing => 0,
            Origin::Disk | Origin::Source => seconds_since(published.table.applied_at),
        },
        source: state.source.to_owned(),
        connected: published.connected,
        silent_s: silent_since(published, state.started_at).map_or(0, seconds_since),
        source_error: published.source_error.clone(),
        refused: published.refused.len() as u64,
    }
}

/// 0 if the clock was set back.
pub(super) fn seconds_since(time: SystemTime) -> u64 {
    time.elapsed().unwrap_or_default().as_secs()
}
