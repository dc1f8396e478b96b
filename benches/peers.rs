//! CPU per frame beside HAProxy: the same game, the same players, in turn, by the operating system's accounting.
//!
//! HAProxy forwards bytes to the game's plain side. Holdfast has everything on: links, sequence numbers, journals, trace
//! contexts, metrics, and the export of sampled frames (one in a hundred) to a collector. Neither works while the other
//! is measured.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use holdfast_stage::{
    Arena, ArenaSpec, Collector, Documents, Haproxy, Players, PlayersSpec, Proxy, ProxySpec, Stage, Upstream,
    arena_service, meter,
};
use serde_json::{Map, Value, json};

const FRAME_BYTES: usize = 128;
const WARM_UP: Duration = Duration::from_secs(1);

/// CPU per frame (one round trip) of Holdfast and HAProxy, one thread each, in a closed loop: medians over
/// interleaved rounds. Every echoed byte is checked.
#[derive(Debug, Parser)]
struct Arguments {
    /// Numbers of sessions, one workload each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512])]
    sessions: Vec<usize>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured play of each run
    #[arg(long, value_name = "S", default_value_t = 5)]
    seconds: u64,
    /// One short round of the first workload: does it work at all?
    #[arg(long)]
    quick: bool,
    /// Which proxies
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Holdfast, Peer::Haproxy])]
    proxies: Vec<Peer>,
    /// One JSON object a workload
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    Holdfast,
    Haproxy,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A proxy with a game of its own behind it.
struct Contender {
    peer: Peer,
    address: SocketAddr,
    proxy_pid: u32,
    backend_pid: u32,
    runs: Runs,
    _backend: Arena,
}

/// What keeps a contender's proxy running.
enum Runs {
    Holdfast { proxy: Proxy },
    Haproxy { _proxy: Haproxy },
}

/// One run's figures.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    cpu_us_per_frame: f64,
    backend_cpu_us_per_frame: f64,
    p50_ms: f64,
    p99_ms: f64,
    frames: u64,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.sessions.truncate(1);
        (arguments.rounds, arguments.seconds) = (1, 1);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds 0: expected at least 1");
    let mut stage = Stage::new("bench-peers")?;
    let collector = Collector::start()?;
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
    let result = compare(&stage, arguments);
    if result.is_err() {
        stage.keep();
    }
    result
}

fn compare(stage: &Stage, arguments: &Arguments) -> Result<()> {
    let start = |peer: &Peer| Contender::start(stage, *peer);
    let contenders = arguments.proxies.iter().map(start).collect::<Result<Vec<_>>>()?;
    for &sessions in &arguments.sessions {
        let mut runs = vec![Vec::new(); contenders.len()];
        for round in 0..arguments.rounds {
            // Whoever begins has no advantage over all rounds.
            for turn in 0..contenders.len() {
                let index = (turn + round) % contenders.len();
                let contender = &contenders[index];
                let figures = contender.play(stage, sessions, Duration::from_secs(arguments.seconds))?;
                eprintln!(
                    "{sessions} sessions, round {}, {:<8}: {:.2} us a frame",
                    round + 1,
                    contender.peer.name(),
                    figures.cpu_us_per_frame
                );
                runs[index].push(figures);
            }
        }
        let medians: Vec<_> =
            contenders.iter().zip(&runs).map(|(contender, runs)| (contender.peer, median(runs))).collect();
        report(arguments, sessions, &medians);
    }
    contenders.iter().try_for_each(Contender::has_exported)
}

impl Contender {
    fn start(stage: &Stage, peer: Peer) -> Result<Self> {
        let mut backend = Arena::start(stage, ArenaSpec::new(peer.name()).plain())?;
        let (address, proxy_pid, proxy) = match peer {
            Peer::Holdfast => start_holdfast(stage, &backend)?,
            Peer::Haproxy => start_haproxy(stage, &backend)?,
        };
        let backend_pid = backend.process().pid()?;
        Ok(Self { peer, address, proxy_pid, backend_pid, runs: proxy, _backend: backend })
    }

