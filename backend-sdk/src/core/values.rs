//! What records of kinds `values` and `input` say. The proxy doesn't read them.
//!
//! Layout, little-endian: `u8` version, `u8` what (0 the time alone, 1 a timer, 2 finished work), `u64` time in
//! nanoseconds of Unix time; of a timer: `u64` tag; of work: `u64` tag, `u64` ordinal, then the result to the end; of a
//! refused wish (what is 3): the group, then the reason to the end.

use std::time::SystemTime;

use holdfast_protocol::GroupId;

use super::bytes::{BytesError, Reader, expect, nanos_of};
use crate::game::Tag;

const VERSION: u8 = 1;
const TIME: u8 = 0;
const TIMER: u8 = 1;
const FINISHED: u8 = 2;
const JOIN_REFUSED: u8 = 3;

/// A record, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded<'a> {
    Time,
    Timer(Tag),
    Finished { tag: Tag, ordinal: u64, result: &'a [u8] },
    JoinRefused { group: GroupId, reason: &'a str },
}

pub(crate) fn write(time: SystemTime, recorded: Recorded<'_>, out: &mut Vec<u8>) {
    let what = match recorded {
        Recorded::Time => TIME,
        Recorded::Timer(_) => TIMER,
        Recorded::Finished { .. } => FINISHED,
        Recorded::JoinRefused { .. } => JOIN_REFUSED,
    };
    out.extend_from_slice(&[VERSION, what]);
    out.extend_from_slice(&nanos_of(time).to_le_bytes());
    match recorded {
        Recorded::Time => {}
        Recorded::Timer(tag) => out.extend_from_slice(&tag.0.to_le_bytes()),
        Recorded::Finished { tag, ordinal, result } => {
            out.extend_from_slice(&tag.0.to_le_bytes());
            out.extend_from_slice(&ordinal.to_le_bytes());
            out.extend_from_slice(result);
        }
        Recorded::JoinRefused { group, reason } => {
            out.extend_from_slice(&group.0);
            out.extend_from_slice(reason.as_bytes());
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Result<(SystemTime, Recorded<'_>), BytesError> {
    let mut reader = Reader { rest: bytes };
    expect("version", u64::from(VERSION), u64::from(reader.u8("version")?))?;
    let what = reader.u8("what")?;
    let time = reader.time("time")?;
    let recorded = match what {
        TIME => Recorded::Time,
        TIMER => Recorded::Timer(Tag(reader.u64("tag")?)),
        FINISHED => {
            let (tag, ordinal) = (Tag(reader.u64("tag")?), reader.u64("ordinal")?);
            Recorded::Finished { tag, ordinal, result: reader.rest }
        }
        JOIN_REFUSED => {
            let group = GroupId(reader.array("group")?);
            // Cut short, if it isn't all text: it is read by people.
            let reason = reader.rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            Recorded::JoinRefused { group, reason }
        }
        other => {
            let got = u64::from(other);
            return Err(BytesError::Value { field: "what", expected: u64::from(JOIN_REFUSED), got });
        }
    };
    Ok((time, recorded))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bytes::time_of;
    use super::*;

    proptest! {
        #[test]
        fn records_read_back_as_written(nanos: u64, tag: u64, ordinal: u64, result: Vec<u8>, cut in 0_usize..40) {
            let tag = Tag(tag);
            let finished = Recorded::Finished { tag, ordinal, result: &result };
            let refused = Recorded::JoinRefused { group: GroupId([3; 16]), reason: "full" };
            for recorded in [Recorded::Time, Recorded::Timer(tag), finished, refused] {
                let mut bytes = Vec::new();
                write(time_of(nanos), recorded, &mut bytes);
                prop_assert_eq!(parse(&bytes), Ok((time_of(nanos), recorded)));
                let _ = parse(&bytes[..cut.min(bytes.len())]);
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
