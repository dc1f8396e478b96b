//! The 8 bytes that every message begins with.

use super::{DecodeError, HEADER_BYTES, MAGIC};
use crate::message::MessageType;

/// A header that has been checked: the fixed part is whole, lies in the body, and the body is within bounds.
pub struct Header {
    pub message_type: MessageType,
    pub flags: u8,
    pub fixed_bytes: usize,
    pub body_bytes: usize,
}

impl Header {
    #[inline]
    pub fn read(bytes: &[u8], max_bytes: usize) -> Result<Option<Self>, DecodeError> {
        let Some(&[l0, l1, l2, l3, number, flags, f0, f1]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let Some(message_type) = MessageType::from_number(number) else {
            return Err(DecodeError::UnknownType { number, flags, length });
        };
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let fixed_bytes = usize::from(u16::from_le_bytes([f0, f1]));
        let header = Self { message_type, flags, fixed_bytes, body_bytes };
        header.check(max_bytes).map(|()| Some(header))
    }

    #[inline]
    fn check(&self, max_bytes: usize) -> Result<(), DecodeError> {
        let (message, fixed, body) = (self.message_type, self.fixed_bytes, self.body_bytes);
        let length = self.total_bytes();
        if length > max_bytes {
            return Err(DecodeError::TooLarge { message, length, max: max_bytes });
        }
        if fixed < message.least_fixed_bytes() {
            let expected = message.least_fixed_bytes();
            return Err(DecodeError::FixedTooShort { message, expected, got: fixed });
        }
        if fixed > body {
            return Err(DecodeError::FixedTooLong { message, fixed, body });
        }
        Ok(())
    }

    #[inline]
    pub fn total_bytes(&self) -> usize {
        self.body_bytes.saturating_add(HEADER_BYTES)
    }

    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Checks the magic as soon as it is there, before the message is whole.
pub fn check_magic(body: &[u8], message: MessageType) -> Result<(), DecodeError> {
    match body.first_chunk() {
        Some(&got) if got != MAGIC => Err(DecodeError::Magic { message, got }),
        _ => Ok(()),
    }
}
