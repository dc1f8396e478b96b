//! What differs between two tables, in lines for the log: what changed is the first thing to ask in an incident.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::document::ejection::written as written_time;
use super::table::{
    AbortRule, Backend, Balance, Breakers, CheckKind, CheckPolicy, DrainOrder, DrainPolicy, EjectionOrder,
    HealthPolicy, Hook, HookAction, Limits, MirrorPolicy, OutlierPolicy, PauseRule, Rollout, Route, Service,
    Table, TakeOut, TakeOutOrder,
};

/// One document that came, went, or one of its fields that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added { key: String, fields: String },
    Removed { key: String },
    Changed { key: String, field: &'static str, old: String, new: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { key, fields } => write!(f, "added {key}: {fields}"),
            Self::Removed { key } => write!(f, "removed {key}"),
            Self::Changed { key, field, old, new } => write!(f, "changed {key}: {field} {old} -> {new}"),
        }
    }
}

/// A document's fields, by name, as people would write them.
type Fields = Vec<(&'static str, String)>;

/// Every change that leads from `old` to `new`.
#[must_use]
pub fn difference(old: &Table, new: &Table) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, "services", &old.services, &new.services, service_fields);
    compare(&mut changes, "backends", &old.backends, &new.backends, backend_fields);
    compare(&mut changes, "routes", &old.routes, &new.routes, route_fields);
    compare(&mut changes, "drains", &old.drains, &new.drains, drain_fields);
    compare(&mut changes, "ejections", &old.ejections, &new.ejections, ejection_fields);
    compare(&mut changes, "rollouts", &old.rollouts, &new.rollouts, rollout_fields);
    compare(&mut changes, "hooks", &old.hooks, &new.hooks, hook_fields);
    changes
}

fn compare<K: Ord + fmt::Display, V: PartialEq>(
    changes: &mut Vec<Change>,
    kind: &str,
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
    fields: fn(&V) -> Fields,
) {
    for (key, _) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
        changes.push(Change::Removed { key: format!("{kind}/{key}") });
    }
    for (key, value) in new {
        let key_text = || format!("{kind}/{key}");
        match old.get(key) {
            None => changes.push(Change::Added { key: key_text(), fields: written(fields(value)) }),
            // Documents that were not written again are shared between the tables.
            Some(before) if Arc::ptr_eq(before, value) || before == value => {}
            Some(before) => {
                let pairs = fields(before).into_iter().zip(fields(value));
                changes.extend(
                    pairs.filter(|(a, b)| a.1 != b.1).map(|((field, old), (_, new))| Change::Changed {
                        key: key_text(),
                        field,
                        old,
                        new,
                    }),
                );
            }
        }
    }
}

fn written(fields: Fields) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields.join(" ")
}

fn service_fields(service: &Service) -> Fields {
    let Service {
        name: _,
        framing,
        recovery,
        on_crash,
        limits,
        drain,
        trace,
        rebalance,
        balance,
        breakers,
        health,
        mirror,
    } = service;
    let mut fields = vec![
        ("framing", framing.to_string()),
        ("recovery", format!("{recovery:?}").to_lowercase()),
        ("on_crash", format!("{on_crash:?}").to_lowercase()),
        ("trace.ratio", trace.ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string())),
        ("rebalance", rebalance.map_or_else(|| "-".to_owned(), |policy| format!("{}/s", policy.per_second))),
        ("trace.slow_frame", format!("{:?}", trace.slow_frame)),
    ];
    fields.extend(limit_fields(limits));
    fields.extend(drain_policy_fields(drain));
    fields.extend(health_fields(health));
    fields.extend(balance_fields(balance));
    fields.extend(breaker_fields(breakers));
    fields.push(("mirror", or_dash(mirror.as_deref().map(mirror_line).as_deref())));
    fields
}

