//! The backend beside this proxy as a key under a lease, for as long as the proxy lives and wants it.
//!
//! Its own key is written, and no other: one with no lease is an operator's, one under another lease another proxy's.
//! Whose a key is, is said by a second one under the same lease, `status/backends/<service>/<name>`.

mod handle;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::EtcdError;
use super::backoff::Backoff;
use super::claim::seconds;
use super::connect::{connect, within};
use super::status::Proxy;
use crate::config::{Etcd, Register};
use crate::source::published::Published;

pub use handle::{RegistrarHandle, Registration, RegistrationState};

/// How often a key that somebody else holds is looked at again; a change that the table shows is seen at once.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long etcd may take to take the key back: a proxy that ends waits for it.
const WITHDRAW_WITHIN: Duration = Duration::from_secs(2);

/// Leases that are remembered while an outage leaves open which of them holds the key.
const MOST_LEASES: usize = 8;

/// Who registered a backend; the value of `status/backends/<service>/<name>`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderDocument {
    /// Id of the proxy.
    pub proxy: String,
    /// The run of it.
    pub instance: String,
}

/// Why a key isn't ours, or isn't any more.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error("{0}")]
    Held(String),
    /// Somebody has deleted or changed it; who, is seen at the next look.
    #[error("the registered key was deleted or written by somebody else")]
    Changed,
}

impl From<etcd_client::Error> for Trouble {
    fn from(error: etcd_client::Error) -> Self {
        Self::Etcd(error.into())
    }
}

pub struct BackendRegistrar {
    config: Arc<Etcd>,
    register: Register,
    proxy: Proxy,
    /// The version that the backend says it has.
    version: watch::Receiver<Option<Arc<str>>>,
    published: watch::Receiver<Arc<Published>>,
    wanted: watch::Receiver<bool>,
    shown: watch::Sender<Registration>,
    /// What is to be taken back at the end, the newest last: one whose fate an outage left open may hold the key.
    leases: VecDeque<i64>,
    client: Option<Client>,
}

impl BackendRegistrar {
    pub fn new(
        config: Arc<Etcd>,
        register: Register,
        proxy: Proxy,
        version: watch::Receiver<Option<Arc<str>>>,
        published: watch::Receiver<Arc<Published>>,
    ) -> (Self, RegistrarHandle) {
        let (wanted, wants) = watch::channel(true);
        let backend = register.backend.to_string();
        let reason = Some("the backend's link hasn't come up yet".to_owned());
        let (shown, shows) =
            watch::channel(Registration { backend, state: RegistrationState::Waiting, reason });
        let handle = RegistrarHandle::new(wanted, shows);
        (
            Self {
                config,
                register,
                proxy,
                version,
                published,
                wanted: wants,
                shown,
                leases: VecDeque::new(),
                client: None,
            },
            handle,
        )
    }

    /// Holds the key while it is wanted, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wanted = self.wanted.clone();
        loop {
            let over = tokio::select! {
                () = self.hold_for_ever() => return,
                changed = wanted.wait_for(|wanted| !wanted) => changed.is_err(),
                () = shutdown.cancelled() => true,
            };
            self.withdraw().await;
            if over {
                return;
            }
            tokio::select! {
                changed = wanted.wait_for(|wanted| *wanted) => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            info!(backend = %self.register.backend, "the backend is to be registered again");
        }
    }

