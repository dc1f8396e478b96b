//! Games and proxies whose documents are keys in a real etcd.

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, Result};
use etcd_client::{Client, Txn, TxnOp};
use holdfast_stage::{
    Arena, ArenaSpec, Etcd, EtcdBinary, Proxy, ProxySpec, Source, Stage, arena_service, until,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::play::SOON;

pub const CONFIG: &str = "/holdfast/config";

/// Runs each promise against Debian's etcd and against the current one.
macro_rules! on_both_etcds {
    ($($promise:ident),* $(,)?) => {
        mod on_etcd_3_4 {
            $(#[test]
            fn $promise() {
                super::$promise(holdfast_stage::EtcdBinary::Default);
            })*
        }

        mod on_etcd_3_7 {
            $(#[test]
            fn $promise() {
                super::$promise(holdfast_stage::EtcdBinary::Current);
            })*
        }
    };
}
pub(crate) use on_both_etcds;

pub struct Fleet {
    pub etcd: Etcd,
}

impl Fleet {
    /// A fresh etcd with the sample game's service and a route to it.
    pub fn start(stage: &Stage, binary: EtcdBinary) -> Result<Self> {
        let fleet = Self { etcd: Etcd::start(stage, binary)? };
        fleet.seed()?;
        Ok(fleet)
    }

    /// Writes the service and the route.
    pub fn seed(&self) -> Result<()> {
        self.put("services/arena", &arena_service(&json!({})))?;
        self.put("routes/public", &json!({"listener": "game", "service": "arena"}))
    }

    pub fn etcd_address(&self) -> Result<SocketAddr> {
        Ok(self.etcd.endpoint().trim_start_matches("http://").parse()?)
    }

    /// With `etcdctl`, as an operator would.
    pub fn put(&self, key: &str, document: &Value) -> Result<()> {
        self.etcd.put(&format!("{CONFIG}/{key}"), &document.to_string())
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.etcd.delete(&format!("{CONFIG}/{key}"))
    }

    /// Starts a game and lists it.
    pub fn arena(&self, stage: &Stage, name: &str) -> Result<Arena> {
        let arena = Arena::start(stage, ArenaSpec::new(name))?;
        self.put(&arena.key(), &arena.document())?;
        Ok(arena)
    }

    /// What stands in the config of a proxy with this id.
    pub fn spec(&self, id: &str) -> ProxySpec {
        ProxySpec::new(id, Source::Etcd { endpoint: self.etcd.endpoint() })
    }

    pub fn proxy(&self, stage: &Stage, id: &str) -> Result<Proxy> {
        Proxy::start(stage, &self.spec(id))
    }

    /// Waits for the proxy's status key to say what is wanted.
    pub fn status(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        let found = self.etcd.wait_for(&format!("/holdfast/status/proxies/{id}"), SOON, |text| {
            parse(text).is_some_and(|value| wanted(&value))
        });
        parse(&found.with_context(|| format!("status of {id}: {what}"))?).context("JSON in the status key")
    }

    /// A connection that is already open when its first write is timed.
    pub fn client(&self) -> Result<KeyClient> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut client = runtime.block_on(Client::connect([self.etcd.endpoint()], None))?;
        runtime.block_on(client.get(CONFIG, None))?;
        Ok(KeyClient { runtime, client })
    }
}

/// Writes keys below the config's prefix without a process for each.
pub struct KeyClient {
    runtime: Runtime,
    client: Client,
}

impl KeyClient {
    /// All in one transaction. Returns when it was sent.
    pub fn put_all(&mut self, documents: &[(String, Value)]) -> Result<SystemTime> {
        let put = |(key, document): &(String, Value)| {
            TxnOp::put(format!("{CONFIG}/{key}"), document.to_string(), None)
        };
        let all = Txn::new().and_then(documents.iter().map(put).collect::<Vec<_>>());
        let sent = SystemTime::now();
        self.runtime.block_on(self.client.txn(all))?;
        Ok(sent)
    }

    /// Also what is no document; all in one transaction. Returns its revision.
    pub fn put_texts(&mut self, documents: &[(String, String)]) -> Result<u64> {
        let put = |(key, text): &(String, String)| TxnOp::put(format!("{CONFIG}/{key}"), text.as_str(), None);
        let all = Txn::new().and_then(documents.iter().map(put).collect::<Vec<_>>());
        let answer = self.runtime.block_on(self.client.txn(all))?;
        let revision = answer.header().context("a header")?.revision();
        Ok(revision.try_into()?)
    }
}

/// Sessions of this proxy on a backend.
pub fn sessions_on(proxy: &Proxy, backend: &str) -> Result<u64> {
    let view = proxy.admin_json("/backends")?;
    let backends = view["backends"].as_array().context("a list of backends")?;
    let found = backends.iter().find(|found| found["backend"] == backend);
    Ok(found.and_then(|found| found["sessions"].as_u64()).unwrap_or(0))
}

/// Waits until exactly so many sessions of this proxy are on the backend.
pub fn wait_for_sessions(proxy: &Proxy, backend: &str, wanted: u64) -> Result<()> {
    let mut last = None;
    let waited = until(&format!("{wanted} sessions on {backend}"), SOON, || {
        last = sessions_on(proxy, backend).ok();
        last == Some(wanted)
    });
    waited.with_context(|| format!("there are {last:?}"))
}
