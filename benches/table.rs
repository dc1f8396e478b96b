//! How soon a change of the routing documents is in force, with a large table and many players; whether they notice;
//! what the table weighs; and whether a thousand writes a second are kept up with.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use etcd_client::{Client, Txn, TxnOp};
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Etcd, EtcdBinary, Players, PlayersSpec, Proxy, ProxySpec, Stage, Verdict,
    arena_service, until, usage,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Changes routing documents under players' feet: one by one, then by the thousand.
///
/// Exit code 0 only if nothing was lost, repeated, reordered or disconnected, and the proxy kept up.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200)]
    services: usize,
    /// Over all services
    #[arg(long, default_value_t = 2_000)]
    backends: usize,
    #[arg(long, default_value_t = 9_000)]
    sessions: usize,
    /// Of the proxy: a change is in force when all of them act by it
    #[arg(long, default_value_t = 2)]
    workers: u16,
    /// Frames a second, each session
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    rate: f64,
    /// Single changes, twenty a second
    #[arg(long, default_value_t = 400)]
    changes: usize,
    /// Writes a second, afterwards
    #[arg(long, default_value_t = 1_000)]
    writes: usize,
    /// For so many seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    storm_s: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const CONFIG: &str = "/holdfast/config";
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(3);
const CHANGE_EVERY: Duration = Duration::from_millis(50);
/// Writes of one burst are sent together.
const BURSTS_A_SECOND: usize = 20;
/// How far behind the proxy may be at most, to count as keeping up.
const MAX_LAG: Duration = Duration::from_secs(1);
const BOUNDS_MS: [(&str, f64); 9] = [
    ("0.0005", 0.5),
    ("0.001", 1.0),
    ("0.002", 2.0),
    ("0.005", 5.0),
    ("0.01", 10.0),
    ("0.02", 20.0),
    ("0.05", 50.0),
    ("0.1", 100.0),
    ("1.0", 1_000.0),
];

struct Measured {
    table_rss_bytes: u64,
    single: Applied,
    storm: Applied,
    written: usize,
    storm_took: Duration,
    /// The longest time between etcd's answer to a write and the proxy's table with it.
    max_lag: Duration,
}

