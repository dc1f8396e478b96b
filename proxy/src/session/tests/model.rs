//! The session machine under a model checker: the machine itself, cloned and hashed, with two small backends by SPEC.md
//! section 15, every order of messages, and every place at which a bounded number of faults can strike.
//!
//! Each run explores all of its states; what it may contain is its [`Setup`]. `HOLDFAST_MODEL=deep` makes the bounds
//! larger.

mod acts;
mod attachment;
mod backend;
mod bound;
mod check;
mod effects;
mod game;
mod ghost;
mod handover;
mod judge;
mod liveness;
mod party;
mod queue;
mod runs;
mod world;
