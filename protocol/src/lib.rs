//! The session link between a Holdfast proxy worker and a game backend: messages and their codec.
//!
//! A link is one byte stream (TCP or Unix socket) that carries many players' sessions. The proxy owns the players'
//! connections; the game behind it can be stopped, moved or replaced, because the link numbers every frame, names
//! every attachment by an epoch, and can carry a session's state from one game process to the next.
//!
//! - [`message`]: every message as a value; decoded ones borrow from the bytes they were read from.
//! - [`codec`]: values <-> bytes. No I/O, no clock; decoding allocates nothing, reads nothing beyond the message, and
//!   gives an error, never a panic, for any input.
//! - [`ids`]: sessions, instances, epochs and seqs, a type each.
//! - [`trace`]: the W3C trace context that every frame carries.
//!
//! `SPEC.md` beside this crate is normative, and enough to write a backend in another language; `vectors/` holds the
//! same bytes as JSON files. Both are checked against this code by its tests.
//!
//! ```
//! use holdfast_protocol::message::{Message, Ping};
//! use holdfast_protocol::{MAX_MESSAGE_BYTES, decode, encode};
//!
//! let mut bytes = Vec::new();
//! encode(&Message::Ping(Ping { nonce: 7 }), &mut bytes);
//! encode(&Message::Undrain, &mut bytes);
//!
//! let mut read = Vec::new();
//! let mut left = bytes.as_slice();
//! while let Some((message, taken)) = decode(left, MAX_MESSAGE_BYTES)? {
//!     read.push(message.type_name());
//!     left = &left[taken..];
//! }
//! assert_eq!(read, ["PING", "UNDRAIN"]);
//! # Ok::<(), holdfast_protocol::DecodeError>(())
//! ```
//!
//! The first message of a link is read with [`decode_first`], which tells a stray HTTP request from a peer; many frames
//! are written with [`encode_data`] into one buffer and leave in one write.

pub mod codec;
pub mod ids;
pub mod message;
pub mod trace;

pub use codec::{
    DATA_OVERHEAD_BYTES, DecodeError, HEADER_BYTES, MAGIC, MAX_MESSAGE_BYTES, PROTOCOL_VERSION,
    STATE_CHUNK_BYTES, STATE_OVERHEAD_BYTES, decode, decode_first, encode, encode_data, encode_data_head,
};
pub use ids::{Epoch, GroupId, InstanceId, Seq, SessionId};
pub use message::{AttachmentsBuf, Message, MessageType};
pub use trace::TraceContext;
