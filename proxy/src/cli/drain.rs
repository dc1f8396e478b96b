//! `drain` and `undrain`.

pub(super) mod wait;

use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::{Client, ClientError};
use super::output;
use super::{DrainArgs, Exit, UndrainArgs};
use crate::admin::view::{DrainAnswer, DrainRequest, DrainState, DrainStatusView, UndrainRequest};

/// A drain that nobody gave a deadline and whose service isn't known.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// The proxies' own deadline comes first; they then say what stays, in their status keys within a second or two.
const GRACE: Duration = Duration::from_secs(3);

/// What `drain --wait --json` prints.
#[derive(Debug, Serialize)]
struct WaitResult {
    #[serde(flatten)]
    order: DrainAnswer,
    /// done, deadline, lifted
    result: &'static str,
    took_ms: u64,
    /// The last look.
    #[serde(flatten)]
    status: DrainStatusView,
}

pub(super) async fn drain(client: &Client, args: DrainArgs, json: bool) -> Result<Exit, ClientError> {
    let begun = Instant::now();
    let request = DrainRequest {
        backend: args.backend,
        deadline_s: args.deadline.map(|deadline| deadline.as_secs()),
        reason: args.reason,
        local: args.local,
    };
    let order: DrainAnswer = client.post("/drain", &request).await?;
    if order.others == Some(0) {
        eprintln!("{}", nobody_else(&order.backend));
    }
    if !args.wait {
        if json {
            output::print_json(&order)?;
        } else {
            output::print(&render_order(&order))?;
        }
        return Ok(Exit::Done);
    }
    let deadline = order.deadline_s.map_or(DEFAULT_WAIT, Duration::from_secs) + GRACE;
    let status = wait::until_empty(client, &order, begun + deadline).await?;
    let took = begun.elapsed();
    let (exit, result) = match status.state {
        DrainState::Empty => (Exit::Done, "done"),
        DrainState::Lifted => (Exit::Failed, "lifted"),
        DrainState::Ordered | DrainState::Draining | DrainState::Stuck => (Exit::Deadline, "deadline"),
    };
    if json {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        output::print_json(&WaitResult { order, result, took_ms, status })?;
    } else {
        output::print(&wait::render_end(&order, &status, took))?;
    }
    Ok(exit)
}

/// Said at once, and not only at the deadline.
fn nobody_else(backend: &str) -> String {
    let service = backend.split('/').next().unwrap_or_default();
    format!(
        "warning: no other backend of {service} takes sessions now; those of {backend} stay there until one does \
         or the drain is lifted"
    )
}

pub(super) async fn undrain(client: &Client, args: UndrainArgs, json: bool) -> Result<Exit, ClientError> {
    let request = UndrainRequest { backend: args.backend, local: args.local };
    let answer: DrainAnswer = client.post("/undrain", &request).await?;
    if json {
        output::print_json(&answer)?;
    } else {
        output::print(&render_undrain(&answer))?;
    }
    Ok(Exit::Done)
}

pub(super) fn render_order(order: &DrainAnswer) -> String {
    let backend = &order.backend;
    let already = if order.changed { "" } else { ", as it was before" };
    let deadline =
        order.deadline_s.map_or_else(String::new, |seconds| format!(", within {}", output::seconds(seconds)));
    match &order.key {
        Some(key) => format!(
            "{backend} is drained by every proxy{already}{deadline} (key {key})\n\
             follow it: holdfast status      lift it: holdfast undrain {backend}\n"
        ),
        None => format!(
            "{backend} is drained by this proxy alone{already}{deadline}\n\
             follow it: holdfast status      lift it: holdfast undrain {backend} --local\n"
        ),
    }
}

pub(super) fn render_undrain(answer: &DrainAnswer) -> String {
    let backend = &answer.backend;
    match (answer.changed, answer.scope.as_str()) {
        (true, "local") => format!("{backend} is no longer drained by this proxy's own order\n"),
        (true, _) => format!("{backend} is no longer drained by key\n"),
        (false, "local") => {
            format!("{backend} had no order of this proxy's own (without --local: the key's)\n")
        }
        (false, _) => format!("{backend} had no drain key (with --local: this proxy's own order)\n"),
    }
}
