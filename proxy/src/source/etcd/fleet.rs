//! What the other proxies say of themselves: their status keys. One whose lease has ended has none, and doesn't count.

use std::sync::Arc;

use etcd_client::{Client, GetOptions};
use tokio::sync::Mutex;

use super::EtcdError;
use super::connect::{connect, within};
use super::status::StatusDocument;
use crate::config::Etcd;

/// A status lists a bounded number of everything, so a large fleet's are well below this.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Reads status keys; keeps its connection while somebody looks again and again.
pub struct FleetReader {
    config: Arc<Etcd>,
    client: Mutex<Option<Client>>,
}

impl FleetReader {
    #[must_use]
    pub fn new(config: Arc<Etcd>) -> Self {
        Self { config, client: Mutex::new(None) }
    }

    /// Every live proxy's status.
    ///
    /// # Errors
    /// etcd can't be reached.
    pub async fn read(&self) -> Result<Vec<StatusDocument>, EtcdError> {
        let mut kept = self.client.lock().await;
        let client = match kept.take() {
            Some(client) => client,
            None => connect(&self.config).await?,
        };
        let statuses = self.list(&client).await;
        if statuses.is_ok() {
            *kept = Some(client);
        }
        statuses
    }

    async fn list(&self, client: &Client) -> Result<Vec<StatusDocument>, EtcdError> {
        let prefix = format!("{}/status/proxies/", self.config.root);
        let mut reader = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
        let options = GetOptions::new().with_prefix();
        let listing = reader.get(prefix.as_str(), Some(options));
        let response = within("list of status keys", self.config.request_timeout, listing).await?;
        let status = |kv: &etcd_client::KeyValue| {
            let id = String::from_utf8_lossy(kv.key().strip_prefix(prefix.as_bytes()).unwrap_or(kv.key()));
            // Who can't be understood has said nothing: it is waited for.
            serde_json::from_slice(kv.value()).unwrap_or_else(|_| StatusDocument::silent(&id))
        };
        Ok(response.kvs().iter().map(status).collect())
    }
}
