//! What players feel when their game server is drained, restarted, killed or cut off: through Holdfast, and beside it
//! through HAProxy and Envoy.
//!
//! Each figure comes from a run of its own: fresh proxy, games and players, one event. Runs are interleaved over the
//! proxies, so that a busy machine is busy for all of them.

mod event;
mod front;
mod plot;
mod row;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_stage::{BEST_RECOVERY, Machine};
use serde_json::{Value, json};

use self::event::Event;
use self::front::Kind;
use self::row::{Row, Run};
use self::run::Load;

/// Pauses of players by event, proxy and number of sessions, beside an equally long quiet window of the same players;
/// and what was lost. Medians over interleaved rounds; counts are the worst round's.
///
/// Exit code 0 only if Holdfast moved all that it had to, and nothing was lost, repeated, reordered or disconnected.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which events
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Event::ALL)]
    only: Vec<Event>,
    /// Up to 2,000: 20 frames a second each, and all concerned; more: 2 a second, and half are bystanders
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 9000])]
    sessions: Vec<usize>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    proxies: Vec<Kind>,
    /// Of the loads up to 2,000 sessions; larger ones are played once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The service's `recovery`
    #[arg(long, value_name = "LEVEL", default_value = BEST_RECOVERY)]
    recovery: String,
    /// One JSON object with all rows as the last line, and no table
    #[arg(long)]
    json: bool,
    /// Write the plot there
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench pauses: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments) -> Result<bool> {
    ensure!(arguments.rounds > 0, "--rounds 0: expected at least 1");
    let (began, machine) = (Instant::now(), Machine::now()?);
    let rows = play(arguments)?;
    let others = Machine::now()?.others_since(&machine, began.elapsed());
    let noise = Noise { others, spread: rows.iter().map(Row::quiet_spread).fold(1.0, f64::max) };
    if let Some(path) = &arguments.svg {
        std::fs::write(path, plot::svg(&rows)).with_context(|| path.display().to_string())?;
    }
    match arguments.json {
        true => println!("{}", json(arguments, &rows, &noise)),
        false => print!("{}\n{}\n", table::markdown(&rows), noise.line()),
    }
    let faults: Vec<String> = rows.iter().filter_map(|row| row.broken_promise()).collect();
    faults.iter().for_each(|fault| eprintln!("! {fault}"));
    Ok(faults.is_empty())
}

/// All rows, in the order of the table.
fn play(arguments: &Arguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &event in &arguments.only {
        for &sessions in &arguments.sessions {
            let load = Load::of(sessions);
            let kinds = arguments.proxies.iter().copied().filter(|kind| event.is_for(*kind, &load));
            rows.extend(kinds.map(|kind| Row::new(event, load, kind, &arguments.recovery)));
        }
    }
    for round in 0..arguments.rounds {
        // Whoever begins has no advantage over all rounds.
        let ahead = round % 2 == 0;
        let mut order: Vec<&mut Row> = rows.iter_mut().collect();
        if !ahead {
            order.reverse();
        }
        for row in order {
            if round < row.load.rounds(arguments.rounds) {
                let run = run::perform(row)?;
                eprintln!("round {}: {}", round + 1, told(row, &run));
                row.runs.push(run);
            }
        }
    }
    Ok(rows)
}

fn told(row: &Row, run: &Run) -> String {
    let (report, [lost, repeated, reordered, disconnects]) = (&run.report, run.promised.map(|it| it.1));
    format!(
        "{}: quiet p99 {:.1} ms, pause p99 {:.1} ms, max {:.1} ms, {} of {} moved in {:.0} ms; lost {lost}, \
         repeated {repeated}, reordered {reordered}, disconnects {disconnects}",
        row.name(),
        report.quiet_p99_ms,
        report.pause_p99_ms,
        report.pause_max_ms,
        report.moved,
        report.concerned,
        report.took_ms
    )
}

/// How far the machine can be trusted.
struct Noise {
    /// Processors that others kept busy, on average.
    others: f64,
    /// Most that the quiet p99 of one row differed between rounds, as a ratio.
    spread: f64,
}

impl Noise {
    fn line(&self) -> String {
        format!(
            "Noise: other programs kept {:.1} processors busy on average; the quiet p99 of a row differed up to {:.1} \
             times between rounds.",
            self.others, self.spread
        )
    }
}

fn json(arguments: &Arguments, rows: &[Row], noise: &Noise) -> Value {
    json!({
        "recovery": arguments.recovery,
        "rounds": arguments.rounds,
        "frame_bytes": run::FRAME_BYTES,
        "state_bytes": run::STATE_BYTES,
        "tick_ms": run::TICK_MS,
        "others_busy_processors": row::rounded(noise.others),
        "quiet_p99_spread": row::rounded(noise.spread),
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
}
