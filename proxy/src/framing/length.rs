//! Frames that begin with a length field of fixed width.
//!
//! The vocabulary is that of netty's `LengthFieldBasedFrameDecoder` and tokio-util's `LengthDelimitedCodec`. A frame
//! on the wire is `offset` bytes, the length field, and the rest; its whole size is the length read plus `base`.

use super::{Cut, Problem, write_whole};

/// A checked length-prefixed framing: no length that passes the range check can overflow anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthFraming {
    width: Width,
    order: Order,
    /// Bytes before the length field.
    offset: usize,
    keep_header: bool,
    /// Bytes up to the end of the length field.
    header_bytes: usize,
    /// Added to the length read gives the bytes of the whole frame on the wire.
    base: i64,
    /// The smallest length that covers the header, and the largest that `max_bytes` and the field's width allow.
    min_length: u64,
    max_length: u64,
}

/// Bytes of the length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    One,
    Two,
    Three,
    Four,
    Eight,
}

/// Byte order of the length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

/// What [`LengthFraming::new`] needs; each field is in its range already.
pub(super) struct LengthParts {
    pub width: Width,
    pub order: Order,
    pub offset: usize,
    /// The length counts the header too, not just what follows it.
    pub counts_all: bool,
    /// Added to the length before use.
    pub adjust: i64,
    pub keep_header: bool,
    pub max_bytes: usize,
}

impl LengthFraming {
    /// `None` if no frame at all fits into `max_bytes`.
    pub(super) fn new(parts: &LengthParts) -> Option<Self> {
        let header_bytes = parts.offset + parts.width.bytes();
        let max_total = if parts.keep_header { parts.max_bytes } else { parts.max_bytes + header_bytes };
        let counted = if parts.counts_all { 0 } else { i64::try_from(header_bytes).ok()? };
        let base = counted + parts.adjust;
        let min_length = (i64::try_from(header_bytes).ok()? - base).max(0).cast_unsigned();
        let max_length = u64::try_from(i64::try_from(max_total).ok()? - base).ok()?.min(parts.width.max());
        (min_length <= max_length).then_some(Self {
            width: parts.width,
            order: parts.order,
            offset: parts.offset,
            keep_header: parts.keep_header,
            header_bytes,
            base,
            min_length,
            max_length,
        })
    }

    #[inline]
    pub(super) fn cut(&self, bytes: &[u8]) -> Result<Option<Cut>, Problem> {
        let Some(length) = self.read_length(bytes) else { return Ok(None) };
        if length < self.min_length || length > self.max_length {
            return Err(self.out_of_range(length));
        }
        let total = self.total(length);
        if bytes.len() < total {
            return Ok(None);
        }
        let start = if self.keep_header { 0 } else { self.header_bytes };
        Ok(Some(Cut { frame: start..total, consumed: total }))
    }

    #[inline]
    pub(super) fn write(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.keep_header {
            return write_whole(self.cut(frame), frame, out);
        }
        let total = self.header_bytes as u64 + frame.len() as u64;
        let length = total.wrapping_sub(self.base.cast_unsigned());
        // A frame below the smallest wraps to a length above the largest: base is far below 2^63.
        if length < self.min_length || length > self.max_length {
            return Err(self.wrong_size(frame.len()));
        }
        self.write_length(length, out);
        out.extend_from_slice(frame);
        Ok(())
    }

    pub(super) fn max_frame_bytes(&self) -> usize {
        self.frame_bytes(self.max_length)
    }

    pub(super) fn max_wire_bytes(&self) -> usize {
        self.total(self.max_length)
    }

    /// Size on the wire of a frame whose length field holds `length`, which is in range.
    #[inline]
    fn total(&self, length: u64) -> usize {
        length.wrapping_add(self.base.cast_unsigned()) as usize
    }

    fn frame_bytes(&self, length: u64) -> usize {
        if self.keep_header { self.total(length) } else { self.total(length) - self.header_bytes }
    }

    #[inline]
    fn read_length(&self, bytes: &[u8]) -> Option<u64> {
        let field = bytes.get(self.offset..)?;
        Some(match (self.width, self.order) {
            (Width::One, _) => u64::from(*field.first()?),
            (Width::Two, Order::Big) => u64::from(u16::from_be_bytes(*field.first_chunk()?)),
            (Width::Two, Order::Little) => u64::from(u16::from_le_bytes(*field.first_chunk()?)),
            (Width::Three, order) => {
                let [a, b, c] = *field.first_chunk()?;
                u64::from(match order {
                    Order::Big => u32::from_be_bytes([0, a, b, c]),
                    Order::Little => u32::from_le_bytes([a, b, c, 0]),
                })
            }
            (Width::Four, Order::Big) => u64::from(u32::from_be_bytes(*field.first_chunk()?)),
            (Width::Four, Order::Little) => u64::from(u32::from_le_bytes(*field.first_chunk()?)),
            (Width::Eight, Order::Big) => u64::from_be_bytes(*field.first_chunk()?),
            (Width::Eight, Order::Little) => u64::from_le_bytes(*field.first_chunk()?),
        })
    }

    #[inline]
    fn write_length(&self, length: u64, out: &mut Vec<u8>) {
        let width = self.width.bytes();
        match self.order {
            Order::Big => out.extend_from_slice(&length.to_be_bytes()[8 - width..]),
            Order::Little => out.extend_from_slice(&length.to_le_bytes()[..width]),
        }
    }

    #[cold]
    fn out_of_range(&self, got: u64) -> Problem {
        Problem::Length { got, min: self.min_length, max: self.max_length }
    }

    #[cold]
    fn wrong_size(&self, got_bytes: usize) -> Problem {
        let (min_bytes, max_bytes) = (self.frame_bytes(self.min_length), self.max_frame_bytes());
        Problem::Size { got_bytes, min_bytes, max_bytes }
    }
}

impl Width {
    pub(super) fn from_bytes(bytes: u64) -> Option<Self> {
        Some(match bytes {
            1 => Self::One,
            2 => Self::Two,
            3 => Self::Three,
            4 => Self::Four,
            8 => Self::Eight,
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    fn max(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}