fn limit_fields(limits: &Limits) -> Fields {
    // Taken apart whole, so that a limit that is added can't be forgotten here.
    let Limits {
        client_window_bytes,
        server_window_bytes,
        state_size_bytes,
        max_state_bytes,
        max_journal_bytes,
        max_sessions,
        attach_timeout,
        freeze_timeout,
        park_deadline,
        park_home,
        liveness,
        resume_timeout,
        close_deadline,
        checkpoint_interval,
        max_recoveries,
        recoveries_in_flight,
        max_group_members,
        slow_member,
    } = limits;
    vec![
        ("limits.client_window_bytes", client_window_bytes.to_string()),
        ("limits.server_window_bytes", server_window_bytes.to_string()),
        ("limits.state_size_bytes", state_size_bytes.to_string()),
        ("limits.max_state_bytes", max_state_bytes.to_string()),
        ("limits.max_journal_bytes", max_journal_bytes.to_string()),
        ("limits.max_sessions", max_sessions.to_string()),
        ("limits.attach_timeout", format!("{attach_timeout:?}")),
        ("limits.freeze_timeout", format!("{freeze_timeout:?}")),
        ("limits.park_deadline", format!("{park_deadline:?}")),
        ("limits.park_home", format!("{park_home:?}")),
        ("limits.liveness", format!("{liveness:?}")),
        ("limits.resume_timeout", format!("{resume_timeout:?}")),
        ("limits.close_deadline", format!("{close_deadline:?}")),
        ("limits.checkpoint_interval", format!("{checkpoint_interval:?}")),
        ("limits.max_recoveries", max_recoveries.to_string()),
        ("limits.recoveries_in_flight", recoveries_in_flight.to_string()),
        ("limits.max_group_members", max_group_members.to_string()),
        ("limits.slow_member", format!("{slow_member:?}")),
    ]
}

fn drain_policy_fields(drain: &DrainPolicy) -> Fields {
    let DrainPolicy { in_flight, per_second, deadline, on_deadline, on_sigterm } = drain;
    vec![
        ("drain.in_flight", in_flight.to_string()),
        ("drain.per_second", per_second.to_string()),
        ("drain.deadline", format!("{deadline:?}")),
        ("drain.on_deadline", format!("{on_deadline:?}").to_lowercase()),
        ("drain.on_sigterm", format!("{on_sigterm:?}").to_lowercase()),
    ]
}

fn health_fields(health: &HealthPolicy) -> Fields {
    let HealthPolicy { check, outliers, when_ejected } = health;
    vec![
        ("health.check", or_dash(check.as_ref().map(check_line).as_deref())),
        ("health.outliers", or_dash(outliers.as_ref().map(outliers_line).as_deref())),
        ("health.when_ejected", format!("{when_ejected:?}").to_lowercase()),
    ]
}

fn check_line(check: &CheckPolicy) -> String {
    let CheckPolicy { kind, interval, timeout, unhealthy_after, healthy_after, subset } = check;
    let own_port = |port: &Option<u16>| port.map_or_else(String::new, |port| format!(" port={port}"));
    let kind = match kind {
        CheckKind::Link => "link".to_owned(),
        CheckKind::Tcp { port } => format!("tcp{}", own_port(port)),
        CheckKind::Http { port, path, expect } => {
            format!("http{} path={path} expect={expect:?}", own_port(port))
        }
    };
    format!(
        "{kind} interval={interval:?} timeout={timeout:?} unhealthy_after={unhealthy_after} \
         healthy_after={healthy_after} subset={subset}"
    )
}

fn outliers_line(outliers: &OutlierPolicy) -> String {
    let OutlierPolicy {
        window,
        min_volume,
        refused_percent,
        failed_percent,
        slow,
        slow_factor,
        base_ejection,
        max_ejection,
        max_ejected_percent,
    } = outliers;
    let number = |number: &Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (refused, failed, factor) = (number(refused_percent), number(failed_percent), number(slow_factor));
    let slow = slow.map_or_else(|| "-".to_owned(), |slow| format!("{slow:?}"));
    format!(
        "window={window:?} min_volume={min_volume} refused_percent={refused} failed_percent={failed} slow={slow} \
         slow_factor={factor} base_ejection={base_ejection:?} max_ejection={max_ejection:?} \
         max_ejected_percent={max_ejected_percent}"
    )
}

fn ejection_fields(ejection: &EjectionOrder) -> Fields {
    let EjectionOrder { backend: _, reason, until } = ejection;
    vec![("reason", format!("{reason:?}")), ("until", or_dash(until.map(written_time).as_deref()))]
}

