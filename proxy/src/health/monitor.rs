//! The task that knows who is fit: hears of checks and tables, looks at the workers' tallies, and tells the workers and
//! the log what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::outliers::{Account, Detector};
use super::prober::Prober;
use super::subset::{Local, targets};
use super::{Counts, Health};
use crate::routing::fitness::{Unfit, UnfitCause};
use crate::routing::{BackendId, Fitness, Table};
use crate::source::{Published, Source};
use crate::worker::command::{BackendTally, Command};

/// So often tallies are looked at, and orders whose time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

pub struct Monitor {
    proxy_id: String,
    local: Local,
    published: watch::Receiver<Arc<Published>>,
    workers: Vec<mpsc::Sender<Command>>,
    prober: Prober,
    detector: Detector,
    fitness: watch::Sender<Arc<Fitness>>,
    counts: Arc<Counts>,
    /// A worker had no room for the news.
    untold: bool,
}

impl Monitor {
    #[must_use]
    pub fn new(
        proxy_id: &str,
        local: Local,
        source: &Source,
        workers: Vec<mpsc::Sender<Command>>,
    ) -> (Self, Health) {
        let (sender, fitness) = watch::channel(Arc::default());
        let counts = Arc::<Counts>::default();
        let monitor = Self {
            proxy_id: proxy_id.to_owned(),
            local,
            published: source.published.clone(),
            prober: Prober::new(workers.first().expect("a proxy has a worker").clone()),
            workers,
            detector: Detector::default(),
            fitness: sender,
            counts: Arc::clone(&counts),
            untold: false,
        };
        (monitor, Health { fitness, counts })
    }

    /// Until `shutdown`; begins when the workers run.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut table = self.table();
        self.prober.set_targets(targets(&table, &self.proxy_id, &self.local));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.published.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    table = self.table();
                    self.prober.set_targets(targets(&table, &self.proxy_id, &self.local));
                }
                checked = self.prober.next() => {
                    let count = match &checked.result {
                        Ok(()) => &self.counts.checks_passed,
                        Err(_) => &self.counts.checks_failed,
                    };
                    count.add(1);
                    if !self.prober.judge(checked) {
                        continue;
                    }
                }
                _ = look.tick() => self.look(&table).await,
            }
            self.settle(&table);
        }
    }

    fn table(&mut self) -> Arc<Table> {
        Arc::clone(&self.published.borrow_and_update().table)
    }

    async fn look(&mut self, table: &Table) {
        let accounts = match table.services.values().any(|service| service.health.outliers.is_some()) {
            true => ask(&self.workers).await.unwrap_or_default(),
            false => BTreeMap::new(),
        };
        let fitness = self.fitness.borrow().clone();
        let others = |id: &BackendId| fitness.of(id).iter().any(|unfit| unfit.cause != UnfitCause::Outlier);
        let ejections = self.detector.look(table, &accounts, &others, Instant::now());
        self.counts.ejections.add(ejections.len() as u64);
    }

    /// Puts together who is unfit by now, and tells it where it is news.
    fn settle(&mut self, table: &Table) {
        let before = self.fitness.borrow().clone();
        let fitness = self.together(table, &before, SystemTime::now());
        if fitness != *before {
            log(&before, &fitness);
            self.fitness.send_replace(Arc::new(fitness));
            self.untold = true;
        }
        if self.untold {
            self.untold = !self.tell();
        }
    }

    fn together(&self, table: &Table, before: &Fitness, now: SystemTime) -> Fitness {
        let mut fitness = Fitness::default();
        let mut add = |id: &BackendId, cause, reason: String, until: Option<SystemTime>| {
            // What was known keeps its times.
            let known = before.of(id).iter().find(|unfit| unfit.cause == cause);
            let since = known.map_or(now, |known| known.since);
            fitness.add(id, Unfit { cause, reason, since, until });
        };
        for (id, reason) in self.prober.unhealthy() {
            add(id, UnfitCause::Check, reason.to_owned(), None);
        }
        for (id, ejected) in self.detector.ejected() {
            let same = |unfit: &&Unfit| unfit.cause == UnfitCause::Outlier && unfit.reason == ejected.reason;
            let until = before.of(id).iter().find(same).and_then(|unfit| unfit.until).filter(|at| *at > now);
            let left = ejected.until.saturating_duration_since(Instant::now());
            add(id, UnfitCause::Outlier, ejected.reason.clone(), until.or(Some(now + left)));
        }
        for (id, order) in &table.ejections {
            if table.backends.contains_key(id) && order.until.is_none_or(|until| until > now) {
                add(id, UnfitCause::Order, order.reason.clone(), order.until);
            }
        }
        fitness
    }

    /// `false`: a worker has no room now; the next look tries again.
    fn tell(&self) -> bool {
        let fitness = self.fitness.borrow().clone();
        let tell = |worker: &mpsc::Sender<Command>| {
            let sent = worker.try_send(Command::Fitness(Arc::clone(&fitness)));
            !matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
        };
        // Every one of them, also after one that had no room.
        self.workers.iter().filter(|worker| !tell(worker)).count() == 0
    }
}

/// Cause by cause.
fn log(before: &Fitness, now: &Fitness) {
    for (backend, Unfit { cause, reason, until, .. }) in now.beyond(before) {
        let (cause, until) = (cause.name(), until.map(crate::routing::document::ejection::written));
        tracing::warn!(%backend, cause, reason, until, "unfit: gets no new sessions while others can take them");
    }
    for (backend, Unfit { cause, since, .. }) in before.beyond(now) {
        let (cause, fit) = (cause.name(), now.is_fit(backend));
        let for_s = since.elapsed().unwrap_or_default().as_secs();
        tracing::info!(%backend, cause, for_s, fit, "no longer unfit for this cause");
    }
}

/// What all workers together have counted; none if one doesn't answer in time.
async fn ask(workers: &[mpsc::Sender<Command>]) -> Option<BTreeMap<BackendId, Account>> {
    let mut pending = Vec::with_capacity(workers.len());
    for worker in workers {
        let (answer, receiver) = oneshot::channel();
        worker.try_send(Command::Tallies { answer }).ok()?;
        pending.push(receiver);
    }
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    let mut accounts: BTreeMap<BackendId, Account> = BTreeMap::new();
    for receiver in pending {
        let tallies = tokio::time::timeout_at(deadline, receiver).await.ok()?.ok()?;
        for BackendTally { backend, sessions, tally, .. } in tallies {
            let account = accounts.entry(backend.id.clone()).or_default();
            account.sessions += sessions;
            super::outliers::add(&mut account.tally, &tally);
        }
    }
    Some(accounts)
}
