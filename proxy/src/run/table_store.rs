//! Documents that an operator writes through this proxy: keys in etcd, or files, which are people's own.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::admin::{Committed, ProxyWord, StoreError, StoreFuture, TableStore, TableWriter, Write};
use crate::config::Source;
use crate::routing::Documents;
use crate::source::etcd::{EtcdError, EtcdWriter, FleetReader, StatusDocument};
use crate::source::published::Accepted;

/// Where they go.
pub fn of(source: &Source, accepts: &mpsc::Sender<Accepted>) -> TableWriter {
    match source {
        Source::Files { path } => TableWriter::Files { folder: path.clone(), accepts: accepts.clone() },
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
    fn read(&self) -> StoreFuture<'_, Documents> {
        Box::pin(async move { self.writer.read().await.map_err(failed) })
    }

    fn commit(&self, writes: Vec<Write>) -> StoreFuture<'_, Committed> {
        Box::pin(async move { self.writer.commit(&writes).await.map_err(failed) })
    }

    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyWord>> {
        Box::pin(async move {
            let word = |status: StatusDocument| ProxyWord {
                proxy: status.id,
                schema: status.schema,
                held: status.held,
            };
            Ok(self.fleet.read().await.map_err(failed)?.into_iter().map(word).collect())
        })
    }
}
