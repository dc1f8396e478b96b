//! The keys that the command line and the admin write on the operator's behalf.

use std::sync::Arc;

use super::connect::{connect, within};
use super::{EtcdError, config_prefix};
use crate::config::Etcd;
use crate::routing::BackendId;
use crate::routing::document::{Key, RawDrain};

/// Writes to etcd; each call with a connection of its own, as they are rare.
#[derive(Debug, Clone)]
pub struct EtcdWriter {
    config: Arc<Etcd>,
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

    fn key(&self, backend: &BackendId) -> String {
        format!("{}{}", config_prefix(&self.config), Key::Drain(backend.clone()))
    }
}