    /// What the figures say is "on" was on.
    fn has_exported(&self) -> Result<()> {
        if let Runs::Holdfast { proxy } = &self.runs {
            let spans = proxy.metric("holdfast_spans_exported_total", "")?;
            ensure!(spans > 0.0, "no span has reached the collector");
        }
        Ok(())
    }

    fn play(&self, stage: &Stage, sessions: usize, play: Duration) -> Result<Figures> {
        let spec = PlayersSpec {
            frame_bytes: FRAME_BYTES,
            ..PlayersSpec::new([self.address], sessions).closed_loop()
        };
        let mut players = Players::start(stage, &spec)?;
        std::thread::sleep(WARM_UP);
        let metered = meter(&mut players, &[self.proxy_pid, self.backend_pid], play)?;
        let verdict = players.finish()?;
        ensure!(verdict.is_clean(), "{}: the players found faults: {verdict:?}", self.peer.name());
        Ok(Figures {
            cpu_us_per_frame: metered.cpu_us_per_frame(0),
            backend_cpu_us_per_frame: metered.cpu_us_per_frame(1),
            p50_ms: verdict.p50_ms,
            p99_ms: verdict.p99_ms,
            frames: metered.frames,
        })
    }
}

fn start_holdfast(stage: &Stage, backend: &Arena) -> Result<(SocketAddr, u32, Runs)> {
    let documents = Documents::folder(stage)?;
    documents.put("services/arena", &arena_service(&json!({})))?;
    documents.put(&backend.key(), &backend.document())?;
    documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
    let mut proxy = Proxy::start(stage, &ProxySpec::new("holdfast", &documents))?;
    Ok((proxy.address(), proxy.process().pid()?, Runs::Holdfast { proxy }))
}

fn start_haproxy(stage: &Stage, backend: &Arena) -> Result<(SocketAddr, u32, Runs)> {
    let mut haproxy = Haproxy::start(stage, &[Upstream::of(backend, 100)?])?;
    Ok((haproxy.address(), haproxy.process().pid()?, Runs::Haproxy { _proxy: haproxy }))
}

/// Of each figure by itself.
fn median(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        cpu_us_per_frame: of(|run| run.cpu_us_per_frame),
        backend_cpu_us_per_frame: of(|run| run.backend_cpu_us_per_frame),
        p50_ms: of(|run| run.p50_ms),
        p99_ms: of(|run| run.p99_ms),
        frames: of(|run| run.frames as f64) as u64,
    }
}

fn report(arguments: &Arguments, sessions: usize, medians: &[(Peer, Figures)]) {
    let cpu = |peer| {
        let found = medians.iter().find(|(known, _)| *known == peer)?;
        Some(found.1.cpu_us_per_frame)
    };
    let ratio =
        cpu(Peer::Holdfast).zip(cpu(Peer::Haproxy)).map(|(ours, theirs)| round(ours / theirs, 1000.0));
    if arguments.json {
        let proxies: Map<String, Value> =
            medians.iter().map(|(peer, figures)| (peer.name().to_owned(), figures.json())).collect();
        let workload = format!("closed_loop_{sessions}");
        println!(
            "{}",
            json!({"workload": workload, "sessions": sessions, "frame_bytes": FRAME_BYTES, "proxies": proxies, "ratio": ratio})
        );
        return;
    }
    println!(
        "closed loop, {sessions} sessions, frames of {FRAME_BYTES} bytes, median of {} rounds",
        arguments.rounds
    );
    println!(
        "  {:<10} {:>12} {:>12} {:>9} {:>9} {:>10}",
        "", "CPU a frame", "game's CPU", "p50", "p99", "frames"
    );
    for (peer, it) in medians {
        println!(
            "  {:<10} {:>9.2} us {:>9.2} us {:>6.2} ms {:>6.2} ms {:>10}",
            peer.name(),
            it.cpu_us_per_frame,
            it.backend_cpu_us_per_frame,
            it.p50_ms,
            it.p99_ms,
            it.frames
        );
    }
    if let Some(ratio) = ratio {
        println!("  Holdfast uses {ratio} of HAProxy's CPU");
    }
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "cpu_us_per_frame": round(self.cpu_us_per_frame, 100.0),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "frames": self.frames,
            "backend_cpu_us_per_frame": round(self.backend_cpu_us_per_frame, 100.0),
        })
    }
}

fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
