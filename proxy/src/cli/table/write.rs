//! `table put`, `delete`, `apply`, `rollback`, `held` and `accept`: documents written through a proxy, which judges
//! them before it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::admin::view::{
    AcceptAnswer, AcceptRequest, AppliedView, HeldView, HeldsView, TableAnswer, TableRequest,
};
use crate::cli::Exit;
use crate::cli::client::{Client, ClientError};
use crate::cli::output;
use crate::source::files::scan;

/// How long a change may take to reach the workers of the proxy that is asked.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const WRITE_CODES: &str = "\
Exit codes:
  0  written, and this proxy acts by it; or there is nothing to change
  1  refused: nothing is written (with --dry-run: it would be)
  3  the proxy can't be reached
  4  written, but this proxy holds it, or doesn't act by it after 10 s
  5  with --dry-run: it would change something";

const PUT_HELP: &str = "\
The proxy judges the whole table as it would be, and writes only if no document
would be refused, no change held, and nobody else wrote the key meanwhile.

Examples:
  holdfast table put routes/public route.json --dry-run
  holdfast table put routes/public route.json
  jq .weight=0 a.json | holdfast table put backends/arena/a";

const DELETE_HELP: &str = "\
As `table put`: judged first, then one transaction.

Examples:
  holdfast table delete backends/arena/a
  holdfast table delete services/arena routes/public --dry-run";

const APPLY_HELP: &str = "\
The folder mirrors the keys, as `table export` writes it; only what differs is
written. --prune also deletes keys that the folder lacks, of the kinds that it
holds. Drains, ejections, rollouts, accepts and what is registered under a lease
stay as they are, whatever the folder has. Thousands of new documents fit one
transaction. Where more than a hundred are replaced at once, etcd has to be
started with --max-txn-ops.

Examples:
  holdfast table apply routing/ --dry-run
  holdfast table apply routing/ --prune";

const ROLLBACK_HELP: &str = "\
TABLE is a number of `table history`, or the revision of one; if it could be
either, say t41 or r41. Drains, ejections, rollouts, accepts and what is
registered under a lease stay as they are.

Examples:
  holdfast table rollback 41 --dry-run
  holdfast table rollback 41
  holdfast table rollback r512 --accept";

/// What writes, and what waits to be let through.
#[derive(Debug, Subcommand)]
pub enum WriteCommand {
    /// Write one document; nothing is written if it would be refused
    #[command(after_help = format!("{PUT_HELP}\n\n{WRITE_CODES}"))]
    Put {
        #[arg(value_name = "KEY")]
        key: String,
        /// `-`: standard input
        #[arg(default_value = "-", value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Delete documents, unless what is left would be refused
    #[command(after_help = format!("{DELETE_HELP}\n\n{WRITE_CODES}"))]
    Delete {
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Write what differs of a folder, as one transaction
    #[command(after_help = format!("{APPLY_HELP}\n\n{WRITE_CODES}"))]
    Apply {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Delete what the folder lacks
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        how: How,
    },
    /// Write a table of the history back, as one transaction
    #[command(after_help = format!("{ROLLBACK_HELP}\n\n{WRITE_CODES}"))]
    Rollback {
        /// Its number or its revision
        #[arg(value_name = "TABLE")]
        table: String,
        #[command(flatten)]
        how: How,
    },
    /// List changes that are held until somebody says yes to them
    #[command(after_help = "\
Whoever wrote it, a change is held that within a minute takes away more than
half of a service's backends (drained ones don't count), or that leaves no
backend with a weight above 0, takes away a service with backends or its last
route, or gives all shares to versions that no backend has. What was in force
stays, all else goes on. It ends when it is accepted, or taken back: put the
keys again.

Examples:
  holdfast table held
  holdfast table held --json | jq '.held[].keys'")]
    Held,
    /// Let held changes through, on every proxy
    #[command(after_help = "\
Writes accepts/SERVICE, which names the documents that may go and what comes in
their place: the yes is to this change, not to the next one. Where documents are
files, it says what to write.

Examples:
  holdfast table accept arena --reason 'the old hall is closed'
  holdfast table accept                     all that is held")]
    Accept {
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
        /// Shown to whoever looks at the key
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
}

/// How a change is to be made.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct How {
    /// Print the difference and what would be refused; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Say yes to what would be held
    #[arg(long)]
    accept: bool,
}

pub(super) async fn execute(client: &Client, command: WriteCommand, json: bool) -> Result<Exit, ClientError> {
    let (request, how) = match command {
        WriteCommand::Put { key, file, how } => (putting(key, &file)?, how),
        WriteCommand::Delete { keys, how } => (TableRequest { delete: keys, ..TableRequest::default() }, how),
        WriteCommand::Apply { folder, prune, how } => (applying(&folder, prune)?, how),
        WriteCommand::Rollback { table, how } => {
            (TableRequest { rollback: Some(table), ..TableRequest::default() }, how)
        }
        WriteCommand::Held => return held(client, json).await,
        WriteCommand::Accept { service, reason } => return accept(client, service, reason, json).await,
    };
    send(client, request, how, json).await
}

fn putting(key: String, file: &Path) -> Result<TableRequest, ClientError> {
    let text = read(file).map_err(|error| ClientError::Here(format!("{}: {error}", file.display())))?;
    Ok(TableRequest { put: BTreeMap::from([(key, text)]), ..TableRequest::default() })
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn applying(folder: &Path, prune: bool) -> Result<TableRequest, ClientError> {
    let found = scan(folder).map_err(|error| ClientError::Here(format!("{}: {error}", folder.display())))?;
    let mut put = BTreeMap::new();
    for (key, content) in found {
        let text = content.text().map_err(|error| ClientError::Here(format!("{key}: {error}")))?;
        put.insert(key, text);
    }
    let kinds = put.keys().filter_map(|key| key.split('/').next()).map(str::to_owned);
    let kinds: BTreeSet<_> = kinds.filter(|_| prune).collect();
    Ok(TableRequest { prune: kinds.into_iter().collect(), put, folder: true, ..TableRequest::default() })
}

async fn send(client: &Client, mut request: TableRequest, how: How, json: bool) -> Result<Exit, ClientError> {
    (request.dry_run, request.accept) = (how.dry_run, how.accept);
    let answer: TableAnswer = client.post("/table", &request).await?;
    super::print(json, &answer, || render(&answer, how.dry_run))?;
    settle(client, &answer).await
}

/// Until the proxy acts by what was written; how the command ends.
pub(in crate::cli) async fn settle(client: &Client, answer: &TableAnswer) -> Result<Exit, ClientError> {
    match answer.revision {
        Some(revision) => match wait(client, revision).await? {
            Exit::Done => unheld(client, &answer.keys).await,
            exit => Ok(exit),
        },
        None if !answer.refused.is_empty() || !answer.held.is_empty() => Ok(Exit::Failed),
        None if !answer.keys.is_empty() => Ok(Exit::WouldChange),
        None => Ok(Exit::Done),
    }
}

/// What came between, or is held by another's change, may hold what was judged well.
async fn unheld(client: &Client, written: &[String]) -> Result<Exit, ClientError> {
    let view: HeldsView = client.get("/held").await?;
    let keys: Vec<_> = held_of(&view, written).collect();
    if keys.is_empty() {
        return Ok(Exit::Done);
    }
    eprintln!(
        "holdfast: written, but held: {}; `holdfast table held` says why, `holdfast table accept` lets it through",
        keys.join(", ")
    );
    Ok(Exit::Deadline)
}

pub(super) fn held_of<'a>(view: &'a HeldsView, written: &[String]) -> impl Iterator<Item = &'a str> {
    let keys = view.held.iter().flat_map(|held| &held.keys);
    keys.filter(|key| written.contains(key)).map(|key| &**key)
}

