//! Every class of wrong service document is refused with the field's name.

use super::super::{Document, Key};
use super::*;

fn parse(text: &str) -> Result<Arc<Service>, FieldError> {
    match Document::parse(&Key::parse("services/arena").unwrap(), text.as_bytes())? {
        Document::Service(service) => Ok(service),
        other => panic!("not a service: {other:?}"),
    }
}

/// The minimal document with one more field.
fn with(more: &str) -> Result<Arc<Service>, FieldError> {
    parse(&format!(r#"{{"protocol": "link", "framing": {{"kind": "length"}}, {more}}}"#))
}

fn field(more: &str) -> String {
    with(more).unwrap_err().field
}

#[test]
fn protocol_and_framing_are_all_that_is_needed() {
    let service =
        parse(r#"{"protocol": "link", "framing": {"kind": "length", "width": 4, "order": "big"}}"#).unwrap();
    assert_eq!(service.limits.client_window_bytes, 262_144);
    assert_eq!(service.limits.park_home, Duration::from_secs(30));
    assert_eq!(service.drain.in_flight, 64);
    assert_eq!((service.recovery, service.on_crash), (Recovery::None, OnCrash::Fresh));
    assert_eq!(service.limits.checkpoint_interval, Duration::from_secs(1));
    assert_eq!(service.limits.max_journal_bytes, MIB);
    assert_eq!((service.limits.max_recoveries, service.limits.recoveries_in_flight), (3, 256));
    assert_eq!(parse(r#"{"framing": {"kind": "length"}}"#).unwrap_err().field, "protocol");
    assert_eq!(parse(r#"{"protocol": "link"}"#).unwrap_err().field, "framing");
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    for protocol in ["stream", "frames"] {
        let error =
            parse(&format!(r#"{{"protocol": "{protocol}", "framing": {{"kind": "length"}}}}"#)).unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), ("protocol", protocol));
        assert!(error.expected.contains("not built yet"), "{error}");
    }
}

#[test]
fn every_level_of_recovery_is_taken() {
    for (name, level) in [
        ("none", Recovery::None),
        ("checkpoint", Recovery::Checkpoint),
        ("delta", Recovery::Delta),
        ("replay", Recovery::Replay),
    ] {
        assert_eq!(with(&format!(r#""recovery": "{name}""#)).unwrap().recovery, level);
    }
}

#[test]
fn a_bad_field_is_named_by_its_path() {
    for (more, expected) in [
        (r#""on_crash": "open""#, "on_crash"),
        (r#""recovery": "maybe""#, "recovery"),
        (r#""limits": {"max_sessions": 0}"#, "limits.max_sessions"),
        (r#""limits": {"max_sessions": -1}"#, "limits.max_sessions"),
        (r#""limits": {"max_sesions": 1}"#, "limits.max_sesions"),
        (r#""limits": {"state_size_bytes": 67108865}"#, "limits.state_size_bytes"),
        (r#""limits": {"liveness_ms": 1}"#, "limits.liveness_ms"),
        (r#""limits": {"server_window_bytes": 67108865}"#, "limits.server_window_bytes"),
        (r#""limits": {"checkpoint_interval_ms": 9}"#, "limits.checkpoint_interval_ms"),
        (r#""limits": {"checkpoint_interval_ms": 600001}"#, "limits.checkpoint_interval_ms"),
        (r#""limits": {"max_recoveries": 0}"#, "limits.max_recoveries"),
        (r#""limits": {"recoveries_in_flight": 0}"#, "limits.recoveries_in_flight"),
        (r#""limits": {"max_journal_bytes": 1073741825}"#, "limits.max_journal_bytes"),
        (r#""drain": {"per_second": 0}"#, "drain.per_second"),
        (r#""drain": {"on_deadline": "shoot"}"#, "drain.on_deadline"),
        (r#""drain": {"deadline_s": 86401}"#, "drain.deadline_s"),
        (r#""balance": {"by": "weight"}"#, "balance.by"),
        (r#""balance": {"by": "load", "policy": "round_robin"}"#, "balance.by"),
        (r#""balance": {"by": "load", "policy": "hash"}"#, "balance.by"),
        (r#""mirror": {"service": "next", "percent": 101}"#, "mirror.percent"),
        (r#""mirror": {"service": "-next", "percent": 1}"#, "mirror.service"),
        (r#""mirror": {"service": "arena", "percent": 1}"#, "mirror.service"),
        (r#""mirror": {"service": "next", "percent": 1, "comapre": true}"#, "mirror.comapre"),
        (r#""mirror": {"service": "next"}"#, "mirror.percent"),
        (r#""rebalance": {"per_second": 0}"#, "rebalance.per_second"),
        (r#""rebalance": {"per_secnd": 5}"#, "rebalance.per_secnd"),
        (r#""rebalance": {}"#, "rebalance.per_second"),
        (r#""trace": {"ratio": 1.5}"#, "trace.ratio"),
        (r#""trace": {"slow_frame_ms": "1s"}"#, "trace.slow_frame_ms"),
        (r#""weight": 5"#, "weight"),
    ] {
        assert_eq!(field(more), expected, "{more}");
    }
}

#[test]
fn live_sessions_are_rebalanced_only_where_the_document_says_how_fast() {
    assert_eq!(with(r#""recovery": "none""#).unwrap().rebalance, None);
    let service = with(r#""rebalance": {"per_second": 50}"#).unwrap();
    assert_eq!(service.rebalance, Some(RebalancePolicy { per_second: 50 }));
}

#[test]
fn a_framing_fault_is_named_by_its_path() {
    for (framing, expected) in [
        (r#"{"kind": "semaphore"}"#, "framing.kind"),
        (r#"{"kind": "length", "width": 5}"#, "framing.width"),
        (r#"{"kind": "length", "widht": 4}"#, "framing.widht"),
        (r#"{"kind": "length", "width": "four"}"#, "framing.width"),
        (r#"{}"#, "framing.kind"),
    ] {
        let text = format!(r#"{{"protocol": "link", "framing": {framing}}}"#);
        assert_eq!(parse(&text).unwrap_err().field, expected, "{framing}");
    }
}

#[test]
fn a_window_holds_at_least_one_frame_of_the_largest_size() {
    let text = |window: u64| {
        format!(
            r#"{{"protocol": "link", "framing": {{"kind": "length", "max_bytes": 1048576}},
                "limits": {{"client_window_bytes": {window}, "server_window_bytes": 2000000}}}}"#
        )
    };
    assert_eq!(parse(&text(1_048_575)).unwrap_err().field, "limits.client_window_bytes");
    assert_eq!(parse(&text(1_048_576)).unwrap().limits.client_window_bytes, 1_048_576);
}

#[test]
fn every_level_of_recovery_has_its_name() {
    for level in [Recovery::None, Recovery::Checkpoint, Recovery::Delta, Recovery::Replay] {
        assert_eq!(with(&format!(r#""recovery": "{}""#, level.name())).unwrap().recovery, level);
    }
}

#[test]
fn a_level_of_recovery_that_does_not_exist_is_told_those_that_do() {
    let error = with(r#""recovery": "everything""#).unwrap_err();
    assert_eq!((error.field.as_str(), error.value.as_str()), ("recovery", "everything"));
    assert_eq!(error.expected, "none, checkpoint, delta or replay");
}

#[test]
fn half_a_journal_holds_a_client_window() {
    let limits = |journal: u64| {
        with(&format!(r#""limits": {{"client_window_bytes": 2000000, "max_journal_bytes": {journal}}}"#))
    };
    let error = limits(3_999_999).unwrap_err();
    assert_eq!((error.field.as_str(), error.value.as_str()), ("limits.max_journal_bytes", "3999999"));
    assert_eq!(error.expected, "at least 4000000, twice limits.client_window_bytes");
    assert_eq!(limits(4_000_000).unwrap().limits.max_journal_bytes, 4_000_000);
    // Who asks for larger windows alone needn't think of it.
    let service = with(r#""limits": {"client_window_bytes": 2000000}"#).unwrap();
    assert_eq!(service.limits.max_journal_bytes, 8_000_000);
}

#[test]
fn the_reference_names_every_key_with_its_default() {
    let page = include_str!("../../../../../config/services.md");
    let sample = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let minimal = r#"{"protocol": "link", "framing": {"kind": "length", "width": 4, "order": "big"}}"#;
    assert_eq!(parse(sample).unwrap(), parse(minimal).unwrap());
    let shown: serde_json::Value = serde_json::from_str(sample).unwrap();
    let mut keys = vec!["recovery".to_owned(), "on_crash".to_owned(), "trace.ratio".to_owned()];
    for section in ["limits", "drain", "trace", "health"] {
        keys.extend(shown[section].as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    for key in keys {
        assert!(page.contains(&format!("| `{key}`")) || page.contains(&format!(", `{key}` |")), "{key}");
    }
    // A key that is new is unknown to the page.
    let refused = with(r#""limits": {"": 1}"#).unwrap_err().expected;
    let limits = shown["limits"].as_object().unwrap();
    let known = refused.split_once("known: ").unwrap().1.split(", ");
    assert_eq!(known.filter(|key| !limits.contains_key(*key)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn the_reference_names_every_key_of_a_mirror_with_its_default() {
    let page = include_str!("../../../../../config/services.md");
    let sample = page.split("```json").nth(3).and_then(|rest| rest.split("```").next()).unwrap();
    let sample: serde_json::Value = serde_json::from_str(sample).unwrap();
    let shown = with(&format!(r#""mirror": {sample}"#)).unwrap().mirror.clone().unwrap();
    assert_eq!((&*shown.service, shown.percent), ("arena-next", 10));
    let minimal = with(r#""mirror": {"service": "arena-next", "percent": 10}"#).unwrap().mirror.clone();
    assert_eq!(minimal.unwrap(), shown);
    let refused = with(r#""mirror": {"": 1}"#).unwrap_err().expected;
    for key in refused.split_once("known: ").unwrap().1.split(", ") {
        assert!(sample.get(key).is_some() && page.contains(&format!("| `mirror.{key}` |")), "{key}");
    }
}
