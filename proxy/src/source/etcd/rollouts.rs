//! Rollouts in etcd: how far each is stands in `status/rollouts/<service>`, which every proxy follows and which only
//! the controller writes, the proxy that holds `status/controller` by the lease of its status key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::EtcdError;
use super::backoff::Backoff;
use super::connect::{connect, within};
use super::groups::Held;
use crate::config::Etcd;
use crate::rollout::{Progress, Progresses};

/// How often etcd is asked for a sign of life on the watch.
const PROBE_PERIOD: Duration = Duration::from_secs(2);
/// A watch that lasted this long was a good one.
const SETTLED: Duration = Duration::from_secs(1);

fn prefix(config: &Etcd) -> String {
    format!("{}/status/rollouts/", config.root)
}

/// Keeps `progresses` as etcd has them, until shutdown. What was known stays while etcd is away.
pub async fn follow_for_ever(
    config: Arc<Etcd>,
    progresses: watch::Sender<Arc<Progresses>>,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            ended = follow(&config, &progresses, &mut backoff) => match ended {
                Ok(never) => match never {},
                Err(error) => error,
            },
            () = shutdown.cancelled() => return,
        };
        debug!(%error, "rollouts aren't followed for a moment");
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn follow(
    config: &Etcd,
    progresses: &watch::Sender<Arc<Progresses>>,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, EtcdError> {
    let mut client = connect(config).await?;
    let prefix = prefix(config);
    let (listed, revision) = list(config, &mut client).await?;
    progresses.send_if_modified(|known| replace(known, listed));
    let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1).with_progress_notify();
    let opening = client.watch(prefix.as_str(), Some(options));
    let mut stream = within("watch of rollouts", config.request_timeout, opening).await?;
    let opened = Instant::now();
    let mut heard = Instant::now();
    let mut probe = interval(PROBE_PERIOD);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let silence = PROBE_PERIOD + config.keep_alive_timeout;
    loop {
        tokio::select! {
            message = stream.message() => {
                let message = message?.ok_or(EtcdError::Ended("watch of rollouts"))?;
                if message.canceled() || message.compact_revision() != 0 {
                    return Err(EtcdError::Cancelled(message.cancel_reason().to_owned()));
                }
                heard = Instant::now();
                progresses.send_if_modified(|known| change(known, &message, &prefix));
                if opened.elapsed() >= SETTLED {
                    backoff.reset();
                }
            }
            () = sleep_until(heard + silence) => return Err(EtcdError::Silent(silence)),
            _ = probe.tick() => {
                within("progress", config.request_timeout, stream.request_progress()).await?;
            }
        }
    }
}

async fn list(config: &Etcd, client: &mut Client) -> Result<(Progresses, i64), EtcdError> {
    let prefix = prefix(config);
    let options = GetOptions::new().with_prefix();
    let listing = client.get(prefix.as_str(), Some(options));
    let response = within("list of rollouts", config.request_timeout, listing).await?;
    let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    let listed = response.kvs().iter().filter_map(|kv| read(kv, &prefix)).collect();
    Ok((listed, revision))
}

/// One that can't be understood is as good as none: nothing has been rolled out.
fn read(kv: &KeyValue, prefix: &str) -> Option<(String, Arc<Progress>)> {
    let service = name(kv, prefix);
    // A deletion has no version.
    if kv.version() == 0 {
        return None;
    }
    match serde_json::from_slice(kv.value()) {
        Ok(progress) => Some((service, Arc::new(progress))),
        Err(error) => {
            warn!(service, %error, "the progress of a rollout can't be read");
            None
        }
    }
}

fn name(kv: &KeyValue, prefix: &str) -> String {
    let key = kv.key();
    String::from_utf8_lossy(key.strip_prefix(prefix.as_bytes()).unwrap_or(key)).into_owned()
}

fn replace(known: &mut Arc<Progresses>, listed: Progresses) -> bool {
    let differs = **known != listed;
    if differs {
        *known = Arc::new(listed);
    }
    differs
}

fn change(known: &mut Arc<Progresses>, message: &WatchResponse, prefix: &str) -> bool {
    let mut changed = BTreeMap::clone(known);
    for kv in message.events().iter().filter_map(etcd_client::Event::kv) {
        match read(kv, prefix) {
            Some((service, progress)) => drop(changed.insert(service, progress)),
            None => drop(changed.remove(&name(kv, prefix))),
        }
    }
    replace(known, changed)
}

/// The controller's office: who holds it may write how far rollouts are.
pub struct Office {
    config: Arc<Etcd>,
    proxy: Arc<str>,
    held: watch::Receiver<Option<Held>>,
}

impl Office {
    pub fn new(config: Arc<Etcd>, proxy: Arc<str>, held: watch::Receiver<Option<Held>>) -> Self {
        Self { config, proxy, held }
    }

    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    pub fn config(&self) -> Arc<Etcd> {
        Arc::clone(&self.config)
    }

    fn key(&self) -> String {
        format!("{}/status/controller", self.config.root)
    }

    fn progress_key(&self, service: &str) -> String {
        format!("{}{service}", prefix(&self.config))
    }

    /// Whether this proxy is the controller; it becomes it, if nobody is.
    pub async fn hold(&self) -> Result<bool, EtcdError> {
        let Some(mut held) = self.held.borrow().clone() else { return Ok(false) };
        let key = self.key();
        let options = PutOptions::new().with_lease(held.lease);
        let take = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), &*self.proxy, Some(options))])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let taking = held.client.txn(take);
        let response = within("the controller's election", self.config.request_timeout, taking).await?;
        if response.succeeded() {
            tracing::info!("this proxy controls the rollouts from here on");
            return Ok(true);
        }
        let holds = |found: &GetResponse| found.kvs().first().is_some_and(|kv| kv.lease() == held.lease);
        Ok(response.op_responses().iter().any(|one| matches!(one, TxnOpResponse::Get(found) if holds(found))))
    }

    /// How far all rollouts are, from etcd itself.
    pub async fn read(&self) -> Result<Progresses, EtcdError> {
        let held = self.held.borrow().clone();
        let mut held = held.ok_or(EtcdError::LeaseLost)?;
        Ok(list(&self.config, &mut held.client).await?.0)
    }

    /// # Errors
    /// The office is lost (`LeaseLost`), or etcd is away.
    pub async fn write(&self, progress: &Progress) -> Result<(), EtcdError> {
        let value = serde_json::to_string(progress).unwrap_or_default();
        self.while_in_office(TxnOp::put(self.progress_key(&progress.service), value, None)).await
    }

    /// # Errors
    /// As [`Self::write`].
    pub async fn delete(&self, service: &str) -> Result<(), EtcdError> {
        self.while_in_office(TxnOp::delete(self.progress_key(service), None)).await
    }

    async fn while_in_office(&self, work: TxnOp) -> Result<(), EtcdError> {
        let held = self.held.borrow().clone();
        let mut held = held.ok_or(EtcdError::LeaseLost)?;
        let in_office = Compare::lease(self.key(), CompareOp::Equal, held.lease);
        let writing = held.client.txn(Txn::new().when([in_office]).and_then([work]));
        let response = within("progress of a rollout", self.config.request_timeout, writing).await?;
        if response.succeeded() { Ok(()) } else { Err(EtcdError::LeaseLost) }
    }
}
