//! The command line: what is typed, and the commands that talk to a running proxy. `run` and `check` are `main`'s.

mod client;
mod drain;
mod eject;
mod output;
mod registration;
mod rollout;
mod show;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::admin::Address;
use client::Client;
pub use client::ClientError;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed or refused; the reason is on stderr
  2  wrong usage
  3  the proxy can't be reached
  4  a deadline passed before the end (drain --wait)
  5  --dry-run: something would change (table put, delete, apply, rollback)";

const WAIT_CODES: &str = "\
Exit codes:
  0  ordered; with --wait: empty
  1  refused (no such backend, no way to write the key), or lifted meanwhile
  2  wrong usage
  3  the proxy can't be reached
  4  with --wait: not empty at the deadline";

const TOP_HELP: &str = "\
First steps:
  holdfast check holdfast.toml         does the config hold?
  holdfast run --config holdfast.toml  run the proxy
  holdfast status                      what it is doing
  holdfast drain arena/a --wait        move all players off one game server

The commands after `check` ask a running proxy at its admin address. It is
127.0.0.1:9900 unless --admin or HOLDFAST_ADMIN says otherwise; it is the `bind`
of [admin] in the proxy's config.";

/// Keeps players connected while their game server restarts, drains or dies.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = format!("{TOP_HELP}\n\n{EXIT_CODES}"))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Proxy to ask: HOST:PORT or unix:/PATH
    ///
    /// Default: what HOLDFAST_ADMIN says, else 127.0.0.1:9900.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_ADMIN",
        hide_env = true,
        default_value = "127.0.0.1:9900",
        hide_default_value = true,
        value_name = "ADDRESS"
    )]
    pub admin: Address,

    /// Print the answer as one line of JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    #[command(flatten)]
    Ask(Ask),
}

/// Run the proxy until SIGTERM
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM stops accepting, turns /readyz to 503, and lets sessions go on until the
shutdown's deadline. SIGHUP reads config and certificates again.

Examples:
  holdfast run
  holdfast run --config /etc/holdfast/holdfast.toml
  RUST_LOG=info,holdfast=debug holdfast run")]
pub struct RunArgs {
    /// The proxy's config file
    #[arg(long, short, default_value = "holdfast.toml", value_name = "FILE")]
    pub config: PathBuf,
}

/// Check a config, a document or a folder of documents; change nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Each mistake is one line: file or key, field, the value found, what was
expected. Exits 0 if everything holds, 1 if anything doesn't.

Examples:
  holdfast check holdfast.toml
  holdfast check routing/                       a folder that mirrors the keys
  holdfast check routing/services/arena.json    one document")]
pub struct CheckArgs {
    /// File or folder
    pub path: PathBuf,
}

/// What is asked of a running proxy.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show what the proxy is doing: sessions, table, backends, drains
    #[command(after_help = "\
Examples:
  holdfast status
  holdfast --admin unix:/run/holdfast/admin.sock status
  watch -n1 holdfast status                     a drain as it runs
  holdfast status --json | jq '.backends[] | select(.draining != [])'")]
    Status,
    /// List this proxy's sessions
    #[command(after_help = "\
The first 8 digits of a session's id are shown; --json has whole ids, sequence
numbers and sizes. Logs carry the id as the field `session`.

Examples:
  holdfast sessions
  holdfast sessions --limit 1000 --json | jq '.sessions[].client'")]
    Sessions {
        /// How many at most
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
    },
    Drain(DrainArgs),
    Undrain(UndrainArgs),
    Eject(EjectArgs),
    Uneject(UnejectArgs),
    /// Write the key of the backend beside the proxy again
    #[command(after_help = "\
Lifts `holdfast withdraw`. The proxy registers the backend of [local] by itself
if its config has [register]. A key that somebody else wrote stays as it is.

Examples:
  holdfast register
  holdfast register --json | jq .state")]
    Register,
    /// Take back the key of the backend beside the proxy
    #[command(after_help = "\
For a backend that the proxy registers ([register] in its config): no new
sessions come to it from any proxy, live ones stay. It holds until `holdfast
register` or the proxy's next start. To move its sessions too, drain it first.

Examples:
  holdfast withdraw
  holdfast drain arena/a --wait && holdfast withdraw")]
    Withdraw,
    #[command(
        subcommand,
        after_help = "\
Examples:
  holdfast table list
  holdfast table history
  holdfast table diff 41                        from table 41 to now
  holdfast table apply routing/ --dry-run       what a folder would change
  holdfast table rollback 41
  holdfast table held                           what waits for a yes"
    )]
    Table(table::TableCommand),
    #[command(
        subcommand,
        after_help = "\
A rollout is ordered by its document, rollouts/SERVICE.

Examples:
  holdfast rollout status arena"
    )]
    Rollout(rollout::RolloutCommand),
}

