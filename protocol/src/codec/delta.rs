//! The bytes of a `delta` RECORD: server frames with their seqs, then the change of state, which only the game reads.
//!
//! Layout, little-endian: `u64` last server seq before its frames, 29 bytes trace context of its frames, `u32` count of
//! frames, for each `u32` length and the frame; then the change to the end.

use crate::ids::Seq;
use crate::trace::{TRACE_CONTEXT_BYTES, TraceContext};

const COUNT_AT: usize = 8 + TRACE_CONTEXT_BYTES;
const FRAMES_AT: usize = COUNT_AT + 4;

/// A change of state, with the server frames that go with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta<'a> {
    /// Last server seq before its frames; the first of them is the next.
    pub server_seq: Seq,
    pub trace: TraceContext,
    count: u32,
    frames: &'a [u8],
    pub change: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Reads a record's bytes; every length is checked here, so that the frames can be walked freely.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head: &[u8; FRAMES_AT] = bytes.first_chunk()?;
        let server_seq = Seq(u64::from_le_bytes(*head.first_chunk()?));
        let trace = TraceContext::from_bytes(head[8..COUNT_AT].first_chunk()?);
        let count = u32::from_le_bytes(*head[COUNT_AT..].first_chunk()?);
        let rest = &bytes[FRAMES_AT..];
        let mut at = 0;
        for _ in 0..count {
            at += 4 + frame_at(rest, at)?.len();
        }
        let (frames, change) = rest.split_at(at);
        Some(Self { server_seq, trace, count, frames, change })
    }

    /// How many server frames it carries.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The last server seq that it carries.
    #[must_use]
    pub fn last_server_seq(&self) -> Seq {
        Seq(self.server_seq.0.saturating_add(u64::from(self.count)))
    }

    /// Its server frames, in their order.
    pub fn frames(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (frames, mut at) = (self.frames, 0);
        std::iter::from_fn(move || {
            let frame = frame_at(frames, at)?;
            at += 4 + frame.len();
            Some(frame)
        })
    }
}

fn frame_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    bytes.get(at + 4..)?.get(..usize::try_from(length).ok()?)
}

/// Appends the bytes of a `delta` RECORD.
pub fn write_delta<'a>(
    server_seq: Seq,
    trace: &TraceContext,
    frames: impl ExactSizeIterator<Item = &'a [u8]>,
    change: &[u8],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&server_seq.0.to_le_bytes());
    out.extend_from_slice(&trace.to_bytes());
    out.extend_from_slice(&u32::try_from(frames.len()).unwrap_or(u32::MAX).to_le_bytes());
    for frame in frames {
        out.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(frame);
    }
    out.extend_from_slice(change);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delta_reads_back_as_written(seq in 0..u64::MAX / 2, frames: Vec<Vec<u8>>, change: Vec<u8>) {
            let trace = TraceContext { trace_id: [7; 16], span_id: [9; 8], sampled: true };
            let mut bytes = Vec::new();
            write_delta(Seq(seq), &trace, frames.iter().map(Vec::as_slice), &change, &mut bytes);
            let delta = Delta::parse(&bytes).unwrap();
            prop_assert_eq!(delta.server_seq, Seq(seq));
            prop_assert_eq!(delta.last_server_seq(), Seq(seq + frames.len() as u64));
            prop_assert_eq!(delta.trace, trace);
            prop_assert_eq!(delta.change, &change);
            prop_assert_eq!(delta.frames().map(<[u8]>::to_vec).collect::<Vec<_>>(), frames);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, cut in 0_usize..200) {
            let _ = Delta::parse(&bytes);
            let mut whole = Vec::new();
            let frames = [bytes.as_slice(), b"second"];
            write_delta(Seq(1), &TraceContext::NONE, frames.into_iter(), b"", &mut whole);
            let cut = cut.min(whole.len());
            prop_assert_eq!(Delta::parse(&whole[..cut]).is_some(), cut == whole.len());
        }
    }
}
