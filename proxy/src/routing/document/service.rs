//! `services/<service>`: how its byte stream is cut, what holds after a crash, its bounds and its pace.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::balance::{RawBalance, RawBreakers};
use super::{
    MAX_COUNT, count, drain::MAX_DEADLINE_S, fault, health::RawHealth, mirror::RawMirror, strict::shown,
    within,
};
use crate::config::FieldError;
use crate::framing::{Framing, RawFraming};
use crate::routing::table::{
    DrainPolicy, Limits, OnCrash, OnDeadline, OnSigterm, RebalancePolicy, Recovery, Service, TracePolicy,
};

const MIB: u64 = 1024 * 1024;
/// Longest wait that may be given in milliseconds: ten minutes.
const MAX_WAIT_MS: u64 = 600_000;
/// Largest window. Largest state and journal: [`GIB`].
const MAX_WINDOW_BYTES: u64 = 64 * MIB;
const GIB: u64 = 1024 * MIB;
const MAX_SLOW_FRAME_MS: u64 = 3_600_000;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// How the proxy speaks with the service's backends.
    #[schemars(extend("enum" = ["link"]))]
    pub protocol: String,
    /// How a client's bytes are cut into frames.
    pub framing: RawFraming,
    /// What a session has after a crash of its backend: `none`, nothing; `checkpoint`, its last checkpoint; `delta` or
    /// `replay`, everything.
    #[serde(default = "default_recovery")]
    #[schemars(extend("enum" = ["none", "checkpoint", "delta", "replay"]))]
    pub recovery: String,
    /// What becomes of a session whose state went with its backend.
    #[serde(default)]
    pub on_crash: RawOnCrash,
    /// Bounds of one session, and how long it waits for things.
    #[serde(default)]
    pub limits: RawLimits,
    /// How sessions leave a draining backend.
    #[serde(default)]
    pub drain: RawDrainPolicy,
    /// Which frames are traced.
    #[serde(default)]
    pub trace: RawTrace,
    /// How live sessions move towards shares and weights when those, or the backends, change. Absent: they move only
    /// off what drains, and in rollouts.
    pub rebalance: Option<RawRebalance>,
    /// When a backend gets no new sessions while others can take them.
    #[serde(default)]
    pub health: RawHealth,
    /// How a session's backend is chosen among those that may take it.
    #[serde(default)]
    pub balance: RawBalance,
    /// Bounds of what one worker has on one backend: with one of them reached, the backend takes no more sessions from
    /// that worker until it is below again. Those who are there stay.
    #[serde(default)]
    pub breakers: RawBreakers,
    /// A share of the sessions is played to a second service, too, whose answers no player sees. Absent: none is.
    #[schemars(extend("x-since" = 2))]
    pub mirror: Option<RawMirror>,
}

