//! What crash recovery costs: the proxy's CPU per frame with a journal and checkpoints, beside the same without.
//!
//! Two proxies, each with a game of its own, that differ in the service's `recovery` alone. They play in turn, the
//! same players, by the operating system's accounting; neither works while the other is measured.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use holdfast_stage::{
    Arena, ArenaSpec, BEST_RECOVERY, Documents, Players, PlayersSpec, Proxy, ProxySpec, Stage, arena_service,
    meter,
};
use serde_json::{Value, json};

const FRAME_BYTES: usize = 128;
const WARM_UP: Duration = Duration::from_secs(2);
const BASE: &str = "none";

/// The proxy's CPU per frame (one round trip) with crash recovery and without: medians over interleaved rounds, with
/// 4 KiB of state and a tick a second each, and a checkpoint a second where there are any. Every frame is checked.
#[derive(Debug, Parser)]
struct Arguments {
    /// The levels that are compared with `none`
    #[arg(long, value_delimiter = ',', default_values_t = [BEST_RECOVERY.to_owned()])]
    levels: Vec<String>,
    /// Sessions at 20 frames a second each
    #[arg(long, default_value_t = 1000)]
    paced: usize,
    /// Sessions that send their next frame when the reply is there
    #[arg(long, default_value_t = 512)]
    closed_loop: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured play of each run
    #[arg(long, value_name = "S", default_value_t = 6)]
    seconds: u64,
    /// One JSON object as the last line, and no table
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    sessions: usize,
    closed_loop: bool,
}

/// A proxy and a game at one level. Declared so that the folder goes last.
struct Contender {
    level: String,
    proxy: Proxy,
    backend: Arena,
    stage: Stage,
}

/// One run's CPU of proxy and game, in microseconds a round trip.
type Cpu = [f64; 2];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench recovery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds 0: expected at least 1");
    let levels = [BASE.to_owned()].into_iter().chain(arguments.levels.clone());
    let mut contenders = levels.map(Contender::start).collect::<Result<Vec<_>>>()?;
    let workloads = [
        Workload { name: "20 Hz", sessions: arguments.paced, closed_loop: false },
        Workload { name: "closed loop", sessions: arguments.closed_loop, closed_loop: true },
    ];
    let mut reports = Vec::new();
    for workload in workloads.into_iter().filter(|workload| workload.sessions > 0) {
        reports.push(compare(arguments, &mut contenders, workload)?);
    }
    let checkpoints = contenders.iter().map(Contender::checkpoints).collect::<Result<Vec<_>>>()?;
    if arguments.json {
        println!("{}", json!({"rounds": arguments.rounds, "checkpoints": checkpoints, "workloads": reports}));
    }
    Ok(())
}

fn compare(arguments: &Arguments, contenders: &mut [Contender], workload: Workload) -> Result<Value> {
    let mut runs: Vec<Vec<Cpu>> = vec![Vec::new(); contenders.len()];
    for round in 0..arguments.rounds {
        // Whoever begins has no advantage over all rounds.
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            let cpu = contenders[index].play(workload, Duration::from_secs(arguments.seconds))?;
            let level = &contenders[index].level;
            eprintln!("{}, round {}, {level}: {:.2} us a frame", workload.name, round + 1, cpu[0]);
            runs[index].push(cpu);
        }
    }
    let medians: Vec<(&str, Cpu)> =
        contenders.iter().zip(&runs).map(|(contender, runs)| (&*contender.level, median(runs))).collect();
    if !arguments.json {
        print_table(workload, &medians);
    }
    let [base, _] = medians[0].1;
    let level = |(level, [proxy, game]): &(&str, Cpu)| {
        json!({"level": level, "proxy_cpu_us_per_frame": rounded(*proxy), "ratio": rounded(proxy / base),
            "backend_cpu_us_per_frame": rounded(*game)})
    };
    let levels: Vec<Value> = medians.iter().map(level).collect();
    Ok(json!({"workload": workload.name, "sessions": workload.sessions, "levels": levels}))
}

fn print_table(workload: Workload, medians: &[(&str, Cpu)]) {
    println!(
        "| {} sessions, {} | proxy's CPU a frame | ratio | game's CPU a frame |",
        workload.sessions, workload.name
    );
    println!("|---|---|---|---|");
    let [base, _] = medians[0].1;
    for (level, [proxy, game]) in medians {
        println!("| `{level}` | {proxy:.2} us | {:.2} | {game:.2} us |", proxy / base);
    }
    println!();
}

impl Contender {
    fn start(level: String) -> Result<Self> {
        let mut stage = Stage::new(&format!("bench-recovery-{level}"))?;
        match start(&stage, &level) {
            Ok((backend, proxy)) => Ok(Self { level, proxy, backend, stage }),
            Err(error) => {
                stage.keep();
                Err(error)
            }
        }
    }

    fn play(&mut self, workload: Workload, play: Duration) -> Result<Cpu> {
        let result = self.measure(workload, play);
        if result.is_err() {
            self.stage.keep();
        }
        result
    }

    fn measure(&mut self, workload: Workload, play: Duration) -> Result<Cpu> {
        let spec = PlayersSpec::new([self.proxy.address()], workload.sessions);
        let spec = if workload.closed_loop { spec.closed_loop() } else { spec };
        let mut players = Players::start(&self.stage, &PlayersSpec { frame_bytes: FRAME_BYTES, ..spec })?;
        std::thread::sleep(WARM_UP);
        let pids = [self.proxy.process().pid()?, self.backend.process().pid()?];
        let metered = meter(&mut players, &pids, play)?;
        let verdict = players.finish()?;
        ensure!(verdict.is_clean(), "{}: the players found faults: {verdict:?}", self.level);
        Ok([metered.cpu_us_per_frame(0), metered.cpu_us_per_frame(1)])
    }

    /// How many it has taken: a level that makes them must have made some.
    fn checkpoints(&self) -> Result<f64> {
        let taken = self.proxy.metric("holdfast_checkpoints_total", "")?;
        ensure!(self.level == BASE || taken > 0.0, "{}: no checkpoint was taken", self.level);
        Ok(taken)
    }
}

fn start(stage: &Stage, level: &str) -> Result<(Arena, Proxy)> {
    let flags = ["--state-bytes", "4096", "--tick-ms", "1000"];
    let backend = Arena::start(stage, ArenaSpec::new("a").flags(flags))?;
    let documents = Documents::folder(stage)?;
    documents.put("services/arena", &arena_service(&json!({"recovery": level})))?;
    documents.put(&backend.key(), &backend.document())?;
    documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
    let proxy = Proxy::start(stage, &ProxySpec::new("bench", &documents))?;
    Ok((backend, proxy))
}

/// Of each figure by itself.
fn median(runs: &[Cpu]) -> Cpu {
    [0, 1].map(|at| {
        let mut values: Vec<f64> = runs.iter().map(|run| run[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
