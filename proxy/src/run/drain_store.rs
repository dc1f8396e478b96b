//! Orders that all proxies are to see: written as `drains/` and `ejections/` keys; and where those of hooks go.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::{
    DrainKey, DrainStore, DrainWriter, EjectionKey, HookOrders, HookStore, HookWriter, ProxyDrains,
    StoreError, StoreFuture, Written,
};
use crate::config::{Etcd, Source};
use crate::hooks::{Deed, Outcome};
use crate::routing::BackendId;
use crate::routing::document::ejection::written;
use crate::routing::document::{RawDrain, RawEjection};
use crate::source::etcd::{EtcdHooks, EtcdWriter, FleetReader, StatusDocument};

/// Where the orders of this proxy's operator go.
pub fn of(source: &Source) -> DrainWriter {
    match source {
        Source::Files { path } => DrainWriter::Files(path.clone()),
        Source::Etcd(etcd) => {
            let config = Arc::new((**etcd).clone());
            let (writer, fleet) = (EtcdWriter::new(Arc::clone(&config)), FleetReader::new(config));
            DrainWriter::Store(Arc::new(EtcdDrains { writer, fleet, root: etcd.root.clone() }))
        }
    }
}

/// Where the orders of hooks go.
pub fn of_hooks(source: &Source) -> HookOrders {
    match source {
        Source::Files { path } => HookOrders::Files(path.clone()),
        Source::Etcd(etcd) => HookOrders::Store(Arc::new(Hooks(Arc::new((**etcd).clone())))),
    }
}

struct Hooks(Arc<Etcd>);

impl HookStore for Hooks {
    fn open(&self) -> Box<dyn HookWriter> {
        Box::new(EtcdHooks::new(Arc::clone(&self.0)))
    }
}

impl HookWriter for EtcdHooks {
    fn carry_out(&mut self, deed: Deed) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            let outcome = EtcdHooks::carry_out(self, &deed).await;
            outcome.map_err(|error| StoreError(error.to_string()))
        })
    }
}

struct EtcdDrains {
    writer: EtcdWriter,
    fleet: FleetReader,
    root: String,
}

impl EtcdDrains {
    fn key(&self, backend: &BackendId) -> String {
        format!("{}/config/drains/{backend}", self.root)
    }
}

impl DrainStore for EtcdDrains {
    fn put(&self, drain: DrainKey) -> StoreFuture<'_, Written> {
        Box::pin(async move {
            let raw = RawDrain {
                deadline_s: drain.deadline.map(|deadline| deadline.as_secs()),
                reason: drain.reason,
                ..RawDrain::default()
            };
            let put = self.writer.put_drain(&drain.backend, &raw).await;
            let revision = put.map_err(|error| StoreError(error.to_string()))?;
            Ok(Written { key: self.key(&drain.backend), revision })
        })
    }

    fn delete(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)> {
        Box::pin(async move {
            let deleted = self.writer.delete_drain(&backend).await;
            let was_there = deleted.map_err(|error| StoreError(error.to_string()))?;
            Ok((self.key(&backend), was_there))
        })
    }

    fn eject(&self, ejection: EjectionKey) -> StoreFuture<'_, (String, Option<SystemTime>)> {
        Box::pin(async move {
            let until = ejection.time.map(|time| SystemTime::now() + time);
            let raw = RawEjection { reason: ejection.reason, until: until.map(written) };
            let put = self.writer.put_ejection(&ejection.backend, &raw, ejection.time).await;
            put.map_err(|error| StoreError(error.to_string()))?;
            Ok((format!("{}/config/ejections/{}", self.root, ejection.backend), until))
        })
    }

    fn uneject(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)> {
        Box::pin(async move {
            let deleted = self.writer.delete_ejection(&backend).await;
            let was_there = deleted.map_err(|error| StoreError(error.to_string()))?;
            Ok((format!("{}/config/ejections/{backend}", self.root), was_there))
        })
    }

    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyDrains>> {
        Box::pin(async move {
            let statuses = self.fleet.read().await.map_err(|error| StoreError(error.to_string()))?;
            let drains = |status: StatusDocument| ProxyDrains {
                proxy: status.id,
                applied: status.applied,
                rows: status.drains,
                unlisted: status.drains_unlisted,
            };
            Ok(statuses.into_iter().map(drains).collect())
        })
    }
}
