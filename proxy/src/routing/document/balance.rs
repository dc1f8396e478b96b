//! The parts of a service's document that say which of its backends a session goes to: `balance` and `breakers`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{count, fault, within};
use crate::config::FieldError;
use crate::routing::table::{Balance, Breakers, By, HashKey, Policy};

/// Longest slow start: an hour.
const MAX_SLOW_START_S: u64 = 3_600;
const MIB: u64 = 1024 * 1024;

/// How a session's backend is chosen among those that may take it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBalance {
    /// `least_sessions` (the default): the fewest sessions for the weight; `round_robin`: in turn, by weight;
    /// `two_choices`: the less loaded of two drawn by weight; `hash`: the same backend for the same key.
    pub policy: RawPolicy,
    /// With the policies `least_sessions` and `two_choices`: what they compare. `sessions` (the default): those that this
    /// worker has on each backend; `load`: what the backends tell of their load over the link. A backend that tells none
    /// counts by its sessions.
    pub by: RawBy,
    /// With the policy `hash`: what it goes by. `session` (the default), `client` (the address without its port) or `sni`
    /// (the server name; clients without one go by their session).
    pub key: Option<RawHashKey>,
    /// Seconds in which the weight of a fresh backend grows from a tenth to the whole, 0 to 3600. Default 0: at once.
    pub slow_start_s: u64,
    /// With fewer than this share of the backends fit, in percent from 0 to 100, their health is ignored. Default 50; 0:
    /// never.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPolicy {
    LeastSessions,
    RoundRobin,
    TwoChoices,
    Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawBy {
    Sessions,
    Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawHashKey {
    Session,
    Client,
    Sni,
}

/// Bounds of what one worker has on one backend: with one of them reached, the backend takes no more sessions from that
/// worker until it is below again. Those who are there stay.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBreakers {
    /// Sessions on the backend, 1 to 1,000,000. Default: no bound.
    pub max_sessions: Option<u64>,
    /// Sessions that the backend has been asked to take, or is to be, and that it hasn't taken yet; 1 to 1,000,000.
    /// Default: no bound.
    pub max_attaching: Option<u64>,
    /// Parked sessions that wait for this backend to come back, 1 to 1,000,000; those themselves may always return.
    /// Default: no bound.
    pub max_parked: Option<u64>,
    /// Bytes kept for the backend's sessions and its link (frames, journals, states), 1 to 1 TiB. Default: no bound.
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
        let bytes = |bytes| within("breakers.max_kept_bytes", bytes, 1..=1024 * 1024 * MIB);
        Ok(Breakers {
            max_sessions: bound("breakers.max_sessions", self.max_sessions)?,
            max_attaching: bound("breakers.max_attaching", self.max_attaching)?,
            max_parked: bound("breakers.max_parked", self.max_parked)?,
            max_kept_bytes: self.max_kept_bytes.map(bytes).transpose()?,
        })
    }
}
