//! Why bytes are not a message.

use crate::message::{MessageType, Rule};

/// Why bytes are not a message. All of these are faults of the link, and of the peer that wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not a Holdfast link: it should begin with HELLO or WELCOME, got {:?}", head.escape_ascii().to_string())]
    NotALink { head: [u8; 8] },
    #[error("not a Holdfast {message}: its magic should be \"HOLDFAST\", got {:?}", got.escape_ascii().to_string())]
    Magic { message: MessageType, got: [u8; 8] },
    #[error("{message} of {length} bytes is over the limit of {max}")]
    TooLarge { message: MessageType, length: usize, max: usize },
    #[error("unknown message type {number}, with flags {flags:#04x} and length {length}; types are 1 to 23")]
    UnknownType { number: u8, flags: u8, length: u32 },
    #[error("{message}: its fixed part should have {expected} bytes or more, its header says {got}")]
    FixedTooShort { message: MessageType, expected: usize, got: usize },
    #[error("{message}: its fixed part of {fixed} bytes is longer than its body of {body}")]
    FixedTooLong { message: MessageType, fixed: usize, body: usize },
    #[error("{message}: field {field} should have {expected} bytes, {left} are left")]
    Truncated { message: MessageType, field: &'static str, expected: usize, left: usize },
    #[error("{message}: field {field} should be UTF-8, byte {at} isn't")]
    BadUtf8 { message: MessageType, field: &'static str, at: usize },
    #[error("{message}: field {field} has no value {value}")]
    BadEnum { message: MessageType, field: &'static str, value: u64 },
}

impl DecodeError {
    /// Stable name: the same in SPEC.md, the test vectors, logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotALink { .. } => "not_a_link",
            Self::Magic { .. } => "magic",
            Self::TooLarge { .. } => "too_large",
            Self::UnknownType { .. } => "unknown_type",
            Self::FixedTooShort { .. } => "fixed_too_short",
            Self::FixedTooLong { .. } => "fixed_too_long",
            Self::Truncated { .. } => "truncated",
            Self::BadUtf8 { .. } => "bad_utf8",
            Self::BadEnum { .. } => "bad_enum",
        }
    }

    /// The rule that a FAULT about it names.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule::Malformed
    }
}
