//! The keys that the command line and the admin write on the operator's behalf.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::PutOptions;

use super::connect::{connect, within};
use super::{EtcdError, config_prefix};
use crate::config::Etcd;
use crate::routing::BackendId;
use crate::routing::document::{Key, RawDrain, RawEjection};

/// Writes to etcd; each call with a connection of its own, as they are rare.
#[derive(Debug, Clone)]
pub struct EtcdWriter {
    pub(super) config: Arc<Etcd>,
}

impl EtcdWriter {
    #[must_use]
    pub fn new(config: Arc<Etcd>) -> Self {
        Self { config }
    }

    /// Orders every proxy to drain `backend`. Returns the revision from which on the order stands.
    ///
    /// # Errors
    /// The document is wrong (then nothing is written), or etcd can't be reached.
    pub async fn put_drain(&self, backend: &BackendId, drain: &RawDrain) -> Result<u64, EtcdError> {
        drain.clone().check(backend.clone())?;
        let value = serde_json::to_string(drain).unwrap_or_default();
        let mut client = connect(&self.config).await?;
        let putting = client.put(self.key(backend), value, None);
        let response = within("put", self.config.request_timeout, putting).await?;
        Ok(response.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0)))
    }

    /// Lifts the order. Says whether there was one.
    ///
    /// # Errors
    /// etcd can't be reached.
    pub async fn delete_drain(&self, backend: &BackendId) -> Result<bool, EtcdError> {
        let mut client = connect(&self.config).await?;
        let deleting = client.delete(self.key(backend), None);
        let response = within("delete", self.config.request_timeout, deleting).await?;
        Ok(response.deleted() > 0)
    }

    /// Orders every proxy to eject `backend`; with `time`, the key goes by itself after it.
    ///
    /// # Errors
    /// The document is wrong (then nothing is written), or etcd can't be reached.
    pub async fn put_ejection(
        &self,
        backend: &BackendId,
        ejection: &RawEjection,
        time: Option<Duration>,
    ) -> Result<(), EtcdError> {
        ejection.clone().check(backend.clone())?;
        let value = serde_json::to_string(ejection).unwrap_or_default();
        let mut client = connect(&self.config).await?;
        let mut options = PutOptions::new();
        if let Some(time) = time {
            let ttl = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            let granting = client.lease_grant(ttl, None);
            let lease = within("lease grant", self.config.request_timeout, granting).await?;
            options = options.with_lease(lease.id());
        }
        let putting = client.put(self.ejection_key(backend), value, Some(options));
        within("put", self.config.request_timeout, putting).await.map(drop)
    }

    /// Lifts it. Says whether there was one.
    ///
    /// # Errors
    /// etcd can't be reached.
    pub async fn delete_ejection(&self, backend: &BackendId) -> Result<bool, EtcdError> {
        let mut client = connect(&self.config).await?;
        let deleting = client.delete(self.ejection_key(backend), None);
        let response = within("delete", self.config.request_timeout, deleting).await?;
        Ok(response.deleted() > 0)
    }

    fn ejection_key(&self, backend: &BackendId) -> String {
        format!("{}{}", config_prefix(&self.config), Key::Ejection(backend.clone()))
    }

    fn key(&self, backend: &BackendId) -> String {
        format!("{}{}", config_prefix(&self.config), Key::Drain(backend.clone()))
    }
}
