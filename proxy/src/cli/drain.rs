//! `drain` and `undrain`, and the wait for a drain's end.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::{Client, ClientError};
use super::output::{self, count};
use super::{DrainArgs, Exit, UndrainArgs};
use crate::admin::view::{BackendView, BackendsView, DrainAnswer, DrainRequest, UndrainRequest};

const POLL: Duration = Duration::from_millis(200);
/// A drain that nobody gave a deadline and whose service isn't known.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// The proxy's own deadline comes first; it then says what stays.
const GRACE: Duration = Duration::from_secs(1);

/// What `drain --wait --json` prints.
#[derive(Debug, Serialize)]
struct WaitResult {
    #[serde(flatten)]
    order: DrainAnswer,
    /// done, deadline, lifted
    result: &'static str,
    /// Sessions still there, of this proxy.
    left: u64,
    took_ms: u64,
}

/// How a look at a draining backend turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The order hasn't arrived, or sessions are still there.
    Left(u64),
    Empty,
    /// It was draining, and no longer is.
    Lifted(u64),
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
    if !args.wait {
        if json {
            output::print_json(&order)?;
        } else {
            output::print(&render_order(&order))?;
        }
        return Ok(Exit::Done);
    }
    let deadline = order.deadline_s.map_or(DEFAULT_WAIT, Duration::from_secs) + GRACE;
    let end = wait(client, &order.backend, begun + deadline).await?;
    let took = begun.elapsed();
    let (exit, result, left) = match end {
        Progress::Empty => (Exit::Done, "done", 0),
        Progress::Left(left) => (Exit::Deadline, "deadline", left),
        Progress::Lifted(left) => (Exit::Failed, "lifted", left),
    };
    if json {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        output::print_json(&WaitResult { order, result, left, took_ms })?;
    } else {
        output::print(&render_end(&order.backend, end, took))?;
    }
    Ok(exit)
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

/// Looks until the backend is empty here, the drain is lifted, or the deadline has passed.
async fn wait(client: &Client, backend: &str, deadline: Instant) -> Result<Progress, ClientError> {
    let mut seen_draining = false;
    let mut line = ProgressLine::default();
    loop {
        let progress = match client.get::<BackendsView>("/backends").await {
            Ok(view) => {
                progress(view.backends.iter().find(|view| view.backend == backend), &mut seen_draining)
            }
            // A worker too busy to answer, in the middle of a drain, is no reason to give up.
            Err(ClientError::Refused { status: 503, .. }) if Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Progress::Left(left) = progress
            && Instant::now() < deadline
        {
            if seen_draining {
                line.show(backend, left);
            }
            tokio::time::sleep(POLL).await;
            continue;
        }
        line.end();
        return Ok(progress);
    }
}

/// Empty counts only once the drain is in force: before, a new session could still come.
pub(super) fn progress(view: Option<&BackendView>, seen_draining: &mut bool) -> Progress {
    let Some(view) = view else { return Progress::Empty };
    let draining = !view.draining.is_empty();
    *seen_draining |= draining;
    match (draining, *seen_draining, view.sessions) {
        (true, _, 0) => Progress::Empty,
        // Nobody has a link to it, or it takes no new sessions anyway.
        (false, false, 0) if view.link == "none" || !view.in_table => Progress::Empty,
        (false, true, left) => Progress::Lifted(left),
        (_, _, left) => Progress::Left(left),
    }
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

pub(super) fn render_end(backend: &str, end: Progress, took: Duration) -> String {
    let took = took.as_secs_f64();
    match end {
        Progress::Empty => format!("{backend} has no session of this proxy left, after {took:.1} s\n"),
        Progress::Left(left) => format!(
            "{backend} still has {} of this proxy at the deadline, after {took:.1} s; they stay there\n\
             holdfast status says whether another backend can take them\n",
            count(left, "session")
        ),
        Progress::Lifted(left) => {
            format!(
                "the drain of {backend} was lifted with {} left, after {took:.1} s\n",
                count(left, "session")
            )
        }
    }
}

/// Progress on stderr: one line that changes on a terminal, a line per change elsewhere.
#[derive(Debug, Default)]
struct ProgressLine {
    shown: Option<u64>,
}

impl ProgressLine {
    fn show(&mut self, backend: &str, left: u64) {
        if self.shown == Some(left) {
            return;
        }
        self.shown = Some(left);
        let text = format!("{backend}: {} left", count(left, "session"));
        let mut stderr = std::io::stderr().lock();
        // Progress that can't be shown is no reason to stop waiting.
        let _ =
            if stderr.is_terminal() { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
        let _ = stderr.flush();
    }

    fn end(&self) {
        let mut stderr = std::io::stderr().lock();
        if self.shown.is_some() && stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K");
        }
    }
}
