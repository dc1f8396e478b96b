//! Which rules are for an alert, and what each wants done. Pure: documents, health and rollouts as they are known here.

use std::sync::Arc;
use std::time::SystemTime;

use super::alert::{Alert, Status};
use super::share::Share;
use super::{Deed, Mark, Outcome};
use crate::rollout::Progresses;
use crate::routing::document::{excerpt, key};
use crate::routing::table::{EjectionOrder, HookAction, TakeOut, TakeOutOrder};
use crate::routing::{BackendId, Fitness, Hook, Table};

/// As a document's reason may be.
const MAX_REASON_CHARS: usize = 256;

/// By which an alert is judged.
pub struct Known<'a> {
    pub table: &'a Table,
    pub fitness: &'a Fitness,
    pub rollouts: &'a Progresses,
}

#[must_use]
pub fn matches(hook: &Hook, alert: &Alert) -> bool {
    hook.labels.iter().all(|(name, value)| alert.labels.get(name) == Some(value))
}

/// The backend or the rollout that a rule means, as far as the alert names one.
#[must_use]
pub fn target(hook: &Hook, alert: &Alert) -> Option<String> {
    match &hook.action {
        HookAction::TakeOut(take_out) => backend(hook, take_out, alert).ok().map(|id| id.to_string()),
        HookAction::Abort { .. } => alert.labels.get(&hook.service_label).map(|service| excerpt(service)),
    }
}

/// The reason of the order that an alert wants for a backend, if such a one is in force already.
#[must_use]
pub fn stands<'a>(hook: &Hook, alert: &Alert, table: &'a Table, now: SystemTime) -> Option<&'a str> {
    let HookAction::TakeOut(take_out) = &hook.action else { return None };
    let backend = backend(hook, take_out, alert).ok()?;
    match take_out.order {
        // One for a single run of the backend may be of a run that is over.
        TakeOutOrder::Drain { .. } => {
            let drain = table.drains.get(&backend).filter(|drain| drain.instance.is_none())?;
            Some(&drain.reason)
        }
        TakeOutOrder::Eject { .. } => {
            let lasts = |ejection: &&Arc<EjectionOrder>| ejection.until.is_none_or(|until| until > now);
            Some(&table.ejections.get(&backend).filter(lasts)?.reason)
        }
    }
}

/// What a rule that matches wants done.
///
/// # Errors
/// Nothing is to be done, and why.
pub fn deed(hook: &Hook, alert: &Alert, known: &Known<'_>) -> Result<Deed, Outcome> {
    let mark = mark(hook, alert);
    match &hook.action {
        HookAction::TakeOut(take_out) => {
            let backend = backend(hook, take_out, alert).map_err(Outcome::Refused)?;
            take_out_or_back(take_out, alert.status, backend, mark, known)
        }
        HookAction::Abort { .. } if alert.status == Status::Resolved => {
            Err(Outcome::Kept("a rollout that was given up stays so".to_owned()))
        }
        HookAction::Abort { version_label } => {
            let service: Arc<str> = label(alert, &hook.service_label).map_err(Outcome::Refused)?.into();
            let version =
                version_label.as_ref().map(|name| label(alert, name).map(str::to_owned)).transpose();
            let version = version.map_err(Outcome::Refused)?;
            abort(service, version, mark, known)
        }
    }
}

fn take_out_or_back(
    take_out: &TakeOut,
    status: Status,
    backend: BackendId,
    mark: Mark,
    known: &Known<'_>,
) -> Result<Deed, Outcome> {
    let order = take_out.order;
    match status {
        Status::Resolved if take_out.undo => Ok(Deed::PutBack { backend, order, mark }),
        Status::Resolved => Err(Outcome::Kept("on_resolved is keep".to_owned())),
        Status::Firing if !known.table.backends.contains_key(&backend) => {
            Err(Outcome::Refused(format!("there is no backends/{backend}")))
        }
        Status::Firing => {
            let share = Share::of(&backend.service, take_out.max_percent, known);
            Ok(Deed::TakeOut { backend, order, mark, share })
        }
    }
}

