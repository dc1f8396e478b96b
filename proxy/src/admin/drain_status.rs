//! Whether a drained backend is empty: by this proxy's own sessions, by what the other proxies say in their status
//! keys, and by the backend's own count.

use std::sync::Arc;

use super::ask::ask;
use super::drains::{DrainWriter, OrderError, in_time, parse_backend};
use super::inspect;
use super::state::AdminState;
use super::view::{BackendView, DrainState, DrainStatusView, ProxyDrainView};
use crate::drain::progress::State;
use crate::worker::command::{Command, DrainRow, DrainRows};

use super::drains::ProxyDrains;

/// `GET /drain`, as asked.
#[derive(Debug)]
pub(super) struct DrainQuery {
    pub(super) backend: String,
    /// From which on the key stands; absent for an order of this proxy's own.
    pub(super) revision: Option<u64>,
}

/// All that is known of one backend's drain.
#[derive(Debug)]
struct Known {
    backend: String,
    revision: Option<u64>,
    /// The order still stands here, or isn't here yet.
    ordered: bool,
    workers: Vec<DrainRows>,
    view: Option<BackendView>,
    /// Of the other proxies.
    proxies: Vec<ProxyDrains>,
}

pub(super) async fn of(state: &AdminState, asked: &DrainQuery) -> Result<DrainStatusView, OrderError> {
    let id = parse_backend(&asked.backend)?;
    let workers = ask(state.running_workers(), |answer| Command::Drains { answer }).await?;
    let views = inspect::backends(state).await?.backends;
    let view = views.into_iter().find(|view| view.backend == asked.backend);
    let proxies = match (&state.drains, asked.revision) {
        (DrainWriter::Store(store), Some(_)) => in_time(store.proxies()).await?,
        _ => Vec::new(),
    };
    let table = Arc::clone(&state.published().table);
    let known = Known {
        backend: asked.backend.clone(),
        revision: asked.revision,
        ordered: asked.revision.is_some_and(|at| table.revision < at || table.drains.contains_key(&id)),
        workers,
        view,
        proxies: proxies.into_iter().filter(|proxy| proxy.proxy != state.proxy_id).collect(),
    };
    if known.is_count_missing()
        && let Some(worker) = state.running_workers().first()
    {
        // A worker too busy to take it is asked again with the next look.
        let _ = worker.try_send(Command::AskCount { backend: id });
    }
    Ok(known.judge())
}

impl Known {
    /// The backend could be asked, and hasn't answered.
    fn is_count_missing(&self) -> bool {
        let reachable = self.view.as_ref().is_some_and(|view| {
            !view.is_down() && (view.in_table || view.links.iter().any(|link| link.link != "idle"))
        });
        reachable && self.attachments().is_none()
    }

    fn attachments(&self) -> Option<u64> {
        self.view.as_ref()?.attachments
    }

    fn own_rows(&self) -> impl Iterator<Item = &DrainRow> {
        self.workers.iter().flat_map(|worker| &worker.rows).filter(|row| row.backend == self.backend)
    }

    fn applied_here(&self) -> bool {
        match self.revision {
            None => true,
            Some(revision) => {
                !self.workers.is_empty() && self.workers.iter().all(|worker| worker.revision >= revision)
            }
        }
    }

    fn others(&self) -> Vec<ProxyDrainView> {
        let wanted = self.revision.unwrap_or(0);
        let view = |proxy: &ProxyDrains| {
            let row = proxy.rows.iter().find(|row| row.backend == self.backend);
            ProxyDrainView {
                proxy: proxy.proxy.clone(),
                // Of a backend that isn't listed nothing is known but that it is one of the emptiest.
                applied: proxy.applied >= wanted && (row.is_some() || proxy.unlisted == 0),
                sessions: row.map_or(0, |row| row.sessions),
                in_flight: row.map_or(0, |row| row.in_flight),
            }
        };
        self.proxies.iter().map(view).collect()
    }

    fn judge(&self) -> DrainStatusView {
        let proxies = self.others();
        let sessions = self.view.as_ref().map_or(0, |view| view.sessions);
        let in_flight = self.own_rows().map(|row| row.in_flight).sum();
        let drain = self.view.as_ref().and_then(|view| view.drain.clone());
        let left = sessions + proxies.iter().map(|proxy| proxy.sessions).sum::<u64>();
        let moving = in_flight + proxies.iter().map(|proxy| proxy.in_flight).sum::<u64>();
        let late = (!self.applied_here()).then_some("this proxy");
        let late = late.or(proxies.iter().find(|proxy| !proxy.applied).map(|proxy| proxy.proxy.as_str()));
        let unknown_here = self.view.as_ref().is_none_or(|view| !view.in_table && view.links.is_empty());
        let is_drained = self.ordered || self.own_rows().next().is_some() || unknown_here;
        let stuck = left > 0 && moving == 0 && self.is_stuck(drain.as_ref().map(|drain| drain.state));
        let (state, waits_for) = if !is_drained {
            (DrainState::Lifted, None)
        } else if let Some(proxy) = late {
            (DrainState::Ordered, Some(format!("{proxy} to act on the order")))
        } else if stuck {
            (DrainState::Stuck, Some("another backend that can take its sessions".to_owned()))
        } else if left > 0 || moving > 0 {
            let waits_for = drain.as_ref().and_then(|drain| drain.waits_for.clone());
            (DrainState::Draining, waits_for)
        } else {
            match self.attachments() {
                Some(0) => (DrainState::Empty, None),
                Some(count) => (DrainState::Draining, Some(foreign(count))),
                None if self.is_count_missing() => {
                    (DrainState::Draining, Some("the backend's own count".to_owned()))
                }
                None => (DrainState::Empty, None),
            }
        };
        let (backend, attachments) = (self.backend.clone(), self.attachments());
        DrainStatusView { backend, state, left, sessions, in_flight, drain, proxies, attachments, waits_for }
    }

    /// Nobody can take what is left, on this proxy or on another.
    fn is_stuck(&self, here: Option<State>) -> bool {
        let elsewhere = self.proxies.iter().flat_map(|proxy| &proxy.rows);
        here == Some(State::Stuck)
            || elsewhere.filter(|row| row.backend == self.backend).any(|row| row.stuck && row.sessions > 0)
    }
}

/// What the backend counts beyond those that proxies told of.
fn foreign(count: u64) -> String {
    format!("the backend to let go of {count} (by its own count: of proxies that don't tell, or just moved)")
}

#[cfg(test)]
mod tests;
