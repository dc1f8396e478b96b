//! `rollouts/<service>`: how players are brought from one version to another, and when that is given up.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::version;
use super::{fault, line, within};
use crate::config::FieldError;
use crate::routing::table::{AbortRule, Failure, PauseRule, Rollout, RolloutOrder};

/// A day, for what is given in seconds: longer is a slip of the pen.
const MAX_SECONDS: u64 = 86_400;
const MAX_STEPS: usize = 100;

/// A canary, step by step. The controller that runs it is one of the proxies; it never edits this document, and what
/// it does stands in `status/rollouts/<service>`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-since" = 2))]
pub struct RawRollout {
    /// The version that players are on now, and are moved back to if the rollout is given up.
    #[schemars(length(min = 1, max = 64))]
    pub from: String,
    /// The version that they are brought to; another than `from`.
    #[schemars(length(min = 1, max = 64))]
    pub to: String,
    /// Percent of the players that are on `to` after each step, growing. `[100]` is blue-green.
    #[serde(default = "default_steps")]
    #[schemars(length(min = 1, max = MAX_STEPS), inner(range(min = 1, max = 100)))]
    pub steps: Vec<u32>,
    /// How long each step lasts before the next; in doubt (something fails or is slow) it lasts longer.
    #[serde(default = "default_interval_s")]
    #[schemars(range(min = 1, max = 86_400))]
    pub interval_s: u64,
    /// Moves that one worker begins per second. Absent: the service's `rebalance.per_second`, else its
    /// `drain.per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_second: Option<u64>,
    /// When the rollout is given up and its players are moved back.
    #[serde(default)]
    pub abort: RawAbort,
    /// When the rollout stops where it is, and warns.
    #[serde(default)]
    pub pause: RawPause,
    /// What is to be done. Writing the document again with `run` also ends a pause that the controller has made.
    #[serde(default)]
    pub order: RawOrder,
    /// Why, for those who read `order`: one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256), extend("default" = ""))]
    pub reason: String,
    /// A rollout that was given up stays so until this number changes (or a version does).
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub attempt: u64,
    /// Begin even though players couldn't be moved back with their state: `from` doesn't read what `to` writes.
    #[serde(default)]
    pub force: bool,
}

fn default_steps() -> Vec<u32> {
    vec![5, 25, 50, 100]
}

fn default_interval_s() -> u64 {
    300
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOrder {
    /// Step after step.
    #[default]
    Run,
    /// Stay at the step.
    Pause,
    /// Move the players back.
    Abort,
}

/// The share of players of the new version whom it fails.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAbort {
    /// Failures per hundred players of `to`: those who were there when the window began, and those whom it was offered
    /// since.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub failures_percent: f64,
    /// The window over which failures are counted.
    #[schemars(range(min = 1, max = 3_600))]
    pub window_s: u64,
    /// For how long the share must be exceeded without a break.
    #[schemars(range(max = 86_400))]
    pub for_s: u64,
    /// What counts as a failure.
    pub count: Vec<RawFailure>,
}