fn abort(service: Arc<str>, version: Option<String>, mark: Mark, known: &Known<'_>) -> Result<Deed, Outcome> {
    let service_text = excerpt(&service);
    let plan = known.table.rollouts.get(&*service);
    let plan = plan.ok_or_else(|| Outcome::Refused(format!("there is no rollouts/{service_text}")))?;
    let progress = known.rollouts.get(&*service).filter(|progress| progress.is_of(plan));
    if let Some(progress) = progress.filter(|progress| progress.state.is_given_up()) {
        let state = progress.state.name();
        return Err(Outcome::Already(format!(
            "the rollout of {service_text} is {state}: {}",
            progress.reason
        )));
    }
    Ok(Deed::Abort { service, version, mark })
}

fn backend(hook: &Hook, take_out: &TakeOut, alert: &Alert) -> Result<BackendId, String> {
    let text = label(alert, &take_out.backend_label)?;
    let service = alert.labels.get(&hook.service_label).map(String::as_str);
    key::backend(text, service).ok_or_else(|| {
        let (backend, service) = (&take_out.backend_label, &hook.service_label);
        let text = excerpt(text);
        format!("label {backend} is {text:?}: expected SERVICE/NAME, or NAME beside a label {service}")
    })
}

fn label<'a>(alert: &'a Alert, name: &str) -> Result<&'a str, String> {
    alert.labels.get(name).map(String::as_str).ok_or_else(|| format!("the alert has no label {name}"))
}

