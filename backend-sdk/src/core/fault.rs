//! What ends one session, or a whole link: the rule that was broken, and by how much.

use holdfast_protocol::message::Rule;

/// A broken rule, with the values that broke it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}: {text}")]
pub struct Fault {
    pub rule: Rule,
    pub text: String,
}

/// Why a link is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// The proxy broke a rule, and is to be told.
    #[error("{0}")]
    Fault(Fault),
    /// The proxy says that a rule was broken. That is never answered.
    #[error("told by the proxy: {0}")]
    Told(Fault),
}

impl Fault {
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }

    pub(crate) fn unexpected(message: &str, phase: &str) -> Self {
        Self::new(Rule::Unexpected, format!("{message} while {phase}"))
    }
}
