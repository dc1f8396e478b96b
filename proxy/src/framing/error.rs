//! Why bytes are not a frame, and whose fault that is.

use std::fmt;

/// Bytes that break the service's framing: the session they are of ends, nothing else is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad frame from the {fault}: {problem}")]
pub struct FramingError {
    pub fault: Fault,
    pub problem: Problem,
}

/// Who wrote the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Client,
    Backend,
}

/// Which rule the bytes break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("got {got} in the length field, expected {min} to {max}")]
    Length { got: u64, min: u64, max: u64 },
    #[error("got a varint length of more than {max_bytes} bytes, expected at most {max_bytes} bytes")]
    VarintTooLong { max_bytes: usize },
    #[error("got a frame of {got_bytes} bytes, expected {min_bytes} to {max_bytes}")]
    Size { got_bytes: usize, min_bytes: usize, max_bytes: usize },
    #[error("got {got_bytes} bytes without a delimiter, expected one after at most {max_bytes}")]
    NoDelimiter { got_bytes: usize, max_bytes: usize },
    #[error(
        "got a delimiter inside the frame, or one that its end would make with the one added, expected none"
    )]
    DelimiterInside,
    #[error("got a frame that ends in \\r, expected none: strip_cr is set, so it would be lost")]
    TrailingCr,
    #[error("got {got_bytes} bytes that begin with a frame of {frame_bytes}, expected exactly one frame")]
    Surplus { frame_bytes: usize, got_bytes: usize },
    #[error("got {got_bytes} bytes, which is only a part of a frame, expected exactly one whole frame")]
    Unfinished { got_bytes: usize },
}

impl FramingError {
    #[cold]
    pub(super) fn by_client(problem: Problem) -> Self {
        Self { fault: Fault::Client, problem }
    }

    #[cold]
    pub(super) fn by_backend(problem: Problem) -> Self {
        Self { fault: Fault::Backend, problem }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Backend => "backend",
        })
    }
}
