//! A small stateful game and its players: the pair that shows whether a proxy keeps its promises.
//!
//! `arena` keeps, for every player, a hash chain over each frame it has processed. `players` runs bots that
//! compute the same chain on their side and check each reply and tick against it, so that a frame lost, repeated
//! or put out of order in either direction can't hide. Players of a match share a world with a chain over the frames of
//! all of them, which each of them checks.

pub mod arena;
pub mod battle;
pub mod follow;
pub mod fullness;
pub mod hero;
pub mod mishaps;
pub mod players;
pub mod wire;
pub mod world;
