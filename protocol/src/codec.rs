//! Messages <-> bytes.

use crate::message::Message;

/// Why bytes are not a message. All of these are faults of the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {}

/// Appends the message's bytes.
pub fn encode(_message: &Message<'_>, _out: &mut Vec<u8>) {}

/// Reads the message that `bytes` begins with and says how many bytes it took; `None` if it isn't whole yet.
///
/// # Errors
/// The bytes can't be a message, whatever follows.
pub fn decode(_bytes: &[u8], _max_bytes: usize) -> Result<Option<(Message<'_>, usize)>, DecodeError> {
    Ok(None)
}
