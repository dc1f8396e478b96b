//! What ends one session, or a whole link: the rule that was broken, and by how much.

use holdfast_protocol::message::Rule;

/// A broken rule, with the values that broke it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}: {text}")]
pub struct Fault {
    pub rule: Rule,
    pub text: String,
}

impl Fault {
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }

    pub(crate) fn unexpected(message: &str, phase: &str) -> Self {
        Self::new(Rule::Unexpected, format!("{message} while {phase}"))
    }
}
