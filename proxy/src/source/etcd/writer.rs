//! The keys that the command line and the admin write on the operator's behalf.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::connect::{connect, within};
use super::follow::{MAX_MESSAGE_BYTES, key, unsigned};
use super::{EtcdError, config_prefix};
use crate::admin::{Committed, Write};
use crate::config::Etcd;
use crate::routing::document::{Key, RawDrain, RawEjection};
use crate::routing::documents::MAX_DOCUMENTS;
use crate::routing::{BackendId, Documents};

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

    /// All documents as they stand now.
    ///
    /// # Errors
    /// etcd can't be reached, or has more keys than a table may have.
    pub async fn read(&self) -> Result<Documents, EtcdError> {
        let client = connect(&self.config).await?;
        let prefix = config_prefix(&self.config);
        let mut reader = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
        let listing = reader.get(prefix.as_str(), Some(GetOptions::new().with_prefix()));
        let response = within("list", self.config.request_timeout, listing).await?;
        if response.kvs().len() > MAX_DOCUMENTS {
            return Err(EtcdError::TooMany(response.kvs().len()));
        }
        let mut documents = Documents::default();
        for kv in response.kvs() {
            let revision = unsigned(kv.mod_revision());
            documents.put_as(&key(kv, &prefix), kv.value(), revision, kv.lease() != 0);
        }
        Ok(documents)
    }

    /// Writes all of it in one transaction, if every key is still what it was.
    ///
    /// # Errors
    /// etcd can't be reached: then it may be written or not.
    pub async fn commit(&self, writes: &[Write]) -> Result<Committed, EtcdError> {
        let prefix = config_prefix(&self.config);
        let mut client = connect(&self.config).await?;
        let committing = client.txn(transaction(&prefix, writes));
        let response = match within("transaction", self.config.request_timeout, committing).await {
            Ok(response) => response,
            Err(EtcdError::Client(etcd_client::Error::GRpcStatus(status)))
                if status.message().contains("too many operations") =>
            {
                return Ok(Committed::TooMany);
            }
            Err(error) => return Err(error),
        };
        if response.succeeded() {
            let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            return Ok(Committed::At(unsigned(revision)));
        }
        let found = response.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map_or(0, |kv| unsigned(kv.mod_revision())),
            _ => 0,
        });
        let changed = writes.iter().zip(found).filter(|(write, found)| write.expected != *found);
        Ok(Committed::Changed(changed.map(|(write, _)| write.key.to_string()).collect()))
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

/// What it writes, on the condition that nobody else did; else, what stands there instead.
fn transaction(prefix: &str, writes: &[Write]) -> Txn {
    let full = |write: &Write| format!("{prefix}{}", write.key);
    let unchanged = |write: &Write| {
        let expected = i64::try_from(write.expected).unwrap_or(i64::MAX);
        Compare::mod_revision(full(write), CompareOp::Equal, expected)
    };
    let operation = |write: &Write| match &write.value {
        // A registration stays under its registrar's lease.
        Some(value) if write.leased => {
            TxnOp::put(full(write), value.to_vec(), Some(PutOptions::new().with_ignore_lease()))
        }
        Some(value) => TxnOp::put(full(write), value.to_vec(), None),
        None => TxnOp::delete(full(write), None),
    };
    let look = |write: &Write| TxnOp::get(full(write), Some(GetOptions::new().with_keys_only()));
    Txn::new()
        .when(writes.iter().map(unchanged).collect::<Vec<_>>())
        .and_then(writes.iter().map(operation).collect::<Vec<_>>())
        .or_else(writes.iter().map(look).collect::<Vec<_>>())
}
