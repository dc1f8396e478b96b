//! A way to a server that can be cut and mended.

pub use holdfast_stage::Forwarder;
