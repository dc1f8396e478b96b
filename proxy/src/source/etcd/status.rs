//! What this proxy tells the fleet about itself: its status key, kept under a lease, written at most once a second.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::EtcdError;
use super::backoff::Backoff;
use super::claim::{ClaimError, Holder, LEASE_TTL, claim, status_key};
use super::connect::within;
use super::groups::Held;
use crate::config::Etcd;
use crate::rollout::VersionRow;
use crate::routing::Refusal;
use crate::routing::slips;
use crate::source::identity::Identity;
use crate::source::published::Published;
use crate::worker::command::DrainRow;

/// Level of the documents that this proxy can read.
pub const SCHEMA: u32 = crate::routing::document::schema::LEVEL;

const WRITE_PERIOD: Duration = Duration::from_secs(1);
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(3);

/// Most refusals and warnings in one status: etcd's values are bounded.
const MAX_LISTED: usize = 100;
/// Most draining backends in one status.
const MAX_DRAINS: usize = 1_000;

/// Who reports.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub id: Arc<str>,
    pub identity: Arc<Identity>,
}

/// The live numbers of a status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusNumbers {
    pub sessions: u64,
    pub parked: u64,
    /// Revision of the table by which every worker acts.
    pub applied: u64,
    /// Draining backends, the fullest first.
    pub drains: Vec<DrainRow>,
    /// What it has seen of the versions of rollouts.
    pub versions: Vec<VersionRow>,
}

/// The value of `status/proxies/<id>`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusDocument {
    /// Id of the proxy.
    pub id: String,
    /// The run of it: another one after a restart.
    pub instance: String,
    /// Level of the documents that it reads: who writes a newer field waits until every proxy has it.
    pub schema: u32,
    /// Revision of the table in force.
    #[serde(default)]
    pub revision: u64,
    /// Its open sessions, parked ones included.
    #[serde(default)]
    pub sessions: u64,
    /// Those that wait in the proxy because no backend can take them yet.
    #[serde(default)]
    pub parked: u64,
    /// Revision of the table by which every worker acts.
    #[serde(default)]
    pub applied: u64,
    /// Draining backends, with the sessions that have still to leave: the fullest thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainRow>,
    /// Draining backends that aren't listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drains_unlisted: u64,
    /// Both versions of each rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionRow>,
    /// Documents that are not in force as they stand, and why: the first hundred.
    #[serde(default)]
    pub refused: Vec<Refusal>,
    /// Documents that are in force, and probably not as they were meant: the first hundred.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Changes that wait for a yes, in words; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl StatusDocument {
    /// Of a proxy of which only the id is known.
    pub(super) fn silent(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            instance: String::new(),
            schema: 0,
            revision: 0,
            sessions: 0,
            parked: 0,
            applied: 0,
            drains: Vec::new(),
            drains_unlisted: 0,
            versions: Vec::new(),
            refused: Vec::new(),
            warnings: Vec::new(),
            held: Vec::new(),
        }
    }

    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Proxy {
    /// The status before anything is known.
    pub(super) fn first_document(&self) -> StatusDocument {
        StatusDocument {
            instance: self.identity.instance.to_string(),
            schema: SCHEMA,
            ..StatusDocument::silent(&self.id)
        }
    }
}

/// What the log has been told about the status that isn't written: each reason once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Complaint {
    None,
    Away,
    Held,
}

impl Complaint {
    fn log(self, error: &ClaimError) -> Self {
        let next = if matches!(error, ClaimError::Etcd(_)) { Self::Away } else { Self::Held };
        match next {
            _ if next == self => debug!(%error, "still no status is written"),
            Self::Held => error!(%error, "no status is written"),
            _ => warn!(%error, "no status is written for now"),
        }
        next
    }
}

pub struct Reporter {
    config: Arc<Etcd>,
    proxy: Proxy,
    numbers: watch::Receiver<StatusNumbers>,
    published: watch::Receiver<Arc<Published>>,
    /// Tells under which lease other keys may stand.
    lease: watch::Sender<Option<Held>>,
}

impl Reporter {
    pub fn new(
        config: Arc<Etcd>,
        proxy: Proxy,
        numbers: watch::Receiver<StatusNumbers>,
        published: watch::Receiver<Arc<Published>>,
        lease: watch::Sender<Option<Held>>,
    ) -> Self {
        Self { config, proxy, numbers, published, lease }
    }