fn mark(hook: &Hook, alert: &Alert) -> Mark {
    let by = format!("hook {}: {} {}", hook.name, excerpt(alert.name()), alert.fingerprint);
    let said =
        alert.annotations.get("summary").map(|summary| excerpt(summary)).filter(|text| !text.is_empty());
    let reason = said.map_or_else(|| by.clone(), |said| format!("{by}: {said}"));
    Mark { reason: reason.chars().take(MAX_REASON_CHARS).collect(), by }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hooks::alert;
    use crate::routing::{Documents, LastGood, compile};

    fn table(hook: &str) -> Table {
        table_with(hook, &[])
    }

    fn table_with(hook: &str, more: &[(&str, &str)]) -> Table {
        let mut documents = Documents::default();
        for (key, text) in [
            ("services/arena", r#"{"protocol": "link", "framing": {"kind": "length"}}"#),
            ("backends/arena/a", r#"{"address": "127.0.0.1:1", "version": "1.4"}"#),
            ("backends/arena/b", r#"{"address": "127.0.0.1:2", "version": "1.5", "weight": 0}"#),
            ("rollouts/arena", r#"{"from": "1.4", "to": "1.5"}"#),
            ("hooks/hot", hook),
        ] {
            documents.put(key, text.as_bytes(), 1);
        }
        more.iter().for_each(|(key, text)| documents.put(key, text.as_bytes(), 1));
        let compiled = compile(&documents, &LastGood::new(), 1);
        assert_eq!(compiled.refused, []);
        compiled.table
    }

    fn alert(status: &str, labels: &str) -> Alert {
        let body = format!(
            r#"{{"version": "4", "alerts": [{{"status": "{status}", "fingerprint": "f1", "labels": {labels},
                "annotations": {{"summary": "93\ndegrees"}}}}]}}"#
        );
        alert::read(body.as_bytes()).unwrap().remove(0)
    }

    fn decide(hook: &str, alert: &Alert) -> Result<Deed, Outcome> {
        let table = table(hook);
        let (fitness, rollouts) = (Fitness::default(), Progresses::default());
        deed(&table.hooks["hot"], alert, &Known { table: &table, fitness: &fitness, rollouts: &rollouts })
    }

    const DRAIN: &str = r#"{"match": {"alertname": "Hot"}, "action": "drain", "on_resolved": "undo"}"#;

    #[test]
    fn a_rule_is_for_alerts_that_have_all_its_labels() {
        let table = table(r#"{"match": {"alertname": "Hot", "severity": "critical"}, "action": "drain"}"#);
        let is_for = |labels| matches(&table.hooks["hot"], &alert("firing", labels));
        assert!(is_for(r#"{"alertname": "Hot", "severity": "critical", "more": "x"}"#));
        assert!(!is_for(r#"{"alertname": "Hot", "severity": "warning"}"#));
        assert!(!is_for(r#"{"alertname": "Hot"}"#));
    }

    #[test]
    fn a_firing_alert_takes_its_backend_out_with_the_rest_of_the_service_in_view() {
        for labels in [
            r#"{"alertname": "Hot", "backend": "arena/a"}"#,
            r#"{"alertname": "Hot", "backend": "a", "service": "arena"}"#,
        ] {
            let Ok(Deed::TakeOut { backend, order, mark, share }) = decide(DRAIN, &alert("firing", labels))
            else {
                panic!("it is taken out")
            };
            assert_eq!(
                (backend.to_string().as_str(), order),
                ("arena/a", TakeOutOrder::Drain { deadline: None })
            );
            assert_eq!(
                (share.backends.len(), share.out.len(), share.max_percent),
                (2, 1, 50),
                "b has no weight"
            );
            assert_eq!(mark.reason, "hook hot: Hot f1: 93degrees");
            assert!(mark.is_on(&mark.reason));
        }
    }

    #[test]
    fn an_order_stands_while_it_is_in_force_for_every_run() {
        let eject = r#"{"match": {"alertname": "Hot"}, "action": "eject"}"#;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let alert = alert("firing", r#"{"alertname": "Hot", "backend": "arena/a"}"#);
        for (hook, key, text, expected) in [
            (DRAIN, "drains/arena/b", r#"{"reason": "x"}"#, None),
            (DRAIN, "ejections/arena/a", r#"{"reason": "x"}"#, None),
            (DRAIN, "drains/arena/a", r#"{"reason": "x"}"#, Some("x")),
            (DRAIN, "drains/arena/a", r#"{"instance": "0102030405060708090a0b0c0d0e0f10"}"#, None),
            (eject, "ejections/arena/a", r#"{"reason": "x", "until": "2026-11-18T11:06:41Z"}"#, Some("x")),
            (eject, "ejections/arena/a", r#"{"reason": "x", "until": "2026-11-18T11:06:40Z"}"#, None),
        ] {
            let table = table_with(hook, &[(key, text)]);
            assert_eq!(stands(&table.hooks["hot"], &alert, &table, now), expected, "{key} {text}");
        }
    }

    #[test]
    fn the_end_of_an_alert_lifts_only_where_the_rule_says_so() {
        let over = alert("resolved", r#"{"alertname": "Hot", "backend": "arena/gone"}"#);
        assert!(matches!(decide(DRAIN, &over), Ok(Deed::PutBack { .. })), "even of a backend that is gone");
        let keep = r#"{"match": {"alertname": "Hot"}, "action": "drain"}"#;
        assert_eq!(decide(keep, &over), Err(Outcome::Kept("on_resolved is keep".to_owned())));
        let abort = r#"{"match": {"alertname": "Hot"}, "action": "abort"}"#;
        assert!(matches!(decide(abort, &over), Err(Outcome::Kept(_))));
    }

    #[test]
    fn an_alert_that_names_nothing_known_is_refused_with_the_label() {
        let refused = |hook: &str, labels: &str| match decide(hook, &alert("firing", labels)) {
            Err(Outcome::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(DRAIN, "{}"), "the alert has no label backend");
        assert!(
            refused(DRAIN, r#"{"backend": "10.0.0.5:1"}"#).starts_with("label backend is \"10.0.0.5:1\"")
        );
        assert_eq!(refused(DRAIN, r#"{"backend": "arena/z"}"#), "there is no backends/arena/z");
        let abort = r#"{"match": {"alertname": "Hot"}, "action": "abort", "version_label": "version"}"#;
        assert_eq!(refused(abort, r#"{"service": "lobby", "version": "2"}"#), "there is no rollouts/lobby");
        assert_eq!(refused(abort, r#"{"service": "arena"}"#), "the alert has no label version");
    }
}
