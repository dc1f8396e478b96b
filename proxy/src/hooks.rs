//! Alerts in, orders out: the rules under `hooks/` say which alert drains or ejects a backend, or aborts a rollout.
//!
//! What is decided here is pure: alerts are read (`alert`), rules matched to them (`rule`), and shares kept (`share`).
//! The orders are carried out by `source::etcd`, as keys that an operator could have written, and never over one that
//! stands; `admin` has the path that alerts come by.

pub mod alert;
pub mod rule;
pub mod share;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::routing::BackendId;
use crate::routing::table::TakeOutOrder;
use share::Share;

/// What is to be done to the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Write the backend's `drains/` or `ejections/` key, if there is none.
    TakeOut { backend: BackendId, order: TakeOutOrder, mark: Mark, share: Share },
    /// Delete it, if it is as this hook wrote it.
    PutBack { backend: BackendId, order: TakeOutOrder, mark: Mark },
    /// Change the order of the service's rollout, if it is to that version.
    Abort { service: Arc<str>, version: Option<String>, mark: Mark },
}

/// Whose order it is: stands in the document's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Names the hook and the alert; the same for the alert's whole life.
    pub by: String,
    /// The whole reason: `by`, and what the alert says.
    pub reason: String,
}

impl Mark {
    /// Whether a document with that reason has been written for the same hook and alert.
    #[must_use]
    pub fn is_on(&self, reason: &str) -> bool {
        reason.strip_prefix(&*self.by).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
    }
}

/// What has become of it, each with the particulars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done(String),
    Undone(String),
    /// It was so before: alerts are sent again and again, and to every proxy.
    Already(String),
    /// The alert is over, and its order stays.
    Kept(String),
    Refused(String),
    /// The store didn't take it: the sender is to try again.
    Failed(String),
}

impl Outcome {
    pub const NAMES: [&'static str; 6] = ["done", "undone", "already", "kept", "refused", "failed"];

    /// Public: the `result` label of `holdfast_hooks_total`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Undone(_) => "undone",
            Self::Already(_) => "already",
            Self::Kept(_) => "kept",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Done(text)
            | Self::Undone(text)
            | Self::Already(text)
            | Self::Kept(text)
            | Self::Refused(text)
            | Self::Failed(text) => text,
        }
    }
}

/// How often each action had each result. Written by the control plane alone, and seldom.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counts {
    pub const ACTIONS: [&'static str; 3] = ["drain", "eject", "abort"];

    pub fn add(&self, action: &'static str, result: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((action, result)).or_default() += 1;
    }

    /// Every action with every result, and alerts that no rule is for.
    #[must_use]
    pub fn all(&self) -> Vec<([(&'static str, &'static str); 2], u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let results = |action| Outcome::NAMES.map(|result| (action, result));
        let series = Self::ACTIONS.into_iter().flat_map(results).chain([("none", "no_rule")]);
        let count = |(action, result)| {
            let count = counts.get(&(action, result)).copied().unwrap_or(0);
            ([("action", action), ("result", result)], count)
        };
        series.map(count).collect()
    }
}

#[cfg(test)]
mod page_test;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_again_whatever_the_alert_says_by_now() {
        let mark = Mark { by: "hook hot: ArenaHot a1".to_owned(), reason: String::new() };
        assert!(mark.is_on("hook hot: ArenaHot a1") && mark.is_on("hook hot: ArenaHot a1: 93 degrees"));
        assert!(!mark.is_on("hook hot: ArenaHot a12") && !mark.is_on("deploy 1.5"));
    }

    #[test]
    fn each_action_and_result_has_its_count() {
        let counts = Counts::default();
        counts.add("drain", "done");
        counts.add("drain", "done");
        let all = counts.all();
        assert_eq!(all.len(), 19);
        assert!(all.contains(&([("action", "drain"), ("result", "done")], 2)));
        assert!(all.contains(&([("action", "none"), ("result", "no_rule")], 0)));
    }
}