    /// Keeps the status key until shutdown; claims it (again) whenever it isn't ours.
    pub async fn run(mut self, first: Option<Holder>, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut holder = first;
        let mut complaint = Complaint::None;
        loop {
            let error = match holder.take() {
                Some(mut held) => {
                    self.lease.send_replace(Some(Held { client: held.client.clone(), lease: held.lease }));
                    let error = tokio::select! {
                        error = self.report(&mut held, &mut backoff) => error,
                        () = shutdown.cancelled() => return self.leave(held).await,
                    };
                    self.lease.send_replace(None);
                    ClaimError::Etcd(error)
                }
                None => tokio::select! {
                    claimed = claim(&self.config, &self.proxy) => match claimed {
                        Ok(claimed) => {
                            info!(proxy = %self.proxy.id, "the status key is claimed");
                            complaint = Complaint::None;
                            holder = Some(claimed);
                            continue;
                        }
                        Err(error) => error,
                    },
                    () = shutdown.cancelled() => return,
                },
            };
            complaint = complaint.log(&error);
            let wait = if matches!(error, ClaimError::Etcd(_)) { backoff.next() } else { LEASE_TTL };
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Writes what changed and keeps the lease, until either fails.
    async fn report(&mut self, holder: &mut Holder, backoff: &mut Backoff) -> EtcdError {
        match self.try_report(holder, backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_report(
        &mut self,
        holder: &mut Holder,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, EtcdError> {
        let mut beat = interval(KEEP_ALIVE_PERIOD);
        let mut pace = interval(WRITE_PERIOD);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = None;
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let current = self.document();
                    if written.as_ref() != Some(&current) {
                        self.write(holder, &current).await?;
                        written = Some(current);
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > LEASE_TTL {
                        return Err(EtcdError::Silent(heard.elapsed()));
                    }
                    within("lease keep-alive", self.config.request_timeout, holder.keeper.keep_alive()).await?;
                }
                answer = holder.answers.message() => {
                    let answer = answer?.ok_or(EtcdError::Ended("lease keep-alive"))?;
                    if answer.ttl() <= 0 {
                        return Err(EtcdError::LeaseLost);
                    }
                    heard = Instant::now();
                    backoff.reset();
                }
            }
        }
    }

    fn document(&self) -> StatusDocument {
        let published = self.published.borrow().clone();
        let numbers = self.numbers.borrow().clone();
        let warnings = published.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.text));
        StatusDocument {
            revision: published.table.revision,
            sessions: numbers.sessions,
            parked: numbers.parked,
            applied: numbers.applied,
            drains_unlisted: numbers.drains.len().saturating_sub(MAX_DRAINS) as u64,
            drains: numbers.drains.into_iter().take(MAX_DRAINS).collect(),
            versions: numbers.versions,
            refused: published.refused.iter().take(MAX_LISTED).cloned().collect(),
            warnings: warnings.take(MAX_LISTED).collect(),
            held: published.held.iter().take(MAX_LISTED).map(slips::Held::text).collect(),
            ..self.proxy.first_document()
        }
    }

    /// Writes only over a value of our own lease: a key that was lost to another proxy isn't touched.
    async fn write(&self, holder: &mut Holder, document: &StatusDocument) -> Result<(), EtcdError> {
        let key = status_key(&self.config, &self.proxy.id);
        let options = PutOptions::new().with_lease(holder.lease);
        let put = Txn::new()
            .when([Compare::lease(key.as_str(), CompareOp::Equal, holder.lease)])
            .and_then([TxnOp::put(key, document.to_json(), Some(options))]);
        let response = within("status put", self.config.request_timeout, holder.client.txn(put)).await?;
        if response.succeeded() { Ok(()) } else { Err(EtcdError::LeaseLost) }
    }

    /// The key goes with its lease, so that the id is free at once.
    async fn leave(&self, mut holder: Holder) {
        let revoking = holder.client.lease_revoke(holder.lease);
        if let Err(error) = within("lease revoke", WRITE_PERIOD, revoking).await {
            warn!(%error, "the status key stays until its lease ends");
        }
    }
}