    async fn hold_for_ever(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let document = self.document().await;
            let wait = match self.hold(document, &mut backoff).await {
                Ok(()) => continue,
                Err(Trouble::Held(reason)) => {
                    self.show(RegistrationState::Held, Some(reason));
                    None
                }
                Err(error @ Trouble::Changed) => {
                    warn!(backend = %self.register.backend, "{error}");
                    Some(backoff.next())
                }
                Err(Trouble::Etcd(error)) => {
                    self.show(RegistrationState::Away, Some(error.to_string()));
                    Some(backoff.next())
                }
            };
            match wait {
                Some(wait) => sleep(wait).await,
                None => self.key_may_have_changed(LOOK_AGAIN.mul_f64(0.5 + fastrand::f64())).await,
            }
        }
    }

    /// The value of the key, once the version is known and is one.
    async fn document(&mut self) -> String {
        loop {
            let said = self.version.borrow_and_update().clone();
            let reason = match self.register.version.as_deref().or(said.as_deref()) {
                Some(version) => match self.register.document(version) {
                    Ok(document) => return serde_json::to_string(&document).unwrap_or_default(),
                    Err(error) => error.to_string(),
                },
                None => "the backend's link hasn't come up yet".to_owned(),
            };
            self.show(RegistrationState::Waiting, Some(reason));
            if self.version.changed().await.is_err() {
                // The proxy ends; whoever runs this is told, too.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes the key and keeps it, until the backend says another version: then all of it again.
    async fn hold(&mut self, document: String, backoff: &mut Backoff) -> Result<(), Trouble> {
        let mut client = connect(&self.config).await?;
        let seat = self.look(&mut client).await?;
        let granting = client.lease_grant(seconds(self.register.ttl), None);
        let lease = within("lease grant", self.config.request_timeout, granting).await?.id();
        // From here on a withdrawal ends it.
        self.leases.push_back(lease);
        self.client = Some(client.clone());
        self.forget_leases(MOST_LEASES).await;
        let outcome = self.write_and_keep(&mut client, lease, &document, seat, backoff).await;
        if matches!(outcome, Err(Trouble::Held(_) | Trouble::Changed)) {
            self.revoke().await;
        }
        outcome
    }

    /// Whether the key may be written: what must still be true then.
    async fn look(&self, client: &mut Client) -> Result<Vec<Compare>, Trouble> {
        let (key, holder_key) = self.keys();
        let both = [TxnOp::get(key.as_str(), None), TxnOp::get(holder_key.as_str(), None)];
        let looking = client.txn(Txn::new().and_then(both));
        let response = within("look at the key", self.config.request_timeout, looking).await?;
        let mut found = response.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().cloned(),
            _ => None,
        });
        let (written, holder) = (found.next().flatten(), found.next().flatten());
        let Some(written) = written else {
            return Ok(vec![Compare::create_revision(key, CompareOp::Equal, 0)]);
        };
        match self.is_held_by_another(&written, holder.as_ref()) {
            Some(reason) => Err(Trouble::Held(format!("{key} {reason}"))),
            None => Ok(vec![Compare::mod_revision(key, CompareOp::Equal, written.mod_revision())]),
        }
    }

    /// `None`: this proxy wrote it, in this run or one before.
    fn is_held_by_another(&self, written: &KeyValue, holder: Option<&KeyValue>) -> Option<String> {
        if written.lease() == 0 {
            return Some("has no lease: an operator wrote it, and it stays as it is".to_owned());
        }
        let holder = holder.filter(|holder| holder.lease() == written.lease());
        let holder = holder.and_then(|kv| serde_json::from_slice::<HolderDocument>(kv.value()).ok());
        let Some(holder) = holder else {
            return Some("is under a lease of somebody who doesn't say who it is".to_owned());
        };
        let is_own = holder.proxy == *self.proxy.id
            && holder.instance.parse().is_ok_and(|instance| self.proxy.identity.is_own(instance));
        (!is_own).then(|| format!("is registered by proxy {} (instance {})", holder.proxy, holder.instance))
    }

    async fn write_and_keep(
        &mut self,
        client: &mut Client,
        lease: i64,
        document: &str,
        seat: Vec<Compare>,
        backoff: &mut Backoff,
    ) -> Result<(), Trouble> {
        let (key, holder_key) = self.keys();
        let holder = HolderDocument {
            proxy: self.proxy.id.to_string(),
            instance: self.proxy.identity.instance.to_string(),
        };
        let holder = serde_json::to_string(&holder).unwrap_or_default();
        let under = || Some(PutOptions::new().with_lease(lease));
        let puts = [TxnOp::put(key, document, under()), TxnOp::put(holder_key, holder, under())];
        let writing = client.txn(Txn::new().when(seat).and_then(puts));
        if !within("registration", self.config.request_timeout, writing).await?.succeeded() {
            return Err(Trouble::Changed);
        }
        // The earlier ones hold no key any more.
        self.forget_leases(1).await;
        self.show(RegistrationState::Registered, None);
        info!(backend = %self.register.backend, document, "the backend is registered");
        self.keep(client, lease, backoff).await
    }

    /// Renews the lease, and sees to it that the key is still under it.
    async fn keep(&mut self, client: &mut Client, lease: i64, backoff: &mut Backoff) -> Result<(), Trouble> {
        let keeping = client.lease_keep_alive(lease);
        let (mut keeper, mut answers) =
            within("lease keep-alive", self.config.request_timeout, keeping).await?;
        let mut beat = interval(self.register.ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut version = self.version.clone();
        let mut published = self.published.clone();
        let mut seen = self.revision(&published);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if heard.elapsed() > self.register.ttl {
                        return Err(EtcdError::Silent(heard.elapsed()).into());
                    }
                    within("lease keep-alive", self.config.request_timeout, keeper.keep_alive()).await?;
                    self.verify(client, lease).await?;
                }
                answer = answers.message() => {
                    let answer = answer?.ok_or(EtcdError::Ended("lease keep-alive"))?;
                    if answer.ttl() <= 0 {
                        return Err(EtcdError::LeaseLost.into());
                    }
                    heard = Instant::now();
                    backoff.reset();
                }
                changed = published.changed() => match changed {
                    Ok(()) => {
                        let now = self.revision(&published);
                        if std::mem::replace(&mut seen, now) != now {
                            self.verify(client, lease).await?;
                        }
                    }
                    Err(_) => std::future::pending().await,
                },
                Ok(()) = version.changed(), if self.register.version.is_none() => {
                    // A link that is away says nothing new.
                    if version.borrow_and_update().is_some() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn verify(&self, client: &mut Client, lease: i64) -> Result<(), Trouble> {
        let (key, _) = self.keys();
        let own = Txn::new().when([Compare::lease(key, CompareOp::Equal, lease)]);
        match within("look at the key", self.config.request_timeout, client.txn(own)).await?.succeeded() {
            true => Ok(()),
            false => Err(Trouble::Changed),
        }
    }

    /// Waits until the table in force has another document for the backend, or for so long.
    async fn key_may_have_changed(&self, longest: Duration) {
        let mut published = self.published.clone();
        let seen = self.revision(&published);
        let news = async { while self.revision(&published) == seen && published.changed().await.is_ok() {} };
        let _ = timeout(longest, news).await;
    }

    /// At which revision the document in force was written.
    fn revision(&self, published: &watch::Receiver<Arc<Published>>) -> Option<u64> {
        let key = format!("backends/{}", self.register.backend);
        published.borrow().documents.get(key.as_str()).map(|good| good.revision)
    }

    async fn withdraw(&mut self) {
        let kept = self.revoke().await;
        let reason =
            kept.map(|error| format!("etcd didn't take it back ({error}): it stays until its lease ends"));
        self.show(RegistrationState::Withdrawn, reason);
    }

    /// The key goes with its lease, if it is still under it. Returns why it couldn't.
    async fn revoke(&mut self) -> Option<EtcdError> {
        let revoking = self.forget_leases(0);
        let timeout = EtcdError::Timeout { request: "lease revoke", timeout: WITHDRAW_WITHIN };
        tokio::time::timeout(WITHDRAW_WITHIN, revoking).await.unwrap_or(Some(timeout))
    }

    /// Ends the oldest until so many are left. Returns why one of them couldn't be ended.
    async fn forget_leases(&mut self, left: usize) -> Option<EtcdError> {
        let mut client = self.client.clone()?;
        let mut trouble = None;
        while self.leases.len() > left {
            let Some(lease) = self.leases.pop_front() else { break };
            let revoking = within("lease revoke", WITHDRAW_WITHIN, client.lease_revoke(lease)).await;
            // One that is gone already has ended by itself.
            trouble = revoking.err().filter(|error| !is_lease_gone(error)).or(trouble);
        }
        trouble
    }

    /// Each piece of news is a line in the log.
    fn show(&self, state: RegistrationState, reason: Option<String>) {
        let backend = self.register.backend.to_string();
        let same = self.shown.borrow().state == state;
        let text = reason.as_deref().unwrap_or_default();
        match state {
            _ if same => debug!(backend, ?state, reason = text, "the backend's registration"),
            RegistrationState::Held | RegistrationState::Away => {
                warn!(backend, reason = text, "the backend isn't registered for now");
            }
            RegistrationState::Withdrawn => info!(backend, reason = text, "the backend is withdrawn"),
            RegistrationState::Waiting | RegistrationState::Registered => {}
        }
        self.shown.send_replace(Registration { backend, state, reason });
    }

    /// The document's, and its holder's.
    fn keys(&self) -> (String, String) {
        let (root, backend) = (&self.config.root, &self.register.backend);
        (format!("{root}/config/backends/{backend}"), format!("{root}/status/backends/{backend}"))
    }
}

fn is_lease_gone(error: &EtcdError) -> bool {
    // tonic's NOT_FOUND, which only its own number says here.
    matches!(error, EtcdError::Client(etcd_client::Error::GRpcStatus(status)) if status.code() as i32 == 5)
}
