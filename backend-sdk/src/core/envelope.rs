//! The envelope: what the SDK adds to a game's snapshot, so that a STATE is all that a session needs.
//!
//! Layout, little-endian: `u32` magic, `u16` version, `u16` flags (1: the game
//! has asked for the end), `u64` inputs so far, `u32` count of unsent frames;
//! for each `u8` kind (0 data), `u32` length, 29 bytes trace context, the frame; then the game's snapshot to the end.

use holdfast_protocol::TraceContext;
use holdfast_protocol::trace::TRACE_CONTEXT_BYTES;

use super::frames::{Entry, Kind};

const MAGIC: u32 = u32::from_le_bytes(*b"HFEN");
const VERSION: u16 = 1;
const KIND_DATA: u8 = 0;
const FLAG_CLOSE: u16 = 1;

/// Why bytes are not an envelope. The state's writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("state envelope: {field} needs {expected} bytes, {left} are left")]
    Truncated { field: &'static str, expected: usize, left: usize },
    #[error("state envelope: {field} should be {expected}, is {got}")]
    Value { field: &'static str, expected: u64, got: u64 },
}

/// A parsed envelope.
#[derive(Debug, PartialEq)]
pub(crate) struct Envelope<'a> {
    pub inputs: u64,
    pub close: bool,
    pub unsent: Vec<(TraceContext, &'a [u8])>,
    pub snapshot: &'a [u8],
}

/// Writes an envelope. CLOSE is never unsent in a state: a closing session isn't frozen.
pub(crate) fn write<'a>(
    inputs: u64,
    close: bool,
    unsent: impl Iterator<Item = (Entry, &'a [u8])>,
    snapshot: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + snapshot.len());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(if close { FLAG_CLOSE } else { 0 }).to_le_bytes());
    bytes.extend_from_slice(&inputs.to_le_bytes());
    let count_at = bytes.len();
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    let mut count = 0_u32;
    for (entry, frame) in unsent {
        let Ok(length) = u32::try_from(frame.len()) else { continue };
        if entry.kind != Kind::Data {
            continue;
        }
        count += 1;
        bytes.push(KIND_DATA);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&entry.trace.to_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(snapshot);
    bytes
}

/// Reads an envelope, each length checked before it is used.
pub(crate) fn parse(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut reader = Reader { bytes };
    expect("magic", u64::from(MAGIC), u64::from(u32::from_le_bytes(reader.array("magic")?)))?;
    expect("version", u64::from(VERSION), u64::from(u16::from_le_bytes(reader.array("version")?)))?;
    let flags = u16::from_le_bytes(reader.array("flags")?);
    expect("flags", u64::from(flags & FLAG_CLOSE), u64::from(flags))?;
    let inputs = u64::from_le_bytes(reader.array("inputs")?);
    let count = u32::from_le_bytes(reader.array("count")?);
    let mut unsent = Vec::new();
    for _ in 0..count {
        let [kind] = reader.array("kind")?;
        expect("kind", u64::from(KIND_DATA), u64::from(kind))?;
        let length = u32::from_le_bytes(reader.array("length")?) as usize;
        let trace: [u8; TRACE_CONTEXT_BYTES] = reader.array("trace")?;
        unsent.push((TraceContext::from_bytes(&trace), reader.slice("frame", length)?));
    }
    Ok(Envelope { inputs, close: flags == FLAG_CLOSE, unsent, snapshot: reader.bytes })
}

fn expect(field: &'static str, expected: u64, got: u64) -> Result<(), EnvelopeError> {
    if got == expected { Ok(()) } else { Err(EnvelopeError::Value { field, expected, got }) }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn slice(&mut self, field: &'static str, expected: usize) -> Result<&'a [u8], EnvelopeError> {
        let left = self.bytes.len();
        let (slice, rest) = self.bytes.split_at_checked(expected).ok_or(EnvelopeError::Truncated {
            field,
            expected,
            left,
        })?;
        self.bytes = rest;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], EnvelopeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(field, N)?);
        Ok(array)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_envelope_reads_back_as_written(
            inputs: u64,
            close: bool,
            frames: Vec<Vec<u8>>,
            snapshot: Vec<u8>,
        ) {
            let trace = TraceContext { trace_id: [7; 16], span_id: [9; 8], sampled: true };
            let entries = frames.iter().map(|frame| {
                (Entry { kind: Kind::Data, bytes: frame.len(), trace }, frame.as_slice())
            });
            let bytes = write(inputs, close, entries, &snapshot);
            let envelope = parse(&bytes).unwrap();
            prop_assert_eq!(envelope.inputs, inputs);
            prop_assert_eq!(envelope.close, close);
            prop_assert_eq!(envelope.snapshot, &snapshot);
            let unsent: Vec<_> = envelope.unsent.iter().map(|(_, frame)| frame.to_vec()).collect();
            prop_assert_eq!(unsent, frames);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, cut in 0_usize..64) {
            let _ = parse(&bytes);
            let whole = write(3, false, std::iter::empty(), &bytes);
            let cut = cut.min(whole.len());
            let parsed = parse(&whole[..cut]);
            prop_assert_eq!(parsed.is_ok(), cut >= 20);
        }
    }

    #[test]
    fn an_envelope_of_another_version_is_refused_by_name() {
        let mut bytes = write(1, false, std::iter::empty(), b"x");
        bytes[4] = 2;
        let error = parse(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "state envelope: version should be 1, is 2");
    }
}
