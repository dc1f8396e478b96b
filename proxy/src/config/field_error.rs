//! What is wrong with one field, in the same words for the bootstrap file and for routing documents.

use std::fmt;

/// One field whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Dotted path from the document's root: `framing.width`, `listener.game.bind`.
    pub field: String,
    /// As typed; "nothing" if the field is missing.
    pub value: String,
    /// What would have been right, and why where it isn't plain.
    pub expected: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A field that has to be there and isn't.
    pub fn missing(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(field, "nothing", expected)
    }

    /// The same error one level further up: `width` under `framing` is `framing.width`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: got {}, expected {}", self.field, self.value, self.expected)
    }
}

impl std::error::Error for FieldError {}
