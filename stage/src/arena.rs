//! The sample game as a process.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
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
    /// What goes wrong by chance from the start; `None`: nothing, and that can't be changed later.
    pub faults: Option<String>,
    /// What it tells of its capacity and load; `None`: nothing, and that can't be changed later.
    pub tells: Option<String>,
}

impl ArenaSpec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.4".to_owned(),
            unix: false,
            plain: false,
            flags: Vec::new(),
            faults: None,
            tells: None,
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

    /// `refuse=0.3,slow=1500ms@0.5,close=0.01,crash=0.001`, or `none`; [`Arena::set_faults`] changes it.
    #[must_use]
    pub fn faults(self, faults: &str) -> Self {
        Self { faults: Some(faults.to_owned()), ..self }
    }

    /// `capacity=800,load=250`, or `none`; [`Arena::tell`] changes it.
    #[must_use]
    pub fn tells(self, fullness: &str) -> Self {
        Self { tells: Some(fullness.to_owned()), ..self }
    }
}

pub struct Arena {
    spec: ArenaSpec,
    process: Process,
    link: String,
    plain: Option<SocketAddr>,
    /// Where its faults stand, if they may change.
    fault_file: PathBuf,
    tell_file: PathBuf,
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
        let fault_file = stage.path().join(format!("{name}.faults"));
        if let Some(faults) = &spec.faults {
            arguments.extend(["--fault-file".into(), fault_file.clone().into()]);
            std::fs::write(&fault_file, faults)?;
        }
        let tell_file = stage.path().join(format!("{name}.tells"));
        if let Some(tells) = &spec.tells {
            arguments.extend(["--tell-file".into(), tell_file.clone().into()]);
            std::fs::write(&tell_file, tells)?;
        }
        let process = Process::new(stage, &name, sample_binary("arena")?, arguments);
        Ok(Self { spec, process, link, plain, fault_file, tell_file })
    }

    /// After its end: on the same addresses. Ready when it returns.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start()?;
        let (link, plain) = (self.link.clone(), self.plain);
        self.process.wait_ready("listening", READY_WITHIN, || {
            connects(&link) && plain.is_none_or(|plain| TcpStream::connect(plain).is_ok())
        })
    }

    /// What goes wrong from here on (a moment later): as [`ArenaSpec::faults`], which must have been called.
    pub fn set_faults(&self, faults: &str) -> Result<()> {
        ensure!(self.spec.faults.is_some(), "{}: its faults can't be changed", self.spec.name);
        replace(&self.fault_file, faults)
    }

    /// What it tells from here on (a moment later): as [`ArenaSpec::tells`], which must have been called.
    pub fn tell(&self, fullness: &str) -> Result<()> {
        ensure!(self.spec.tells.is_some(), "{}: what it tells can't be changed", self.spec.name);
        replace(&self.tell_file, fullness)
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

/// All at once, so that no half of it is read.
fn replace(file: &Path, text: &str) -> Result<()> {
    let written = file.with_extension("new");
    std::fs::write(&written, text)?;
    Ok(std::fs::rename(written, file)?)
}

fn connects(address: &str) -> bool {
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).is_ok(),
        None => TcpStream::connect(address).is_ok(),
    }
}