fn default_recovery() -> String {
    "none".to_owned()
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnCrash {
    /// It is attached anew, and the game is told that its state is lost.
    #[default]
    Fresh,
    /// It is closed.
    Close,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Client bytes on their way to the backend, and as many that wait in the proxy. At least one frame of the
    /// framing's `max_bytes`.
    #[schemars(range(min = 1, max = MAX_WINDOW_BYTES))]
    pub client_window_bytes: u64,
    /// Backend bytes on their way to the client. At least one frame of the framing's `max_bytes`.
    #[schemars(range(min = 1, max = MAX_WINDOW_BYTES))]
    pub server_window_bytes: u64,
    /// What a state is taken to weigh before the first one tells; at most `max_state_bytes`. Absent: 65536, or
    /// `max_state_bytes` if that is less.
    #[schemars(range(min = 1, max = GIB))]
    pub state_size_bytes: Option<u64>,
    /// The largest state that is taken.
    #[schemars(range(min = 1, max = GIB))]
    pub max_state_bytes: u64,
    /// Sessions of this service on one worker.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_sessions: u64,
    /// How long a backend may take to take a session.
    #[schemars(range(min = 1, max = MAX_WAIT_MS))]
    pub attach_timeout_ms: u64,
    /// How long a backend may take to give a session up.
    #[schemars(range(min = 1, max = MAX_WAIT_MS))]
    pub freeze_timeout_ms: u64,
    /// The longest stay of a session in the proxy with no backend to take it; then it is closed.
    #[schemars(range(max = MAX_DEADLINE_S))]
    pub park_deadline_s: u64,
    /// How much of that stay is a wait for the session's own backend.
    #[schemars(range(max = MAX_DEADLINE_S))]
    pub park_home_s: u64,
    /// Silence after which a backend counts as gone.
    #[schemars(range(min = 50, max = MAX_WAIT_MS))]
    pub liveness_ms: u64,
    /// How long a lost link may take to come back.
    #[schemars(range(min = 1, max = MAX_WAIT_MS))]
    pub resume_timeout_ms: u64,
    /// How long a backend may take to finish a session whose client has left.
    #[schemars(range(min = 1, max = MAX_WAIT_MS))]
    pub close_deadline_ms: u64,
    /// How long a session that had input goes without a checkpoint: a crash replays about that much.
    #[schemars(range(min = 10, max = MAX_WAIT_MS))]
    pub checkpoint_interval_ms: u64,
    /// Frames and records kept of a session since its last checkpoint; at half of it a checkpoint is asked for. At
    /// least two client windows. Absent: 1048576, or four client windows if that is more.
    #[schemars(range(min = 2, max = GIB))]
    pub max_journal_bytes: Option<u64>,
    /// Crashes with the same input of a session waiting to be processed, and no checkpoint between; after the next it
    /// is called poison, and the session closed.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_recoveries: u64,
    /// Sessions of one worker that are on their way to a backend after a crash; the others wait, those whose input may
    /// have caused it last.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub recoveries_in_flight: u64,
    /// Sessions in one group; who asks to be in a full one is told, and plays on alone.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_group_members: u64,
    /// How long a member with more than the server window unread may hold up its group; then it is closed
    /// (`slow_player`).
    #[schemars(range(min = 1, max = MAX_WAIT_MS))]
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

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDrainPolicy {
    /// Moves of one drain on one worker that have begun and not ended.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub in_flight: u64,
    /// Moves of one drain that one worker begins per second.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub per_second: u64,
    /// How long a drain lasts whose document names no deadline.
    #[schemars(range(max = MAX_DEADLINE_S))]
    pub deadline_s: u64,
    /// What becomes of sessions that couldn't move by the deadline.
    pub on_deadline: RawOnDeadline,
    /// What becomes of the sessions of a backend that ends by itself (it was told to stop).
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

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRebalance {
    /// Moves that one worker begins per second.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub per_second: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnDeadline {
    /// They stay where they are, and the drain says so.
    Keep,
    /// They are closed.
    Close,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnSigterm {
    /// They move to other backends; who can't is parked.
    Move,
    /// They wait in the proxy until it is back.
    Park,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTrace {
    /// Share of frames that are traced. Absent: the proxy's own (`telemetry.ratio` in its file).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: Option<f64>,
    /// A frame that takes longer is traced anyway.
    #[schemars(range(min = 1, max = MAX_SLOW_FRAME_MS))]
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
        other => Err(fault("protocol", shown(other), "link")),
    }
}

fn check_recovery(name: &str) -> Result<Recovery, FieldError> {
    const LEVELS: [Recovery; 4] = [Recovery::None, Recovery::Checkpoint, Recovery::Delta, Recovery::Replay];
    let level = LEVELS.into_iter().find(|level| level.name() == name);
    level.ok_or_else(|| fault("recovery", shown(name), "none, checkpoint, delta or replay"))
}

impl RawLimits {
    fn check(self, framing: &Framing) -> Result<Limits, FieldError> {
        let max_state_bytes = within("limits.max_state_bytes", self.max_state_bytes, 1..=GIB)?;
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
    let least = framing.max_frame_bytes() as u64;
    if bytes < least {
        return Err(fault(field, bytes, format!("at least one frame of the framing's max_bytes: {least}")));
    }
    let bytes = within(field, bytes, least..=MAX_WINDOW_BYTES.max(least))?;
    u32::try_from(bytes).map_err(|_| fault(field, bytes, format!("at most {}", u32::MAX)))
}

/// A checkpoint is asked for at half of it: a window of frames that aren't processed must fit below that.
fn journal(bytes: Option<u64>, client_window_bytes: u32) -> Result<u64, FieldError> {
    let window = u64::from(client_window_bytes);
    let Some(bytes) = bytes else { return Ok(MIB.max(4 * window)) };
    if bytes < 2 * window {
        let least = 2 * window;
        let expected = format!("at least {least}, twice limits.client_window_bytes");
        return Err(fault("limits.max_journal_bytes", bytes, expected));
    }
    within("limits.max_journal_bytes", bytes, 2 * window..=GIB)
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
        let slow = within("trace.slow_frame_ms", self.slow_frame_ms, 1..=MAX_SLOW_FRAME_MS)?;
        Ok(TracePolicy {
            ratio: self.ratio.map(|ratio| within("trace.ratio", ratio, 0.0..=1.0)).transpose()?,
            slow_frame: Duration::from_millis(slow),
        })
    }
}

#[cfg(test)]
mod tests;
