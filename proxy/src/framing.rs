//! Bytes <-> frames. Pure: no I/O, nothing kept between calls, no allocation to cut.
//!
//! A frame is what travels on the link. A header or delimiter that is stripped from client bytes is made anew for
//! server frames; one that is kept travels inside the frame, and the backend writes it itself.

mod error;
mod length;
mod lines;
mod raw;
mod varint;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use error::{Fault, FramingError, Problem};
pub use length::LengthFraming;
pub use lines::LineFraming;
pub use raw::{DEFAULT_MAX_BYTES, MAX_BYTES_LIMIT, RawFraming};
pub use varint::VarintFraming;

/// How a service's byte stream is cut into frames. Made by [`RawFraming::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// A length field of fixed width.
    Length(LengthFraming),
    /// A LEB128 length, as protobuf's `writeDelimitedTo` makes it.
    Varint(VarintFraming),
    /// Frames that end with a delimiter.
    Lines(LineFraming),
}

/// One whole frame at the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The bytes of the input that travel on the link.
    pub frame: Range<usize>,
    /// Bytes of the input that are done with; at least 1.
    pub consumed: usize,
}

/// The family and its bound, for the log.
impl std::fmt::Display for Framing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self {
            Self::Length(_) => "length",
            Self::Varint(_) => "varint",
            Self::Lines(_) => "lines",
        };
        write!(f, "{family}(max_frame_bytes={})", self.max_frame_bytes())
    }
}

impl Framing {
    /// Cuts the first frame off client bytes; `None` if it isn't whole yet.
    ///
    /// # Errors
    /// The client's bytes can't be a frame, whatever follows. Too long a frame is refused as soon as it shows, before
    /// its body arrives.
    #[inline]
    pub fn cut(&self, bytes: &[u8]) -> Result<Option<Cut>, FramingError> {
        self.cut_resumed(bytes, 0)
    }

    /// As [`Framing::cut`], where an earlier call found no whole frame in the first `seen` of these bytes, so that a
    /// frame that arrives in small pieces isn't searched for its end from the start each time.
    ///
    /// # Errors
    /// As [`Framing::cut`].
    #[inline]
    pub fn cut_resumed(&self, bytes: &[u8], seen: usize) -> Result<Option<Cut>, FramingError> {
        let cut = match self {
            Self::Length(framing) => framing.cut(bytes),
            Self::Varint(framing) => framing.cut(bytes),
            Self::Lines(framing) => framing.cut(bytes, seen),
        };
        cut.map_err(FramingError::by_client)
    }

    /// Appends the client bytes of one server frame. On an error `out` is as it was.
    ///
    /// # Errors
    /// The backend's frame can't be written in this framing: too long, or (header or delimiter kept) not exactly one
    /// well-formed frame.
    #[inline]
    pub fn write(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
        let written = match self {
            Self::Length(framing) => framing.write(frame, out),
            Self::Varint(framing) => framing.write(frame, out),
            Self::Lines(framing) => framing.write(frame, out),
        };
        written.map_err(FramingError::by_backend)
    }

    /// The longest frame on the link; windows must hold one.
    #[must_use]
    pub fn max_frame_bytes(&self) -> usize {
        match self {
            Self::Length(framing) => framing.max_frame_bytes(),
            Self::Varint(framing) => framing.max_frame_bytes(),
            Self::Lines(framing) => framing.max_frame_bytes(),
        }
    }

    /// The longest frame on the client's side, header or delimiter included: no more than this is ever needed to
    /// cut one.
    #[must_use]
    pub fn max_wire_bytes(&self) -> usize {
        match self {
            Self::Length(framing) => framing.max_wire_bytes(),
            Self::Varint(framing) => framing.max_wire_bytes(),
            Self::Lines(framing) => framing.max_wire_bytes(),
        }
    }
}

/// A frame with its header or delimiter kept is passed on as it is, if it is exactly one.
fn write_whole(cut: Result<Option<Cut>, Problem>, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    match cut? {
        Some(cut) if cut.consumed == frame.len() => {
            out.extend_from_slice(frame);
            Ok(())
        }
        Some(cut) => Err(Problem::Surplus { frame_bytes: cut.consumed, got_bytes: frame.len() }),
        None => Err(Problem::Unfinished { got_bytes: frame.len() }),
    }
}
