//! One of each class of mistakes, with the words in which it is told. A test makes each of them.

/// A document written over a table that is right.
#[cfg_attr(not(test), expect(dead_code, reason = "the page has the words, the test makes the mistake"))]
pub struct Case {
    pub mistake: &'static str,
    pub key: &'static str,
    pub text: &'static str,
    /// As it is told: key, field, value, expectation; of a warning, key and text.
    pub message: &'static str,
}

macro_rules! cases {
    ($($mistake:literal: $key:literal = $text:literal => $message:literal;)*) => {
        &[$(Case { mistake: $mistake, key: $key, text: $text, message: $message },)*]
    };
}

pub const REFUSALS: &[Case] = cases! {
    "no JSON": "routes/public" = r#"{"listener": "game""#
        => "routes/public: document: got EOF while parsing an object at line 1 column 19, expected well-formed JSON";
    "no object": "routes/public" = "[]" => "routes/public: document: got [], expected a JSON object";
    "a field that doesn't exist": "routes/public" = r#"{"listener": "game", "service": "arena", "share": 5}"#
        => "routes/public: share: got 5, expected no such field; known: listener, service, versions, prefer, sni, source";
    "a field left out": "backends/arena/a" = r#"{"version": "1.4"}"#
        => "backends/arena/a: address: got nothing, expected a value: this field has no default";
    "a field given twice": "backends/arena/a" = r#"{"address": "h:1", "version": "1.4", "version": "1.5"}"#
        => "backends/arena/a: version: got it twice, expected each field once";
    "a wrong type": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "limits": {"max_sessions": "many"}}"#
        => r#"services/arena: limits.max_sessions: got "many", expected a whole number, 0 or more"#;
    "a number out of range": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "limits": {"liveness_ms": 5}}"#
        => "services/arena: limits.liveness_ms: got 5, expected a number from 50 to 600000";
    "a word that isn't one of the list": "routes/public" = r#"{"listener": "game", "service": "arena", "prefer": "nearest"}"#
        => r#"routes/public: prefer: got "nearest", expected one of local, zone, none"#;
    "an unknown policy": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "balance": {"policy": "random"}}"#
        => r#"services/arena: balance.policy: got "random", expected one of least_sessions, round_robin, two_choices, hash"#;
    "a field that another one rules out": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "balance": {"key": "client"}}"#
        => "services/arena: balance.key: got client, expected no key: only the policy hash goes by one";
    "a field of another kind of framing": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "lines", "width": 4}}"#
        => r#"services/arena: framing.width: got 4, expected nothing, because kind "lines" has no such field"#;
    "a bound that doesn't fit another": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "limits": {"client_window_bytes": 1000}}"#
        => "services/arena: limits.client_window_bytes: got 1000, expected at least one frame of the framing's max_bytes: 65536";
    "something not built yet": "services/arena" = r#"{"protocol": "stream", "framing": {"kind": "length"}}"#
        => "services/arena: protocol: got stream, expected link: protocol stream is not built yet";
    "a bad address": "backends/arena/a" = r#"{"address": "10.0.0.5", "version": "1.4"}"#
        => "backends/arena/a: address: got 10.0.0.5, expected host:port, [ipv6]:port or unix:/path";
    "a bad version": "backends/arena/a" = r#"{"address": "10.0.0.5:7100", "version": ""}"#
        => r#"backends/arena/a: version: got "", expected a version: 1 to 64 characters, no spaces"#;
    "a bad name in a document": "backends/arena/a" = r#"{"address": "10.0.0.5:7100", "version": "1.4", "zone": "eu 1"}"#
        => "backends/arena/a: zone: got eu 1, expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit";
    "a bad name in a key": "backends/arena/-a" = r#"{"address": "10.0.0.5:7100", "version": "1.4"}"#
        => "backends/arena/-a: key: got -a, expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit";
    "a key of no known kind or shape": "route/public" = r#"{"listener": "game", "service": "arena"}"#
        => "route/public: key: got route/public, expected services/<service>, backends/<service>/<backend>, routes/<route>, drains/<service>/<backend>, ejections/<service>/<backend>, rollouts/<service>, accepts/<service> or hooks/<hook>";
    "text over one line, or too long": "drains/arena/a" = r#"{"reason": "two\nlines"}"#
        => r#"drains/arena/a: reason: got "two\nlines", expected at most 256 characters, none of them a control character"#;
    "a route to an unknown service": "routes/vip" = r#"{"listener": "vip", "service": "areno"}"#
        => "routes/vip: service: got areno, expected a service that has a valid services/ document";
    "shares that sum to 0": "routes/public" = r#"{"listener": "game", "service": "arena", "versions": {"1.4": 0, "1.5": 0}}"#
        => r#"routes/public: versions: got {"1.4":0,"1.5":0}, expected at least one share above 0: these shares sum to 0"#;
    "a share out of range": "routes/public" = r#"{"listener": "game", "service": "arena", "versions": {"1.4": 2000000}}"#
        => "routes/public: versions.1.4: got 2000000, expected a number from 0 to 1000000";
    "two routes for the same clients": "routes/second" = r#"{"listener": "game", "service": "arena"}"#
        => "routes/second: listener: got listener game, expected a listener, sni and source that routes/public does not have already: this is a tie";
    "a bad server name": "routes/vip" = r#"{"listener": "game", "service": "arena", "sni": "*.*.example"}"#
        => "routes/vip: sni: got *.*.example, expected a server name as play.example.com, or *.example.com";
    "a network with bits behind its prefix": "routes/lan" = r#"{"listener": "game", "service": "arena", "source": "10.0.0.7/8"}"#
        => "routes/lan: source: got 10.0.0.7/8, expected no bits behind the prefix: 10.0.0.0/8";
    "a bad instance": "drains/arena/a" = r#"{"instance": "7"}"#
        => "drains/arena/a: instance: got 7, expected 32 hexadecimal digits";
    "a bad time": "ejections/arena/a" = r#"{"until": "tomorrow"}"#
        => "ejections/arena/a: until: got tomorrow, expected a time as RFC 3339 writes it, such as 2026-11-30T18:00:00Z";
    "a rollout to its own version": "rollouts/arena" = r#"{"from": "1.4", "to": "1.4"}"#
        => "rollouts/arena: to: got 1.4, expected another version than `from`";
    "steps that don't grow": "rollouts/arena" = r#"{"from": "1.4", "to": "1.5", "steps": [50, 25]}"#
        => "rollouts/arena: steps: got [50, 25], expected 1 to 100 growing percentages from 1 to 100, as [5, 25, 50, 100]";
    "a yes to a key that can't be": "accepts/arena" = r#"{"changes": {"backends/arena": {"from": 7}}}"#
        => "accepts/arena: changes.backends/arena: got backends/arena, expected services/<service>, backends/<service>/<backend>, routes/<route>, drains/<service>/<backend>, ejections/<service>/<backend>, rollouts/<service>, accepts/<service> or hooks/<hook>";
    "a yes with a bad fingerprint": "accepts/arena" = r#"{"changes": {"routes/public": {"from": 7, "to": "xyz"}}}"#
        => "accepts/arena: changes.routes/public.to: got xyz, expected 16 hexadecimal digits";
    "a mirror to an unknown service": "services/arena" = r#"{"protocol": "link", "framing": {"kind": "length"}, "mirror": {"service": "areno", "percent": 5}}"#
        => "services/arena: mirror.service: got areno, expected a service that has a valid services/ document";
    "a hook for every alert": "hooks/hot" = r#"{"match": {}, "action": "drain"}"#
        => "hooks/hot: match: got 0 labels, expected 1 to 16 labels: a rule for every alert is a slip";
};

