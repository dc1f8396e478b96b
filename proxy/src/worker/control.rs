//! The worker's life: listens, obeys the control plane, and ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use super::accept::{self, Listener};
use super::command::Command;
use super::groups::traveller::{self, Traveller};
use super::link::LinkState;
use super::tally::Tally;
use super::{Worker, clock, with_worker};
use crate::rollout::stages;
use crate::routing::BackendId;
use crate::session::LinkId;
use crate::telemetry::counters::{CloseReason, MirrorEnd};

/// How often a stopping worker looks whether its sessions are gone.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// The order to end.
#[derive(Debug, Clone, Copy)]
pub struct Stopping {
    /// When live sessions are ended.
    deadline: Instant,
    /// When their games are no longer waited for.
    last: Instant,
    told: bool,
}

impl Stopping {
    /// The clients have been dismissed: who comes now is too late.
    pub fn has_told(self) -> bool {
        self.told
    }
}

/// Runs until told to shut down and done, or until the control plane is gone.
pub async fn serve(
    listeners: Vec<Listener>,
    mut commands: mpsc::Receiver<Command>,
    arrivals: mpsc::UnboundedReceiver<Traveller>,
    clock_moved: Arc<Notify>,
) {
    let stop_accepting = CancellationToken::new();
    for listener in listeners {
        tokio::spawn(accept::run(listener, stop_accepting.clone()));
    }
    tokio::spawn(unconstrained(clock::run(clock_moved)));
    tokio::spawn(traveller::receive(arrivals));
    with_worker(Worker::table_changed);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Shutdown { deadline } => {
                stop_accepting.cancel();
                with_worker(|worker| worker.begin_stop(deadline));
                break;
            }
            command => with_worker(|worker| worker.obey(command)),
        }
    }
    stop_accepting.cancel();
    with_worker(|worker| worker.begin_stop(Duration::ZERO));
    loop {
        if with_worker(|worker| worker.is_stopped()) {
            break;
        }
        match tokio::time::timeout(STOP_LOOK, commands.recv()).await {
            Ok(Some(Command::Shutdown { deadline })) => with_worker(|worker| worker.hasten_stop(deadline)),
            Ok(Some(command)) => with_worker(|worker| worker.obey(command)),
            Ok(None) => tokio::time::sleep(STOP_LOOK).await,
            Err(_) => {}
        }
    }
    with_worker(Worker::flush);
}

/// Whoever asked may have given up meanwhile: then nobody misses the answer.
fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    let _ = answer.send(value);
}

impl Worker {
    fn obey(&mut self, command: Command) {
        match command {
            Command::TableChanged => self.table_changed(),
            Command::Fitness(fitness) => self.fitness_changed(fitness),
            Command::Sessions { limit, answer } => reply(answer, self.session_views(limit)),
            Command::Links { answer } => reply(answer, self.link_views()),
            Command::Drains { answer } => reply(answer, self.drain_rows()),
            Command::Tallies { answer } => reply(answer, self.tallies()),
            Command::Acquaint { backends } => self.acquaint(&backends),
            Command::AskCount { backend } => self.ask_count(&backend),
            Command::CheckLink { backend, answer } => self.check_link(&backend, answer),
            Command::Drain { backend, deadline, reason, answer } => {
                reply(answer, self.drain_here(&backend, deadline, reason));
            }
            Command::Undrain { backend, answer } => reply(answer, self.undrain_here(&backend)),
            Command::Shutdown { .. } => {}
        }
    }

    /// The shared slot holds a new table.
    fn table_changed(&mut self) {
        let table = self.hub.config.table.load_full();
        let is_first = self.hub.table.revision == 0;
        let is_new = table.revision != self.hub.table.revision;
        self.hub.table = Arc::clone(&table);
        self.hub.stages = stages(&table, &self.hub.config.rollouts.load());
        if let Some(backend) = self.hub.local_backend() {
            let id = self.hub.link_for(&backend);
            self.hub.demand(id);
        }
        for id in self.hub.link_ids() {
            let now = self.hub.now;
            let link = self.hub.link_mut(id);
            if let Some(backend) = table.backends.get(&link.backend.id) {
                if link.backend.version != backend.version {
                    link.tally = Tally::default();
                }
                link.backend = Arc::clone(backend);
                // It may have come back with this change, or moved.
                if link.state == LinkState::Dead {
                    link.demand.notify_one();
                }
            }
            let order = table.drains.get(&link.backend.id);
            link.causes.key = match (order, link.causes.key.take()) {
                (Some(order), Some((known, seen))) if *order == known => Some((known, seen)),
                (Some(order), _) => Some((Arc::clone(order), now)),
                (None, _) => None,
            };
            self.review_rollout(id);
            self.hub.mark_unfit(id);
        }
        // Only now is it known who drains: nobody moves to a backend that the same change drains as well.
        for id in self.hub.link_ids() {
            self.review_drain(id);
            self.review_frames(id);
        }
        self.review_mirrors();
        self.sessions_may_return();
        self.bring_back();
        self.rebalance_soon();
        if is_new && !is_first {
            self.hub.counters.table_applied(table.applied_at.elapsed().unwrap_or_default());
        }
    }

