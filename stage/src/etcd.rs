//! A real etcd of one node, and `etcdctl` to write its keys with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries::tool;
use crate::{Process, Stage, free_address, until};

const READY_WITHIN: Duration = Duration::from_secs(15);

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdBinary {
    /// `HOLDFAST_ETCD` and `HOLDFAST_ETCDCTL`, else Debian's.
    Default,
    /// `HOLDFAST_ETCD_CURRENT` and `HOLDFAST_ETCDCTL_CURRENT`, which `./dev test` builds.
    Current,
}

pub struct Etcd {
    process: Process,
    etcdctl: PathBuf,
    client: SocketAddr,
}

impl Etcd {
    /// Ready when it returns.
    pub fn start(stage: &Stage, binary: EtcdBinary) -> Result<Self> {
        let hint = "`./dev setup` installs or builds it";
        let (etcd, etcdctl) = match binary {
            EtcdBinary::Default => (
                tool("HOLDFAST_ETCD", "/usr/bin/etcd", hint)?,
                tool("HOLDFAST_ETCDCTL", "/usr/bin/etcdctl", hint)?,
            ),
            EtcdBinary::Current => {
                (tool("HOLDFAST_ETCD_CURRENT", "", hint)?, tool("HOLDFAST_ETCDCTL_CURRENT", "", hint)?)
            }
        };
        let (client, peer) = (free_address()?, free_address()?);
        let name = format!("etcd-{}", client.port());
        let data = stage.path().join(&name);
        let arguments = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
        ];
        let process = Process::new(stage, &name, etcd, arguments);
        let mut etcd = Self { process, etcdctl, client };
        etcd.start_again()?;
        Ok(etcd)
    }

    /// After [`Self::kill`] or [`Self::stop`]: the same data on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start()?;
        let (etcdctl, client) = (self.etcdctl.clone(), self.client);
        let healthy = || run(&etcdctl, client, &["endpoint", "health"]).is_ok();
        self.process.wait_ready("healthy", READY_WITHIN, healthy)
    }

    /// As `http://127.0.0.1:2379`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.client)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait(READY_WITHIN).map(drop)
    }

    /// Any `etcdctl` command; its output.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        run(&self.etcdctl, self.client, arguments)
    }

    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.etcdctl(&["put", "--", key, value]).map(drop)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        match self.etcdctl(&["del", key])?.trim() {
            "1" => Ok(()),
            count => bail!("etcdctl del {key}: {count} keys deleted, expected 1"),
        }
    }

    /// The store's revision.
    pub fn revision(&self) -> Result<u64> {
        let status: Value = serde_json::from_str(&self.etcdctl(&["endpoint", "status", "-w", "json"])?)?;
        let revision = status.pointer("/0/Status/header/revision").and_then(Value::as_u64);
        revision.with_context(|| format!("a revision in etcd's status {status}"))
    }

    /// Forgets all history before the revision it is at; returns that revision.
    pub fn compact(&self) -> Result<u64> {
        let revision = self.revision()?;
        self.etcdctl(&["compact", "--physical", &revision.to_string()])?;
        Ok(revision)
    }

    /// Waits until a key has a value for which `wanted` holds; returns it.
    pub fn wait_for(&self, key: &str, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut value = String::new();
        let looked = until(&format!("the wanted value at etcd's key {key}"), within, || {
            value = self.etcdctl(&["get", "--print-value-only", key]).unwrap_or_default();
            wanted(&value)
        });
        looked.with_context(|| format!("its last value: {value:?}"))?;
        Ok(value)
    }
}

fn run(etcdctl: &PathBuf, client: SocketAddr, arguments: &[&str]) -> Result<String> {
    let output = Command::new(etcdctl)
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=http://{client}"))
        .arg("--command-timeout=5s")
        .args(arguments)
        .output()
        .with_context(|| etcdctl.display().to_string())?;
    if !output.status.success() {
        bail!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_restart_and_history_ends_with_a_compaction() {
        let stage = Stage::new("test-etcd").unwrap();
        let mut etcd = Etcd::start(&stage, EtcdBinary::Default).unwrap();
        let first = etcd.revision().unwrap();
        etcd.put("/k", "-1").unwrap();
        etcd.put("/k", "two\nlines").unwrap();
        etcd.kill().unwrap();
        assert!(etcd.put("/k", "three").is_err());
        etcd.start_again().unwrap();
        assert_eq!(
            etcd.wait_for("/k", READY_WITHIN, |value| !value.is_empty()).unwrap().trim(),
            "two\nlines"
        );
        assert_eq!(etcd.compact().unwrap(), first + 2);
        let old = etcd.etcdctl(&["get", "/k", "--rev", &first.to_string()]).unwrap_err().to_string();
        assert!(old.contains("compacted"), "{old}");
        etcd.delete("/k").unwrap();
        assert!(etcd.delete("/k").is_err(), "nothing there any more");
    }
}
