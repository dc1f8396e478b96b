//! Documents that an operator writes through this proxy: keys in etcd, or files, which are people's own.

use std::sync::Arc;

use crate::admin::{ProxyWord, StoreError, StoreFuture, TableStore, TableWriter};
use crate::config::Source;
use crate::source::etcd::{EtcdError, EtcdWriter, FleetReader, StatusDocument};
use crate::source::write::{Committed, Listing, Transaction};

/// Where they go.
pub fn of(source: &Source) -> TableWriter {
    match source {
        Source::Files { path } => TableWriter::Files(path.clone()),
        Source::Etcd(etcd) => {
            let config = Arc::new((**etcd).clone());
            let (writer, fleet) = (EtcdWriter::new(Arc::clone(&config)), FleetReader::new(config));
            TableWriter::Store(Arc::new(EtcdTables { writer, fleet }))
        }
    }
}

struct EtcdTables {
    writer: EtcdWriter,
    fleet: FleetReader,
}

fn failed(error: EtcdError) -> StoreError {
    StoreError(error.to_string())
}

impl TableStore for EtcdTables {
    fn read(&self) -> StoreFuture<'_, Listing> {
        Box::pin(async move { self.writer.read().await.map_err(failed) })
    }

    fn commit(&self, transaction: Transaction) -> StoreFuture<'_, Committed> {
        Box::pin(async move { self.writer.commit(&transaction).await.map_err(failed) })
    }

    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyWord>> {
        Box::pin(async move {
            let word = |status: StatusDocument| ProxyWord {
                proxy: status.id,
                // One that can't be understood reads the first level at least.
                schema: status.schema.max(1),
                held: status.held,
            };
            Ok(self.fleet.read().await.map_err(failed)?.into_iter().map(word).collect())
        })
    }
}