    /// Whether that backend's players are to go back to an older version.
    fn review_rollout(&mut self, id: LinkId) {
        let backend = Arc::clone(&self.hub.link(id).backend);
        let stage = self.hub.stages.get(&*backend.id.service).filter(|stage| stage.to == backend.version);
        let back = stage.and_then(|stage| Some((stage.back.clone()?, stage.from.clone())));
        self.hub.link_mut(id).causes.rollout = back.map(|(reason, from)| format!("back to {from}: {reason}"));
    }

    /// Links to these come up, so that it is known what they read and write.
    fn acquaint(&mut self, backends: &[BackendId]) {
        for backend in backends {
            if let Some(id) = self.listed_link(backend) {
                self.hub.call_ahead(id);
            }
        }
    }

    pub(super) fn listed_link(&mut self, backend: &BackendId) -> Option<LinkId> {
        if let Some(id) = self.hub.link_of.get(backend) {
            return Some(*id);
        }
        let table = Arc::clone(&self.hub.table);
        table.backends.get(backend).map(|backend| self.hub.link_for(backend))
    }

    /// `false`: no such backend here.
    fn drain_here(&mut self, backend: &BackendId, deadline: Option<Duration>, reason: String) -> bool {
        let Some(id) = self.listed_link(backend) else { return false };
        let default = self.hub.table.services.get(&*backend.service).map(|service| service.drain.deadline);
        let deadline = deadline.or(default).unwrap_or(Duration::from_secs(60));
        self.hub.link_mut(id).causes.local = Some((self.hub.now + deadline, reason));
        self.review_drain(id);
        true
    }

    fn undrain_here(&mut self, backend: &BackendId) -> bool {
        let Some(id) = self.listed_link(backend) else { return false };
        let lifted = self.hub.link_mut(id).causes.local.take().is_some();
        self.review_drain(id);
        lifted
    }

    fn begin_stop(&mut self, deadline: Duration) {
        if self.stopping.is_none() {
            let deadline = self.hub.now + deadline;
            self.stopping =
                Some(Stopping { deadline, last: deadline + self.hub.config.close_deadline, told: false });
            let mirrors = self.hub.mirrors.len();
            tracing::info!(sessions = self.slots.len() - mirrors, mirrors, "worker stops");
            self.end_mirrors(MirrorEnd::Shutdown);
            self.look_at_stop();
        }
    }

    fn hasten_stop(&mut self, deadline: Duration) {
        let hastened = self.hub.now + deadline;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(hastened);
            stopping.last = stopping.last.min(hastened + self.hub.config.close_deadline);
        }
        self.look_at_stop();
    }

    /// At the deadline every client is dismissed, and its game is told so that it can save.
    pub(super) fn look_at_stop(&mut self) {
        let now = self.hub.now;
        let Some(stopping) = &mut self.stopping else { return };
        if now >= stopping.deadline && !stopping.told {
            stopping.told = true;
            let keys: Vec<_> = self.slots.keys().collect();
            for key in keys {
                self.dismiss_client(key, CloseReason::Shutdown);
            }
        } else if now >= stopping.last {
            let keys: Vec<_> = self.slots.keys().collect();
            for key in keys {
                self.drive(key, |session, fx| session.end(CloseReason::Shutdown, fx));
            }
        }
    }

    fn is_stopped(&mut self) -> bool {
        self.look_at_stop();
        // Sockets that other workers serve live on this one's reactor.
        self.slots.is_empty() && Arc::strong_count(&self.lent) == 1
    }
}
