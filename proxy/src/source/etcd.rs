//! Documents from etcd: list at a revision, watch from it, and list again whenever the watch has an end of any kind.
//!
//! Listing again is the one way back after a compaction, a restart, a silent etcd or one restored from a backup, so
//! there is one path to get right. What is in force stays until a whole list is there.

mod backoff;
mod claim;
mod connect;
mod controller;
mod fleet;
mod follow;
mod groups;
mod hooks;
mod register;
mod rollouts;
mod status;
mod transact;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::identity::Identity;
use super::published::{Publisher, Source};
use crate::config::Etcd;
use crate::rollout::Progresses;
use crate::worker::command::Command;
use crate::worker::groups::claims::Inquiry;

pub(crate) use backoff::Backoff;
pub use claim::ClaimError;
pub use fleet::FleetReader;
pub use groups::GroupDocument;
pub use hooks::EtcdHooks;
pub use register::{BackendRegistrar, HolderDocument, RegistrarHandle, Registration, RegistrationState};
pub use status::{Proxy, StatusDocument, StatusNumbers};
pub use writer::EtcdWriter;

/// etcd, or the way to it, is at fault; trying again later may help.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("{0}")]
    Config(#[from] crate::config::FieldError),
    #[error("etcd: {}", brief(.0))]
    Client(#[from] etcd_client::Error),
    #[error("etcd gave no answer to {request} within {timeout:?}")]
    Timeout { request: &'static str, timeout: Duration },
    #[error("etcd has been silent for {0:?}")]
    Silent(Duration),
    #[error("etcd has compacted the revisions up to {0}")]
    Compacted(i64),
    #[error("etcd cancelled the watch: {0}")]
    Cancelled(String),
    #[error("etcd ended the {0} stream")]
    Ended(&'static str),
    #[error("etcd has {0} keys below the prefix, more than {max}", max = crate::routing::documents::MAX_DOCUMENTS)]
    TooMany(usize),
    #[error("the lease of the status key has run out")]
    LeaseLost,
}

impl EtcdError {
    /// Nothing is to be had of etcd for now, whatever is asked of it.
    fn is_away(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Client(etcd_client::Error::IoError(_) | etcd_client::Error::TransportError(_)) => true,
            // tonic's CANCELLED, UNKNOWN, DEADLINE_EXCEEDED and UNAVAILABLE, which only their own numbers say here.
            Self::Client(etcd_client::Error::GRpcStatus(status)) => {
                matches!(status.code() as i32, 1 | 2 | 4 | 14)
            }
            _ => false,
        }
    }
}

/// The client's own words carry every layer's error inside the other; one line is enough to act on.
fn brief(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            let mut cause = std::error::Error::source(status);
            while let Some(deeper) = cause.and_then(std::error::Error::source) {
                cause = Some(deeper);
            }
            let cause = cause.map(ToString::to_string).filter(|cause| !status.message().contains(cause));
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{:?}: {}{cause}", status.code(), status.message())
        }
        other => other.to_string(),
    }
}

/// What people and registrars write; nothing of ours but drains, on their behalf.
fn config_prefix(config: &Etcd) -> String {
    format!("{}/config/", config.root)
}

/// What this proxy says in etcd besides that it is there.
pub struct Affairs {
    pub numbers: watch::Receiver<StatusNumbers>,
    /// Where its workers ask for groups.
    pub groups: Inquiry,
    /// Holds the key of the backend beside it.
    pub registrar: Option<BackendRegistrar>,
    /// Where the fleet's rollouts are told of.
    pub rollouts: watch::Sender<Arc<Progresses>>,
    pub workers: Vec<mpsc::Sender<Command>>,
}

/// Follows etcd, and holds this proxy's status key and those of its groups, until shutdown.
///
/// Returns when the status key is claimed, or at once if etcd can't be reached: then the documents from disk (which
/// `publisher` was started from) serve until it can.
///
/// # Errors
/// Another live proxy holds the id.
pub async fn start(
    config: Arc<Etcd>,
    proxy: Proxy,
    affairs: Affairs,
    publisher: Publisher,
    source: &Source,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), ClaimError> {
    tasks.spawn(follow_for_ever(config.clone(), publisher, shutdown.clone()));
    let holder = match claim::claim_at_start(&config, &proxy).await {
        Ok(holder) => Some(holder),
        Err(ClaimError::Etcd(error)) => {
            warn!(%error, "the status key can't be claimed yet");
            None
        }
        Err(held) => return Err(held),
    };
    let (lease, held) = watch::channel(None);
    let office = rollouts::Office::new(Arc::clone(&config), Arc::clone(&proxy.id), held.clone());
    let controller = controller::Controller::new(office, source.published.clone(), affairs.workers);
    tasks.spawn(controller.run(shutdown.clone()));
    tasks.spawn(rollouts::follow_for_ever(Arc::clone(&config), affairs.rollouts, shutdown.clone()));
    // Only who holds its own id may speak in its name.
    if let Some(registrar) = affairs.registrar {
        tasks.spawn(registrar.run(shutdown.clone()));
    }
    let registrar = groups::Registrar::new(Arc::clone(&config), Arc::clone(&proxy.id), affairs.groups, held);
    tasks.spawn(registrar.run(shutdown.clone()));
    let reporter = status::Reporter::new(config, proxy, affairs.numbers, source.published.clone(), lease);
    tasks.spawn(reporter.run(holder, shutdown.clone()));
    Ok(())
}

/// What `start` needs to know about this run.
impl Proxy {
    #[must_use]
    pub fn new(id: &str, identity: Arc<Identity>) -> Self {
        Self { id: id.into(), identity }
    }
}

async fn follow_for_ever(config: Arc<Etcd>, mut publisher: Publisher, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            error = follow::follow(&config, &mut publisher, &mut backoff) => error,
            () = shutdown.cancelled() => return,
        };
        let wait = backoff.next();
        // One line per outage; the rest is in the status.
        if publisher.lost(error.to_string()) {
            warn!(%error, "etcd is lost; what is in force stays");
        } else {
            debug!(%error, ?wait, "etcd is still away");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
