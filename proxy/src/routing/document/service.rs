//! `services/<service>`: how its byte stream is cut, what holds after a crash, its bounds and its pace.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::balance::{RawBalance, RawBreakers};
use super::{
    count, drain::MAX_DEADLINE_S, fault, health::RawHealth, mirror::RawMirror, strict::shorten, within,
};
use crate::config::FieldError;
use crate::framing::{Framing, RawFraming};
use crate::routing::table::{
    DrainPolicy, Limits, OnCrash, OnDeadline, OnSigterm, RebalancePolicy, Recovery, Service, TracePolicy,
};

const MIB: u64 = 1024 * 1024;
/// Longest wait that may be given in milliseconds: ten minutes.
const MAX_WAIT_MS: u64 = 600_000;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// `link`; `stream` and `frames` are not built yet.
    pub protocol: String,
    pub framing: RawFraming,
    /// `none`, `checkpoint`, `delta` or `replay`: what a crash of a backend costs.
    #[serde(default = "default_recovery")]
    pub recovery: String,
    #[serde(default)]
    pub on_crash: RawOnCrash,
    #[serde(default)]
    pub limits: RawLimits,
    #[serde(default)]
    pub drain: RawDrainPolicy,
    #[serde(default)]
    pub trace: RawTrace,
    /// Absent: live sessions move only off what drains.
    pub rebalance: Option<RawRebalance>,
    /// Absent: a backend gets sessions while its link is up.
    #[serde(default)]
    pub health: RawHealth,
    #[serde(default)]
    pub balance: RawBalance,
    #[serde(default)]
    pub breakers: RawBreakers,
    /// Absent: no session is mirrored.
    pub mirror: Option<RawMirror>,
}

fn default_recovery() -> String {
    "none".to_owned()
}

/// What becomes of a session whose backend crashed with its state.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnCrash {
    #[default]
    Fresh,
    Close,
}

/// Bounds of one session, and how long it waits for things.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    pub client_window_bytes: u64,
    pub server_window_bytes: u64,
    /// Absent: 64 KiB, or `max_state_bytes` if that is less.
    pub state_size_bytes: Option<u64>,
    pub max_state_bytes: u64,
    pub max_sessions: u64,
    pub attach_timeout_ms: u64,
    pub freeze_timeout_ms: u64,
    pub park_deadline_s: u64,
    pub park_home_s: u64,
    pub liveness_ms: u64,
    pub resume_timeout_ms: u64,
    pub close_deadline_ms: u64,
    pub checkpoint_interval_ms: u64,
    /// Absent: 1 MiB, or four client windows if that is more.
    pub max_journal_bytes: Option<u64>,
    pub max_recoveries: u64,
    pub recoveries_in_flight: u64,
    pub max_group_members: u64,
    pub slow_member_ms: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            client_window_bytes: 262_144,
            server_window_bytes: 262_144,
            state_size_bytes: None,
            max_state_bytes: 64 * MIB,
            max_sessions: 10_000,
            attach_timeout_ms: 3_000,
            freeze_timeout_ms: 3_000,
            park_deadline_s: 60,
            park_home_s: 30,
            liveness_ms: 3_000,
            resume_timeout_ms: 2_000,
            close_deadline_ms: 5_000,
            checkpoint_interval_ms: 1_000,
            max_journal_bytes: None,
            max_recoveries: 3,
            recoveries_in_flight: 256,
            max_group_members: 256,
            slow_member_ms: 1_000,
        }
    }
}

/// How sessions leave a draining backend.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDrainPolicy {
    pub in_flight: u64,
    pub per_second: u64,
    pub deadline_s: u64,
    pub on_deadline: RawOnDeadline,
    pub on_sigterm: RawOnSigterm,
}

impl Default for RawDrainPolicy {
    fn default() -> Self {
        Self {
            in_flight: 64,
            per_second: 2_000,
            deadline_s: 60,
            on_deadline: RawOnDeadline::Keep,
            on_sigterm: RawOnSigterm::Move,
        }
    }
}

