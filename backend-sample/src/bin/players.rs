//! `players`: bots that play the arena through whatever stands in front of it, and check every frame.

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use holdfast_sample::players::control::{self, Output};
use holdfast_sample::players::matches::MatchRules;
use holdfast_sample::players::report::table;
use holdfast_sample::players::target::{Place, resolve};
use holdfast_sample::players::{Settings, run};
use holdfast_sample::wire::{MAX_FRAME_BYTES, PLAYER_HEAD_BYTES};
use tokio::signal::unix::{SignalKind, signal};

/// A day.
const MAX_WAIT_S: f64 = 86_400.0;
/// Each frame is told to every member: n players of a match get n times n frames.
const MAX_MATCH: usize = 100;

/// Bots that check every frame: each recomputes its hash chain, counts and ticks, so that a lost, repeated or
/// reordered frame in either direction shows. With --matches, the players of a match share a world, and each checks
/// that it has its own frames in their order, and that the others see the same world.
///
/// Exit code 0 only if nothing was lost, repeated, reordered or mismatched, no world has diverged, and nobody was
/// disconnected or turned away, from a match either; 1 otherwise; 2 for wrong usage, or a host that has no address. SIGTERM and SIGINT end the run with its verdict.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to connect, names or addresses; several: bots are spread over them
    #[arg(
        long,
        value_name = "HOST:PORT[,HOST:PORT..]",
        value_delimiter = ',',
        default_value = "127.0.0.1:7000"
    )]
    connect: Vec<Place>,
    /// How long to go on trying, from the start, while a name isn't known or a connection is refused
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    wait: f64,
    /// Number of bots
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Frames a second, each bot
    #[arg(long, value_name = "HZ", default_value_t = 20.0)]
    rate: f64,
    /// Bytes of a frame, without its length prefix
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// How long to play once all are connected; without it, until `stop` or the end of stdin (with --control)
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Send the next frame when the reply is there, instead of at a rate
    #[arg(long)]
    closed_loop: bool,
    /// Come back after a disconnect, on a new connection and as a new player of the game
    #[arg(long)]
    rejoin: bool,
    /// Connect from 127.0.0.1 to 127.0.0.N in turn: more than 28,000 ports
    #[arg(long, value_name = "N", default_value_t = 1)]
    sources: u8,
    /// How long to wait for replies after the last frame
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    grace: f64,
    /// Players play in matches of so many; players of two processes don't meet, but with the same --match-id
    #[arg(long, value_name = "SIZE")]
    matches: Option<usize>,
    /// Stands in the id of each match of this process; random if it isn't given
    #[arg(long, value_name = "N", requires = "matches")]
    match_id: Option<u64>,
    /// How many of the players play in matches; the others play alone
    #[arg(long, value_name = "PERCENT", default_value_t = 100, requires = "matches")]
    match_share: usize,
    /// Each player leaves its match about so often, and then comes back or goes to another one, at once or later
    #[arg(long, value_name = "S", requires = "matches")]
    rematch: Option<f64>,
    /// Take orders on stdin: begin NAME, begin-at INSTANCE NAME, end NAME, add N [ADDR], stats, stop
    #[arg(long)]
    control: bool,
    /// JSON lines on stdout; the last one is the verdict
    #[arg(long)]
    json: bool,
    /// Time between progress lines
    #[arg(long, value_name = "MS", default_value_t = 250)]
    progress_ms: u64,
}

fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value)
        .with_context(|| format!("--{name} {value}: expected a number of seconds"))
}

impl Arguments {
    fn match_rules(&self) -> anyhow::Result<Option<MatchRules>> {
        let Some(size) = self.matches else { return Ok(None) };
        ensure!((1..=MAX_MATCH).contains(&size), "--matches {size}: expected 1 to {MAX_MATCH} players");
        let share_percent = self.match_share;
        ensure!(share_percent <= 100, "--match-share {share_percent}: expected 0 to 100 percent");
        let rematch = self.rematch.map(|value| seconds("rematch", value)).transpose()?;
        ensure!(
            rematch.is_none_or(|period| !period.is_zero() && period.as_secs_f64() <= MAX_WAIT_S),
            "--rematch: expected 0 < S <= {MAX_WAIT_S}"
        );
        Ok(Some(MatchRules { size, share_percent, rematch, id: self.match_id }))
    }

    /// All but where to connect, which takes a while to find out.
    fn settings(&self) -> anyhow::Result<Settings> {
        ensure!(self.rate > 0.0 && self.rate <= 10_000.0, "--rate {}: expected 0 < HZ <= 10000", self.rate);
        let sizes = PLAYER_HEAD_BYTES..=MAX_FRAME_BYTES;
        ensure!(sizes.contains(&self.size), "--size {}: expected {sizes:?} bytes", self.size);
        ensure!(self.sources > 0, "--sources 0: expected at least 1");
        ensure!(
            (0.0..=MAX_WAIT_S).contains(&self.wait),
            "--wait {}: expected 0 to {MAX_WAIT_S} s",
            self.wait
        );
        ensure!(self.progress_ms > 0, "--progress-ms 0: expected at least 1");
        ensure!(
            self.control || self.seconds.is_some(),
            "nothing would end the run: expected --seconds S or --control"
        );
        Ok(Settings {
            targets: Vec::new(),
            connect_deadline: Instant::now() + seconds("wait", self.wait)?,
            count: self.count,
            rate_hz: self.rate,
            frame_bytes: self.size,
            closed_loop: self.closed_loop,
            rejoin: self.rejoin,
            sources: self.sources,
            play: self.seconds.map(|value| seconds("seconds", value)).transpose()?,
            grace: seconds("grace", self.grace)?,
            matches: self.match_rules()?,
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("players: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// By SIGTERM or SIGINT. The first process of a container has to ask for them, or they pass it by.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn play(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut settings = arguments.settings()?;
    let orders = arguments.control.then(control::from_stdin);
    let output = Output { json: arguments.json, period: Duration::from_millis(arguments.progress_ms) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let verdict = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut stop = pin!(told_to_stop()?);
        settings.targets = tokio::select! {
            targets = resolve(&arguments.connect, settings.connect_deadline) => targets?,
            () = &mut stop => bail!("told to stop before every host of --connect had an address"),
        };
        Ok(run(settings, orders, output, stop).await)
    })?;
    let clean = verdict.is_clean();
    if arguments.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        eprint!("\r\x1b[K");
        print!("{}", table(&verdict));
        println!("  {}", if clean { "clean" } else { "NOT CLEAN" });
    }
    Ok(clean)
}
