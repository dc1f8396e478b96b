//! Bytes <-> frames. Pure: no I/O, nothing kept between calls.

/// How a service's byte stream is cut into frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing;
