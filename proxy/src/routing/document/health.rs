//! `health` of a service's document: how its backends are checked, and when one is ejected.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::strict::{shorten, shown};
use super::{MAX_COUNT, fault, within};
use crate::config::FieldError;
use crate::routing::table::{CheckKind, CheckPolicy, HealthPolicy, OutlierPolicy, WhenEjected};

/// Longest wait between two checks: ten minutes.
const MAX_INTERVAL_MS: u64 = 600_000;
/// Longest ejection: a day.
const MAX_EJECTION_S: u64 = 86_400;
const MAX_PATH_CHARS: usize = 1024;
const MAX_STATUSES: usize = 16;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHealth {
    /// How backends are checked: each proxy checks the backend beside it, and a subset of the others. Absent: no backend
    /// is checked; its link alone says whether it lives.
    pub check: Option<RawCheck>,
    /// Which backends are ejected for how they treat their sessions, as this proxy sees it. `{}` turns it on. Absent:
    /// none is.
    pub outliers: Option<RawOutliers>,
    /// What becomes of the live sessions of a backend that is unhealthy or ejected.
    pub when_ejected: RawWhenEjected,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawWhenEjected {
    /// They stay.
    #[default]
    Keep,
    /// They move to fit backends as in a drain, and stay if there is none.
    Move,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCheck {
    /// What a check is.
    pub kind: RawCheckKind,
    /// From one check to the next, give or take a tenth by chance.
    #[serde(default = "interval_ms")]
    #[schemars(range(min = 50, max = MAX_INTERVAL_MS))]
    pub interval_ms: u64,
    /// How long an answer may take; at most `interval_ms`. Absent: 1000, or `interval_ms` if that is less.
    #[schemars(range(min = 10, max = MAX_INTERVAL_MS))]
    pub timeout_ms: Option<u64>,
    /// Failed checks in a row after which a backend is unhealthy.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u64,
    /// Passed checks in a row after which it is healthy again.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u64,
    /// Backends of the service that a proxy checks beside its local one. Each proxy has others.
    #[serde(default = "ten")]
    #[schemars(range(max = 1_000))]
    pub subset: u64,
    /// A port to check other than the address's; of a backend on a Unix socket, on 127.0.0.1. Absent: the backend's own
    /// address.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u64>,
    /// Kind `http` alone: what is asked for, at most 1024 characters of ASCII. Absent: `/healthz`.
    pub path: Option<String>,
    /// Kind `http` alone: the statuses that pass. Absent: `[200]`.
    #[schemars(length(min = 1, max = MAX_STATUSES), inner(range(min = 100, max = 599)))]
    pub expect: Option<Vec<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawCheckKind {
    /// A PING is answered on the link. The link is called for it and kept, by one worker of the proxy. A process that hangs
    /// fails.
    Link,
    /// A connection is taken. The kernel takes one for a process that hangs, too.
    Tcp,
    /// A GET is answered with an expected status.
    Http,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOutliers {
    /// The time over which a backend is judged.
    #[schemars(range(min = 1, max = 600))]
    pub window_s: u64,
    /// Fewer attaches or sessions in the window are no evidence. For times it is at least 100 frames.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub min_volume: u64,
    /// Share of the sessions that were to attach: refused, or not answered in time. `null`: it doesn't count.
    #[schemars(range(min = 1, max = 100))]
    pub refused_percent: Option<u64>,
    /// Share of its sessions: lost with a crash, given up by it, ended for a broken rule, or replayed to something else.
    /// `null`: it doesn't count.
    #[schemars(range(min = 1, max = 100))]
    pub failed_percent: Option<u64>,
    /// What the 99th percentile of its service time may reach. Absent: any.
    #[schemars(range(min = 1, max = MAX_INTERVAL_MS))]
    pub slow_ms: Option<u64>,
    /// How many times the median of its service's backends that percentile may reach; it takes three backends with
    /// frames. Absent: any.
    #[schemars(range(min = 2, max = 1_000))]
    pub slow_factor: Option<u64>,
    /// How long the first ejection lasts. The second lasts twice as long, the third three times, and so on.
    #[schemars(range(min = 1, max = MAX_EJECTION_S))]
    pub base_ejection_s: u64,
    /// The longest ejection; at least `base_ejection_s`. Who stays fit for so long begins anew. Absent: 300, or
    /// `base_ejection_s` if that is more.
    #[schemars(range(min = 1, max = MAX_EJECTION_S))]
    pub max_ejection_s: Option<u64>,
    /// Share of the service's backends that may be unfit with an ejection. One always stays.
    #[schemars(range(min = 1, max = 100))]
    pub max_ejected_percent: u64,
}

impl Default for RawOutliers {
    fn default() -> Self {
        Self {
            window_s: 10,
            min_volume: 10,
            refused_percent: Some(50),
            failed_percent: Some(20),
            slow_ms: None,
            slow_factor: None,
            base_ejection_s: 30,
            max_ejection_s: None,
            max_ejected_percent: 50,
        }
    }
}

fn interval_ms() -> u64 {
    2_000
}

fn two() -> u64 {
    2
}

fn three() -> u64 {
    3
}

fn ten() -> u64 {
    10
}

impl RawHealth {
    pub fn check(self) -> Result<HealthPolicy, FieldError> {
        Ok(HealthPolicy {
            check: self.check.map(RawCheck::check).transpose()?,
            outliers: self.outliers.map(RawOutliers::check).transpose()?,
            when_ejected: match self.when_ejected {
                RawWhenEjected::Keep => WhenEjected::Keep,
                RawWhenEjected::Move => WhenEjected::Move,
            },
        })
    }
}

impl RawCheck {
    fn check(self) -> Result<CheckPolicy, FieldError> {
        let interval_ms = within("health.check.interval_ms", self.interval_ms, 50..=MAX_INTERVAL_MS)?;
        let timeout_ms = self.timeout_ms.unwrap_or(1_000.min(interval_ms));
        let timeout_ms = within("health.check.timeout_ms", timeout_ms, 10..=interval_ms)?;
        Ok(CheckPolicy {
            interval: Duration::from_millis(interval_ms),
            timeout: Duration::from_millis(timeout_ms),
            unhealthy_after: small("health.check.unhealthy_after", self.unhealthy_after, 1..=100)?,
            healthy_after: small("health.check.healthy_after", self.healthy_after, 1..=100)?,
            subset: small("health.check.subset", self.subset, 0..=1_000)?,
            kind: self.kind()?,
        })
    }

    /// A field of another kind would do nothing: it is a slip.
    fn kind(self) -> Result<CheckKind, FieldError> {
        let port = self.port.map(|port| within("health.check.port", port, 1..=65_535)).transpose()?;
        let port = port.map(|port| u16::try_from(port).unwrap_or(u16::MAX));
        if self.kind != RawCheckKind::Http {
            let expected = "no such field: it is for kind http alone";
            if let Some(path) = &self.path {
                return Err(fault("health.check.path", shown(path), expected));
            }
            if let Some(statuses) = &self.expect {
                return Err(fault("health.check.expect", shorten(&format!("{statuses:?}")), expected));
            }
        }
        if self.kind == RawCheckKind::Link
            && let Some(port) = port
        {
            let expected = "no such field: the kind link goes over the backend's own link";
            return Err(fault("health.check.port", port, expected));
        }
        Ok(match self.kind {
            RawCheckKind::Link => CheckKind::Link,
            RawCheckKind::Tcp => CheckKind::Tcp { port },
            RawCheckKind::Http => {
                CheckKind::Http { port, path: path(self.path)?.into(), expect: statuses(self.expect)?.into() }
            }
        })
    }
}

fn path(text: Option<String>) -> Result<String, FieldError> {
    let text = text.unwrap_or_else(|| "/healthz".to_owned());
    let plain = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    // What the check asks with has a stricter idea of a path than we have.
    if plain && text.len() <= MAX_PATH_CHARS && text.parse::<hyper::http::uri::PathAndQuery>().is_ok() {
        return Ok(text);
    }
    let expected = "a path such as /healthz: at most 1024 characters of ASCII, no spaces";
    Err(fault("health.check.path", shown(&text), expected))
}

fn statuses(list: Option<Vec<u64>>) -> Result<Vec<u16>, FieldError> {
    let list = list.unwrap_or_else(|| vec![200]);
    let status = |status: &u64| u16::try_from(*status).ok().filter(|status| (100..=599).contains(status));
    let known: Option<Vec<u16>> = list.iter().map(status).collect();
    known.filter(|known| (1..=MAX_STATUSES).contains(&known.len())).ok_or_else(|| {
        let given = shorten(&format!("{list:?}"));
        fault("health.check.expect", given, "1 to 16 HTTP statuses, each from 100 to 599")
    })
}

impl RawOutliers {
    fn check(self) -> Result<OutlierPolicy, FieldError> {
        const PERCENT: std::ops::RangeInclusive<u64> = 1..=100;
        let percent = |field, value: Option<u64>| value.map(|value| small(field, value, PERCENT)).transpose();
        let slow = self.slow_ms.map(|ms| within("health.outliers.slow_ms", ms, 1..=MAX_INTERVAL_MS));
        let factor = self.slow_factor.map(|factor| small("health.outliers.slow_factor", factor, 2..=1_000));
        let base = within("health.outliers.base_ejection_s", self.base_ejection_s, 1..=MAX_EJECTION_S)?;
        let longest = self.max_ejection_s.unwrap_or(base.max(300));
        Ok(OutlierPolicy {
            window: Duration::from_secs(within("health.outliers.window_s", self.window_s, 1..=600)?),
            min_volume: within("health.outliers.min_volume", self.min_volume, 1..=MAX_COUNT)?,
            refused_percent: percent("health.outliers.refused_percent", self.refused_percent)?,
            failed_percent: percent("health.outliers.failed_percent", self.failed_percent)?,
            slow: slow.transpose()?.map(Duration::from_millis),
            slow_factor: factor.transpose()?,
            base_ejection: Duration::from_secs(base),
            max_ejection: within("health.outliers.max_ejection_s", longest, base..=MAX_EJECTION_S)
                .map(Duration::from_secs)?,
            max_ejected_percent: small(
                "health.outliers.max_ejected_percent",
                self.max_ejected_percent,
                PERCENT,
            )?,
        })
    }
}

fn small(field: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<u32, FieldError> {
    Ok(u32::try_from(within(field, value, range)?).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};
    use super::*;

    fn parse(health: &str) -> Result<HealthPolicy, FieldError> {
        let text = format!(r#"{{"protocol": "link", "framing": {{"kind": "length"}}, "health": {health}}}"#);
        let key = Key::parse("services/arena").unwrap();
        Document::parse(&key, text.as_bytes()).map(|document| match document {
            Document::Service(service) => service.health.clone(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_bad_field_is_named() {
        for (text, field) in [
            (r#"{"check": {"kind": "icmp"}}"#, "health.check.kind"),
            (r#"{"check": {"kind": "tcp", "interval_ms": 49}}"#, "health.check.interval_ms"),
            (
                r#"{"check": {"kind": "tcp", "interval_ms": 100, "timeout_ms": 101}}"#,
                "health.check.timeout_ms",
            ),
            (r#"{"check": {"kind": "tcp", "unhealthy_after": 0}}"#, "health.check.unhealthy_after"),
            (r#"{"check": {"kind": "tcp", "healthy_after": 101}}"#, "health.check.healthy_after"),
            (r#"{"check": {"kind": "tcp", "subset": 1001}}"#, "health.check.subset"),
            (r#"{"check": {"kind": "tcp", "port": 0}}"#, "health.check.port"),
            (r#"{"check": {"kind": "tcp", "path": "/a"}}"#, "health.check.path"),
            (r#"{"check": {"kind": "link", "port": 80}}"#, "health.check.port"),
            (r#"{"check": {"kind": "link", "path": "/a"}}"#, "health.check.path"),
            (r#"{"check": {"kind": "link", "expect": [200]}}"#, "health.check.expect"),
            (r#"{"check": {"kind": "http", "path": "a b"}}"#, "health.check.path"),
            (r#"{"check": {"kind": "tcp", "expect": [200]}}"#, "health.check.expect"),
            (r#"{"check": {"kind": "http", "expect": [99]}}"#, "health.check.expect"),
            (r#"{"check": {"kind": "http", "expect": []}}"#, "health.check.expect"),
            (r#"{"outliers": {"window_s": 0}}"#, "health.outliers.window_s"),
            (r#"{"outliers": {"min_volume": 0}}"#, "health.outliers.min_volume"),
            (r#"{"outliers": {"refused_percent": 101}}"#, "health.outliers.refused_percent"),
            (r#"{"outliers": {"failed_percent": 0}}"#, "health.outliers.failed_percent"),
            (r#"{"outliers": {"slow_ms": 0}}"#, "health.outliers.slow_ms"),
            (r#"{"outliers": {"slow_factor": 1}}"#, "health.outliers.slow_factor"),
            (r#"{"outliers": {"base_ejection_s": 0}}"#, "health.outliers.base_ejection_s"),
            (
                r#"{"outliers": {"base_ejection_s": 60, "max_ejection_s": 59}}"#,
                "health.outliers.max_ejection_s",
            ),
            (r#"{"outliers": {"max_ejected_percent": 0}}"#, "health.outliers.max_ejected_percent"),
            (r#"{"when_ejected": "close"}"#, "health.when_ejected"),
        ] {
            assert_eq!(parse(text).unwrap_err().field, field, "{text}");
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(parse("{}").unwrap(), HealthPolicy::default());
        let check = parse(r#"{"check": {"kind": "http", "interval_ms": 500}}"#).unwrap().check.unwrap();
        assert_eq!((check.timeout, check.unhealthy_after, check.healthy_after), (check.interval, 3, 2));
        assert_eq!(
            check.kind,
            CheckKind::Http { port: None, path: "/healthz".into(), expect: vec![200].into() }
        );
        let outliers =
            parse(r#"{"outliers": {"refused_percent": null, "base_ejection_s": 400}}"#).unwrap().outliers;
        let outliers = outliers.unwrap();
        assert_eq!((outliers.refused_percent, outliers.failed_percent), (None, Some(20)));
        assert_eq!(outliers.max_ejection, outliers.base_ejection);
    }

    #[test]
    fn the_reference_names_every_key_with_its_default() {
        let page = include_str!("../../../../config/services.md");
        let sample = page.split("```json").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
        let plain = r#"{"check": {"kind": "http"}, "outliers": {}}"#;
        assert_eq!(parse(sample).unwrap(), parse(plain).unwrap());
        for section in ["check", "outliers"] {
            let refused = parse(&format!(r#"{{"{section}": {{"kind": "tcp", "no": 1}}}}"#)).unwrap_err();
            let known = refused.expected.split_once("known: ").map(|(_, known)| known.to_owned());
            for key in known.unwrap_or_else(|| panic!("{refused:?}")).split(", ") {
                assert!(page.contains(&format!("`{section}.{key}`")), "{section}.{key}");
            }
        }
    }
}
