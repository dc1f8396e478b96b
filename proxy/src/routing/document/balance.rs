//! The parts of a service's document that say which of its backends a session goes to: `balance` and `breakers`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MAX_COUNT, count, fault, within};
use crate::config::FieldError;
use crate::routing::table::{Balance, Breakers, By, HashKey, Policy};

/// Longest slow start: an hour.
const MAX_SLOW_START_S: u64 = 3_600;
/// A tebibyte.
const MAX_KEPT_BYTES: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBalance {
    /// Where newcomers and those who move go, after the route's shares and `prefer`.
    pub policy: RawPolicy,
    /// With the policies `least_sessions` and `two_choices` alone: what they compare.
    #[schemars(extend("x-since" = 2))]
    pub by: RawBy,
    /// With the policy `hash` alone: what it goes by; versions are chosen by it, too. Absent: `session`.
    pub key: Option<RawHashKey>,
    /// In this time the weight of a fresh backend grows from a tenth to the whole; 0: at once.
    #[schemars(range(max = MAX_SLOW_START_S))]
    pub slow_start_s: u64,
    /// With fewer than this share of the backends fit, their health is ignored; 0: never.
    #[schemars(range(max = 100))]
    pub panic_percent: u64,
}

impl Default for RawBalance {
    fn default() -> Self {
        Self {
            policy: RawPolicy::LeastSessions,
            by: RawBy::Sessions,
            key: None,
            slow_start_s: 0,
            panic_percent: 50,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPolicy {
    /// The fewest sessions for the weight.
    LeastSessions,
    /// In turn, by weight.
    RoundRobin,
    /// The less loaded of two drawn by weight.
    TwoChoices,
    /// The same backend for the same key.
    Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawBy {
    /// Those that this worker has on each backend.
    Sessions,
    /// What the backends tell of their load over the link. A backend that tells none counts by its sessions.
    Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawHashKey {
    /// The session's id.
    Session,
    /// The client's address without its port.
    Client,
    /// The server name; clients without one go by their session.
    Sni,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBreakers {
    /// Sessions on the backend. Absent: no bound.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_sessions: Option<u64>,
    /// Sessions that the backend has been asked to take, or is to be, and that it hasn't taken yet. Absent: no bound.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_attaching: Option<u64>,
    /// Parked sessions that wait for this backend to come back; those themselves may always return. Absent: no bound.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_parked: Option<u64>,
    /// Bytes kept for the backend's sessions and its link: frames, journals, states. Absent: no bound.
    #[schemars(range(min = 1, max = MAX_KEPT_BYTES))]
    pub max_kept_bytes: Option<u64>,
}

impl RawBalance {
    pub(super) fn check(self) -> Result<Balance, FieldError> {
        let slow_start_s = within("balance.slow_start_s", self.slow_start_s, 0..=MAX_SLOW_START_S)?;
        let panic_percent = within("balance.panic_percent", self.panic_percent, 0..=100)?;
        Ok(Balance {
            policy: self.policy()?,
            by: self.by()?,
            slow_start: Duration::from_secs(slow_start_s),
            panic_percent: u8::try_from(panic_percent).unwrap_or(100),
        })
    }

    fn by(self) -> Result<By, FieldError> {
        match (self.by, self.policy) {
            (RawBy::Sessions, _) => Ok(By::Sessions),
            (RawBy::Load, RawPolicy::LeastSessions | RawPolicy::TwoChoices) => Ok(By::Load),
            (RawBy::Load, RawPolicy::RoundRobin | RawPolicy::Hash) => {
                let expected = "sessions: only the policies least_sessions and two_choices compare backends";
                Err(fault("balance.by", "load", expected))
            }
        }
    }

    fn policy(self) -> Result<Policy, FieldError> {
        let policy = match self.policy {
            RawPolicy::LeastSessions => Policy::LeastSessions,
            RawPolicy::RoundRobin => Policy::RoundRobin,
            RawPolicy::TwoChoices => Policy::TwoChoices,
            RawPolicy::Hash => {
                return Ok(Policy::Hash(self.key.map_or(HashKey::Session, RawHashKey::checked)));
            }
        };
        match self.key {
            None => Ok(policy),
            Some(key) => {
                Err(fault("balance.key", key.checked().name(), "no key: only the policy hash goes by one"))
            }
        }
    }
}

impl RawHashKey {
    fn checked(self) -> HashKey {
        match self {
            Self::Session => HashKey::Session,
            Self::Client => HashKey::Client,
            Self::Sni => HashKey::Sni,
        }
    }
}

impl RawBreakers {
    pub(super) fn check(self) -> Result<Breakers, FieldError> {
        let bound = |field, bound: Option<u64>| bound.map(|bound| count(field, bound)).transpose();
        let bytes = |bytes| within("breakers.max_kept_bytes", bytes, 1..=MAX_KEPT_BYTES);
        Ok(Breakers {
            max_sessions: bound("breakers.max_sessions", self.max_sessions)?,
            max_attaching: bound("breakers.max_attaching", self.max_attaching)?,
            max_parked: bound("breakers.max_parked", self.max_parked)?,
            max_kept_bytes: self.max_kept_bytes.map(bytes).transpose()?,
        })
    }
}
