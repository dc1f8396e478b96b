//! `./dev demo`: real game servers, real proxies, real players, and a deploy under their feet.

mod rollout;
mod scenes;
mod screen;
mod theatre;
mod verdict;

use std::io::{IsTerminal, stderr, stdin};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::theatre::{Options, Theatre};

/// Two game servers, a proxy beside each, 200 players at 20 frames a second: then a drain, a restart in place, a
/// weight shift and a drain back. Every frame is checked.
///
/// Exit code 0 only if no frame was lost, repeated or reordered, nobody was disconnected, and every event moved the
/// players it should.
#[derive(Debug, Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Routing documents in a real etcd, written by etcdctl, instead of a folder
    #[arg(long)]
    etcd: bool,
    /// Every handoff as a trace in a real Jaeger; prints the link of one
    #[arg(long)]
    jaeger: bool,
    /// The verdict as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Other {
    /// 1,000 players; a faulty version is rolled out on a real etcd, is given up, and its players are brought back
    Rollout {
        /// The verdict as one JSON object, the last line of standard output
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Other::Rollout { json }) = arguments.other {
        return finish(roll_out(json));
    }
    let options = Options { etcd: arguments.etcd, jaeger: arguments.jaeger };
    finish(perform(&options, arguments.json))
}

fn finish(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo couldn't go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn roll_out(json: bool) -> anyhow::Result<bool> {
    let outcome = rollout::perform()?;
    match json {
        true => println!("{}", outcome.json()),
        false => print!("{}", outcome.text()),
    }
    Ok(outcome.is_good())
}

fn perform(options: &Options, json: bool) -> anyhow::Result<bool> {
    let mut theatre = Theatre::open(options)?;
    let played = theatre.play();
    let outcome = match played {
        Ok(outcome) => outcome,
        Err(error) => {
            theatre.keep();
            return Err(error);
        }
    };
    let good = outcome.is_good();
    if !good {
        theatre.keep();
    }
    match json {
        true => println!("{}", outcome.json()),
        false => print!("{}", outcome.table()),
    }
    // The link to the trace leads nowhere once Jaeger has ended.
    if options.jaeger && !json && stdin().is_terminal() && stderr().is_terminal() {
        eprint!("  Jaeger runs until you press Enter. ");
        stdin().read_line(&mut String::new())?;
    }
    Ok(good)
}
