//! The session link between a Holdfast proxy worker and a game backend: messages and their codec.
//!
//! No I/O, no clock, no allocation on decode. `SPEC.md` beside this crate is the normative text; `vectors/` holds
//! the same bytes as files that another language can load.

pub mod codec;
pub mod ids;
pub mod message;
pub mod trace;

pub use codec::{DecodeError, decode, encode};
pub use ids::{Epoch, GroupId, InstanceId, Seq, SessionId};
pub use message::Message;
pub use trace::TraceContext;
