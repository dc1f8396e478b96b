//! A Holdfast proxy as a process, with its config file.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{Documents, Process, Stage, free_address, holdfast_binary, http};

const READY_WITHIN: Duration = Duration::from_secs(15);

/// Where the proxy's documents come from.
#[derive(Debug, Clone)]
pub enum Source {
    Folder(PathBuf),
    /// One endpoint, or some with commas between them.
    Etcd {
        endpoint: String,
    },
}

impl From<&Documents> for Source {
    fn from(documents: &Documents) -> Self {
        match documents {
            Documents::Folder(path) => Self::Folder(path.clone()),
            Documents::Etcd(etcd) => Self::Etcd { endpoint: etcd.endpoint() },
        }
    }
}

/// What stands in its config file.
#[derive(Debug, Clone)]
pub struct ProxySpec {
    pub id: String,
    pub source: Source,
    /// (backend as `arena/a`, address): the backend beside it.
    pub local: Option<(String, String)>,
    /// Names of listeners; each gets a free port.
    pub listeners: Vec<String>,
    pub workers: u16,
    /// More lines of `[etcd]`.
    pub etcd: String,
    /// More TOML, after everything else.
    pub more: String,
    /// Another binary than the one beside this program.
    pub binary: Option<PathBuf>,
}

impl ProxySpec {
    /// One worker, one listener named `game`.
    pub fn new(id: &str, source: impl Into<Source>) -> Self {
        Self {
            id: id.to_owned(),
            source: source.into(),
            local: None,
            listeners: vec!["game".to_owned()],
            workers: 1,
            etcd: String::new(),
            more: String::new(),
            binary: None,
        }
    }

    #[must_use]
    pub fn beside(self, backend: &str, address: &str) -> Self {
        Self { local: Some((backend.to_owned(), address.to_owned())), ..self }
    }

    #[must_use]
    pub fn more(self, toml: &str) -> Self {
        Self { more: toml.to_owned(), ..self }
    }

    #[must_use]
    pub fn etcd(self, toml: &str) -> Self {
        Self { etcd: toml.to_owned(), ..self }
    }

    #[must_use]
    pub fn binary(self, path: impl Into<PathBuf>) -> Self {
        Self { binary: Some(path.into()), ..self }
    }

    fn config(&self, addresses: &Addresses, data: &Path) -> String {
        let mut toml = String::new();
        let (id, workers) = (&self.id, self.workers);
        // A String takes any write; JSON's strings with these characters are TOML's too.
        let _ = write!(toml, "[proxy]\nid = {id:?}\nworkers = {workers}\ndata_dir = {data:?}\n\n");
        if let Some((backend, address)) = &self.local {
            let _ = write!(toml, "[local]\nbackend = {backend:?}\naddress = {address:?}\n\n");
        }
        for (name, bind) in &addresses.listeners {
            let _ = write!(toml, "[[listener]]\nname = {name:?}\nbind = \"{bind}\"\n\n");
        }
        let _ = match &self.source {
            Source::Folder(path) => write!(toml, "[files]\npath = {path:?}\n\n"),
            Source::Etcd { endpoint } => {
                let endpoints: Vec<_> = endpoint.split(',').collect();
                let more = &self.etcd;
                write!(toml, "[etcd]\nendpoints = {endpoints:?}\nroot = \"/holdfast\"\n{more}\n\n")
            }
        };
        let (health, admin) = (addresses.health, addresses.admin);
        let _ = write!(toml, "[health]\nbind = \"{health}\"\n\n[admin]\nbind = \"{admin}\"\n\n{}", self.more);
        toml
    }
}

struct Addresses {
    listeners: Vec<(String, SocketAddr)>,
    health: SocketAddr,
    admin: SocketAddr,
}

pub struct Proxy {
    process: Process,
    addresses: Addresses,
    config: PathBuf,
}

impl Proxy {
    /// Ready when it returns.
    pub fn start(stage: &Stage, spec: &ProxySpec) -> Result<Self> {
        let mut proxy = Self::prepare(stage, spec)?;
        proxy.start_again()?;
        Ok(proxy)
    }

    /// Has its addresses and config, but doesn't run yet.
    pub fn prepare(stage: &Stage, spec: &ProxySpec) -> Result<Self> {
        let mut listeners = Vec::new();
        for name in &spec.listeners {
            listeners.push((name.clone(), free_address()?));
        }
        let addresses = Addresses { listeners, health: free_address()?, admin: free_address()? };
        let name = format!("proxy-{}", spec.id);
        let data = stage.path().join(format!("{name}-data"));
        std::fs::create_dir_all(&data)?;
        let config = stage.write(&format!("{name}.toml"), &spec.config(&addresses, &data))?;
        let binary = spec.binary.clone().map_or_else(holdfast_binary, Ok)?;
        let arguments = ["run".into(), "--config".into(), config.clone().into_os_string()];
        let process = Process::new(stage, &name, binary, arguments);
        Ok(Self { process, addresses, config })
    }

    /// On the same addresses; ready when it returns.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start()?;
        let health = self.addresses.health.to_string();
        self.process.wait_ready("ready", READY_WITHIN, || {
            http::get(&health, "/readyz").is_ok_and(|answer| answer.status == 200)
        })
    }

    /// Of its first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses.listeners[0].1
    }

    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let found = self.addresses.listeners.iter().find(|(known, _)| known == name);
        match found {
            Some((_, address)) => Ok(*address),
            None => bail!("no listener {name:?} at {}", self.process.name()),
        }
    }

    pub fn health(&self) -> String {
        self.addresses.health.to_string()
    }

    /// For `HOLDFAST_ADMIN`.
    pub fn admin(&self) -> String {
        self.addresses.admin.to_string()
    }

    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// `/sessions`, `/backends`, `/routes`.
    pub fn admin_json(&self, path: &str) -> Result<Value> {
        http::get_json(&self.admin(), path)
    }

    /// One metric's value, summed over all its label sets that have `label` (as `reason="drain"`; "" for all).
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let page = http::get(&self.health(), "/metrics")?.body;
        Ok(sum(&page, name, label))
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn sum(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (series_name, labels) = series.split_once('{').unwrap_or((series, ""));
        (series_name == name && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_label_sets_asked_for() {
        let page = "# HELP a_total x\na_total{kind=\"b\"} 2\na_total{kind=\"c\"} 3\na_total_x 9\nb 4\n";
        assert_eq!(sum(page, "a_total", ""), 5.0);
        assert_eq!(sum(page, "a_total", "kind=\"c\""), 3.0);
        assert_eq!(sum(page, "b", ""), 4.0);
        assert_eq!(sum(page, "none", ""), 0.0);
    }
}
