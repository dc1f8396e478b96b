//! The rules that a peer can break, and their numbers on the link.

/// The rules that a peer can break, by number. Unknown numbers decode as `Other`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Rule {
    /// The bytes are not a message.
    Malformed,
    /// No common protocol version.
    Version,
    /// The message isn't allowed before HELLO/WELCOME, or after.
    Handshake,
    /// A message of this type may not come from this side, or not in this phase.
    Unexpected,
    /// A sequence number isn't the next one.
    OutOfSequence,
    /// An ack beyond what was sent.
    AckBeyondSent,
    /// More bytes in flight than the window.
    WindowExceeded,
    /// A frame over the limit.
    FrameTooLarge,
    /// STATE bytes without credit, beyond the total, or out of place.
    StateOverrun,
    /// A state for a session that isn't frozen and wasn't asked for a checkpoint.
    StateUnasked,
    /// Two ATTACHED for one ATTACH or THAW.
    AttachedTwice,
    /// Live frames before START.
    LiveBeforeStart,
    /// A group that the sender doesn't own, or that spans several proxies.
    Group,
    /// The game's handler failed (a panic).
    Handler,
    /// The proof of the shared secret is missing or wrong.
    Secret,
    /// The service in HELLO isn't the one this backend serves.
    Service,
    /// Replay differs from what was recorded.
    Diverged,
    Other(u16),
}

impl Rule {
    /// Every rule that has a number in this version.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Version,
        Self::Handshake,
        Self::Unexpected,
        Self::OutOfSequence,
        Self::AckBeyondSent,
        Self::WindowExceeded,
        Self::FrameTooLarge,
        Self::StateOverrun,
        Self::StateUnasked,
        Self::AttachedTwice,
        Self::LiveBeforeStart,
        Self::Group,
        Self::Handler,
        Self::Secret,
        Self::Service,
        Self::Diverged,
    ];

    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Malformed => 1,
            Self::Version => 2,
            Self::Handshake => 3,
            Self::Unexpected => 4,
            Self::OutOfSequence => 5,
            Self::AckBeyondSent => 6,
            Self::WindowExceeded => 7,
            Self::FrameTooLarge => 8,
            Self::StateOverrun => 9,
            Self::StateUnasked => 10,
            Self::AttachedTwice => 11,
            Self::LiveBeforeStart => 12,
            Self::Group => 13,
            Self::Handler => 14,
            Self::Secret => 15,
            Self::Service => 16,
            Self::Diverged => 17,
            Self::Other(number) => number,
        }
    }

    #[must_use]
    pub fn from_number(number: u16) -> Self {
        Self::ALL.into_iter().find(|rule| rule.number() == number).unwrap_or(Self::Other(number))
    }

    /// Stable name, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Handshake => "handshake",
            Self::Unexpected => "unexpected",
            Self::OutOfSequence => "out_of_sequence",
            Self::AckBeyondSent => "ack_beyond_sent",
            Self::WindowExceeded => "window_exceeded",
            Self::FrameTooLarge => "frame_too_large",
            Self::StateOverrun => "state_overrun",
            Self::StateUnasked => "state_unasked",
            Self::AttachedTwice => "attached_twice",
            Self::LiveBeforeStart => "live_before_start",
            Self::Group => "group",
            Self::Handler => "handler",
            Self::Secret => "secret",
            Self::Service => "service",
            Self::Diverged => "diverged",
            Self::Other(_) => "other",
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(number) => write!(f, "rule {number}"),
            named => f.write_str(named.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_number_of_its_own_and_an_unknown_one_survives() {
        for (index, rule) in Rule::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(rule.number()), index + 1, "{rule}");
            assert_eq!(Rule::from_number(rule.number()), rule);
        }
        for number in [0, Rule::ALL.len() as u16 + 1, u16::MAX] {
            assert_eq!(Rule::from_number(number), Rule::Other(number));
            assert_eq!(Rule::Other(number).number(), number);
        }
    }
}
