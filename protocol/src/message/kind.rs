//! Message types: their numbers, names and least lengths.

use super::Message;

/// A message's type: the fifth byte of its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum MessageType {
    Hello = 1,
    Welcome = 2,
    Attach = 3,
    Attached = 4,
    Refused = 5,
    Start = 6,
    Data = 7,
    Record = 8,
    Ack = 9,
    Freeze = 10,
    Thaw = 11,
    Release = 12,
    State = 13,
    Checkpoint = 14,
    Credit = 15,
    Join = 16,
    Drain = 17,
    Undrain = 18,
    Close = 19,
    Ping = 20,
    Pong = 21,
    Fault = 22,
}

impl MessageType {
    pub const ALL: [Self; 22] = [
        Self::Hello,
        Self::Welcome,
        Self::Attach,
        Self::Attached,
        Self::Refused,
        Self::Start,
        Self::Data,
        Self::Record,
        Self::Ack,
        Self::Freeze,
        Self::Thaw,
        Self::Release,
        Self::State,
        Self::Checkpoint,
        Self::Credit,
        Self::Join,
        Self::Drain,
        Self::Undrain,
        Self::Close,
        Self::Ping,
        Self::Pong,
        Self::Fault,
    ];

    #[must_use]
    #[inline]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }

    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// As SPEC.md, errors and logs write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Attach => "ATTACH",
            Self::Attached => "ATTACHED",
            Self::Refused => "REFUSED",
            Self::Start => "START",
            Self::Data => "DATA",
            Self::Record => "RECORD",
            Self::Ack => "ACK",
            Self::Freeze => "FREEZE",
            Self::Thaw => "THAW",
            Self::Release => "RELEASE",
            Self::State => "STATE",
            Self::Checkpoint => "CHECKPOINT",
            Self::Credit => "CREDIT",
            Self::Join => "JOIN",
            Self::Drain => "DRAIN",
            Self::Undrain => "UNDRAIN",
            Self::Close => "CLOSE",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Fault => "FAULT",
        }
    }

    /// Length of the fixed part as it is written; a later version's may be longer.
    #[must_use]
    #[inline]
    pub const fn fixed_bytes(self) -> usize {
        match self {
            Self::Hello => 54,
            Self::Welcome => 68,
            Self::Attach => 115,
            Self::Attached => 40,
            Self::Refused => 24,
            Self::Start => 24,
            Self::Data => 77,
            Self::Record => 57,
            Self::Ack => 40,
            Self::Freeze => 69,
            Self::Thaw => 89,
            Self::Release => 24,
            Self::State => 68,
            Self::Checkpoint => 32,
            Self::Credit => 32,
            Self::Join => 40,
            Self::Drain => 4,
            Self::Undrain => 0,
            Self::Close => 48,
            Self::Ping => 8,
            Self::Pong => 18,
            Self::Fault => 26,
        }
    }

    /// Shortest fixed part that is read: without the fields that a message got after its type was first used. They
    /// read as if their sender told nothing by them.
    #[must_use]
    #[inline]
    pub const fn least_fixed_bytes(self) -> usize {
        match self {
            Self::Pong => 12,
            other => other.fixed_bytes(),
        }
    }
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Message<'_> {
    #[must_use]
    #[inline]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::Hello,
            Self::Welcome(_) => MessageType::Welcome,
            Self::Attach(_) => MessageType::Attach,
            Self::Attached(_) => MessageType::Attached,
            Self::Refused(_) => MessageType::Refused,
            Self::Start(_) => MessageType::Start,
            Self::Data(_) => MessageType::Data,
            Self::Record(_) => MessageType::Record,
            Self::Ack(_) => MessageType::Ack,
            Self::Freeze(_) => MessageType::Freeze,
            Self::Thaw(_) => MessageType::Thaw,
            Self::Release(_) => MessageType::Release,
            Self::State(_) => MessageType::State,
            Self::Checkpoint(_) => MessageType::Checkpoint,
            Self::Credit(_) => MessageType::Credit,
            Self::Join(_) => MessageType::Join,
            Self::Drain(_) => MessageType::Drain,
            Self::Undrain => MessageType::Undrain,
            Self::Close(_) => MessageType::Close,
            Self::Ping(_) => MessageType::Ping,
            Self::Pong(_) => MessageType::Pong,
            Self::Fault(_) => MessageType::Fault,
        }
    }

    /// As SPEC.md, errors and logs write it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.message_type().name()
    }
}
