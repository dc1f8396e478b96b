//! `arena`: the sample game as a server, behind a Holdfast proxy (`--listen`) or alone (`--plain`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use holdfast_backend::{Load, Server};
use holdfast_sample::arena::{Arena, Faults, Rules};
use holdfast_sample::follow::follow;
use holdfast_sample::fullness::Fullness;
use holdfast_sample::hero::MAX_VERSION_BYTES;
use holdfast_sample::mishaps::{Chances, Mishaps};
use holdfast_sample::wire::Tag;

/// Largest `--state-bytes`: what a proxy takes at most, by default.
const MAX_STATE_BYTES: usize = 64 << 20;

/// A small stateful game. Each player's state is a hash chain over every frame processed, so that `players` can
/// tell whether any was lost, repeated or put out of order.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where proxies connect: ip:port or unix:/path
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where players connect with no proxy between
    #[arg(long, value_name = "ADDR")]
    plain: Vec<String>,
    /// The game's version, as routes name it
    #[arg(long, default_value = "1.4")]
    version: String,
    /// Name in logs and traces
    #[arg(long, default_value = "arena")]
    name: String,
    /// The run's number in every reply; the same for arenas that are to answer alike [default: its own]
    #[arg(long, value_name = "N")]
    instance: Option<u64>,
    /// The format of saved states that it claims to write
    #[arg(long, value_name = "NAME", default_value = "arena-1")]
    writes_format: String,
    /// One more format that it claims to read
    #[arg(long, value_name = "NAME")]
    reads_format: Vec<String>,
    /// Size of a player's saved state
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    state_bytes: usize,
    /// The same for the first player that comes
    #[arg(long, value_name = "BYTES")]
    first_state_bytes: Option<usize>,
    /// Time between a player's ticks; 0: no ticks
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    tick_ms: u32,
    /// How long proxies have to move the players off after SIGTERM
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain_deadline_s: u64,
    /// Won't come back under this name: at SIGTERM, players that nobody takes aren't waited with
    #[arg(long)]
    gone_for_good: bool,
    /// Tell changes of state, so that services may use `recovery: delta`
    #[arg(long)]
    deltas: bool,
    /// Faults by chance: refuse=0.3,slow=1500ms@0.5,close=0.01,crash=0.001
    #[arg(long, value_name = "LIST", default_value = "none")]
    fault: Chances,
    /// The same, from a file that may change while the game runs
    #[arg(long, value_name = "FILE")]
    fault_file: Option<PathBuf>,
    /// Chooses what happens by chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    fault_seed: u64,
    /// What proxies are told: capacity=800,load=250 (sessions, thousandths)
    #[arg(long, value_name = "LIST", default_value = "none")]
    tell: Fullness,
    /// The same, from a file that may change while the game runs
    #[arg(long, value_name = "FILE")]
    tell_file: Option<PathBuf>,
    /// Fault: refuse every player
    #[arg(long)]
    refuse_attach: bool,
    /// Fault: damage every saved state
    #[arg(long)]
    corrupt_state: bool,
    /// Fault: each frame takes so long
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow_ms: u64,
    /// Fault: close a player at this frame
    #[arg(long, value_name = "FRAME")]
    close_at: Option<u64>,
}

impl Arguments {
    fn rules(&self) -> anyhow::Result<Rules> {
        ensure!(
            self.state_bytes <= MAX_STATE_BYTES,
            "--state-bytes {}: expected at most {MAX_STATE_BYTES}",
            self.state_bytes
        );
        let bytes = self.version.len();
        ensure!(
            bytes <= MAX_VERSION_BYTES,
            "--version of {bytes} bytes: expected at most {MAX_VERSION_BYTES}"
        );
        ensure!(
            self.first_state_bytes.is_none_or(|bytes| bytes <= MAX_STATE_BYTES),
            "--first-state-bytes: expected at most {MAX_STATE_BYTES}"
        );
        Ok(Rules {
            tag: Tag {
                instance: self.instance.unwrap_or_else(|| fastrand::u64(1..)),
                version: self.version.clone(),
            },
            shares_tag: self.instance.is_some(),
            state_bytes: self.state_bytes,
            first_state_bytes: self.first_state_bytes,
            tick: (self.tick_ms > 0).then(|| Duration::from_millis(u64::from(self.tick_ms))),
            faults: Faults { corrupt_state: self.corrupt_state, close_at: self.close_at },
            mishaps: self.mishaps()?,
        })
    }

    fn mishaps(&self) -> anyhow::Result<Mishaps> {
        let mut chances = self.fault;
        if self.refuse_attach {
            chances.refuse = 1.0;
        }
        if self.slow_ms > 0 {
            chances.slow = Some((Duration::from_millis(self.slow_ms), 1.0));
        }
        let mishaps = Mishaps::new(chances, self.fault_seed);
        if let Some(file) = &self.fault_file {
            mishaps.follow(file.clone())?;
        }
        Ok(mishaps)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _telemetry = holdfast_backend::telemetry::init(&arguments.name);
    let load = Load::default();
    arguments.tell.tell(&load);
    if let Some(file) = &arguments.tell_file {
        let load = load.clone();
        follow(file.clone(), move |fullness: Fullness| fullness.tell(&load))?;
    }
    let mut server = Server::builder(Arena::new(arguments.rules()?))
        .name(&arguments.name)
        .version(&arguments.version)
        .state_format(&arguments.writes_format)
        .drain_deadline(Duration::from_secs(arguments.drain_deadline_s))
        .returns(!arguments.gone_for_good)
        .groups(true)
        .load(&load);
    if arguments.deltas {
        server = server.deltas();
    }
    for format in &arguments.reads_format {
        server = server.reads_format(format);
    }
    for address in &arguments.listen {
        server = server.listen(address);
    }
    for address in &arguments.plain {
        server = server.plain(address);
    }
    server.run()?;
    Ok(())
}