fn balance_fields(balance: &Balance) -> Fields {
    let Balance { policy, by, slow_start, panic_percent } = balance;
    vec![
        ("balance.policy", policy.to_string()),
        ("balance.by", format!("{by:?}").to_lowercase()),
        ("balance.slow_start", format!("{slow_start:?}")),
        ("balance.panic_percent", panic_percent.to_string()),
    ]
}

fn breaker_fields(breakers: &Breakers) -> Fields {
    let Breakers { max_sessions, max_attaching, max_parked, max_kept_bytes } = breakers;
    let or_dash = |bound: Option<u64>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
    vec![
        ("breakers.max_sessions", or_dash(max_sessions.map(u64::from))),
        ("breakers.max_attaching", or_dash(max_attaching.map(u64::from))),
        ("breakers.max_parked", or_dash(max_parked.map(u64::from))),
        ("breakers.max_kept_bytes", or_dash(*max_kept_bytes)),
    ]
}

fn mirror_line(mirror: &MirrorPolicy) -> String {
    let MirrorPolicy { service, percent, compare } = mirror;
    format!("{service} percent={percent} compare={compare}")
}

fn backend_fields(backend: &Backend) -> Fields {
    let Backend { id: _, address, version, weight, zone, capacity } = backend;
    vec![
        ("address", address.to_string()),
        ("version", version.to_string()),
        ("weight", weight.to_string()),
        ("zone", or_dash(zone.as_deref())),
        ("capacity", or_dash(capacity.map(|sessions| sessions.to_string()).as_deref())),
    ]
}

fn route_fields(route: &Route) -> Fields {
    let Route { name: _, listener, service, versions, prefer, matches } = route;
    let versions: Vec<_> = versions.iter().map(|(version, share)| format!("{version}={share}")).collect();
    let source = matches.source.map(|(base, length)| format!("{base}/{length}"));
    vec![
        ("listener", listener.to_string()),
        ("service", service.to_string()),
        ("versions", if versions.is_empty() { "-".to_owned() } else { versions.join(",") }),
        ("prefer", format!("{prefer:?}").to_lowercase()),
        ("sni", or_dash(matches.sni.as_deref())),
        ("source", or_dash(source.as_deref())),
    ]
}

fn drain_fields(drain: &DrainOrder) -> Fields {
    let DrainOrder { backend: _, deadline, reason, instance } = drain;
    vec![
        ("deadline", deadline.map_or_else(|| "-".to_owned(), |deadline| format!("{deadline:?}"))),
        ("reason", format!("{reason:?}")),
        ("instance", or_dash(instance.map(|instance| instance.to_string()).as_deref())),
    ]
}

fn rollout_fields(rollout: &Rollout) -> Fields {
    let Rollout {
        service: _,
        from,
        to,
        steps,
        interval,
        per_second,
        abort,
        pause,
        order,
        reason,
        attempt,
        force,
    } = rollout;
    let AbortRule { failures_percent, window, lasting, count } = abort;
    let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
    let counted: Vec<_> = count.iter().map(|failure| format!("{failure:?}").to_lowercase()).collect();
    let PauseRule { p99, lasting: slow_for } = pause;
    vec![
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("steps", steps.join(",")),
        ("interval", format!("{interval:?}")),
        ("per_second", or_dash(per_second.map(|pace| pace.to_string()).as_deref())),
        ("abort.failures_percent", failures_percent.to_string()),
        ("abort.window", format!("{window:?}")),
        ("abort.for", format!("{lasting:?}")),
        ("abort.count", counted.join(",")),
        ("pause.p99", format!("{p99:?}")),
        ("pause.for", format!("{slow_for:?}")),
        ("order", format!("{order:?}").to_lowercase()),
        ("reason", format!("{reason:?}")),
        ("attempt", attempt.to_string()),
        ("force", force.to_string()),
    ]
}

fn hook_fields(hook: &Hook) -> Fields {
    let Hook { name: _, labels, service_label, action } = hook;
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    vec![
        ("match", labels.join(",")),
        ("service_label", service_label.clone()),
        ("action", action_line(action)),
    ]
}

