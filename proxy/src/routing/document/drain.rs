//! `drains/<service>/<backend>`: while the key stands, the backend gives up its sessions.

use std::time::Duration;

use holdfast_protocol::InstanceId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fault, line, within};
use crate::config::FieldError;
use crate::routing::table::{BackendId, DrainOrder};

/// A day: longer is a slip of the pen.
pub const MAX_DEADLINE_S: u64 = 86_400;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDrain {
    /// Time for it, from the moment a proxy first sees the order. Absent: the service's `drain.deadline_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_DEADLINE_S))]
    pub deadline_s: Option<u64>,
    /// Shown to whoever looks at the drain: one line.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Only that run of the backend (its next one takes sessions again): 32 hexadecimal digits, as the proxy's log gives
    /// them. Absent: every run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl RawDrain {
    pub fn check(self, backend: BackendId) -> Result<DrainOrder, FieldError> {
        let deadline =
            self.deadline_s.map(|seconds| within("deadline_s", seconds, 0..=MAX_DEADLINE_S)).transpose()?;
        let instance = self.instance.map(|text| instance(&text)).transpose()?;
        Ok(DrainOrder {
            backend,
            deadline: deadline.map(Duration::from_secs),
            reason: line("reason", self.reason, 256)?,
            instance,
        })
    }
}

fn instance(text: &str) -> Result<InstanceId, FieldError> {
    text.parse().map_err(|_| fault("instance", super::strict::shown(text), "32 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};

    fn field(text: &str) -> String {
        Document::parse(&Key::parse("drains/arena/a").unwrap(), text.as_bytes()).unwrap_err().field
    }

    #[test]
    fn a_bad_field_is_named() {
        assert_eq!(field(r#"{"deadline_s": 86401}"#), "deadline_s");
        assert_eq!(field(r#"{"deadline_s": 1.5}"#), "deadline_s");
        assert_eq!(field(r#"{"reason": "two\nlines"}"#), "reason");
        assert_eq!(field(r#"{"instance": "abc"}"#), "instance");
    }

    #[test]
    fn an_empty_object_is_a_drain() {
        assert!(Document::parse(&Key::parse("drains/arena/a").unwrap(), b"{}").is_ok());
    }
}