pub const WARNINGS: &[Case] = cases! {
    "a backend of no service": "backends/lobby/a" = r#"{"address": "10.0.0.5:7100", "version": "1.4"}"#
        => "backends/lobby/a: there is no services/lobby: this backend is not used";
    "a drain of no backend": "drains/arena/z" = "{}" => "drains/arena/z: there is no backends/arena/z to drain";
    "an ejection of no backend": "ejections/arena/z" = "{}" => "ejections/arena/z: there is no backends/arena/z to eject";
    "a share for a version with no backend": "routes/public" = r#"{"listener": "game", "service": "arena", "versions": {"1.4": 9, "1.6": 1}}"#
        => "routes/public: versions.1.6: no backend of services/arena has this version";
    "a route to a service with no backend": "routes/empty" = r#"{"listener": "empty", "service": "empty"}"#
        => "routes/empty: services/empty has no backend";
    "a rollout of no service": "rollouts/lobby" = r#"{"from": "1", "to": "2"}"#
        => "rollouts/lobby: there is no services/lobby: nothing is rolled out";
    "a rollout to a version with no backend": "rollouts/arena" = r#"{"from": "1.4", "to": "1.6"}"#
        => "rollouts/arena: to: no backend of services/arena has version 1.6";
    "a rollout whose first version gets nobody": "rollouts/arena" = r#"{"from": "1.5", "to": "1.4"}"#
        => "rollouts/arena: from: no route to services/arena gives version 1.5 a share: nobody is rolled out";
    "a hook whose labels name no service": "hooks/hot" = r#"{"match": {"service": "lobby"}, "action": "abort"}"#
        => "hooks/hot: match.service: there is no services/lobby: nothing is done by this hook";
};
