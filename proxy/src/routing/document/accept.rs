//! `accepts/<service>`: changes of a service that would be held, and that an operator has said yes to.
//!
//! A yes is bound to what it was said to: it names the version that may go out of force, and what comes instead.
//! The same keys gone another time are another change.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Key, fault, line};
use crate::config::FieldError;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-since" = 2))]
pub struct RawAccept {
    /// Key of a document -> what may become of it.
    pub changes: BTreeMap<String, RawAccepted>,
    /// Shown to whoever looks at it: one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256), extend("default" = ""))]
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAccepted {
    /// Revision of the version that may go out of force.
    pub from: u64,
    /// Fingerprint of the version that comes instead: 16 hexadecimal digits (XXH3 of its bytes). Absent: none comes, the
    /// key is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Which versions may go out of force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accept {
    changes: BTreeMap<Arc<str>, Accepted>,
    reason: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Accepted {
    from: u64,
    to: Option<Fingerprint>,
}

/// Which of a document's versions one is, by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        Self(xxh3_64(raw))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { u64::from_str_radix(text, 16).map(Self).map_err(|_| ()) } else { Err(()) }
    }
}

impl Accept {
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the version `from` of `key` may give way to `to` (none: to nothing).
    #[must_use]
    pub fn covers(&self, key: &str, from: u64, to: Option<&[u8]>) -> bool {
        let to = to.map(Fingerprint::of);
        self.changes.get(key).is_some_and(|accepted| accepted.from == from && accepted.to == to)
    }
}

impl RawAccept {
    pub fn check(self) -> Result<Accept, FieldError> {
        let reason = line("reason", self.reason, 256)?;
        let checked = |(key, raw): (String, RawAccepted)| {
            let shown = super::strict::shorten(&key);
            Key::parse(&key)
                .map_err(|error| fault(&format!("changes.{shown}"), error.value, error.expected))?;
            let to = raw.to.map(|text| fingerprint(&format!("changes.{shown}.to"), &text)).transpose()?;
            Ok((key.into(), Accepted { from: raw.from, to }))
        };
        let changes = self.changes.into_iter().map(checked).collect::<Result<_, FieldError>>()?;
        Ok(Accept { changes, reason: reason.into() })
    }
}

fn fingerprint(field: &str, text: &str) -> Result<Fingerprint, FieldError> {
    text.parse().map_err(|()| fault(field, super::strict::shown(text), "16 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;

    fn parse(text: &str) -> Result<Arc<Accept>, FieldError> {
        match Document::parse(&Key::parse("accepts/arena").unwrap(), text.as_bytes())? {
            Document::Accept(accept) => Ok(accept),
            other => panic!("not an accept: {other:?}"),
        }
    }

    #[test]
    fn a_yes_is_for_one_version_and_what_comes_instead() {
        let zero = br#"{"weight": 0}"#;
        let text = format!(
            r#"{{"changes": {{"backends/arena/a": {{"from": 7}}, "backends/arena/b": {{"from": 8, "to": "{}"}}}}}}"#,
            Fingerprint::of(zero)
        );
        let accept = parse(&text).unwrap();
        assert!(
            accept.covers("backends/arena/a", 7, None) && accept.covers("backends/arena/b", 8, Some(zero))
        );
        assert!(!accept.covers("backends/arena/a", 9, None), "it was written again since");
        assert!(
            !accept.covers("backends/arena/b", 8, None) && !accept.covers("backends/arena/a", 7, Some(zero))
        );
        assert!(!accept.covers("backends/arena/c", 7, None));
    }

    #[test]
    fn a_bad_field_is_named() {
        let field = |text: &str| parse(text).unwrap_err().field;
        assert_eq!(field("{}"), "changes");
        assert_eq!(field(r#"{"changes": {"nowhere/a": {"from": 7}}}"#), "changes.nowhere/a");
        assert_eq!(field(r#"{"changes": {"routes/a": {"from": 7, "to": "xyz"}}}"#), "changes.routes/a.to");
        assert_eq!(field(r#"{"changes": {}, "reason": "two\nlines"}"#), "reason");
    }
}
