//! `POST /hooks/alertmanager`: alerts, each carried out by the rules under `hooks/` that match it, and answered one by one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::drains::StoreFuture;
use super::state::AdminState;
use super::view::{HookResultView, HooksAnswer};
use crate::config::TokenFile;
use crate::events::{Event, Events, Kind};
use crate::hooks::alert::{Alert, PayloadError, Status, read};
use crate::hooks::rule::{Known, deed, matches, stands, target};
use crate::hooks::{Counts, Deed, Outcome};
use crate::routing::Hook;
use crate::routing::document::excerpt;

/// Alertmanager waits for an answer about as long; what isn't done by then is sent again.
const CARRY_OUT_WITHIN: Duration = Duration::from_secs(8);

/// What alerts need of the proxy.
#[derive(Default)]
pub struct HookDesk {
    /// Without it nobody is asked for one.
    pub token: Option<TokenFile>,
    pub orders: HookOrders,
    pub counts: Arc<Counts>,
    pub events: Events,
}

/// Takes the deeds of each request.
pub trait HookStore: Send + Sync {
    fn open(&self) -> Box<dyn HookWriter>;
}

/// Carries the deeds of one request out. Each is safe to repeat. An error is of the store, and not of the deed: the next
/// one would fare no better.
pub trait HookWriter: Send {
    fn carry_out(&mut self, deed: Deed) -> StoreFuture<'_, Outcome>;
}

/// Where the orders of hooks go.
#[derive(Default)]
pub enum HookOrders {
    #[default]
    Nowhere,
    /// Documents come from this folder, which people write.
    Files(PathBuf),
    Store(Arc<dyn HookStore>),
}

/// Why alerts aren't taken at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    #[error("expected the header Authorization: Bearer and the token of [hooks] token_file")]
    Unauthorized,
    #[error("the token can't be read, so nobody can be let in: {0}")]
    Token(crate::config::FieldError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("this proxy reads its documents from files ({0}), where hooks write nothing: they need [etcd]")]
    Files(String),
}

impl HookDesk {
    /// Before anything of the body is read.
    pub(super) fn admit(&self, authorization: Option<&HeaderValue>) -> Result<(), HookError> {
        let Some(file) = &self.token else { return Ok(()) };
        let token = file.token().map_err(HookError::Token)?;
        let given =
            authorization.and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")).unwrap_or_default();
        if same(given, token.as_bytes()) { Ok(()) } else { Err(HookError::Unauthorized) }
    }
}

/// Takes as long wherever they differ, so that a token can't be guessed byte by byte.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Does what the rules say of each alert. `true`: some of it has to be sent again.
pub(super) async fn alertmanager(state: &AdminState, body: &[u8]) -> Result<(HooksAnswer, bool), HookError> {
    let alerts = read(body)?;
    let desk = &state.hooks;
    let store = match &desk.orders {
        HookOrders::Store(store) => store.as_ref(),
        HookOrders::Files(folder) => return Err(HookError::Files(folder.display().to_string())),
        HookOrders::Nowhere => return Err(HookError::Files("none".to_owned())),
    };
    let table = Arc::clone(&state.published().table);
    let (mut results, mut orders) = (Vec::new(), Vec::new());
    for alert in &alerts {
        let hooks: Vec<_> = table.hooks.values().filter(|hook| matches(hook, alert)).collect();
        if hooks.is_empty() {
            desk.counts.add("none", "no_rule");
            results.push((results.len() + orders.len(), unmatched(alert)));
        }
        for hook in hooks {
            let stands = stands(hook, alert, &table, SystemTime::now()).map(str::to_owned);
            orders.push((results.len() + orders.len(), hook, alert, stands));
        }
    }
    orders.sort_by_key(|(_, _, alert, stands)| turn(alert.status, stands.is_some()));
    let mut writing = Writing::begin(store.open());
    let mut error = None;
    for (row, hook, alert, stands) in orders {
        let outcome = match decide(state, hook, alert) {
            Ok(deed) => writing.carry_out(deed, stands).await,
            Err(outcome) => outcome,
        };
        if let Outcome::Failed(why) = &outcome {
            error.get_or_insert_with(|| why.clone());
        }
        results.push((row, tell(desk, hook, alert, &outcome)));
    }
    results.sort_by_key(|(row, _)| *row);
    let is_to_be_sent_again = error.is_some();
    let alerts = results.into_iter().map(|(_, result)| result).collect();
    Ok((HooksAnswer { error, alerts }, is_to_be_sent_again))
}

