//! The session machine in virtual time: real backend cores at the other end of links in memory, no socket and no
//! sleep. A test's name is a promise.

mod claims;
mod closing;
mod company;
mod drain;
mod failures;
mod found;
mod game;
mod invariants;
mod model;
mod property;
mod recovery;
mod resume;
mod riders;
mod rules;
mod seat;
mod sim;
mod slow_client;
mod world;
