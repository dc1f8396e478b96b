//! How long players notice that their game server was emptied: one proxy, two games, all sessions moved by a key.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Etcd, EtcdBinary, Metered, Players, PlayersSpec, Proxy, ProxySpec, Stage,
    Verdict, arena_service, meter, timestamps, until,
};
use serde_json::json;

/// Moves all sessions from one game to another, and tells what the players felt.
///
/// Exit code 0 only if all moved, and nothing was lost, repeated, reordered or disconnected.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Frames a second, each session
    #[arg(long, value_name = "HZ", default_value_t = 20.0)]
    rate: f64,
    /// Size of a frame
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    state_bytes: usize,
    /// Undisturbed play before the drain, over which CPU is measured
    #[arg(long, value_name = "S", default_value_t = 10)]
    steady_s: u64,
    /// One JSON object: the demo's fields, and the load's
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const TICK_MS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Play after the start before anything is measured, and after the drain before the end.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok((verdict, measured)) => {
            let moved = verdict.events.first().is_some_and(|event| event.moved == arguments.sessions as u64);
            report(&arguments, &verdict, &measured);
            ExitCode::from(u8::from(!(moved && verdict.is_clean())))
        }
        Err(error) => {
            eprintln!("bench drain: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured beside the players' verdict.
struct Measured {
    steady: Metered,
    /// From before `etcdctl put` was started to the proxy's first FREEZE (logged in the same turn).
    write_to_drain: Duration,
}

fn run(arguments: &Arguments) -> Result<(Verdict, Measured)> {
    let mut stage = Stage::new("bench-drain")?;
    let result = drain(&stage, arguments);
    if !result.as_ref().is_ok_and(|(verdict, _)| verdict.is_clean()) {
        stage.keep();
    }
    result
}

fn drain(stage: &Stage, arguments: &Arguments) -> Result<(Verdict, Measured)> {
    let state = arguments.state_bytes.to_string();
    let tick = TICK_MS.to_string();
    let spec = |name| ArenaSpec::new(name).flags(["--state-bytes", &state, "--tick-ms", &tick]);
    let (mut from, to) = (Arena::start(stage, spec("a"))?, Arena::start(stage, spec("b"))?);
    let documents = Documents::Etcd(Rc::new(Etcd::start(stage, EtcdBinary::Default)?));
    documents.put("services/arena", &arena_service(&json!({})))?;
    documents.put(&from.key(), &from.document())?;
    documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
    let mut proxy = Proxy::start(stage, &ProxySpec::new("bench", &documents))?;
    let sessions = arguments.sessions as u64;
    eprintln!("{sessions} players at {} Hz come in, all to one game", arguments.rate);
    let spec = PlayersSpec::new([proxy.address()], arguments.sessions).rate_hz(arguments.rate);
    let mut players = Players::start(stage, &PlayersSpec { frame_bytes: arguments.size, ..spec })?;
    // The other game appears only now, so that everybody has to move.
    let revision = proxy.metric("holdfast_table_revision", "")?;
    documents.put(&to.key(), &to.document())?;
    until("the proxy knows the other game", PATIENCE, || {
        proxy.metric("holdfast_table_revision", "").is_ok_and(|now| now > revision)
    })?;
    std::thread::sleep(SETTLE);
    eprintln!("{} s of undisturbed play", arguments.steady_s);
    let pids = [proxy.process().pid()?, from.process().pid()?];
    let steady = meter(&mut players, &pids, Duration::from_secs(arguments.steady_s))?;
    ensure!(steady.frames > 0, "nobody was answered in {} s", arguments.steady_s);
    eprintln!("the drain");
    players.begin("drain")?;
    let writes = SystemTime::now();
    documents.put(&from.drain_key(), &json!({"deadline_s": 60, "reason": "bench"}))?;
    players.wait_until("all have moved", PATIENCE, |progress| progress.moved == sessions)?;
    players.end("drain")?;
    std::thread::sleep(SETTLE);
    let log = proxy.process().log();
    let begun =
        log.lines().find(|line| line.contains("drain begins")).context("no drain in the proxy's log")?;
    let write_to_drain = timestamps::since(writes, begun.split(' ').next().unwrap_or_default())?;
    Ok((players.finish()?, Measured { steady, write_to_drain }))
}

fn report(arguments: &Arguments, verdict: &Verdict, measured: &Measured) {
    let write_to_drain_ms = (measured.write_to_drain.as_secs_f64() * 10_000.0).round() / 10.0;
    let cpu = (measured.steady.cpu_us_per_frame(0) * 100.0).round() / 100.0;
    if arguments.json {
        let mut line = verdict.summary();
        line["rate_hz"] = arguments.rate.into();
        line["frame_bytes"] = arguments.size.into();
        line["state_bytes"] = arguments.state_bytes.into();
        line["proxy_cpu_us_per_frame"] = cpu.into();
        line["write_to_drain_ms"] = write_to_drain_ms.into();
        println!("{line}");
        return;
    }
    println!(
        "{} sessions, {} frames of {} bytes, {} bytes of state",
        verdict.sessions, verdict.frames, arguments.size, arguments.state_bytes
    );
    let counts = verdict.promised().map(|(name, count)| format!("{name} {count}"));
    println!("{}", counts.join(", "));
    println!("from the start of etcdctl to the first freeze: {write_to_drain_ms} ms");
    println!("steady play: {cpu:.1} us of the proxy's CPU a round trip");
    for event in &verdict.events {
        println!(
            "{}: {} moved in {:.0} ms; pause p50 {:.1}, p99 {:.1}, max {:.1} ms; quiet p99 {:.1} ms",
            event.name,
            event.moved,
            event.took_ms,
            event.pause_p50_ms,
            event.pause_p99_ms,
            event.pause_max_ms,
            event.quiet_p99_ms
        );
    }
    verdict.notes.iter().for_each(|note| println!("! {note}"));
}
