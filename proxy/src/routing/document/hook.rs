//! `hooks/<name>`: what is done on an alert, by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drain::MAX_DEADLINE_S;
use super::strict::shown;
use super::{fault, within};
use crate::config::FieldError;
use crate::routing::table::{Hook, HookAction, TakeOut, TakeOutOrder};

const MAX_LABELS: usize = 16;
const MAX_VALUE_CHARS: usize = 256;
const LABEL: &str = "a label's name: 1 to 64 letters, digits or '_', the first no digit";

/// A rule for alerts that come to `POST /hooks/alertmanager`: each that fires and matches has the action done to the
/// backend, or the rollout, that its labels name. All rules that match apply.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-since" = 2))]
pub struct RawHook {
    /// Labels that an alert has to have, each with exactly this value: 1 to 16 labels, values of 1 to 256 characters.
    #[serde(rename = "match")]
    pub labels: BTreeMap<String, String>,
    /// `drain`: its sessions are moved away and nobody comes, as `holdfast drain`; `eject`: nobody comes, as
    /// `holdfast eject`; `abort`: the service's rollout is given up and its players move back.
    pub action: RawAction,
    /// The alert's label with the backend, as `SERVICE/NAME` or as `NAME` alone beside `service_label`. Default:
    /// `backend`. Not for `abort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_label: Option<String>,
    /// The alert's label with the service.
    #[serde(default = "default_service_label")]
    pub service_label: String,
    /// `abort` only: the alert's label with a version, which has to be the one that is rolled out. Absent: alerts
    /// needn't say a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_label: Option<String>,
    /// `drain` only: the drain's deadline in seconds, 0 to a day. Absent: the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub deadline_s: Option<u64>,
    /// `eject` only: the ejection ends by itself after so many seconds, 1 to a day. Absent: it stays until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub for_s: Option<u64>,
    /// What an alert's end means: `keep`, the order stays until somebody lifts it; `undo`, it is lifted, if this hook
    /// gave it and nobody changed it since. Not for `abort`.
    #[serde(default)]
    pub on_resolved: RawOnResolved,
    /// Refused is what would leave more than this share of the service's backends drained, ejected or unfit, 1 to 100,
    /// or none at all in service. Default: 50. Not for `abort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: Option<u32>,
}

fn default_service_label() -> String {
    "service".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAction {
    Drain,
    Eject,
    Abort,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawOnResolved {
    #[default]
    Keep,
    Undo,
}

impl RawHook {
    pub fn check(self, name: Arc<str>) -> Result<Hook, FieldError> {
        self.check_labels()?;
        self.check_fields_of_action()?;
        let seconds = |field, value: Option<u64>, least| {
            let checked = value.map(|seconds| within(field, seconds, least..=MAX_DEADLINE_S)).transpose();
            checked.map(|seconds| seconds.map(Duration::from_secs))
        };
        let (deadline, time) = (seconds("deadline_s", self.deadline_s, 0)?, seconds("for_s", self.for_s, 1)?);
        let max_percent = within("max_percent", self.max_percent.unwrap_or(50), 1..=100)?;
        let take_out = |order| {
            let backend_label = self.backend_label.clone().unwrap_or_else(|| "backend".to_owned());
            let undo = self.on_resolved == RawOnResolved::Undo;
            HookAction::TakeOut(TakeOut { order, backend_label, max_percent, undo })
        };
        let action = match self.action {
            RawAction::Drain => take_out(TakeOutOrder::Drain { deadline }),
            RawAction::Eject => take_out(TakeOutOrder::Eject { time }),
            RawAction::Abort => HookAction::Abort { version_label: self.version_label },
        };
        Ok(Hook { name, labels: self.labels, service_label: self.service_label, action })
    }

    fn check_labels(&self) -> Result<(), FieldError> {
        if self.labels.is_empty() || self.labels.len() > MAX_LABELS {
            let expected = format!("1 to {MAX_LABELS} labels: a rule for every alert is a slip");
            return Err(fault("match", format!("{} labels", self.labels.len()), expected));
        }
        for (name, value) in &self.labels {
            if !is_label(name) {
                return Err(fault("match", shown(name), LABEL));
            }
            let fits = (1..=MAX_VALUE_CHARS).contains(&value.chars().count());
            if !fits || value.chars().any(char::is_control) {
                let expected = format!("1 to {MAX_VALUE_CHARS} characters, none of them a control character");
                return Err(fault(&format!("match.{name}"), shown(value), expected));
            }
        }
        let named = [
            ("backend_label", self.backend_label.as_ref()),
            ("service_label", Some(&self.service_label)),
            ("version_label", self.version_label.as_ref()),
        ];
        for (field, label) in named {
            if let Some(label) = label.filter(|label| !is_label(label)) {
                return Err(fault(field, shown(label), LABEL));
            }
        }
        Ok(())
    }

    /// A field that the action has no use for would be one that nothing acts on.
    fn check_fields_of_action(&self) -> Result<(), FieldError> {
        use RawAction::{Abort, Drain, Eject};
        let given = [
            ("backend_label", self.backend_label.clone(), &[Drain, Eject][..]),
            ("version_label", self.version_label.clone(), &[Abort]),
            ("deadline_s", self.deadline_s.map(|seconds| seconds.to_string()), &[Drain]),
            ("for_s", self.for_s.map(|seconds| seconds.to_string()), &[Eject]),
            ("max_percent", self.max_percent.map(|percent| percent.to_string()), &[Drain, Eject]),
            (
                "on_resolved",
                (self.on_resolved == RawOnResolved::Undo).then(|| "undo".to_owned()),
                &[Drain, Eject],
            ),
        ];
        for (field, value, actions) in given {
            if let Some(value) = value.filter(|_| !actions.contains(&self.action)) {
                let expected = format!("nothing: the action {} has no use for it", self.action.name());
                return Err(fault(field, shown(&value), expected));
            }
        }
        Ok(())
    }
}

impl RawAction {
    fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Eject => "eject",
            Self::Abort => "abort",
        }
    }
}

