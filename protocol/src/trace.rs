//! A W3C trace context in 29 bytes, after the binary-format draft (<https://w3c.github.io/trace-context-binary/>):
//! version 0, then field 0 (trace id, 16 bytes), field 1 (parent span id, 8 bytes), field 2 (flags, 1 byte).
//!
//! A trace never costs a frame: bytes of another version or shape read as "none", not as an error.

use std::fmt;
use std::str::FromStr;

/// The trace of one frame, handoff or session. An all-zero trace id says "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    /// The span that the receiver's span is a child of.
    pub span_id: [u8; 8],
    pub sampled: bool,
}

/// Length of an encoded trace context in bytes.
pub const TRACE_CONTEXT_BYTES: usize = 29;

const VERSION: u8 = 0;
const FIELD_TRACE_ID: u8 = 0;
const FIELD_SPAN_ID: u8 = 1;
const FIELD_FLAGS: u8 = 2;
const SAMPLED: u8 = 1;

impl TraceContext {
    pub const NONE: Self = Self { trace_id: [0; 16], span_id: [0; 8], sampled: false };

    #[must_use]
    pub fn is_none(&self) -> bool {
        self.trace_id == [0; 16]
    }

    /// The binary form.
    #[must_use]
    #[inline]
    pub fn to_bytes(&self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        bytes[0] = VERSION;
        bytes[1] = FIELD_TRACE_ID;
        bytes[2..18].copy_from_slice(&self.trace_id);
        bytes[18] = FIELD_SPAN_ID;
        bytes[19..27].copy_from_slice(&self.span_id);
        bytes[27] = FIELD_FLAGS;
        bytes[28] = if self.sampled { SAMPLED } else { 0 };
        bytes
    }

    /// Reads the binary form; another version, order of fields or an all-zero trace id is [`Self::NONE`].
    #[must_use]
    #[inline]
    pub fn from_bytes(bytes: &[u8; TRACE_CONTEXT_BYTES]) -> Self {
        let shape = [bytes[0], bytes[1], bytes[18], bytes[27]];
        if shape != [VERSION, FIELD_TRACE_ID, FIELD_SPAN_ID, FIELD_FLAGS] {
            return Self::NONE;
        }
        let mut context = Self { sampled: bytes[28] & SAMPLED != 0, ..Self::NONE };
        context.trace_id.copy_from_slice(&bytes[2..18]);
        context.span_id.copy_from_slice(&bytes[19..27]);
        if context.is_none() { Self::NONE } else { context }
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent` header: `00-<trace id>-<span id>-<flags>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

/// A `traceparent` is `00-<32 hex>-<16 hex>-<2 hex>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, got {0:?}")]
pub struct ParseTraceError(pub String);

impl FromStr for TraceContext {
    type Err = ParseTraceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_traceparent(text).ok_or_else(|| ParseTraceError(text.to_owned()))
    }
}

fn parse_traceparent(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let version = parse_hex::<1>(parts.next()?)?;
    let trace_id = parse_hex(parts.next()?)?;
    let span_id = parse_hex(parts.next()?)?;
    let flags = parse_hex::<1>(parts.next()?)?;
    if version != [VERSION] || parts.next().is_some() {
        return None;
    }
    let context = TraceContext { trace_id, span_id, sampled: flags[0] & SAMPLED != 0 };
    Some(if context.is_none() { TraceContext::NONE } else { context })
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_survives_text_and_bytes() {
        let context: TraceContext = TEXT.parse().unwrap();
        assert_eq!(context.to_string(), TEXT);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), context);
        assert!(context.sampled);
    }

    #[test]
    fn a_trace_of_another_version_or_shape_is_none_and_not_an_error() {
        let good = TEXT.parse::<TraceContext>().unwrap().to_bytes();
        for index in [0, 1, 18, 27] {
            let mut bytes = good;
            bytes[index] ^= 0x40;
            assert_eq!(TraceContext::from_bytes(&bytes), TraceContext::NONE, "byte {index}");
        }
    }

    #[test]
    fn a_traceparent_of_another_shape_is_refused() {
        for text in ["", "00", &TEXT[1..], &TEXT.replacen("00-", "01-", 1), &TEXT.replace('a', "g")] {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
        assert!(format!("{TEXT}-00").parse::<TraceContext>().is_err());
        assert!("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse::<TraceContext>().is_err());
    }
}
