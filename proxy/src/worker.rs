//! A core's runtime: accepts clients, reads and writes sockets, speaks links; drives the sessions on it.

pub mod command;
