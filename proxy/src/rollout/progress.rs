//! How far a rollout is: the value of `status/rollouts/<service>`, which outlives its controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::routing::Rollout;

/// Most events that a status remembers.
const MAX_EVENTS: usize = 50;

/// All rollouts' progress, by service.
pub type Progresses = BTreeMap<String, Arc<Progress>>;

/// Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Name of the service.
    pub service: String,
    /// As the document says.
    pub from: String,
    /// As the document says.
    pub to: String,
    /// As the document says.
    pub attempt: u64,
    /// Where it is.
    pub state: State,
    /// Why it is in this state, in words.
    pub reason: String,
    /// Index of the step that is in force.
    pub step: usize,
    /// Of the players, on `to`.
    pub percent: u32,
    /// When this step began (again), in milliseconds of Unix time.
    pub step_since_ms: u64,
    /// When this state began.
    pub since_ms: u64,
    /// Revision of the document at which the controller paused by itself: another revision of it ends the pause.
    #[serde(default)]
    pub paused_at_revision: u64,
    /// Since when the abort's share is (or was, when it was given up) exceeded without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since_ms: Option<u64>,
    /// Since when the new version is too slow without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_since_ms: Option<u64>,
    /// Players that were on `to` when it was given up.
    #[serde(default)]
    pub to_move_back: u64,
    /// Between the decision to give up and the moment when nobody was left on `to`, as the controller saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_back_ms: Option<u64>,
    /// What the fleet saw of the new version over the last window.
    pub seen: Seen,
    /// The proxy that wrote this.
    pub controller: String,
    /// What happened, oldest first; the last fifty.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Whether players could be moved there and back isn't known yet.
    Checking,
    /// They couldn't, and nobody forces it.
    Refused,
    /// Step after step.
    Running,
    /// It stays at its step.
    Paused,
    /// Given up: players are being moved back.
    Aborting,
    /// Nobody is on the new version any more.
    Aborted,
    /// The last step is over: it waits to be promoted.
    Done,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Checking,
        Self::Refused,
        Self::Running,
        Self::Paused,
        Self::Aborting,
        Self::Aborted,
        Self::Done,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Refused => "refused",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Aborting => "aborting",
            Self::Aborted => "aborted",
            Self::Done => "done",
        }
    }

    #[must_use]
    pub fn is_given_up(self) -> bool {
        matches!(self, Self::Aborting | Self::Aborted)
    }
}

/// What the fleet saw of the new version over the last window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// Players on `from` now.
    pub on_from: u64,
    /// Players on `to` now.
    pub on_to: u64,
    /// Players on `to` when the window began, and those whom it was offered since.
    pub players: u64,
    /// What the document counts as one.
    pub failures: u64,
    /// Of `players`.
    pub failures_percent: f64,
    /// Frames that `to` has processed.
    pub frames: u64,
    /// Of a frame's arrival at the proxy until it was processed; absent without frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Milliseconds of Unix time.
    pub at_ms: u64,
    /// In words.
    pub what: String,
}

impl Progress {
    #[must_use]
    pub fn begin(plan: &Rollout, now_ms: u64) -> Self {
        let mut progress = Self {
            service: plan.service.to_string(),
            from: plan.from.to_string(),
            to: plan.to.to_string(),
            attempt: plan.attempt,
            state: State::Checking,
            reason: String::new(),
            step: 0,
            percent: 0,
            step_since_ms: now_ms,
            since_ms: now_ms,
            paused_at_revision: 0,
            failing_since_ms: None,
            slow_since_ms: None,
            to_move_back: 0,
            moved_back_ms: None,
            seen: Seen::default(),
            controller: String::new(),
            events: Vec::new(),
        };
        progress.tell(now_ms, format!("rollout of {} from {} to {}", plan.service, plan.from, plan.to));
        progress
    }

    /// Whether this is how far *that* rollout is, and not an earlier one.
    #[must_use]
    pub fn is_of(&self, plan: &Rollout) -> bool {
        *self.from == *plan.from && *self.to == *plan.to && self.attempt == plan.attempt
    }

    pub fn enter(&mut self, state: State, reason: String, now_ms: u64) {
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.tell(now_ms, format!("{}{why}", state.name()));
        (self.state, self.reason, self.since_ms) = (state, reason, now_ms);
    }

    pub fn tell(&mut self, at_ms: u64, what: String) {
        if self.events.len() >= MAX_EVENTS {
            self.events.remove(0);
        }
        self.events.push(Event { at_ms, what });
    }
}
