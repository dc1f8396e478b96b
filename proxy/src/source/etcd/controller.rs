//! The rollouts' controller: one of the proxies, elected through etcd. Any other can take over in the middle of a step,
//! as all that it knows, but for the counts of the current window, stands in the rollouts' status keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::EtcdError;
use super::fleet::FleetReader;
use super::rollouts::Office;
use super::status::StatusDocument;
use crate::rollout::advance::{Now, advance};
use crate::rollout::judge::{Formats, Judge, Report, formats};
use crate::rollout::{Progress, Progresses, State};
use crate::routing::{BackendId, Rollout, Table};
use crate::source::published::{Origin, Published};
use crate::worker::command::Command;

const PERIOD: Duration = Duration::from_secs(1);
/// Backends of one version that are asked at once what they read and write.
const ACQUAINTANCES: usize = 3;

pub struct Controller {
    office: Office,
    fleet: FleetReader,
    published: watch::Receiver<Arc<Published>>,
    workers: Vec<mpsc::Sender<Command>>,
    /// While in office.
    known: Option<BTreeMap<String, Progress>>,
    judges: HashMap<String, Judge>,
}

impl Controller {
    pub fn new(
        office: Office,
        published: watch::Receiver<Arc<Published>>,
        workers: Vec<mpsc::Sender<Command>>,
    ) -> Self {
        let fleet = FleetReader::new(office.config());
        Self { office, fleet, published, workers, known: None, judges: HashMap::new() }
    }

    /// Runs for the office, and the rollouts while it holds it, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pace = interval(PERIOD);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                // An order is obeyed at once.
                changed = self.published.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            let published = self.published.borrow_and_update().clone();
            let is_current = published.connected && published.origin == Origin::Source;
            // With nothing to control, nobody needs to be the controller.
            let idle =
                published.table.rollouts.is_empty() && self.known.as_ref().is_none_or(BTreeMap::is_empty);
            if !is_current || idle {
                continue;
            }
            let turn = tokio::select! {
                turn = self.turn(&published) => turn,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = turn {
                debug!(%error, "rollouts stand still for a moment");
                self.leave();
            }
        }
    }

    /// What is known may be another's to change from here on.
    fn leave(&mut self) {
        self.known = None;
        self.judges.clear();
    }

    async fn turn(&mut self, published: &Published) -> Result<(), EtcdError> {
        if !self.office.hold().await? {
            self.leave();
            return Ok(());
        }
        if self.known.is_none() {
            self.known = Some(owned(&self.office.read().await?));
        }
        let statuses = self.fleet.read().await?;
        let reports: Vec<_> = statuses.iter().map(report).collect();
        for plan in published.table.rollouts.values() {
            let key = format!("rollouts/{}", plan.service);
            let revision = published.documents.get(&*key).map_or(0, |good| good.revision);
            self.conduct(plan, revision, &reports, &published.table).await?;
        }
        self.forget(&published.table).await
    }

    async fn conduct(
        &mut self,
        plan: &Rollout,
        revision: u64,
        reports: &[Report<'_>],
        table: &Table,
    ) -> Result<(), EtcdError> {
        let ms = now_ms();
        let known = self.known.get_or_insert_default();
        let before = known.get(&*plan.service).filter(|progress| progress.is_of(plan)).cloned();
        if before.is_none() {
            self.judges.remove(&*plan.service);
        }
        let mut progress = before.clone().unwrap_or_else(|| Progress::begin(plan, ms));
        let judge = self.judges.entry(plan.service.to_string()).or_default();
        let seen = judge.look(plan, reports, ms);
        let formats = formats(plan, reports);
        advance(&mut progress, plan, &Now { ms, seen, formats: &formats, revision });
        self.office.proxy().clone_into(&mut progress.controller);
        if let (State::Checking, Formats::Unknown { version }) = (progress.state, &formats) {
            self.ask(table, plan, version);
        }
        if before.as_ref() != Some(&progress) {
            self.office.write(&progress).await?;
            tell(before.as_ref(), &progress);
            self.known.get_or_insert_default().insert(plan.service.to_string(), progress);
        }
        Ok(())
    }

    /// Progress of rollouts whose documents are gone.
    async fn forget(&mut self, table: &Table) -> Result<(), EtcdError> {
        let known = self.known.iter().flat_map(BTreeMap::keys);
        let over: Vec<_> = known.filter(|service| !table.rollouts.contains_key(*service)).cloned().collect();
        for service in over {
            self.office.delete(&service).await?;
            info!(service, "the rollout's document is gone: so is the rollout");
            self.judges.remove(&service);
            if let Some(known) = &mut self.known {
                known.remove(&service);
            }
        }
        Ok(())
    }

    /// Some servers of that version are called, so that they say what they read and write.
    fn ask(&self, table: &Table, plan: &Rollout, version: &str) {
        let first = BackendId { service: Arc::clone(&plan.service), name: "".into() };
        let of_service = table.backends.range(first..).take_while(|(id, _)| id.service == plan.service);
        let of_version = of_service.filter(|(_, backend)| *backend.version == *version);
        let backends: Vec<_> = of_version.map(|(id, _)| id.clone()).take(ACQUAINTANCES).collect();
        if let (Some(worker), false) = (self.workers.first(), backends.is_empty()) {
            // One that is busy is asked again in a second.
            let _ = worker.try_send(Command::Acquaint { backends });
        }
    }
}

fn owned(progresses: &Progresses) -> BTreeMap<String, Progress> {
    progresses.iter().map(|(service, progress)| (service.clone(), Progress::clone(progress))).collect()
}

fn report(status: &StatusDocument) -> Report<'_> {
    Report { proxy: &status.id, run: &status.instance, rows: &status.versions }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Each change is a line in the controller's log.
fn tell(before: Option<&Progress>, now: &Progress) {
    let is_news = before.is_none_or(|before| (before.state, before.step) != (now.state, now.step));
    if !is_news {
        return;
    }
    let Progress { service, from, to, state, reason, percent, .. } = now;
    let state = state.name();
    match now.state {
        State::Aborting => {
            error!(service, from, to, reason, "the rollout is given up: its players move back")
        }
        State::Refused | State::Paused => warn!(service, from, to, state, reason, percent, "rollout"),
        _ => info!(service, from, to, state, reason, percent, "rollout"),
    }
}