const DRAIN_HELP: &str = "\
Writes the drains/ key in etcd, which every proxy follows; --local orders the
proxy at the admin address alone, the only form when documents are files.
Sessions that no other backend can take stay where they are (a warning says so
at once); the drain holds, for new sessions too, until `holdfast undrain`.

--wait ends when nobody is left there: every proxy with a status key in etcd has
taken the order and has no session there, and the backend itself counts none.
With --local: when this proxy has none there, and the backend counts none. A
proxy that is dead doesn't count; it is known by its lease, within 10 s.

Examples:
  holdfast drain arena/a --reason 'deploy 1.5'
  holdfast drain arena/a --wait --deadline 2m && systemctl stop arena-a
  holdfast drain arena/a --wait --json | jq '.result, .left, .proxies'
  holdfast drain arena/a --local                this proxy alone";

/// Move all sessions off one backend; players stay connected
#[derive(Debug, Args)]
#[command(after_help = format!("{DRAIN_HELP}\n\n{WAIT_CODES}"))]
pub struct DrainArgs {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND", value_parser = backend)]
    pub backend: String,
    /// Time for it, as 30s, 5m or 1h [default: the service's]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub deadline: Option<Duration>,
    /// Shown to whoever looks at the drain
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub reason: String,
    /// This proxy alone; no key is written
    #[arg(long)]
    pub local: bool,
    /// Follow it until no proxy has a session there
    #[arg(long)]
    pub wait: bool,
}

/// Lift a drain: the backend takes sessions again
#[derive(Debug, Args)]
#[command(after_help = "\
Deletes the drains/ key; --local lifts what `drain --local` ordered. Each is
lifted alone: a backend that has both stays drained until both are gone. Moves
that have begun are finished; nobody is moved back.

Examples:
  holdfast undrain arena/a
  holdfast undrain arena/a --local")]
pub struct UndrainArgs {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND", value_parser = backend)]
    pub backend: String,
    /// Lift what `drain --local` ordered
    #[arg(long)]
    pub local: bool,
}

/// Send no new sessions to a backend while others can take them
#[derive(Debug, Args)]
#[command(after_help = "\
Writes the ejections/ key in etcd, which every proxy follows; where documents
are files, write the file. Live sessions stay, or move if the service's
document says so (health.when_ejected). A drain is stronger: it takes nobody
even if nobody else can, and it always moves the live ones.

Examples:
  holdfast eject arena/a --reason 'slow disk'
  holdfast eject arena/a --for 10m")]
pub struct EjectArgs {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND", value_parser = backend)]
    pub backend: String,
    /// Shown to whoever looks at the backend
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub reason: String,
    /// How long, as 30s, 5m or 1h [default: until uneject]
    #[arg(long = "for", value_name = "TIME", value_parser = deadline)]
    pub time: Option<Duration>,
}

/// Lift an ejection by key: the backend gets new sessions again
#[derive(Debug, Args)]
#[command(after_help = "\
Deletes the ejections/ key. A backend that fails its checks, or is ejected as an
outlier, stays so: `holdfast status` says which it is.

Examples:
  holdfast uneject arena/a")]
pub struct UnejectArgs {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND", value_parser = backend)]
    pub backend: String,
}

/// How the process ends; documented in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Deadline = 4,
    WouldChange = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs a command against a proxy, and prints what it says.
#[must_use]
pub fn run(ask: Ask, admin: Address, json: bool) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(ask, admin, json)),
        Err(error) => {
            eprintln!("holdfast: the runtime can't start: {error}");
            Exit::Failed
        }
    }
}

/// As [`run`], on the current runtime.
pub async fn execute(ask: Ask, admin: Address, json: bool) -> Exit {
    let client = Client::new(admin);
    let result = match ask {
        Ask::Status => show::status(&client, json).await,
        Ask::Sessions { limit } => show::sessions(&client, limit, json).await,
        Ask::Drain(args) => drain::drain(&client, args, json).await,
        Ask::Undrain(args) => drain::undrain(&client, args, json).await,
        Ask::Eject(args) => eject::eject(&client, args, json).await,
        Ask::Uneject(args) => eject::uneject(&client, args, json).await,
        Ask::Register => registration::register(&client, json).await,
        Ask::Withdraw => registration::withdraw(&client, json).await,
        Ask::Table(command) => table::execute(&client, command, json).await,
        Ask::Rollout(command) => rollout::execute(&client, command, json).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("holdfast: {error}");
        error.exit()
    })
}

fn backend(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((service, name)) if !service.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err("expected SERVICE/BACKEND, such as arena/a".to_owned()),
    }
}

/// Whole seconds: a drain's document counts in them.
fn deadline(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time from 1s to 1d, such as 30s, 5m or 1h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    match number.checked_mul(unit) {
        Some(seconds) if (1..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests;
