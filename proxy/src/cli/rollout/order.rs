//! `rollout start`, `pause`, `resume`, `abort` and `promote`: what is written, and what comes next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::admin::view::{RolloutRequest, TableAnswer};
use crate::cli::client::{Client, ClientError};
use crate::cli::table::write::{render, settle};
use crate::cli::{Exit, deadline, output};
use crate::rollout::orders::Word;

/// The plan. What isn't said is as in FILE, or as the documents' reference has it.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Version that players are brought to
    #[arg(long, value_name = "VERSION", required_unless_present = "file")]
    to: Option<String>,
    /// Version they are on; found by itself if it is one
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// Percent on the new version, step by step; 100: blue-green
    #[arg(long, value_name = "PERCENT,..", value_delimiter = ',')]
    steps: Vec<u32>,
    /// How long each step lasts
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    interval: Option<Duration>,
    /// Moves a second that a worker begins
    #[arg(long, value_name = "N")]
    per_second: Option<u64>,
    /// Give up above so many failures per hundred players
    #[arg(long, value_name = "PERCENT")]
    failures: Option<f64>,
    /// ..if it lasts so long
    #[arg(long = "failing-for", value_name = "TIME", value_parser = deadline)]
    failing_for: Option<Duration>,
    /// Pause where the p99 of a frame's service time is above
    #[arg(long, value_name = "MS")]
    slow_ms: Option<u64>,
    /// Begin though players couldn't be moved back with their state
    #[arg(long)]
    force: bool,
    /// A rollout's document to begin with; options win
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct OrderArgs {
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct PromoteArgs {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Before its last step is over
    #[arg(long)]
    now: bool,
    /// Print what would be written; write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct How {
    /// Shown to whoever looks
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    reason: String,
    /// Print what would be written; write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn start(client: &Client, args: Box<StartArgs>, json: bool) -> Result<Exit, ClientError> {
    let fields = fields(&args)?;
    let StartArgs { service, how, .. } = *args;
    say(client, service, Word::Start(fields), how, json).await
}

pub(super) async fn order(
    client: &Client,
    args: OrderArgs,
    word: Word,
    json: bool,
) -> Result<Exit, ClientError> {
    say(client, args.service, word, args.how, json).await
}

pub(super) async fn promote(client: &Client, args: PromoteArgs, json: bool) -> Result<Exit, ClientError> {
    let how = How { reason: String::new(), dry_run: args.dry_run };
    say(client, args.service, Word::Promote { early: args.now }, how, json).await
}

async fn say(
    client: &Client,
    service: String,
    word: Word,
    how: How,
    json: bool,
) -> Result<Exit, ClientError> {
    let follow = match &word {
        Word::Promote { .. } => {
            "undo it: holdfast table rollback (holdfast table history has the numbers)\n".to_owned()
        }
        _ => format!("follow it: holdfast rollout status {service}\n"),
    };
    let request = RolloutRequest { service, word, reason: how.reason, dry_run: how.dry_run };
    let answer: TableAnswer = client.post("/rollout", &request).await?;
    if json {
        output::print_json(&answer)?;
    } else {
        let follow = if answer.revision.is_some() { follow } else { String::new() };
        output::print(&format!("{}{follow}", render(&answer, how.dry_run)))?;
    }
    settle(client, &answer).await
}

/// The document's fields that the file and the options name.
fn fields(args: &StartArgs) -> Result<Map<String, Value>, ClientError> {
    let mut fields = args.file.as_deref().map_or_else(|| Ok(Map::new()), read)?;
    let mut set = |path: &str, value: Option<Value>| {
        let Some(value) = value else { return };
        match path.split_once('.') {
            None => drop(fields.insert(path.to_owned(), value)),
            Some((section, field)) => {
                let section = fields.entry(section).or_insert_with(|| json!({}));
                if section.is_null() {
                    *section = json!({});
                }
                if let Some(section) = section.as_object_mut() {
                    section.insert(field.to_owned(), value);
                }
            }
        }
    };
    set("to", args.to.clone().map(Value::from));
    set("from", args.from.clone().map(Value::from));
    set("steps", (!args.steps.is_empty()).then(|| json!(args.steps)));
    set("interval_s", args.interval.map(|time| time.as_secs().into()));
    set("per_second", args.per_second.map(Value::from));
    set("abort.failures_percent", args.failures.map(Value::from));
    set("abort.for_s", args.failing_for.map(|time| time.as_secs().into()));
    set("pause.p99_ms", args.slow_ms.map(Value::from));
    set("force", args.force.then_some(Value::Bool(true)));
    Ok(fields)
}

fn read(file: &Path) -> Result<Map<String, Value>, ClientError> {
    let here = |error: String| ClientError::Here(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| here(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| here(format!("{error}; expected a rollout's document")))
}