fn decide(state: &AdminState, hook: &Hook, alert: &Alert) -> Result<Deed, Outcome> {
    let (table, fitness) = (Arc::clone(&state.published().table), state.fitness.borrow().clone());
    let rollouts = state.rollouts.borrow().clone();
    deed(hook, alert, &Known { table: &table, fitness: &fitness, rollouts: &rollouts })
}

/// What is over goes first: the key it leaves may be the next alert's. What seems to stand already goes last, so that
/// there is time for what is news.
fn turn(status: Status, stands: bool) -> u8 {
    match status {
        Status::Resolved => 0,
        Status::Firing => 1 + u8::from(stands),
    }
}

/// The deeds of one request, as long as there is time.
struct Writing {
    writer: Box<dyn HookWriter>,
    deadline: Instant,
    /// Of no use any more: what is left needn't wait for it, too.
    away: Option<Away>,
    /// Something that stood doesn't any more.
    undone: bool,
}

enum Away {
    Store(String),
    OutOfTime,
}

impl Writing {
    fn begin(writer: Box<dyn HookWriter>) -> Self {
        Self { writer, deadline: Instant::now() + CARRY_OUT_WITHIN, away: None, undone: false }
    }

    /// `stands`: the reason of such an order in force here, which may be a moment old: the store has the last word.
    async fn carry_out(&mut self, deed: Deed, stands: Option<String>) -> Outcome {
        if self.away.is_none() {
            match timeout_at(self.deadline, self.writer.carry_out(deed)).await {
                Ok(Ok(outcome)) => {
                    self.undone |= matches!(outcome, Outcome::Undone(_));
                    return outcome;
                }
                Ok(Err(error)) => self.away = Some(Away::Store(error.to_string())),
                Err(_) => self.away = Some(Away::OutOfTime),
            }
        }
        match (&self.away, stands) {
            // So many come again that there is no time for all of them.
            (Some(Away::OutOfTime), Some(reason)) if !self.undone => {
                Outcome::Already(format!("it stands: {reason:?}"))
            }
            (Some(Away::Store(error)), _) => {
                Outcome::Failed(format!("the store of documents didn't take it: {error}"))
            }
            _ => {
                let seconds = CARRY_OUT_WITHIN.as_secs();
                Outcome::Failed(format!("the store of documents took longer than {seconds} s"))
            }
        }
    }
}

/// Every result is counted; those that are news are also logged and told.
fn tell(desk: &HookDesk, hook: &Hook, alert: &Alert, outcome: &Outcome) -> HookResultView {
    let (action, result) = (hook.action.name(), outcome.name());
    desk.counts.add(action, result);
    let view = HookResultView {
        hook: Some(hook.name.to_string()),
        action: Some(action.to_owned()),
        target: target(hook, alert),
        result: result.to_owned(),
        detail: Some(outcome.detail().to_owned()).filter(|detail| !detail.is_empty()),
        ..of_alert(alert)
    };
    let (hook, alert, target) = (&*hook.name, &*view.alert, view.target.as_deref());
    match outcome {
        Outcome::Already(_) | Outcome::Kept(_) => {
            tracing::debug!(hook, alert, action, target, result, detail = outcome.detail(), "an alert");
            return view;
        }
        Outcome::Done(_) | Outcome::Undone(_) => {
            tracing::info!(hook, alert, action, target, result, detail = outcome.detail(), "an alert");
        }
        Outcome::Refused(_) | Outcome::Failed(_) => {
            tracing::warn!(hook, alert, action, target, result, detail = outcome.detail(), "an alert");
        }
    }
    let event = Event::new(Kind::Hook, outcome.detail().to_owned());
    let event =
        event.detail("hook", hook).detail("alert", alert).detail("action", action).detail("result", result);
    desk.events.tell(match target {
        Some(backend) if backend.contains('/') => event.backend(backend),
        Some(rollout) => event.rollout(rollout),
        None => event,
    });
    view
}

fn of_alert(alert: &Alert) -> HookResultView {
    HookResultView {
        alert: excerpt(alert.name()),
        fingerprint: alert.fingerprint.clone(),
        status: alert.status.name().to_owned(),
        hook: None,
        action: None,
        target: None,
        result: String::new(),
        detail: None,
    }
}

fn unmatched(alert: &Alert) -> HookResultView {
    HookResultView { result: "no rule".to_owned(), ..of_alert(alert) }
}

#[cfg(test)]
mod tests;
