//! Write a game server whose sessions survive its restarts.

mod context;
mod game;
mod server;
#[cfg(feature = "otlp")]
pub mod telemetry;

pub use context::Context;
pub use game::{Game, Opening, Refusal, Session, Tag};
pub use holdfast_protocol::{Epoch, SessionId, TraceContext};
pub use server::{Builder, ServeError, Server};