fn action_line(action: &HookAction) -> String {
    let seconds =
        |time: &Option<std::time::Duration>| or_dash(time.map(|time| time.as_secs().to_string()).as_deref());
    match action {
        HookAction::Abort { version_label } => {
            format!("abort version_label={}", or_dash(version_label.as_deref()))
        }
        HookAction::TakeOut(TakeOut { order, backend_label, max_percent, undo }) => {
            let order = match order {
                TakeOutOrder::Drain { deadline } => format!("drain deadline_s={}", seconds(deadline)),
                TakeOutOrder::Eject { time } => format!("eject for_s={}", seconds(time)),
            };
            let on_resolved = if *undo { "undo" } else { "keep" };
            format!(
                "{order} backend_label={backend_label} on_resolved={on_resolved} max_percent={max_percent}"
            )
        }
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Documents, LastGood, compile};

    fn table(documents: &[(&str, &str)]) -> Table {
        let mut set = Documents::default();
        documents.iter().for_each(|(key, text)| set.put(key, text.as_bytes(), 1));
        let compiled = compile(&set, &LastGood::new(), 1);
        assert_eq!(compiled.refused, []);
        compiled.table
    }

    #[test]
    fn each_change_is_one_line_with_old_and_new() {
        let service = ("services/arena", r#"{"protocol": "link", "framing": {"kind": "length"}}"#);
        let old = table(&[
            service,
            ("backends/arena/a", r#"{"address": "127.0.0.1:1", "version": "1.4"}"#),
            (
                "routes/public",
                r#"{"listener": "game", "service": "arena", "versions": {"1.4": 95, "1.5": 5}}"#,
            ),
        ]);
        let new = table(&[
            service,
            (
                "routes/public",
                r#"{"listener": "game", "service": "arena", "versions": {"1.4": 50, "1.5": 50}}"#,
            ),
            ("drains/arena/a", r#"{"reason": "deploy", "deadline_s": 60}"#),
            ("ejections/arena/a", r#"{"reason": "slow", "until": "2026-11-30T18:00:00Z"}"#),
            ("hooks/hot", r#"{"match": {"alertname": "Hot"}, "action": "eject", "for_s": 60}"#),
        ]);
        let lines: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "removed backends/arena/a",
                "changed routes/public: versions 1.4=95,1.5=5 -> 1.4=50,1.5=50",
                "added drains/arena/a: deadline=60s reason=\"deploy\" instance=-",
                "added ejections/arena/a: reason=\"slow\" until=2026-11-30T18:00:00Z",
                "added hooks/hot: match=alertname=\"Hot\" service_label=service \
                 action=eject for_s=60 backend_label=backend on_resolved=keep max_percent=50",
            ]
        );
        assert_eq!(difference(&new, &new), []);
    }

    #[test]
    fn a_changed_limit_is_a_line_of_its_own() {
        let service = |limits: &str| {
            let text =
                format!(r#"{{"protocol": "link", "framing": {{"kind": "length"}}, "limits": {{{limits}}}}}"#);
            table(&[("services/arena", &text)])
        };
        let lines = |new: &Table| -> Vec<String> {
            difference(&service(""), new).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            lines(&service(r#""checkpoint_interval_ms": 500, "max_group_members": 12"#)),
            [
                "changed services/arena: limits.checkpoint_interval 1s -> 500ms",
                "changed services/arena: limits.max_group_members 256 -> 12",
            ]
        );
    }

    #[test]
    fn changes_of_balance_breakers_and_mirror_are_told() {
        let service = |more: &str| {
            let text = format!(r#"{{"protocol": "link", "framing": {{"kind": "length"}}{more}}}"#);
            let next = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;
            table(&[("services/arena", &text), ("services/next", next)])
        };
        let new = service(
            r#", "balance": {"policy": "hash", "key": "client", "slow_start_s": 30}, "breakers": {"max_sessions": 9}, "mirror": {"service": "next", "percent": 5}"#,
        );
        let lines: Vec<_> = difference(&service(""), &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "changed services/arena: balance.policy least_sessions -> hash(client)",
                "changed services/arena: balance.slow_start 0ns -> 30s",
                "changed services/arena: breakers.max_sessions - -> 9",
                "changed services/arena: mirror - -> next percent=5 compare=false",
            ]
        );
    }
}
