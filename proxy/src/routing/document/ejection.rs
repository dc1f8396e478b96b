//! `ejections/<service>/<backend>`: while the key stands, the backend gets no new sessions.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::strict::shown;
use super::{fault, line};
use crate::config::FieldError;
use crate::routing::table::{BackendId, EjectionOrder};

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-since" = 2))]
pub struct RawEjection {
    /// Shown to whoever looks at the backend: one line.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// From this time on the key means nothing, as `2026-11-30T18:00:00Z`; absent: until the key is deleted. A proxy
    /// goes by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl RawEjection {
    pub fn check(self, backend: BackendId) -> Result<EjectionOrder, FieldError> {
        let until = self.until.map(|text| time(&text)).transpose()?;
        Ok(EjectionOrder { backend, reason: line("reason", self.reason, 256)?, until })
    }
}

fn time(text: &str) -> Result<SystemTime, FieldError> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map(SystemTime::from).map_err(|_| {
        fault("until", shown(text), "a time as RFC 3339 writes it, such as 2026-11-30T18:00:00Z")
    })
}

/// As `until` is written, in whole seconds.
#[must_use]
pub fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::{Document, Key};
    use super::*;

    fn parse(text: &str) -> Result<Document, FieldError> {
        Document::parse(&Key::parse("ejections/arena/a").unwrap(), text.as_bytes())
    }

    #[test]
    fn a_bad_field_is_named() {
        for (text, field) in [
            (r#"{"reason": "two\nlines"}"#, "reason"),
            (r#"{"until": "tomorrow"}"#, "until"),
            (r#"{"until": "2026-11-30 18:00"}"#, "until"),
            (r#"{"until": 17}"#, "until"),
        ] {
            assert_eq!(parse(text).unwrap_err().field, field, "{text}");
        }
    }

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        let until = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        assert_eq!(written(until + Duration::from_millis(7)), "2026-11-18T11:06:40Z");
        let Document::Ejection(order) =
            parse(&format!(r#"{{"reason": "slow disk", "until": "{}"}}"#, written(until))).unwrap()
        else {
            panic!("an ejection")
        };
        assert_eq!((order.until, &*order.reason), (Some(until), "slow disk"));
        assert!(parse("{}").is_ok(), "until the key is deleted");
    }
}
