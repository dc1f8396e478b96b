//! The session link between a Holdfast proxy worker and a game backend: messages and their codec.
//!
//! No I/O, no clock, no allocation on decode. `SPEC.md` beside this crate is the normative text; `vectors/` holds
//! the same bytes as files that another language can load.

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
