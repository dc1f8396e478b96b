//! Messages <-> bytes. Layouts are in SPEC.md; this module and its children are the only place that knows them.
//!
//! A message is an 8-byte header (`u32` length of what follows, `u8` type, `u8` flags, `u16` length of the fixed
//! part), the fixed part, the variable part; all little-endian. Decoding borrows, never allocates, never panics and
//! never looks beyond the message's own bytes.

pub mod addressed;
pub mod capability;
pub mod delta;

mod error;
mod flags;
mod header;
mod read;
mod write;

pub use error::DecodeError;
pub use write::{encode, encode_data, encode_data_head};

use crate::message::{Message, MessageType};
use header::Header;

/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// First 8 bytes of the fixed part of HELLO and WELCOME.
pub const MAGIC: [u8; 8] = *b"HOLDFAST";

/// PONG's `load_permille` of who tells none.
const NOT_TOLD: u16 = u16::MAX;

/// Length of a message's header.
pub const HEADER_BYTES: usize = 8;

/// A sane bound for a whole message, header included: a 16 MiB frame, and room for the rest.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Largest piece of state in one STATE message.
pub const STATE_CHUNK_BYTES: usize = 16 * 1024;

/// What DATA adds to the frame that it carries.
pub const DATA_OVERHEAD_BYTES: usize = HEADER_BYTES + MessageType::Data.fixed_bytes();

/// What STATE adds to the chunk that it carries.
pub const STATE_OVERHEAD_BYTES: usize = HEADER_BYTES + MessageType::State.fixed_bytes();

/// Reads the message that `bytes` begins with and says how many bytes it took; `None` if it isn't whole yet.
/// `max_bytes` bounds a whole message, header included, and is checked as soon as the header is there.
///
/// # Errors
/// The bytes can't be a message, whatever follows: the link's fault. See [`DecodeError`].
#[inline]
pub fn decode(bytes: &[u8], max_bytes: usize) -> Result<Option<(Message<'_>, usize)>, DecodeError> {
    let Some(header) = Header::read(bytes, max_bytes)? else { return Ok(None) };
    if matches!(header.message_type, MessageType::Hello | MessageType::Welcome) {
        header::check_magic(&bytes[HEADER_BYTES..], header.message_type)?;
    }
    let Some(body) = bytes.get(HEADER_BYTES..header.total_bytes()) else { return Ok(None) };
    let (fixed, variable) = body.split_at(header.fixed_bytes);
    read::read(&header, fixed, variable).map(|message| Some((message, header.total_bytes())))
}

/// As [`decode`], for the first message of a link: anything but HELLO or WELCOME is told apart as "not a link" as
/// soon as 8 bytes are there, so that a stray HTTP request gets a clear answer.
///
/// # Errors
/// [`DecodeError::NotALink`], or what [`decode`] says.
pub fn decode_first(bytes: &[u8], max_bytes: usize) -> Result<Option<(Message<'_>, usize)>, DecodeError> {
    if let Some(head) = bytes.first_chunk::<HEADER_BYTES>() {
        let message_type = MessageType::from_number(head[4]);
        if !matches!(message_type, Some(MessageType::Hello | MessageType::Welcome)) {
            return Err(DecodeError::NotALink { head: *head });
        }
    }
    decode(bytes, max_bytes)
}
