//! A real etcd of one node or three, and `etcdctl` to write its keys with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
    data: PathBuf,
    /// As `http://127.0.0.1:2379`.
    endpoint: String,
    /// What `etcdctl` needs to be let in.
    credentials: Vec<String>,
}

/// One node among others.
struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
}

impl Member {
    fn new(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), client: free_address()?, peer: free_address()? })
    }
}

impl Etcd {
    /// Ready when it returns.
    pub fn start(stage: &Stage, binary: EtcdBinary) -> Result<Self> {
        Self::start_with(stage, binary, &[])
    }

    /// With more of etcd's own flags.
    pub fn start_with(stage: &Stage, binary: EtcdBinary, flags: &[String]) -> Result<Self> {
        let member = Member::new("default")?;
        let mut etcd = Self::prepare(stage, binary, &member, std::slice::from_ref(&member), flags)?;
        etcd.start_again()?;
        Ok(etcd)
    }

    /// Speaks TLS with the certificate and key in these files, which are trusted as they are; read again at each start.
    pub fn start_with_tls(stage: &Stage, binary: EtcdBinary, certificate: &Path, key: &Path) -> Result<Self> {
        let flags = [("cert", certificate), ("key", key)]
            .map(|(flag, path)| format!("--{flag}-file={}", path.display()));
        let member = Member::new("default")?;
        let mut etcd = Self::prepare(stage, binary, &member, std::slice::from_ref(&member), &flags)?;
        etcd.credentials = vec![format!("--cacert={}", certificate.display())];
        etcd.start_again()?;
        Ok(etcd)
    }

    /// Three nodes, ready when it returns.
    pub fn cluster(stage: &Stage, binary: EtcdBinary) -> Result<Vec<Self>> {
        let members =
            ["one", "two", "three"].iter().map(|name| Member::new(name)).collect::<Result<Vec<_>>>()?;
        let prepare = |member| Self::prepare(stage, binary, member, &members, &[]);
        let mut nodes = members.iter().map(prepare).collect::<Result<Vec<_>>>()?;
        // None is healthy alone.
        for node in &mut nodes {
            node.process.start()?;
        }
        for node in &mut nodes {
            node.wait_until_healthy()?;
        }
        Ok(nodes)
    }

    fn prepare(
        stage: &Stage,
        binary: EtcdBinary,
        member: &Member,
        members: &[Member],
        flags: &[String],
    ) -> Result<Self> {
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
        let Member { name: member_name, client, peer } = member;
        let name = format!("etcd-{}", client.port());
        let data = stage.path().join(&name);
        let scheme = if flags.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
        let endpoint = format!("{scheme}://{client}");
        let everyone: Vec<_> =
            members.iter().map(|member| format!("{}=http://{}", member.name, member.peer)).collect();
        let mut arguments = vec![
            format!("--name={member_name}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={}", everyone.join(",")),
        ];
        arguments.extend_from_slice(flags);
        let process = Process::new(stage, &name, etcd, arguments);
        Ok(Self { process, etcdctl, data, endpoint, credentials: Vec::new() })
    }

    /// After [`Self::kill`] or [`Self::stop`]: the same data on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start()?;
        self.wait_until_healthy()
    }

    /// Another etcd in its place: the same port, but none of its keys, and its revisions begin again.
    pub fn start_anew(&mut self) -> Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(&self.data)?;
        self.start_again()
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let ask = self.asker();
        self.process.wait_ready("healthy", READY_WITHIN, || ask(&["endpoint", "health"]).is_ok())
    }

    /// What `etcdctl` says from now on of who it is, as `name:password`.
    pub fn log_in(&mut self, user: &str) {
        self.credentials = vec![format!("--user={user}")];
    }

    /// As `http://127.0.0.1:2379`.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
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

    fn asker(&self) -> impl Fn(&[&str]) -> Result<String> + use<> {
        let (etcdctl, endpoint, credentials) =
            (self.etcdctl.clone(), self.endpoint.clone(), self.credentials.clone());
        move |arguments| run(&etcdctl, &endpoint, &credentials, arguments)
    }

    /// Any `etcdctl` command; its output.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        self.asker()(arguments)
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

fn run(etcdctl: &Path, endpoint: &str, credentials: &[String], arguments: &[&str]) -> Result<String> {
    let output = Command::new(etcdctl)
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .arg("--command-timeout=5s")
        .args(credentials)
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