/// Tables put in force in one part of the run.
struct Applied {
    tables: f64,
    /// Upper bound of the bucket that holds the 99th percentile, from the watch event on.
    p99_below_ms: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok((verdict, measured)) => {
            report(&arguments, &verdict, &measured);
            let keeps_up = measured.max_lag <= MAX_LAG;
            ExitCode::from(u8::from(!(verdict.is_clean() && keeps_up)))
        }
        Err(error) => {
            eprintln!("bench table: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(Verdict, Measured)> {
    let mut stage = Stage::new("bench-table")?;
    let result = measure(&stage, arguments);
    if !result.as_ref().is_ok_and(|(verdict, _)| verdict.is_clean()) {
        stage.keep();
    }
    result
}

fn measure(stage: &Stage, arguments: &Arguments) -> Result<(Verdict, Measured)> {
    let etcd = Rc::new(Etcd::start(stage, EtcdBinary::Current)?);
    let documents = Documents::Etcd(Rc::clone(&etcd));
    let arenas = [Arena::start(stage, ArenaSpec::new("a"))?, Arena::start(stage, ArenaSpec::new("b"))?];
    documents.put("services/arena", &arena_service(&json!({})))?;
    for arena in &arenas {
        documents.put(&arena.key(), &arena.document())?;
    }
    documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
    let mut spec = ProxySpec::new("bench", &documents);
    spec.workers = arguments.workers;
    let mut proxy = Proxy::start(stage, &spec)?;
    let mut writer = Writer::new(&etcd)?;
    std::thread::sleep(SETTLE);
    let pid = proxy.process().pid()?;
    let before = usage(pid)?.rss_bytes;
    let revision = writer.write_table(arguments)?;
    await_revision(&proxy, revision)?;
    std::thread::sleep(SETTLE);
    let table_rss_bytes = usage(pid)?.rss_bytes.saturating_sub(before);
    eprintln!("{} services with {} backends are in force", arguments.services, arguments.backends);
    let spec = PlayersSpec::new([proxy.address()], arguments.sessions).rate_hz(arguments.rate);
    let mut players = Players::start(stage, &spec)?;
    eprintln!("{} players are in, at {} Hz", arguments.sessions, arguments.rate);
    std::thread::sleep(2 * SETTLE);
    players.begin("single changes")?;
    let start = buckets(&proxy)?;
    for change in 0..arguments.changes {
        writer.change(arguments.services, change % arguments.backends, change)?;
        std::thread::sleep(CHANGE_EVERY);
    }
    std::thread::sleep(SETTLE);
    let single = applied(&start, &buckets(&proxy)?, arguments.workers);
    players.end("single changes")?;
    eprintln!("{} writes a second for {} s", arguments.writes, arguments.storm_s);
    players.begin("storm of writes")?;
    let start = buckets(&proxy)?;
    let storm = writer.storm(arguments, &proxy)?;
    let storm_applied = applied(&start, &buckets(&proxy)?, arguments.workers);
    players.end("storm of writes")?;
    std::thread::sleep(SETTLE);
    let verdict = players.finish()?;
    let (written, storm_took, max_lag) = storm;
    Ok((verdict, Measured { table_rss_bytes, single, storm: storm_applied, written, storm_took, max_lag }))
}

/// Writes keys as a registrar would: over one connection, many at once.
struct Writer {
    runtime: Runtime,
    client: Client,
}

impl Writer {
    fn new(etcd: &Etcd) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(Client::connect([etcd.endpoint()], None))?;
        Ok(Self { runtime, client })
    }

    /// Everything but the players' own service; returns the last revision.
    fn write_table(&mut self, arguments: &Arguments) -> Result<i64> {
        let mut puts = Vec::new();
        for number in 0..arguments.services {
            puts.push(put(&format!("services/s{number}"), &arena_service(&json!({}))));
            let route = json!({"listener": format!("other-{number}"), "service": format!("s{number}")});
            puts.push(put(&format!("routes/r{number}"), &route));
        }
        puts.extend((0..arguments.backends).map(|number| backend(arguments.services, number, 0)));
        let mut revision = 0;
        for batch in puts.chunks(100) {
            let written = self.runtime.block_on(self.client.txn(Txn::new().and_then(batch.to_vec())))?;
            revision = written.header().context("a header")?.revision();
        }
        Ok(revision)
    }

    fn change(&mut self, services: usize, number: usize, round: usize) -> Result<()> {
        let key = format!("{CONFIG}/backends/s{}/b{number}", number % services);
        self.runtime.block_on(self.client.put(key, document(number, round + 1).to_string(), None))?;
        Ok(())
    }

    /// Returns how many were written, in which time, and how far the proxy was behind at most.
    fn storm(&mut self, arguments: &Arguments, proxy: &Proxy) -> Result<(usize, Duration, Duration)> {
        let begun = Instant::now();
        let (mut written, mut max_lag) = (0, Duration::ZERO);
        for burst in 0..arguments.storm_s * BURSTS_A_SECOND {
            let revision = self.burst(arguments, burst)?;
            written += arguments.writes / BURSTS_A_SECOND;
            if burst % BURSTS_A_SECOND == BURSTS_A_SECOND - 1 {
                let acknowledged = Instant::now();
                await_revision(proxy, revision)?;
                max_lag = max_lag.max(acknowledged.elapsed());
            }
            let due = begun + Duration::from_secs(1) * (burst as u32 + 1) / BURSTS_A_SECOND as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok((written, begun.elapsed(), max_lag))
    }

    fn burst(&self, arguments: &Arguments, burst: usize) -> Result<i64> {
        let size = arguments.writes / BURSTS_A_SECOND;
        self.runtime.block_on(async {
            let mut puts = JoinSet::new();
            for one in 0..size {
                let (number, mut client) = ((burst * size + one) % arguments.backends, self.client.clone());
                let key = format!("{CONFIG}/backends/s{}/b{number}", number % arguments.services);
                let value = document(number, burst + 1_000).to_string();
                puts.spawn(async move { client.put(key, value, None).await });
            }
            let mut revision = 0;
            while let Some(put) = puts.join_next().await {
                revision = revision.max(put??.header().context("a header")?.revision());
            }
            Ok(revision)
        })
    }
}

fn put(key: &str, document: &Value) -> TxnOp {
    TxnOp::put(format!("{CONFIG}/{key}"), document.to_string(), None)
}

fn backend(services: usize, number: usize, round: usize) -> TxnOp {
    put(&format!("backends/s{}/b{number}", number % services), &document(number, round))
}

/// Each round is another weight.
fn document(number: usize, round: usize) -> Value {
    json!({
        "address": format!("10.{}.{}.7:7100", number / 256, number % 256),
        "version": "1.4",
        "weight": 100 + round,
        "zone": format!("zone-{}", number % 3),
    })
}

fn await_revision(proxy: &Proxy, revision: i64) -> Result<()> {
    until("the proxy has the table", PATIENCE, || {
        proxy.metric("holdfast_table_revision", "").is_ok_and(|now| now >= revision as f64)
    })
}

/// Cumulative counts by bound, and all.
fn buckets(proxy: &Proxy) -> Result<Vec<f64>> {
    let name = "holdfast_table_apply_seconds_bucket";
    let bound = |bound: &str| proxy.metric(name, &format!("le=\"{bound}\""));
    BOUNDS_MS.iter().map(|(text, _)| bound(text)).chain([bound("+Inf")]).collect()
}

/// Each worker counts each table.
fn applied(before: &[f64], after: &[f64], workers: u16) -> Applied {
    let counts: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    let swaps = counts.last().copied().unwrap_or(0.0);
    let holds = |(count, (_, bound)): (&f64, &(&str, f64))| (*count >= 0.99 * swaps).then_some(*bound);
    let p99_below_ms = counts.iter().zip(&BOUNDS_MS).find_map(holds).unwrap_or(f64::INFINITY);
    Applied { tables: swaps / f64::from(workers), p99_below_ms }
}

fn report(arguments: &Arguments, verdict: &Verdict, measured: &Measured) {
    let table_mib = measured.table_rss_bytes as f64 / f64::from(1 << 20);
    let writes_a_second = measured.written as f64 / measured.storm_took.as_secs_f64();
    let max_lag_ms = measured.max_lag.as_millis() as u64;
    if arguments.json {
        let mut line = verdict.summary();
        line["services"] = arguments.services.into();
        line["backends"] = arguments.backends.into();
        line["workers"] = arguments.workers.into();
        line["table_mib"] = ((table_mib * 10.0).round() / 10.0).into();
        line["single_tables"] = measured.single.tables.into();
        line["single_apply_p99_below_ms"] = measured.single.p99_below_ms.into();
        line["storm_writes_a_second"] = writes_a_second.round().into();
        line["storm_tables"] = measured.storm.tables.into();
        line["storm_apply_p99_below_ms"] = measured.storm.p99_below_ms.into();
        line["storm_max_lag_ms"] = max_lag_ms.into();
        println!("{line}");
        return;
    }
    println!(
        "{} services, {} backends: {table_mib:.1} MiB of the proxy's memory",
        arguments.services, arguments.backends
    );
    let counts = verdict.promised().map(|(name, count)| format!("{name} {count}"));
    println!("{} sessions: {}", verdict.sessions, counts.join(", "));
    let Applied { tables, p99_below_ms } = measured.single;
    println!("single changes: {tables} tables, in force below {p99_below_ms} ms at p99");
    let Applied { tables, p99_below_ms } = measured.storm;
    println!(
        "{writes_a_second:.0} writes a second: {tables} tables, in force below {p99_below_ms} ms at p99, never more \
         than {max_lag_ms} ms behind"
    );
    for event in &verdict.events {
        println!(
            "{}: longest reply p50 {:.1}, p99 {:.1}, max {:.1} ms; quiet p99 {:.1} ms",
            event.name, event.pause_p50_ms, event.pause_p99_ms, event.pause_max_ms, event.quiet_p99_ms
        );
    }
    verdict.notes.iter().for_each(|note| println!("! {note}"));
}
