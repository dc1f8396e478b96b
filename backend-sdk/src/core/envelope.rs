//! The envelope: what the SDK adds to a game's snapshot, so that a STATE is all that a session needs.
//!
//! Layout, little-endian: `u32` magic, `u16` version, `u16` flags (1: the game has asked for the end; 2: it has been told
//! of it), `u64` inputs so far, `u64` random state, `u64` work numbered so far by handlers, `u64` and by `open`, `u64`
//! time in nanoseconds; `u32` count of unfinished work, for each `u64` ordinal, `u64` tag; `u32` count of unsent frames,
//! for each `u8` kind (0 data), `u32` length, 29 bytes trace context, the frame; by flag: (4) the group it wants to be in,
//! 16 bytes; (8) the group that refused it, of which it is to be told, 16 bytes, `u16` length and the reason; (16) `u16`
//! length and name of the snapshot's format, where it isn't that of the state's writer; then the game's snapshot to the
//! end. Of a group, the snapshot begins with its members.

use std::time::SystemTime;

use holdfast_protocol::trace::TRACE_CONTEXT_BYTES;
use holdfast_protocol::{GroupId, TraceContext};

use super::bytes::{BytesError, Reader, expect, nanos_of};
use super::jobs::Ordinals;
use crate::game::Tag;

const MAGIC: u32 = u32::from_le_bytes(*b"HFEN");
const VERSION: u16 = 2;
const KIND_DATA: u8 = 0;
const FLAG_CLOSE: u16 = 1;
const FLAG_CLOSED: u16 = 2;
const FLAG_WISH: u16 = 4;
const FLAG_REFUSED: u16 = 8;
const FLAG_FORMAT: u16 = 16;
const FLAGS: u16 = FLAG_CLOSE | FLAG_CLOSED | FLAG_WISH | FLAG_REFUSED | FLAG_FORMAT;

/// The shortest envelope.
pub(crate) const MIN_BYTES: usize = 56;

/// Why bytes are not an envelope. The state's writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state envelope: {0}")]
pub struct EnvelopeError(#[from] pub BytesError);

/// What the SDK keeps of a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keep {
    pub inputs: u64,
    pub random: u64,
    pub ordinals: Ordinals,
    /// When the snapshot was taken; of a session that is ending: the time of the input that ended it.
    pub time: SystemTime,
    pub close: bool,
    pub closed: bool,
    /// Ordinals and tags of work that isn't finished.
    pub work: Vec<(u64, Tag)>,
    /// The group that it wants to be in.
    pub wish: Option<GroupId>,
    /// A group that refused it, and why: the game hasn't been told.
    pub refused: Option<(GroupId, String)>,
    /// The format of the snapshot, if it isn't that of the state's writer.
    pub format: Option<String>,
}

impl Keep {
    /// Of a session that has done nothing yet.
    pub fn at(time: SystemTime) -> Self {
        Self {
            inputs: 0,
            random: 0,
            ordinals: Ordinals::default(),
            time,
            close: false,
            closed: false,
            work: Vec::new(),
            wish: None,
            refused: None,
            format: None,
        }
    }

    fn flags(&self) -> u16 {
        let flag = |is: bool, flag: u16| if is { flag } else { 0 };
        flag(self.close, FLAG_CLOSE)
            | flag(self.closed, FLAG_CLOSED)
            | flag(self.wish.is_some(), FLAG_WISH)
            | flag(self.refused.is_some(), FLAG_REFUSED)
            | flag(self.format.is_some(), FLAG_FORMAT)
    }
}

/// A parsed envelope.
#[derive(Debug, PartialEq)]
pub(crate) struct Envelope<'a> {
    pub keep: Keep,
    pub unsent: Vec<(TraceContext, &'a [u8])>,
    pub snapshot: &'a [u8],
}

