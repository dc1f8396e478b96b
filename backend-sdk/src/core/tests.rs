//! The core driven with messages, in virtual time.

mod bounds;
mod crashes;
mod ending;
mod groups;
mod links;
mod moving;
mod random;
mod replaying;
mod sessions;
mod traces;
mod world;
