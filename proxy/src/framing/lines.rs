//! Frames that end with a delimiter.

use super::{Cut, Problem, write_whole};

/// A checked delimited framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFraming {
    /// Not empty.
    delimiter: Box<[u8]>,
    keep_delimiter: bool,
    /// Drop one `\r` before the delimiter. Never together with `keep_delimiter`.
    strip_cr: bool,
    max_bytes: usize,
}

impl LineFraming {
    pub(super) fn new(delimiter: &[u8], keep_delimiter: bool, strip_cr: bool, max_bytes: usize) -> Self {
        Self { delimiter: delimiter.into(), keep_delimiter, strip_cr, max_bytes }
    }

    #[inline]
    pub(super) fn cut(&self, bytes: &[u8], seen: usize) -> Result<Option<Cut>, Problem> {
        // A delimiter may have begun in the last bytes that were seen.
        let from = seen.min(bytes.len()).saturating_sub(self.delimiter.len() - 1);
        let window = &bytes[..bytes.len().min(self.max_wire_bytes())];
        let Some(at) = self.find(window, from) else {
            if bytes.len() >= self.max_wire_bytes() {
                return Err(Problem::NoDelimiter {
                    got_bytes: bytes.len(),
                    max_bytes: self.max_content_bytes(),
                });
            }
            return Ok(None);
        };
        let consumed = at + self.delimiter.len();
        let end = match self.keep_delimiter {
            true => consumed,
            false if self.strip_cr && bytes[..at].ends_with(b"\r") => at - 1,
            false => at,
        };
        // Only a line without the `\r` that the window leaves room for can be longer here.
        if end > self.max_bytes {
            return Err(Problem::Size { got_bytes: end, min_bytes: 0, max_bytes: self.max_bytes });
        }
        Ok(Some(Cut { frame: 0..end, consumed }))
    }

    pub(super) fn write(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.keep_delimiter {
            return write_whole(self.cut(frame, 0), frame, out);
        }
        if frame.len() > self.max_bytes {
            return Err(Problem::Size { got_bytes: frame.len(), min_bytes: 0, max_bytes: self.max_bytes });
        }
        if self.strip_cr && frame.ends_with(b"\r") {
            return Err(Problem::TrailingCr);
        }
        let start = out.len();
        out.extend_from_slice(frame);
        out.extend_from_slice(&self.delimiter);
        // The frame's end and the delimiter may make one together: "a" before "aa".
        if self.find(&out[start..], 0) != Some(frame.len()) {
            out.truncate(start);
            return Err(Problem::DelimiterInside);
        }
        Ok(())
    }

    pub(super) fn max_frame_bytes(&self) -> usize {
        self.max_bytes
    }

    #[inline]
    pub(super) fn max_wire_bytes(&self) -> usize {
        if self.keep_delimiter {
            self.max_bytes
        } else {
            self.max_bytes + usize::from(self.strip_cr) + self.delimiter.len()
        }
    }

    fn max_content_bytes(&self) -> usize {
        self.max_wire_bytes() - self.delimiter.len()
    }

    /// Where the first delimiter begins, at `from` or later.
    #[inline]
    fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let (&first, rest) = self.delimiter.split_first()?;
        let mut from = from;
        loop {
            let at = from + memchr::memchr(first, bytes.get(from..)?)?;
            if bytes[at + 1..].starts_with(rest) {
                return Some(at);
            }
            from = at + 1;
        }
    }
}