/// As Prometheus names labels.
fn is_label(text: &str) -> bool {
    let starts = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    text.len() <= 64
        && text.as_bytes().first().is_some_and(starts)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};
    use super::*;

    fn parse(text: &str) -> Result<Arc<Hook>, FieldError> {
        let document = Document::parse(&Key::parse("hooks/hot").unwrap(), text.as_bytes())?;
        let Document::Hook(hook) = document else { panic!("a hook") };
        Ok(hook)
    }

    #[test]
    fn what_a_rule_leaves_out_is_the_careful_choice() {
        let hook = parse(r#"{"match": {"alertname": "ArenaHot"}, "action": "drain"}"#).unwrap();
        let take_out = TakeOut {
            order: TakeOutOrder::Drain { deadline: None },
            backend_label: "backend".to_owned(),
            max_percent: 50,
            undo: false,
        };
        assert_eq!((&hook.action, &*hook.service_label), (&HookAction::TakeOut(take_out), "service"));
    }

    #[test]
    fn a_bad_field_is_named() {
        for (more, field) in [
            (r#""action": "reboot""#, "action"),
            (r#""action": "drain", "match": {}"#, "match"),
            (r#""action": "drain", "match": {"a-b": "x"}"#, "match"),
            (r#""action": "drain", "match": {"alertname": ""}"#, "match.alertname"),
            (r#""action": "drain", "backend_label": "0x""#, "backend_label"),
            (r#""action": "drain", "service_label": """#, "service_label"),
            (r#""action": "drain", "for_s": 5"#, "for_s"),
            (r#""action": "drain", "deadline_s": 86401"#, "deadline_s"),
            (r#""action": "drain", "max_percent": 0"#, "max_percent"),
            (r#""action": "drain", "max_percent": 101"#, "max_percent"),
            (r#""action": "drain", "version_label": "version""#, "version_label"),
            (r#""action": "eject", "deadline_s": 5"#, "deadline_s"),
            (r#""action": "eject", "for_s": 0"#, "for_s"),
            (r#""action": "eject", "on_resolved": "forget""#, "on_resolved"),
            (r#""action": "abort", "on_resolved": "undo""#, "on_resolved"),
            (r#""action": "abort", "max_percent": 50"#, "max_percent"),
            (r#""action": "abort", "backend_label": "backend""#, "backend_label"),
        ] {
            let labels = r#""match": {"alertname": "ArenaHot"}, "#;
            let labels = if more.contains("\"match\"") { "" } else { labels };
            assert_eq!(parse(&format!("{{{labels}{more}}}")).unwrap_err().field, field, "{more}");
        }
        assert_eq!(parse(r#"{"action": "drain"}"#).unwrap_err().field, "match");
    }
}
