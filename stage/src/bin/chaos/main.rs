//! `./dev chaos`: real games, proxies and players, and everything that can go wrong going wrong.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_stage::chaos::{Kind, Options, Recovery, run};

/// A week.
const MAX_MINUTES: f64 = 10_080.0;

/// 500 players at three games behind two proxies with a real etcd, and every few hundred milliseconds a fault: games
/// killed, frozen, drained and restarted, links cut, etcd killed and compacted, players who don't read, flood and leave.
/// Every frame is checked.
///
/// Exit code 0 only if no frame was lost, repeated or reordered, nobody was disconnected or left behind, and the
/// proxies' memory didn't grow. The seed decides every fault: the same seed, the same faults.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long faults come
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// Decides what happens when and to whom; random and told if absent
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The verdict as one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// What the service promises after a crash: none, replay or delta
    #[arg(long, value_name = "LEVEL", default_value = Recovery::BEST.name())]
    recovery: Recovery,
    /// Only these kinds of faults
    #[arg(long, value_name = "KIND[,KIND..]", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Number of players, over four processes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(4..=10_000))]
    players: u16,
    /// Frames a second, each player
    #[arg(long, value_name = "HZ", default_value_t = 10.0)]
    rate: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe storm couldn't go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments) -> anyhow::Result<bool> {
    let Arguments { minutes, rate, .. } = *arguments;
    anyhow::ensure!(
        minutes > 0.0 && minutes <= MAX_MINUTES,
        "--minutes {minutes}: expected 0 < N <= {MAX_MINUTES}"
    );
    anyhow::ensure!(rate > 0.0 && rate <= 1_000.0, "--rate {rate}: expected 0 < HZ <= 1000");
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut options = Options::new(seed, Duration::from_secs_f64(minutes * 60.0), arguments.recovery);
    options.players = usize::from(arguments.players);
    options.rate_hz = rate;
    if !arguments.kinds.is_empty() {
        options.kinds.clone_from(&arguments.kinds);
    }
    let begun = Instant::now();
    let outcome = run(&options, &mut |line| eprintln!("{:>6.1} s  {line}", begun.elapsed().as_secs_f32()))?;
    match arguments.json {
        true => {
            if !outcome.is_good() {
                eprint!("{}", outcome.table());
            }
            println!("{}", outcome.json());
        }
        false => print!("{}", outcome.table()),
    }
    Ok(outcome.is_good())
}
