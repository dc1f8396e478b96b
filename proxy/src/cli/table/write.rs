//! `table put`, `delete`, `apply`, `rollback`, `held` and `accept`: documents written through a proxy, which judges first.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

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

pub(super) async fn put(
    client: &Client,
    key: String,
    file: &Path,
    how: How,
    json: bool,
) -> Result<Exit, ClientError> {
    let text = read(file).map_err(|error| ClientError::Here(format!("{}: {error}", file.display())))?;
    let request = TableRequest { put: BTreeMap::from([(key, text)]), ..TableRequest::default() };
    send(client, request, how, json).await
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

pub(super) async fn apply(
    client: &Client,
    folder: &Path,
    prune: bool,
    how: How,
    json: bool,
) -> Result<Exit, ClientError> {
    let found = scan(folder).map_err(|error| ClientError::Here(format!("{}: {error}", folder.display())))?;
    let mut put = BTreeMap::new();
    for (key, content) in &found {
        put.insert(
            key.clone(),
            content.text().map_err(|error| ClientError::Here(format!("{key}: {error}")))?,
        );
    }
    let kinds = put.keys().filter_map(|key| key.split('/').next()).map(str::to_owned);
    let kinds: BTreeSet<_> = kinds.filter(|_| prune).collect();
    let request = TableRequest { prune: kinds.into_iter().collect(), put, ..TableRequest::default() };
    send(client, request, how, json).await
}

pub(super) async fn send(
    client: &Client,
    mut request: TableRequest,
    how: How,
    json: bool,
) -> Result<Exit, ClientError> {
    (request.dry_run, request.accept) = (how.dry_run, how.accept);
    let answer: TableAnswer = client.post("/table", &request).await?;
    super::print(json, &answer, || render(&answer, how.dry_run))?;
    match answer.revision {
        Some(revision) => wait(client, revision).await,
        None if answer.refused.is_empty() => Ok(Exit::Done),
        None => Ok(Exit::Failed),
    }
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

fn render(answer: &TableAnswer, is_dry: bool) -> String {
    let mut text = String::new();
    let mut line = |what: &str, line: &str| text.push_str(&format!("{what}{line}\n"));
    answer.changes.iter().for_each(|change| line("", change));
    answer.warnings.iter().for_each(|warning| line("warning: ", warning));
    answer.accepted.iter().for_each(|accepted| line("accepted: ", accepted));
    answer.refused.iter().for_each(|refused| line("refused: ", refused));
    let keys = output::count(answer.keys.len() as u64, "key");
    match answer.revision {
        Some(revision) => line("", &format!("revision {revision}: {keys} written")),
        None if is_dry => line("", &format!("nothing is written; {keys} would be")),
        None => line("", "nothing to write"),
    }
    text
}

pub(super) async fn held(client: &Client, json: bool) -> Result<Exit, ClientError> {
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

pub(super) async fn accept(
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
    match answer.revision {
        Some(revision) => wait(client, revision).await,
        None => Ok(Exit::Done),
    }
}
