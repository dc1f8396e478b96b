//! Frames that begin with their length as a LEB128 varint, as protobuf's `writeDelimitedTo` makes it.
//!
//! Like protobuf's own readers this takes a length of up to five bytes, also one that could be shorter.

use super::{Cut, Problem, write_whole};

/// Bytes of the longest varint that is read: what 32 bits need.
const MAX_LENGTH_BYTES: usize = 5;

/// A checked varint framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarintFraming {
    keep_header: bool,
    max_bytes: usize,
}

/// What stands at the front of the input.
enum Header {
    Whole {
        length: usize,
        header_bytes: usize,
    },
    /// Not all of it is there; the length is this or more.
    Partial {
        length: usize,
    },
}

impl VarintFraming {
    pub(super) fn new(max_bytes: usize, keep_header: bool) -> Self {
        Self { keep_header, max_bytes }
    }

    #[inline]
    pub(super) fn cut(&self, bytes: &[u8]) -> Result<Option<Cut>, Problem> {
        let (length, header_bytes) = match read_header(bytes)? {
            Header::Whole { length, header_bytes } => (length, header_bytes),
            Header::Partial { length } => {
                self.check_size(length, bytes.len())?;
                return Ok(None);
            }
        };
        self.check_size(length, header_bytes)?;
        let total = header_bytes + length;
        if bytes.len() < total {
            return Ok(None);
        }
        let start = if self.keep_header { 0 } else { header_bytes };
        Ok(Some(Cut { frame: start..total, consumed: total }))
    }

    #[inline]
    pub(super) fn write(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.keep_header {
            return write_whole(self.cut(frame), frame, out);
        }
        if frame.len() > self.max_bytes {
            return Err(Problem::Size { got_bytes: frame.len(), min_bytes: 0, max_bytes: self.max_bytes });
        }
        let mut rest = frame.len();
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out.extend_from_slice(frame);
        Ok(())
    }

    pub(super) fn max_frame_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn max_wire_bytes(&self) -> usize {
        if self.keep_header { self.max_bytes } else { self.max_bytes + MAX_LENGTH_BYTES }
    }

    /// A kept header is part of the frame, and of its bound.
    #[inline]
    fn check_size(&self, length: usize, header_bytes: usize) -> Result<(), Problem> {
        let kept_bytes = if self.keep_header { header_bytes } else { 0 };
        let max = self.max_bytes.saturating_sub(kept_bytes);
        if length > max {
            return Err(Problem::Length { got: length as u64, min: 0, max: max as u64 });
        }
        Ok(())
    }
}

#[inline]
fn read_header(bytes: &[u8]) -> Result<Header, Problem> {
    let mut length = 0usize;
    for (index, &byte) in bytes.iter().take(MAX_LENGTH_BYTES).enumerate() {
        // At most 35 bits: more than 32 only where usize has 64, and far above any bound.
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Header::Whole { length, header_bytes: index + 1 });
        }
    }
    if bytes.len() >= MAX_LENGTH_BYTES {
        return Err(Problem::VarintTooLong { max_bytes: MAX_LENGTH_BYTES });
    }
    Ok(Header::Partial { length })
}
