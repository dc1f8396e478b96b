//! The group machine under the model checker: two players, of whom one is in a group from the start and the other boards
//! and leaves again when its game says so; the group, two backends, two links. Everything of [`super`] that can happen to
//! a session can happen to each of the three. The level is `none`: a crash ends the group, and its members begin anew.

mod actor;
mod acts;
mod backend;
mod check;
mod effects;
mod judge;
mod runs;
mod world;
