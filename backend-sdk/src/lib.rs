//! Write a game server whose sessions survive its restarts.

mod context;
#[doc(hidden)]
pub mod core;
mod game;
#[cfg(feature = "plain")]
mod plain;
mod population;
mod server;
mod settings;
#[cfg(feature = "otlp")]
pub mod telemetry;
mod trace;

pub use context::Context;
pub use game::{Game, Opening, Refusal, Session, Tag};
pub use holdfast_protocol::{Epoch, SessionId, TraceContext};
#[doc(hidden)]
pub use population::Population;
pub use server::{Builder, Handle, ServeError, Server};
pub use settings::Settings;