/// How live sessions move towards shares and weights when those, or the backends, change.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRebalance {
    /// Moves begun per second on one worker.
    pub per_second: u64,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnDeadline {
    Keep,
    Close,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnSigterm {
    Move,
    Park,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTrace {
    /// Absent: the proxy's `telemetry.ratio`.
    pub ratio: Option<f64>,
    pub slow_frame_ms: u64,
}

impl Default for RawTrace {
    fn default() -> Self {
        Self { ratio: None, slow_frame_ms: 1_000 }
    }
}

impl RawService {
    pub fn check(self, name: Arc<str>) -> Result<Service, FieldError> {
        check_protocol(&self.protocol)?;
        let framing = self.framing.check()?;
        Ok(Service {
            mirror: self.mirror.map(|mirror| mirror.check(&name)).transpose()?.map(Arc::new),
            name,
            recovery: check_recovery(&self.recovery)?,
            on_crash: match self.on_crash {
                RawOnCrash::Fresh => OnCrash::Fresh,
                RawOnCrash::Close => OnCrash::Close,
            },
            limits: self.limits.check(&framing)?,
            drain: self.drain.check()?,
            trace: self.trace.check()?,
            rebalance: self.rebalance.map(RawRebalance::check).transpose()?,
            health: self.health.check()?,
            balance: self.balance.check()?,
            breakers: self.breakers.check()?,
            framing,
        })
    }
}

fn check_protocol(protocol: &str) -> Result<(), FieldError> {
    match protocol {
        "link" => Ok(()),
        "stream" | "frames" => {
            Err(fault("protocol", protocol, format!("link: protocol {protocol} is not built yet")))
        }
        other => Err(fault("protocol", shorten(other), "link")),
    }
}

fn check_recovery(name: &str) -> Result<Recovery, FieldError> {
    const LEVELS: [Recovery; 4] = [Recovery::None, Recovery::Checkpoint, Recovery::Delta, Recovery::Replay];
    let level = LEVELS.into_iter().find(|level| level.name() == name);
    level.ok_or_else(|| fault("recovery", shorten(name), "none, checkpoint, delta or replay"))
}

impl RawLimits {
    fn check(self, framing: &Framing) -> Result<Limits, FieldError> {
        let max_state_bytes = within("limits.max_state_bytes", self.max_state_bytes, 1..=1024 * MIB)?;
        let state_size_bytes = self.state_size_bytes.unwrap_or(max_state_bytes.min(65_536));
        let ms = |field, value| within(field, value, 1..=MAX_WAIT_MS).map(Duration::from_millis);
        let seconds = |field, value| within(field, value, 0..=MAX_DEADLINE_S).map(Duration::from_secs);
        let client_window_bytes = window("limits.client_window_bytes", self.client_window_bytes, framing)?;
        Ok(Limits {
            client_window_bytes,
            server_window_bytes: window("limits.server_window_bytes", self.server_window_bytes, framing)?,
            state_size_bytes: within("limits.state_size_bytes", state_size_bytes, 1..=max_state_bytes)?,
            max_state_bytes,
            max_sessions: count("limits.max_sessions", self.max_sessions)?,
            attach_timeout: ms("limits.attach_timeout_ms", self.attach_timeout_ms)?,
            freeze_timeout: ms("limits.freeze_timeout_ms", self.freeze_timeout_ms)?,
            park_deadline: seconds("limits.park_deadline_s", self.park_deadline_s)?,
            park_home: seconds("limits.park_home_s", self.park_home_s)?,
            liveness: within("limits.liveness_ms", self.liveness_ms, 50..=MAX_WAIT_MS)
                .map(Duration::from_millis)?,
            resume_timeout: ms("limits.resume_timeout_ms", self.resume_timeout_ms)?,
            close_deadline: ms("limits.close_deadline_ms", self.close_deadline_ms)?,
            max_journal_bytes: journal(self.max_journal_bytes, client_window_bytes)?,
            checkpoint_interval: within(
                "limits.checkpoint_interval_ms",
                self.checkpoint_interval_ms,
                10..=MAX_WAIT_MS,
            )
            .map(Duration::from_millis)?,
            max_recoveries: count("limits.max_recoveries", self.max_recoveries)?,
            recoveries_in_flight: count("limits.recoveries_in_flight", self.recoveries_in_flight)?,
            max_group_members: count("limits.max_group_members", self.max_group_members)?,
            slow_member: ms("limits.slow_member_ms", self.slow_member_ms)?,
        })
    }
}

/// A window that can't hold the largest frame would stop the session at it for ever.
fn window(field: &str, bytes: u64, framing: &Framing) -> Result<u32, FieldError> {
    const MOST: u64 = 64 * MIB;
    let least = framing.max_frame_bytes() as u64;
    if bytes < least {
        return Err(fault(field, bytes, format!("at least one frame of the framing's max_bytes: {least}")));
    }
    let bytes = within(field, bytes, least..=MOST.max(least))?;
    u32::try_from(bytes).map_err(|_| fault(field, bytes, format!("at most {}", u32::MAX)))
}

/// A checkpoint is asked for at half of it: a window of frames that aren't processed must fit below that.
fn journal(bytes: Option<u64>, client_window_bytes: u32) -> Result<u64, FieldError> {
    const MOST: u64 = 1024 * MIB;
    let window = u64::from(client_window_bytes);
    let Some(bytes) = bytes else { return Ok(MIB.max(4 * window)) };
    if bytes < 2 * window {
        let least = 2 * window;
        let expected = format!("at least {least}, twice limits.client_window_bytes");
        return Err(fault("limits.max_journal_bytes", bytes, expected));
    }
    within("limits.max_journal_bytes", bytes, 0..=MOST)
}

impl RawDrainPolicy {
    fn check(self) -> Result<DrainPolicy, FieldError> {
        let deadline = within("drain.deadline_s", self.deadline_s, 0..=MAX_DEADLINE_S)?;
        Ok(DrainPolicy {
            in_flight: count("drain.in_flight", self.in_flight)?,
            per_second: count("drain.per_second", self.per_second)?,
            deadline: Duration::from_secs(deadline),
            on_deadline: match self.on_deadline {
                RawOnDeadline::Keep => OnDeadline::Keep,
                RawOnDeadline::Close => OnDeadline::Close,
            },
            on_sigterm: match self.on_sigterm {
                RawOnSigterm::Move => OnSigterm::Move,
                RawOnSigterm::Park => OnSigterm::Park,
            },
        })
    }
}

impl RawRebalance {
    fn check(self) -> Result<RebalancePolicy, FieldError> {
        Ok(RebalancePolicy { per_second: count("rebalance.per_second", self.per_second)? })
    }
}

impl RawTrace {
    fn check(self) -> Result<TracePolicy, FieldError> {
        let slow = within("trace.slow_frame_ms", self.slow_frame_ms, 1..=3_600_000)?;
        Ok(TracePolicy {
            ratio: self.ratio.map(|ratio| within("trace.ratio", ratio, 0.0..=1.0)).transpose()?,
            slow_frame: Duration::from_millis(slow),
        })
    }
}

#[cfg(test)]
mod tests;
