//! The status key as a claim on the proxy's id: made by a transaction, held by a lease.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetResponse, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::EtcdError;
use super::connect::{connect, within};
use super::status::{Proxy, StatusDocument};
use crate::config::Etcd;

/// How long the key outlives a proxy that died.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// A holder that died leaves its key for the lease's time and what etcd takes to notice.
const LONGEST_WAIT: Duration = Duration::from_secs(LEASE_TTL.as_secs() + 3);

const RETRY: Duration = Duration::from_millis(500);
/// How long a start waits for etcd's word on the id: players wait with it. A hung etcd counts as one that is away.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// Why the id isn't ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "proxy.id: {id} is held by another live proxy (instance {holder}, key {key}), expected an id of its own \
         for each proxy"
    )]
    Held { id: String, holder: String, key: String },
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// The claimed key, for as long as its lease is kept alive.
pub struct Holder {
    pub client: Client,
    pub lease: i64,
    pub keeper: LeaseKeeper,
    pub answers: LeaseKeepAliveStream,
}

pub fn status_key(config: &Etcd, id: &str) -> String {
    format!("{}/status/proxies/{id}", config.root)
}

/// Claims the id, waiting for a holder that may be dead until its lease must have ended.
pub async fn claim_at_start(config: &Etcd, proxy: &Proxy) -> Result<Holder, ClaimError> {
    let deadline = Instant::now() + LONGEST_WAIT;
    let mut has_waited = false;
    loop {
        let answer = tokio::time::timeout(START_PATIENCE, claim(config, proxy)).await;
        let silent = EtcdError::Timeout { request: "claim", timeout: START_PATIENCE };
        match answer.unwrap_or(Err(silent.into())) {
            Err(ClaimError::Held { holder, .. }) if Instant::now() < deadline => {
                if !has_waited {
                    info!(holder, "another instance holds this proxy's id: waiting for its lease to end");
                    has_waited = true;
                }
                sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

/// One try.
pub async fn claim(config: &Etcd, proxy: &Proxy) -> Result<Holder, ClaimError> {
    let mut client = connect(config).await?;
    let granting = client.lease_grant(seconds(LEASE_TTL), None);
    let lease = within("lease grant", config.request_timeout, granting).await?.id();
    match put_first(config, proxy, &mut client, lease).await {
        Ok(()) => {}
        Err(error) => {
            // Best effort: it would end by itself.
            let _ = within("lease revoke", config.request_timeout, client.lease_revoke(lease)).await;
            return Err(error);
        }
    }
    let keeping = client.lease_keep_alive(lease);
    let (keeper, answers) = within("lease keep-alive", config.request_timeout, keeping).await?;
    Ok(Holder { client, lease, keeper, answers })
}

/// Creates the key, or takes it over from an earlier run of this same proxy.
async fn put_first(config: &Etcd, proxy: &Proxy, client: &mut Client, lease: i64) -> Result<(), ClaimError> {
    let key = status_key(config, &proxy.id);
    let value = proxy.first_document().to_json();
    let put = || TxnOp::put(key.as_str(), value.as_str(), Some(PutOptions::new().with_lease(lease)));
    let create = Txn::new()
        .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
        .and_then([put()])
        .or_else([TxnOp::get(key.as_str(), None)]);
    let response = within("claim", config.request_timeout, client.txn(create)).await?;
    if response.succeeded() {
        return Ok(());
    }
    let held = response.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(found) => holder_of(&found),
        _ => None,
    });
    let (holder, mod_revision) = held.unwrap_or_default();
    let taken = || ClaimError::Held { id: proxy.id.to_string(), holder: holder.clone(), key: key.clone() };
    if !holder.parse().is_ok_and(|instance| proxy.identity.is_own(instance)) {
        return Err(taken());
    }
    let inherit = Txn::new()
        .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, mod_revision)])
        .and_then([put()]);
    let response = within("claim", config.request_timeout, client.txn(inherit)).await?;
    if response.succeeded() { Ok(()) } else { Err(taken()) }
}

/// The instance in the key's value, and the value's revision.
fn holder_of(found: &GetResponse) -> Option<(String, i64)> {
    let kv = found.kvs().first()?;
    let instance = serde_json::from_slice::<StatusDocument>(kv.value()).map(|document| document.instance);
    Some((instance.unwrap_or_else(|_| "unknown".to_owned()), kv.mod_revision()))
}

pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
