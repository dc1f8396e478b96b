//! What Alertmanager posts: its webhook's version 4 (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).
//! Fields that aren't needed here are passed over, as theirs may grow.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Alertmanager sends a group's alerts at once; `max_alerts` of its `webhook_config` bounds them.
pub const MAX_ALERTS: usize = 1_000;
const VERSION: &str = "4";

#[derive(Debug, Deserialize)]
struct Payload {
    version: String,
    alerts: Vec<Alert>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Alert {
    pub status: Status,
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Names the alert by its labels; the same while it fires and when it is resolved.
    pub fingerprint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Firing,
    Resolved,
}

/// The sender's fault; trying again doesn't help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body: {field}: got {value}, expected {expected}")]
pub struct PayloadError {
    field: String,
    value: String,
    expected: String,
}

impl Alert {
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("alert", String::as_str)
    }
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// # Errors
/// It isn't a version 4 webhook, or holds too many alerts.
pub fn read(body: &[u8]) -> Result<Vec<Alert>, PayloadError> {
    let wrong = |field: &str, value: String, expected: &str| PayloadError {
        field: field.to_owned(),
        value,
        expected: expected.to_owned(),
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let payload: Payload = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (field, why) = (error.path().to_string(), error.inner().to_string());
        wrong(&field, why, "Alertmanager's webhook: {\"version\": \"4\", \"alerts\": [...]}")
    })?;
    if payload.version != VERSION {
        let got = format!("{:?}", crate::routing::document::excerpt(&payload.version));
        return Err(wrong("version", got, "\"4\""));
    }
    let count = payload.alerts.len();
    if count > MAX_ALERTS {
        let expected = "at most 1000: `max_alerts` of Alertmanager's webhook_config bounds them";
        return Err(wrong("alerts", format!("{count} of them"), expected));
    }
    for (index, alert) in payload.alerts.iter().enumerate() {
        let print = &alert.fingerprint;
        if print.is_empty() || print.len() > 64 || !print.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let got = format!("{:?}", crate::routing::document::excerpt(print));
            return Err(wrong(&format!("alerts[{index}].fingerprint"), got, "1 to 64 letters and digits"));
        }
    }
    Ok(payload.alerts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Alertmanager 0.27 sends it.
    const BODY: &str = r#"{"receiver":"holdfast","status":"firing","alerts":[{"status":"firing",
        "labels":{"alertname":"ArenaHot","backend":"arena/b","severity":"critical"},
        "annotations":{"summary":"93 degrees"},"startsAt":"2026-11-23T12:00:00.000Z","endsAt":"0001-01-01T00:00:00Z",
        "generatorURL":"http://prometheus:9090/graph","fingerprint":"9ef1e0f5a1c0d3b2"}],
        "groupLabels":{"alertname":"ArenaHot"},"commonLabels":{},"commonAnnotations":{},
        "externalURL":"http://alertmanager:9093","version":"4","groupKey":"{}:{}","truncatedAlerts":0}"#;

    #[test]
    fn what_alertmanager_sends_is_read_and_what_it_may_add_is_passed_over() {
        let alerts = read(BODY.replace("\"receiver\"", "\"future\": [1], \"receiver\"").as_bytes()).unwrap();
        assert_eq!((alerts.len(), alerts[0].status, alerts[0].name()), (1, Status::Firing, "ArenaHot"));
        assert_eq!(alerts[0].labels["backend"], "arena/b");
        assert_eq!(alerts[0].annotations["summary"], "93 degrees");
    }

    #[test]
    fn what_is_no_webhook_is_refused_with_the_place() {
        let refused = |body: &str| read(body.as_bytes()).unwrap_err().to_string();
        assert!(refused("nonsense").contains("Alertmanager's webhook"));
        assert!(refused(&BODY.replace("\"4\"", "\"3\"")).contains("version: got \"3\", expected \"4\""));
        let odd = refused(&BODY.replace("\"status\":\"firing\",\n", "\"status\":\"smoking\",\n"));
        assert!(odd.contains("alerts[0].status: got unknown variant `smoking`"), "{odd}");
        let odd = refused(&BODY.replace("9ef1e0f5a1c0d3b2", "a b"));
        assert!(odd.contains("alerts[0].fingerprint: got \"a b\""), "{odd}");
        let alert = r#"{"status": "firing", "labels": {}, "fingerprint": "a"}"#;
        let many = format!(r#"{{"version": "4", "alerts": [{}]}}"#, vec![alert; MAX_ALERTS + 1].join(","));
        assert!(refused(&many).contains("max_alerts"));
    }
}