impl Default for RawAbort {
    fn default() -> Self {
        Self {
            failures_percent: 5.0,
            window_s: 10,
            for_s: 60,
            count: vec![
                RawFailure::Refused,
                RawFailure::Late,
                RawFailure::Fault,
                RawFailure::Close,
                RawFailure::Crash,
                RawFailure::Divergence,
            ],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawFailure {
    /// A server refused a player.
    Refused,
    /// A server didn't answer in time whether it takes a player.
    Late,
    /// A server broke a rule of the link, or gave a player up.
    Fault,
    /// A server closed a player's session. Take it out where games end that way.
    Close,
    /// A server's process was lost, with this player on it.
    Crash,
    /// A replay made something else than the player had seen.
    Divergence,
}

/// How slow the new version may be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPause {
    /// The 99th percentile of the time from a frame's arrival at the proxy until the game has processed it, over
    /// `abort.window_s`.
    #[schemars(range(min = 1, max = 600_000))]
    pub p99_ms: u64,
    /// For how long it must be exceeded without a break.
    #[schemars(range(max = 86_400))]
    pub for_s: u64,
}

impl Default for RawPause {
    fn default() -> Self {
        Self { p99_ms: 1_000, for_s: 10 }
    }
}

impl RawRollout {
    pub fn check(self, service: std::sync::Arc<str>) -> Result<Rollout, FieldError> {
        let to = version("to", self.to)?;
        let from = version("from", self.from)?;
        if from == to {
            return Err(fault("to", to, "another version than `from`"));
        }
        let per_second = self.per_second.map(|pace| within("per_second", pace, 1..=1_000_000)).transpose()?;
        Ok(Rollout {
            service,
            from: from.into(),
            to: to.into(),
            steps: steps(self.steps)?,
            interval: seconds("interval_s", self.interval_s, 1..=MAX_SECONDS)?,
            per_second: per_second.and_then(|pace| u32::try_from(pace).ok()),
            abort: self.abort.check()?,
            pause: self.pause.check()?,
            order: match self.order {
                RawOrder::Run => RolloutOrder::Run,
                RawOrder::Pause => RolloutOrder::Pause,
                RawOrder::Abort => RolloutOrder::Abort,
            },
            reason: line("reason", self.reason, 256)?,
            attempt: within("attempt", self.attempt, 0..=1_000_000)?,
            force: self.force,
        })
    }
}

fn steps(steps: Vec<u32>) -> Result<Vec<u32>, FieldError> {
    const EXPECTED: &str = "1 to 100 growing percentages from 1 to 100, as [5, 25, 50, 100]";
    let grows = steps.windows(2).all(|pair| pair[0] < pair[1]);
    let in_range = steps.iter().all(|step| (1..=100).contains(step));
    if grows && in_range && (1..=MAX_STEPS).contains(&steps.len()) {
        return Ok(steps);
    }
    let found = super::strict::shorten(&format!("{steps:?}"));
    Err(fault("steps", found, EXPECTED))
}

fn seconds(field: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<Duration, FieldError> {
    within(field, value, range).map(Duration::from_secs)
}

impl RawAbort {
    fn check(self) -> Result<AbortRule, FieldError> {
        Ok(AbortRule {
            failures_percent: within("abort.failures_percent", self.failures_percent, 0.0..=100.0)?,
            window: seconds("abort.window_s", self.window_s, 1..=3_600)?,
            lasting: seconds("abort.for_s", self.for_s, 0..=MAX_SECONDS)?,
            count: self.count.into_iter().map(Failure::from).collect(),
        })
    }
}

impl From<RawFailure> for Failure {
    fn from(raw: RawFailure) -> Self {
        match raw {
            RawFailure::Refused => Self::Refused,
            RawFailure::Late => Self::Late,
            RawFailure::Fault => Self::Fault,
            RawFailure::Close => Self::Close,
            RawFailure::Crash => Self::Crash,
            RawFailure::Divergence => Self::Divergence,
        }
    }
}

impl RawPause {
    fn check(self) -> Result<PauseRule, FieldError> {
        Ok(PauseRule {
            p99: within("pause.p99_ms", self.p99_ms, 1..=600_000).map(Duration::from_millis)?,
            lasting: seconds("pause.for_s", self.for_s, 0..=MAX_SECONDS)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};
    use super::*;

    fn parse(more: &str) -> Result<std::sync::Arc<Rollout>, FieldError> {
        let text = format!(r#"{{"from": "1.4", "to": "1.5"{more}}}"#);
        match Document::parse(&Key::parse("rollouts/arena").unwrap(), text.as_bytes())? {
            Document::Rollout(rollout) => Ok(rollout),
            other => panic!("not a rollout: {other:?}"),
        }
    }

    #[test]
    fn two_versions_are_a_rollout() {
        let rollout = parse("").unwrap();
        assert_eq!((&*rollout.from, &*rollout.to, &rollout.steps[..]), ("1.4", "1.5", &[5, 25, 50, 100][..]));
        assert_eq!((rollout.interval, rollout.order), (Duration::from_secs(300), RolloutOrder::Run));
        assert_eq!((rollout.abort.failures_percent, rollout.abort.lasting), (5.0, Duration::from_secs(60)));
        assert_eq!(rollout.pause.p99, Duration::from_secs(1));
    }

    #[test]
    fn the_documented_page_states_the_real_defaults() {
        let page = include_str!("../../../../config/rollouts.md");
        let stated = page.split("```").nth(1).unwrap().strip_prefix("json").unwrap();
        let key = Key::parse("rollouts/arena").unwrap();
        let Document::Rollout(stated) = Document::parse(&key, stated.as_bytes()).unwrap() else {
            panic!("not a rollout")
        };
        assert_eq!(stated, parse("").unwrap());
    }

    #[test]
    fn a_bad_field_is_named() {
        for (more, field) in [
            (r#", "steps": []"#, "steps"),
            (r#", "steps": [5, 5]"#, "steps"),
            (r#", "steps": [0, 5]"#, "steps"),
            (r#", "steps": [50, 101]"#, "steps"),
            (r#", "interval_s": 0"#, "interval_s"),
            (r#", "per_second": 0"#, "per_second"),
            (r#", "abort": {"failures_percent": 101}"#, "abort.failures_percent"),
            (r#", "abort": {"window_s": 0}"#, "abort.window_s"),
            (r#", "abort": {"count": ["slow"]}"#, "abort.count[0]"),
            (r#", "pause": {"p99_ms": 0}"#, "pause.p99_ms"),
            (r#", "order": "stop"#, "document"),
            (r#", "order": "stop""#, "order"),
            (r#", "reason": "two\nlines""#, "reason"),
            (r#", "shares": 5"#, "shares"),
        ] {
            assert_eq!(parse(more).unwrap_err().field, field, "{more}");
        }
        let same = br#"{"from": "1.4", "to": "1.4"}"#;
        let error = Document::parse(&Key::parse("rollouts/arena").unwrap(), same).unwrap_err();
        assert_eq!(error.to_string(), "to: got 1.4, expected another version than `from`");
    }
}
