//! One step of a rollout's life: plan, progress so far, what is seen and the time give the progress from here on.

use std::time::Duration;

use super::judge::Formats;
use super::progress::{Progress, Seen, State};
use crate::routing::Rollout;
use crate::routing::table::RolloutOrder;

/// What the controller knows at this moment.
#[derive(Debug, Clone)]
pub struct Now<'a> {
    pub ms: u64,
    pub seen: Seen,
    pub formats: &'a Formats,
    /// Of the rollout's document.
    pub revision: u64,
}

/// Advances `progress`. Called about once a second, and whenever the document changes.
pub fn advance(progress: &mut Progress, plan: &Rollout, now: &Now<'_>) {
    progress.seen = now.seen.clone();
    if plan.order == RolloutOrder::Abort && !progress.state.is_given_up() {
        give_up(progress, ordered(plan), now);
    }
    match progress.state {
        State::Checking | State::Refused => check(progress, plan, now),
        State::Running | State::Paused | State::Done => run(progress, plan, now),
        State::Aborting if now.seen.on_to == 0 => {
            let took = now.ms.saturating_sub(progress.since_ms);
            progress.moved_back_ms = Some(took);
            let reason = progress.reason.clone();
            progress.tell(now.ms, format!("the last player is back on {}, after {took} ms", plan.from));
            progress.enter(State::Aborted, reason, now.ms);
        }
        State::Aborting | State::Aborted => {}
    }
}

fn ordered(plan: &Rollout) -> String {
    if plan.reason.is_empty() { "ordered".to_owned() } else { format!("ordered: {}", plan.reason) }
}

/// Nobody has been moved yet.
fn check(progress: &mut Progress, plan: &Rollout, now: &Now<'_>) {
    if progress.state == State::Refused {
        // It stays so until somebody writes the document again: servers come and go.
        if progress.paused_at_revision == now.revision {
            return;
        }
        progress.enter(State::Checking, String::new(), now.ms);
    }
    if plan.order == RolloutOrder::Pause {
        progress.reason = ordered(plan);
        return;
    }
    match now.formats {
        Formats::Unknown { version } => {
            progress.reason = format!("no server of version {version} has been talked to yet");
        }
        Formats::Unfit(why) if !plan.force => {
            progress.paused_at_revision = now.revision;
            let reason = format!("{why}: its players couldn't be moved back; `force` begins all the same");
            progress.enter(State::Refused, reason, now.ms);
        }
        Formats::Unfit(_) | Formats::Fit => {
            progress.enter(State::Running, String::new(), now.ms);
            take_step(progress, plan, 0, now);
        }
    }
}

/// Players may be on the new version.
fn run(progress: &mut Progress, plan: &Rollout, now: &Now<'_>) {
    let rule = &plan.abort;
    if lasts(&mut progress.failing_since_ms, is_failing(plan, &now.seen), rule.lasting, now.ms) {
        let Seen { failures, players, failures_percent, .. } = &now.seen;
        let limit = rule.failures_percent;
        let reason = format!(
            "{} failed {failures} of {players} players in {:?}, {failures_percent:.1} %: more than {limit} % for {:?}",
            plan.to, rule.window, rule.lasting
        );
        return give_up(progress, reason, now);
    }
    let is_slow = lasts(&mut progress.slow_since_ms, is_slow(plan, &now.seen), plan.pause.lasting, now.ms);
    follow_plan(progress, plan, now);
    match progress.state {
        State::Running if plan.order == RolloutOrder::Pause => {
            progress.paused_at_revision = 0;
            progress.enter(State::Paused, ordered(plan), now.ms);
        }
        State::Running if is_slow => {
            let (p99, limit) = (now.seen.p99_ms.unwrap_or(0), plan.pause.p99);
            progress.paused_at_revision = now.revision;
            let reason = format!("{} is slow: p99 of {p99} ms, more than {limit:?}", plan.to);
            progress.enter(State::Paused, reason, now.ms);
        }
        State::Running => go_on(progress, plan, now),
        State::Paused if may_resume(progress, plan, now) => {
            progress.slow_since_ms = None;
            progress.step_since_ms = now.ms;
            progress.enter(State::Running, "resumed".to_owned(), now.ms);
        }
        _ => {}
    }
}

/// An ordered pause ends with the order; one of the controller's own when the document is written again.
fn may_resume(progress: &Progress, plan: &Rollout, now: &Now<'_>) -> bool {
    plan.order == RolloutOrder::Run && progress.paused_at_revision != now.revision
}

fn go_on(progress: &mut Progress, plan: &Rollout, now: &Now<'_>) {
    let elapsed = Duration::from_millis(now.ms.saturating_sub(progress.step_since_ms));
    // While there is doubt it stays where it is.
    let doubtful = progress.failing_since_ms.is_some() || progress.slow_since_ms.is_some();
    if elapsed < plan.interval || doubtful {
        return;
    }
    if progress.step + 1 < plan.steps.len() {
        take_step(progress, plan, progress.step + 1, now);
    } else {
        let reason = format!("{} % of the players are on {}: promote it", progress.percent, plan.to);
        progress.enter(State::Done, reason, now.ms);
    }
}

/// The document may have changed its steps.
fn follow_plan(progress: &mut Progress, plan: &Rollout, now: &Now<'_>) {
    let step = progress.step.min(plan.steps.len().saturating_sub(1));
    if progress.percent != percent_of(plan, step) {
        take_step(progress, plan, step, now);
    }
    if progress.state == State::Done && step + 1 < plan.steps.len() {
        progress.step_since_ms = now.ms;
        progress.enter(State::Running, "the document has more steps".to_owned(), now.ms);
    }
}

fn take_step(progress: &mut Progress, plan: &Rollout, step: usize, now: &Now<'_>) {
    (progress.step, progress.percent, progress.step_since_ms) = (step, percent_of(plan, step), now.ms);
    let (percent, of) = (progress.percent, plan.steps.len());
    progress.tell(now.ms, format!("step {} of {of}: {percent} % to {}", step + 1, plan.to));
}

fn percent_of(plan: &Rollout, step: usize) -> u32 {
    plan.steps.get(step).copied().unwrap_or(0)
}

fn give_up(progress: &mut Progress, reason: String, now: &Now<'_>) {
    progress.to_move_back = now.seen.on_to;
    progress.moved_back_ms = None;
    progress.slow_since_ms = None;
    progress.percent = 0;
    progress.enter(State::Aborting, reason, now.ms);
}

fn is_failing(plan: &Rollout, seen: &Seen) -> bool {
    seen.failures_percent > plan.abort.failures_percent
}

fn is_slow(plan: &Rollout, seen: &Seen) -> bool {
    seen.p99_ms.is_some_and(|p99| u128::from(p99) > plan.pause.p99.as_millis())
}

/// Notes since when a condition holds; whether that is long enough.
fn lasts(since: &mut Option<u64>, holds: bool, lasting: Duration, now_ms: u64) -> bool {
    if !holds {
        *since = None;
        return false;
    }
    let began = *since.get_or_insert(now_ms);
    u128::from(now_ms.saturating_sub(began)) >= lasting.as_millis()
}

#[cfg(test)]
pub mod tests;
