//! Holdfast, the sidecar: it owns the players' connections, so that backends may come and go.
//!
//! Dependencies point one way: main -> {admin, worker, source, drain} -> session, routing, framing -> config, protocol.

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod drain;
pub mod events;
pub mod framing;
pub mod health;
pub mod hooks;
pub mod reference;
pub mod rollout;
pub mod routing;
pub mod run;
pub mod session;
pub mod source;
pub mod telemetry;
pub mod worker;
