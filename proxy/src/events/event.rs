//! One event, as receivers get it. Kinds and fields are public API: they are only ever added.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rollout::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A table is in force.
    TableApplied,
    /// A document's newest version isn't.
    DocumentRefused,
    /// It may be a slip, and isn't in force until somebody accepts it.
    ChangeHeld,
    /// Where documents come from doesn't answer, and answers again.
    SourceLost,
    SourceBack,
    BackendEjected,
    BackendUnejected,
    /// Its process was lost, with players on it.
    BackendCrashed,
    /// It takes no more from a worker.
    BreakerTripped,
    DrainBegan,
    DrainDone,
    /// Its deadline is over, and players are left.
    DrainOverdue,
    DrainEnded,
    Rollout(State),
    RolloutEnded,
    /// An alert had something done, or couldn't.
    Hook,
}

impl Kind {
    #[must_use]
    pub fn all() -> Vec<Self> {
        let plain = [
            Self::TableApplied,
            Self::DocumentRefused,
            Self::ChangeHeld,
            Self::SourceLost,
            Self::SourceBack,
            Self::BackendEjected,
            Self::BackendUnejected,
            Self::BackendCrashed,
            Self::BreakerTripped,
            Self::DrainBegan,
            Self::DrainDone,
            Self::DrainOverdue,
            Self::DrainEnded,
            Self::RolloutEnded,
            Self::Hook,
        ];
        plain.into_iter().chain(State::ALL.map(Self::Rollout)).collect()
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TableApplied => "table_applied",
            Self::DocumentRefused => "document_refused",
            Self::ChangeHeld => "change_held",
            Self::SourceLost => "source_lost",
            Self::SourceBack => "source_back",
            Self::BackendEjected => "backend_ejected",
            Self::BackendUnejected => "backend_unejected",
            Self::BackendCrashed => "backend_crashed",
            Self::BreakerTripped => "breaker_tripped",
            Self::DrainBegan => "drain_began",
            Self::DrainDone => "drain_done",
            Self::DrainOverdue => "drain_overdue",
            Self::DrainEnded => "drain_ended",
            Self::Rollout(State::Checking) => "rollout_checking",
            Self::Rollout(State::Refused) => "rollout_refused",
            Self::Rollout(State::Running) => "rollout_running",
            Self::Rollout(State::Paused) => "rollout_paused",
            Self::Rollout(State::Aborting) => "rollout_aborting",
            Self::Rollout(State::Aborted) => "rollout_aborted",
            Self::Rollout(State::Done) => "rollout_done",
            Self::RolloutEnded => "rollout_ended",
            Self::Hook => "hook",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub time: SystemTime,
    pub kind: Kind,
    pub service: Option<String>,
    /// `service/name`
    pub backend: Option<String>,
    /// The service that it is of.
    pub rollout: Option<String>,
    /// In words.
    pub reason: String,
    pub details: Map<String, Value>,
}

impl Event {
    /// Now.
    #[must_use]
    pub fn new(kind: Kind, reason: String) -> Self {
        let time = SystemTime::now();
        Self { time, kind, service: None, backend: None, rollout: None, reason, details: Map::new() }
    }

    /// `service/name`
    #[must_use]
    pub fn backend(mut self, backend: &str) -> Self {
        self.service = backend.split_once('/').map(|(service, _)| service.to_owned());
        self.backend = Some(backend.to_owned());
        self
    }

    #[must_use]
    pub fn rollout(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self.rollout = Some(service.to_owned());
        self
    }

    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// As it is sent.
    #[must_use]
    pub fn written<'a>(&'a self, proxy: &'a str) -> Written<'a> {
        let time = OffsetDateTime::from(self.time);
        let millis = time.replace_nanosecond(time.nanosecond() / 1_000_000 * 1_000_000).unwrap_or(time);
        Written {
            time: millis.format(&Rfc3339).unwrap_or_default(),
            proxy,
            kind: self.kind.name(),
            service: self.service.as_deref(),
            backend: self.backend.as_deref(),
            rollout: self.rollout.as_deref(),
            reason: &self.reason,
            detail: &self.details,
        }
    }
}

/// The fixed schema.
#[derive(Debug, Serialize)]
pub struct Written<'a> {
    /// RFC 3339, milliseconds.
    time: String,
    /// Who tells.
    proxy: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    detail: &'a Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_event_is_one_small_object() {
        let mut event =
            Event::new(Kind::DrainBegan, "deploy".to_owned()).backend("arena/a").detail("left", 7);
        event.time = UNIX_EPOCH + Duration::from_micros(1_795_000_000_123_456);
        let text = serde_json::to_string(&event.written("host-a")).unwrap();
        assert_eq!(
            text,
            "{\"time\":\"2026-11-18T11:06:40.123Z\",\"proxy\":\"host-a\",\"kind\":\"drain_began\",\"service\":\"arena\",\
             \"backend\":\"arena/a\",\"reason\":\"deploy\",\"detail\":{\"left\":7}}"
        );
    }

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::all().into_iter().map(Kind::name).collect();
        assert_eq!(names.len(), Kind::all().len());
    }
}
