//! The sample game as a process.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Process, Stage, free_address, sample_binary};

const READY_WITHIN: Duration = Duration::from_secs(15);

/// How an arena is started.
#[derive(Debug, Clone)]
pub struct ArenaSpec {
    /// Also the backend's name in `backends/arena/<name>`.
    pub name: String,
    pub version: String,
    /// Over a Unix socket instead of TCP.
    pub unix: bool,
    /// Serve players directly too.
    pub plain: bool,
    /// More flags, faults for instance.
    pub flags: Vec<String>,
}

impl ArenaSpec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.4".to_owned(),
            unix: false,
            plain: false,
            flags: Vec::new(),
        }
    }

    #[must_use]
    pub fn version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    #[must_use]
    pub fn unix(self) -> Self {
        Self { unix: true, ..self }
    }

    #[must_use]
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.flags.extend(flags.into_iter().map(str::to_owned));
        self
    }
}

pub struct Arena {
    spec: ArenaSpec,
    process: Process,
    link: String,
    plain: Option<SocketAddr>,
}

impl Arena {
    /// Ready when it returns.
    pub fn start(stage: &Stage, spec: ArenaSpec) -> Result<Self> {
        let mut arena = Self::prepare(stage, spec)?;
        arena.start_again()?;
        Ok(arena)
    }

    /// Has its addresses, but doesn't run yet.
    pub fn prepare(stage: &Stage, spec: ArenaSpec) -> Result<Self> {
        let link = match spec.unix {
            true => format!("unix:{}", stage.path().join(format!("{}.sock", spec.name)).display()),
            false => free_address()?.to_string(),
        };
        let plain = if spec.plain { Some(free_address()?) } else { None };
        let name = format!("arena-{}", spec.name);
        let mut arguments: Vec<OsString> =
            ["--listen", &link, "--version", &spec.version, "--name", &name].map(OsString::from).into();
        if let Some(plain) = plain {
            arguments.extend(["--plain".into(), plain.to_string().into()]);
        }
        arguments.extend(spec.flags.iter().map(OsString::from));
        let process = Process::new(stage, &name, sample_binary("arena")?, arguments);
        Ok(Self { spec, process, link, plain })
    }

    /// After its end: on the same addresses. Ready when it returns.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start()?;
        let (link, plain) = (self.link.clone(), self.plain);
        self.process.wait_ready("listening", READY_WITHIN, || {
            connects(&link) && plain.is_none_or(|plain| TcpStream::connect(plain).is_ok())
        })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// As it stands in its document: `ip:port` or `unix:/path`.
    pub fn address(&self) -> &str {
        &self.link
    }

    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain
    }

    /// Its key, as `backends/arena/a`.
    pub fn key(&self) -> String {
        format!("backends/arena/{}", self.spec.name)
    }

    /// The key that drains it.
    pub fn drain_key(&self) -> String {
        format!("drains/arena/{}", self.spec.name)
    }

    pub fn document(&self) -> Value {
        json!({"address": self.link, "version": self.spec.version})
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn connects(address: &str) -> bool {
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).is_ok(),
        None => TcpStream::connect(address).is_ok(),
    }
}