/// Until every worker of this proxy acts by it.
async fn wait(client: &Client, revision: u64) -> Result<Exit, ClientError> {
    let began = Instant::now();
    loop {
        let view: AppliedView = client.get("/applied").await?;
        if view.applied >= revision {
            return Ok(Exit::Done);
        }
        if began.elapsed() >= PATIENCE {
            eprintln!(
                "holdfast: revision {revision} is written, but this proxy is still at {} after {} s",
                view.applied,
                PATIENCE.as_secs()
            );
            return Ok(Exit::Deadline);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(in crate::cli) fn render(answer: &TableAnswer, is_dry: bool) -> String {
    let mut text = String::new();
    let mut line = |what: &str, line: &str| text.push_str(&format!("{what}{line}\n"));
    if let Some(table) = &answer.rolled_back_to {
        line("", &format!("back to table {} (revision {})", table.number, table.revision));
    }
    answer.changes.iter().for_each(|change| line("", change));
    answer.warnings.iter().for_each(|warning| line("warning: ", warning));
    answer.accepted.iter().for_each(|accepted| line("accepted: ", accepted));
    answer.refused.iter().for_each(|refused| line("refused: ", refused));
    answer.held.iter().for_each(|held| line("held without --accept: ", held));
    let keys = output::count(answer.keys.len() as u64, "key");
    match answer.revision {
        Some(revision) => line("", &format!("revision {revision}: {keys} written")),
        None if answer.keys.is_empty() => line("", "no change"),
        None if is_dry => line("", &format!("nothing is written; {keys} would be")),
        None => {}
    }
    text
}

async fn held(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let view: HeldsView = client.get("/held").await?;
    super::print(json, &view, || {
        let mut text: String = view.held.iter().map(one).collect();
        for proxy in &view.proxies {
            proxy.held.iter().for_each(|held| text.push_str(&format!("proxy {}: {held}\n", proxy.proxy)));
        }
        if text.is_empty() { "nothing is held\n".to_owned() } else { text }
    })?;
    Ok(Exit::Done)
}

fn one(held: &HeldView) -> String {
    let mut text = format!("{}: {} (since revision {})\n", held.service, held.why.join("; "), held.since);
    held.keys.iter().for_each(|key| text.push_str(&format!("  {key}\n")));
    if held.keys_unlisted > 0 {
        text.push_str(&format!("  and {} more\n", held.keys_unlisted));
    }
    text
}

async fn accept(
    client: &Client,
    service: Option<String>,
    reason: String,
    json: bool,
) -> Result<Exit, ClientError> {
    let answer: AcceptAnswer = client.post("/accept", &AcceptRequest { service, reason }).await?;
    super::print(json, &answer, || {
        let lines = answer.accepted.iter().map(|held| format!("accepted: {}", one(held)));
        lines.collect()
    })?;
    wait(client, answer.revision).await
}
