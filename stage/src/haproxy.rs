//! HAProxy in TCP mode, in front of games' plain sides: what Holdfast is compared with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::tool;
use crate::{Process, Stage, Upstream, free_address};

const READY_WITHIN: Duration = Duration::from_secs(15);
/// Two descriptors a session, and some more: below the 20,000 that a process often may have.
const MAX_SESSIONS: u32 = 9_500;

/// One thread, least connections first; games are checked five times a second, and the next is tried if one refuses.
pub struct Haproxy {
    process: Process,
    address: SocketAddr,
    socket: PathBuf,
}

impl Haproxy {
    /// `HOLDFAST_HAPROXY`, else Debian's. Ready when it returns.
    pub fn start(stage: &Stage, upstreams: &[Upstream]) -> Result<Self> {
        let program = tool("HOLDFAST_HAPROXY", "/usr/sbin/haproxy", "`./dev setup` installs it")?;
        let address = free_address()?;
        let socket = stage.path().join("haproxy.sock");
        let servers: Vec<String> = upstreams
            .iter()
            .map(|it| format!("  server {} {} weight {} check inter 200ms\n", it.name, it.address, it.weight))
            .collect();
        let config = format!(
            "global\n  nbthread 1\n  maxconn {MAX_SESSIONS}\n  stats socket {} level admin\n\
             defaults\n  mode tcp\n  retries 3\n  option redispatch 1\n\
             \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen game\n  bind {address}\n  balance leastconn\n{}",
            socket.display(),
            servers.concat()
        );
        let config = stage.write("haproxy.cfg", &config)?;
        let arguments = ["-db".into(), "-f".into(), config.into_os_string()];
        let mut process = Process::new(stage, "haproxy", program, arguments);
        process.start()?;
        process.wait_ready("listening", READY_WITHIN, || TcpStream::connect(address).is_ok())?;
        Ok(Self { process, address, socket })
    }

    /// From now on new sessions follow these weights; 0: none. Live ones stay.
    pub fn weigh(&self, upstreams: &[Upstream]) -> Result<()> {
        upstreams.iter().try_for_each(|it| {
            let order = format!("set server game/{} weight {}\n", it.name, it.weight);
            let answer = self.order(&order).with_context(|| format!("HAProxy: {order:?}"))?;
            ensure!(answer.trim().is_empty(), "HAProxy: {order:?}: {answer}");
            Ok(())
        })
    }

    fn order(&self, order: &str) -> Result<String> {
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.set_read_timeout(Some(READY_WITHIN))?;
        socket.write_all(order.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
