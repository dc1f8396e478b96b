//! Bots that play the arena and check every frame they get. One thread drives thousands of them.

mod bot;
pub mod checker;
pub mod control;
pub mod event;
pub mod matches;
pub mod mischief;
pub mod report;
mod sequence;
mod swarm;
pub mod target;
pub mod timeline;
mod watch;
mod worlds;

pub use swarm::{Settings, run};

#[cfg(test)]
mod tests;