/// Writes an envelope. CLOSE is never unsent in a state: a closing session isn't frozen.
pub(crate) fn write<'a>(
    keep: &Keep,
    unsent: impl Iterator<Item = (TraceContext, &'a [u8])>,
    snapshot: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MIN_BYTES + snapshot.len());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&keep.flags().to_le_bytes());
    let Ordinals { handlers, opens } = keep.ordinals;
    for number in [keep.inputs, keep.random, handlers, opens, nanos_of(keep.time)] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&u32::try_from(keep.work.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (ordinal, tag) in &keep.work {
        bytes.extend_from_slice(&ordinal.to_le_bytes());
        bytes.extend_from_slice(&tag.0.to_le_bytes());
    }
    let count_at = bytes.len();
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    let mut count = 0_u32;
    for (trace, frame) in unsent {
        let Ok(length) = u32::try_from(frame.len()) else { continue };
        count += 1;
        bytes.push(KIND_DATA);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&trace.to_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(keep.wish.as_ref().map_or(&[], |group| group.0.as_slice()));
    if let Some((group, reason)) = &keep.refused {
        bytes.extend_from_slice(&group.0);
        write_text(reason, &mut bytes);
    }
    keep.format.iter().for_each(|format| write_text(format, &mut bytes));
    bytes.extend_from_slice(snapshot);
    bytes
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    out.extend_from_slice(&u16::try_from(end).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn read_text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, BytesError> {
    let length = reader.u16(field)?;
    // Read by people; a build that wrote something else is no reason to lose the session.
    Ok(String::from_utf8_lossy(reader.slice(field, usize::from(length))?).into_owned())
}

/// Reads an envelope, each length checked before it is used.
pub(crate) fn parse(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut reader = Reader { rest: bytes };
    expect("magic", u64::from(MAGIC), u64::from(reader.u32("magic")?))?;
    expect("version", u64::from(VERSION), u64::from(reader.u16("version")?))?;
    let flags = reader.u16("flags")?;
    expect("flags", u64::from(flags & FLAGS), u64::from(flags))?;
    let (inputs, random) = (reader.u64("inputs")?, reader.u64("random")?);
    let ordinals = Ordinals { handlers: reader.u64("handlers' work")?, opens: reader.u64("openings' work")? };
    let time = reader.time("time")?;
    let mut work = Vec::new();
    for _ in 0..reader.u32("count of work")? {
        work.push((reader.u64("ordinal")?, Tag(reader.u64("tag")?)));
    }
    let count = reader.u32("count of frames")?;
    let mut unsent = Vec::new();
    for _ in 0..count {
        expect("kind", u64::from(KIND_DATA), u64::from(reader.u8("kind")?))?;
        let length = reader.u32("length")? as usize;
        let trace: [u8; TRACE_CONTEXT_BYTES] = reader.array("trace")?;
        unsent.push((TraceContext::from_bytes(&trace), reader.slice("frame", length)?));
    }
    let (close, closed) = (flags & FLAG_CLOSE != 0, flags & FLAG_CLOSED != 0);
    let has = |flag: u16| flags & flag != 0;
    let wish = if has(FLAG_WISH) { Some(GroupId(reader.array("group")?)) } else { None };
    let refused = if has(FLAG_REFUSED) {
        Some((GroupId(reader.array("group that refused")?), read_text(&mut reader, "reason")?))
    } else {
        None
    };
    let format = if has(FLAG_FORMAT) { Some(read_text(&mut reader, "format")?) } else { None };
    let keep = Keep { inputs, random, ordinals, time, close, closed, work, wish, refused, format };
    Ok(Envelope { keep, unsent, snapshot: reader.rest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bytes::time_of;
    use super::*;

    fn keep(numbers: [u64; 5], close: bool, work: &[(u64, u64)]) -> Keep {
        let [inputs, random, handlers, opens, nanos] = numbers;
        let work = work.iter().map(|&(ordinal, tag)| (ordinal, Tag(tag))).collect();
        let (ordinals, time) = (Ordinals { handlers, opens }, time_of(nanos));
        let group = GroupId([inputs as u8; 16]);
        let (wish, refused) = (close.then_some(group), (inputs % 2 == 1).then(|| (group, "full".into())));
        let format = (random % 2 == 1).then(|| "arena-1".into());
        Keep { inputs, random, ordinals, time, close, closed: close, work, wish, refused, format }
    }

    proptest! {
        #[test]
        fn an_envelope_reads_back_as_written(
            numbers: [u64; 5],
            close: bool,
            work: Vec<(u64, u64)>,
            frames: Vec<Vec<u8>>,
            snapshot: Vec<u8>,
        ) {
            let trace = TraceContext { trace_id: [7; 16], span_id: [9; 8], sampled: true };
            let entries = frames.iter().map(|frame| (trace, frame.as_slice()));
            let keep = keep(numbers, close, &work);
            let bytes = write(&keep, entries, &snapshot);
            let envelope = parse(&bytes).unwrap();
            prop_assert_eq!(envelope.keep, keep);
            prop_assert_eq!(envelope.snapshot, &snapshot);
            let unsent: Vec<_> = envelope.unsent.iter().map(|(_, frame)| frame.to_vec()).collect();
            prop_assert_eq!(unsent, frames);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, cut in 0_usize..100) {
            let _ = parse(&bytes);
            let whole = write(&keep([4; 5], false, &[]), std::iter::empty(), &bytes);
            let cut = cut.min(whole.len());
            let parsed = parse(&whole[..cut]);
            prop_assert_eq!(parsed.is_ok(), cut >= MIN_BYTES);
        }
    }

    #[test]
    fn an_envelope_of_another_version_is_refused_by_name() {
        let mut bytes = write(&keep([4; 5], false, &[]), std::iter::empty(), b"x");
        bytes[4] = 1;
        let error = parse(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "state envelope: version should be 2, is 1");
    }
}
