//! Drain orders that all proxies are to see: written as `drains/` keys.

use std::sync::Arc;

use crate::admin::{DrainKey, DrainStore, DrainWriter, StoreError, StoreFuture};
use crate::config::Source;
use crate::routing::BackendId;
use crate::routing::document::RawDrain;
use crate::source::etcd::EtcdWriter;

/// Where the orders of this proxy's operator go.
pub fn of(source: &Source) -> DrainWriter {
    match source {
        Source::Files { path } => DrainWriter::Files(path.clone()),
        Source::Etcd(etcd) => {
            let writer = EtcdWriter::new(Arc::new((**etcd).clone()));
            DrainWriter::Store(Arc::new(EtcdDrains { writer, root: etcd.root.clone() }))
        }
    }
}

struct EtcdDrains {
    writer: EtcdWriter,
    root: String,
}

impl EtcdDrains {
    fn key(&self, backend: &BackendId) -> String {
        format!("{}/config/drains/{backend}", self.root)
    }
}

impl DrainStore for EtcdDrains {
    fn put(&self, drain: DrainKey) -> StoreFuture<'_, String> {
        Box::pin(async move {
            let raw = RawDrain {
                deadline_s: drain.deadline.map(|deadline| deadline.as_secs()),
                reason: drain.reason,
                ..RawDrain::default()
            };
            let put = self.writer.put_drain(&drain.backend, &raw).await;
            put.map_err(|error| StoreError(error.to_string()))?;
            Ok(self.key(&drain.backend))
        })
    }

    fn delete(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)> {
        Box::pin(async move {
            let deleted = self.writer.delete_drain(&backend).await;
            let was_there = deleted.map_err(|error| StoreError(error.to_string()))?;
            Ok((self.key(&backend), was_there))
        })
    }
}
