//! `rollout`: how far the rollouts are, and an operator's word on them.

mod order;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use super::Exit;
use super::client::{Client, ClientError};
use super::output;
use crate::admin::view::{Progress, RolloutView, RolloutsView};
use crate::rollout::State;
use crate::rollout::orders::Word;

/// Events that are shown of each.
const EVENTS: usize = 8;

const START_HELP: &str = "\
The rollout begins at once: one of the proxies moves live players step by step,
pauses it where the new version is slow, and moves them back where it fails.
The routes stay as they are until `rollout promote`.

Examples:
  holdfast rollout start arena --to 1.5 --dry-run
  holdfast rollout start arena --to 1.5 --interval 10m --reason 'hotfix 812'
  holdfast rollout start arena --from 1.4 --to 1.5 --steps 100   blue-green
  holdfast rollout start arena --file canary.json --to 1.6";

const PROMOTE_HELP: &str = "\
One transaction: each route to the service gives the new version what both had,
and the rollout's document goes. Nobody is moved by it.

Examples:
  holdfast rollout promote arena --dry-run
  holdfast rollout promote arena";

/// Roll a version out: start, follow, pause, abort, promote
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show how far the rollouts are
    #[command(after_help = "\
Examples:
  holdfast rollout status
  holdfast rollout status arena
  watch -n1 holdfast rollout status arena
  holdfast rollout status --json | jq '.rollouts[].progress.state'")]
    Status {
        /// One service's alone
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Bring players to another version, step by step
    #[command(after_help = START_HELP)]
    Start(Box<order::StartArgs>),
    /// Stay at the step that is in force
    #[command(after_help = "\
Examples:
  holdfast rollout pause arena --reason 'looks slow in Frankfurt'")]
    Pause(order::OrderArgs),
    /// Go on after a pause, one's own or the controller's
    #[command(after_help = "\
Examples:
  holdfast rollout resume arena")]
    Resume(order::OrderArgs),
    /// Give up: every player goes back to the old version
    #[command(after_help = "\
Examples:
  holdfast rollout abort arena --reason 'matchmaking is broken'
  watch -n1 holdfast rollout status arena")]
    Abort(order::OrderArgs),
    /// Write the new version into the routes, and end the rollout
    #[command(after_help = PROMOTE_HELP)]
    Promote(order::PromoteArgs),
}

pub(super) async fn execute(
    client: &Client,
    command: RolloutCommand,
    json: bool,
) -> Result<Exit, ClientError> {
    match command {
        RolloutCommand::Status { service } => status(client, service, json).await,
        RolloutCommand::Start(args) => order::start(client, args, json).await,
        RolloutCommand::Pause(args) => order::order(client, args, Word::Pause, json).await,
        RolloutCommand::Resume(args) => order::order(client, args, Word::Resume, json).await,
        RolloutCommand::Abort(args) => order::order(client, args, Word::Abort, json).await,
        RolloutCommand::Promote(args) => order::promote(client, args, json).await,
    }
}

async fn status(client: &Client, service: Option<String>, json: bool) -> Result<Exit, ClientError> {
    let mut view: RolloutsView = client.get("/rollouts").await?;
    if let Some(service) = service {
        view.rollouts.retain(|rollout| rollout.service == service);
        if view.rollouts.is_empty() {
            return Err(ClientError::Here(format!(
                "there is no rollout of {service} (no rollouts/{service})"
            )));
        }
    }
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&render(&view, now_ms()))?;
    }
    Ok(Exit::Done)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn render(view: &RolloutsView, now_ms: u64) -> String {
    if view.rollouts.is_empty() {
        return "no rollout: there is no rollouts/ document\n".to_owned();
    }
    let texts: Vec<_> = view.rollouts.iter().map(|rollout| render_one(rollout, now_ms)).collect();
    texts.join("\n")
}

fn render_one(rollout: &RolloutView, now_ms: u64) -> String {
    let RolloutView { service, from, to, .. } = rollout;
    let Some(progress) = &rollout.progress else {
        return format!(
            "{service}  {from} -> {to}: waits for its controller (one of the proxies, through etcd)\n"
        );
    };
    let ago = |at_ms: u64| output::seconds(now_ms.saturating_sub(at_ms) / 1000);
    let why = if progress.reason.is_empty() { String::new() } else { format!(": {}", progress.reason) };
    let mut text =
        format!("{service}  {from} -> {to}: {} for {}{why}\n", loud(progress.state), ago(progress.since_ms));
    text.push_str(&step_line(rollout, progress, now_ms));
    let seen = &progress.seen;
    text.push_str(&format!("  players    {} on {from}, {} on {to}\n", seen.on_from, seen.on_to));
    let p99 = seen.p99_ms.map_or_else(|| "no frames".to_owned(), |ms| format!("p99 of {ms} ms"));
    text.push_str(&format!(
        "  {to:<9}  failed {} of {} players ({:.1} %) in the last window; {} frames, {p99}\n",
        seen.failures, seen.players, seen.failures_percent, seen.frames
    ));
    if let Some(since) = progress.failing_since_ms.filter(|_| !progress.state.is_given_up()) {
        text.push_str(&format!("  FAILING for {}\n", ago(since)));
    }
    text.push_str(&format!("  controller {}\n", progress.controller));
    for event in progress.events.iter().rev().take(EVENTS) {
        text.push_str(&format!("  {:>8} ago  {}\n", ago(event.at_ms), event.what));
    }
    text
}

fn step_line(rollout: &RolloutView, progress: &Progress, now_ms: u64) -> String {
    let steps: Vec<_> = rollout.steps.iter().map(|percent| format!("{percent} %")).collect();
    let steps = steps.join(", ");
    match progress.state {
        State::Running => {
            let elapsed_s = now_ms.saturating_sub(progress.step_since_ms) / 1000;
            let left = output::seconds(rollout.interval_s.saturating_sub(elapsed_s));
            let (step, of) = (progress.step + 1, rollout.steps.len());
            format!(
                "  step       {step} of {of} ({steps}): {} % to {}, {left} left\n",
                progress.percent, progress.to
            )
        }
        State::Aborted => match progress.moved_back_ms {
            Some(took) => format!("  moved back {} players in {took} ms\n", progress.to_move_back),
            None => String::new(),
        },
        _ => format!("  steps      {steps}; {} % to {} now\n", progress.percent, progress.to),
    }
}

/// What wants somebody's eye is in capitals.
fn loud(state: State) -> String {
    match state {
        State::Refused | State::Paused | State::Aborting | State::Aborted => state.name().to_uppercase(),
        State::Checking | State::Running | State::Done => state.name().to_owned(),
    }
}
