//! How faults read that the reference page has no room for: field, value, expectation, word for word.

use super::{Document, Key};

const SERVICE: &str = "services/arena";
const ROUTE: &str = "routes/public";
const BACKEND: &str = "backends/arena/a";
const ROLLOUT: &str = "rollouts/arena";

/// The smallest document of its kind with one more field.
fn fault(key: &str, more: &str) -> String {
    let rest = match key {
        SERVICE => r#""protocol": "link", "framing": {"kind": "length"}"#,
        ROUTE => r#""listener": "game", "service": "arena""#,
        BACKEND => r#""address": "10.0.0.5:7100", "version": "1.4""#,
        _ => r#""from": "1.4", "to": "1.5""#,
    };
    told(key, format!("{{{rest}, {more}}}").as_bytes())
}

fn told(key: &str, text: &[u8]) -> String {
    Document::parse(&Key::parse(key).unwrap(), text).unwrap_err().to_string()
}

/// Key, field, and how it reads.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        SERVICE,
        r#""limits": {"max_sessions": 0}"#,
        "limits.max_sessions: got 0, expected a number from 1 to 1000000",
    ),
    (SERVICE, r#""limits": 5"#, "limits: got 5, expected an object"),
    (
        SERVICE,
        r#""limits": {"state_size_bytes": 67108865}"#,
        "limits.state_size_bytes: got 67108865, expected a number from 1 to 67108864",
    ),
    (
        SERVICE,
        r#""limits": {"server_window_bytes": 67108865}"#,
        "limits.server_window_bytes: got 67108865, expected a number from 65536 to 67108864",
    ),
    (SERVICE, r#""trace": {"ratio": 1.5}"#, "trace.ratio: got 1.5, expected a number from 0 to 1"),
    (SERVICE, r#""trace": {"ratio": "all"}"#, r#"trace.ratio: got "all", expected a number"#),
    (
        SERVICE,
        r#""health": {"check": {"kind": "tcp", "path": "/a"}}"#,
        "health.check.path: got /a, expected no such field: it is for kind http alone",
    ),
    (
        SERVICE,
        r#""health": {"check": {"kind": "http", "path": "a b"}}"#,
        "health.check.path: got a b, expected a path such as /healthz: at most 1024 characters of ASCII, no spaces",
    ),
    (
        SERVICE,
        r#""health": {"check": {"kind": "http", "expect": [99]}}"#,
        "health.check.expect: got [99], expected 1 to 16 HTTP statuses, each from 100 to 599",
    ),
    (
        SERVICE,
        r#""health": {"check": {"kind": "tcp", "interval_ms": 100, "timeout_ms": 101}}"#,
        "health.check.timeout_ms: got 101, expected a number from 10 to 100",
    ),
    (
        SERVICE,
        r#""health": {"check": {"interval_ms": 100}}"#,
        "health.check.kind: got nothing, expected a value: this field has no default",
    ),
    (
        ROUTE,
        r#""source": "10.0.0.0""#,
        "source: got 10.0.0.0, expected a network as 10.0.0.0/8 or 2001:db8::/32",
    ),
    (
        ROUTE,
        r#""source": "::ffff:10.0.0.0/104""#,
        "source: got ::ffff:10.0.0.0/104, expected an IPv4 network written as IPv4: clients are matched by their \
             IPv4 address",
    ),
    (
        ROUTE,
        r#""versions": {"1.4": "half"}"#,
        r#"versions.1.4: got "half", expected a whole number, 0 or more"#,
    ),
    (
        ROUTE,
        r#""versions": {"a b": 5}"#,
        "versions.a b: got a b, expected a version: 1 to 64 characters, no spaces",
    ),
    (ROUTE, r#""prefer": 5"#, "prefer: got 5, expected a text"),
    (ROUTE, r#""prefer": {}"#, "prefer: got {}, expected a text"),
    (BACKEND, r#""weight": -1"#, "weight: got -1, expected a whole number, 0 or more"),
    (BACKEND, r#""weight": 1.5"#, "weight: got 1.5, expected a whole number, 0 or more"),
    (
        BACKEND,
        r#""weight": 5000000000"#,
        "weight: got 5000000000, expected a whole number of at most 4294967295",
    ),
    (BACKEND, r#""weight": 1000001"#, "weight: got 1000001, expected a number from 0 to 1000000"),
    (
        BACKEND,
        r#""zone": " ""#,
        "zone: got \" \", expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    ),
    (ROLLOUT, r#""steps": 5"#, "steps: got 5, expected a list"),
    (ROLLOUT, r#""force": "yes""#, r#"force: got "yes", expected true or false"#),
    (
        ROLLOUT,
        r#""abort": {"count": ["slow"]}"#,
        r#"abort.count[0]: got "slow", expected one of refused, late, fault, close, crash, divergence"#,
    ),
];

#[test]
fn a_fault_says_field_value_and_expectation() {
    for (key, more, expected) in FAULTS {
        assert_eq!(fault(key, more), *expected, "{key}: {more}");
    }
}

#[test]
fn a_document_that_can_not_be_read_says_why() {
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(300_000));
    for (text, expected) in [
        (long.as_bytes(), "document: got 300014 bytes, expected at most 262144 bytes"),
        (&b""[..], "document: got EOF while parsing a value at line 1 column 0, expected well-formed JSON"),
        (b"{} {}", "document: got trailing characters at line 1 column 4, expected well-formed JSON"),
        (b"null", "document: got null, expected a JSON object"),
        (
            b"{\"reason\": \"\xff\"}",
            "document: got invalid unicode code point at line 1 column 13, expected well-formed JSON",
        ),
    ] {
        assert_eq!(told("drains/arena/a", text), expected);
    }
}
