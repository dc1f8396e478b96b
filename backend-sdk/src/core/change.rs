//! The change in a `delta` record: first what the SDK itself keeps of a session, then the game's bytes.
//!
//! Layout, little-endian: `u8` version, `u8` flags (1: the game has asked for the end; 2: it has been told of it; 4: a
//! timer; 8: finished work), `u64` time in nanoseconds, `u64` inputs so far, `u64` random state, `u64` the timer's tag or
//! the work's ordinal (else 0); `u16` count of work begun, for each `u64` ordinal, `u64` tag; `u16` count of timer
//! changes, for each `u8` kind (0 every, 1 after, 2 cancel), `u64` tag, `u64` nanoseconds; by flag: (16) the group that
//! it now wants to be in, 16 bytes; (32) of a group `u32` length and the change of its members; then the game's to the end.
//! Flag 64: the wish for a group was refused.

use std::time::{Duration, SystemTime};

use holdfast_protocol::GroupId;

use super::bytes::{BytesError, Reader, expect, nanos_of};
use crate::context::TimerChange;
use crate::game::Tag;

const VERSION: u8 = 1;
const FLAG_CLOSE: u8 = 1;
const FLAG_CLOSED: u8 = 2;
const FLAG_TIMER: u8 = 4;
const FLAG_FINISHED: u8 = 8;
const FLAG_WISH: u8 = 16;
const FLAG_ROSTER: u8 = 32;
const FLAG_REFUSED: u8 = 64;

/// What of its input outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Other,
    /// It was the session's end.
    Closed,
    Timer(Tag),
    /// The ordinal of the work.
    Finished(u64),
    /// The group that it wanted to be in refused it.
    JoinRefused,
}

/// A change, parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct Change<'a> {
    pub cause: Cause,
    pub close: bool,
    pub time: SystemTime,
    pub inputs: u64,
    pub random: u64,
    /// Ordinals and tags.
    pub work: Vec<(u64, Tag)>,
    pub timers: Vec<TimerChange>,
    pub wish: Option<GroupId>,
    /// What became of a group's members.
    pub roster: &'a [u8],
    pub game: &'a [u8],
}

pub(crate) fn write(change: &Change<'_>, out: &mut Vec<u8>) {
    let (flag, number) = match change.cause {
        Cause::Other => (0, 0),
        Cause::Closed => (FLAG_CLOSED, 0),
        Cause::Timer(tag) => (FLAG_TIMER, tag.0),
        Cause::Finished(ordinal) => (FLAG_FINISHED, ordinal),
        Cause::JoinRefused => (FLAG_REFUSED, 0),
    };
    let more = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags = more(change.close, FLAG_CLOSE)
        | more(change.wish.is_some(), FLAG_WISH)
        | more(!change.roster.is_empty(), FLAG_ROSTER);
    out.extend_from_slice(&[VERSION, flag | flags]);
    for number in [nanos_of(change.time), change.inputs, change.random, number] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&u16::try_from(change.work.len()).unwrap_or(u16::MAX).to_le_bytes());
    for (ordinal, tag) in change.work.iter().take(u16::MAX.into()) {
        out.extend_from_slice(&ordinal.to_le_bytes());
        out.extend_from_slice(&tag.0.to_le_bytes());
    }
    out.extend_from_slice(&u16::try_from(change.timers.len()).unwrap_or(u16::MAX).to_le_bytes());
    for timer in change.timers.iter().take(u16::MAX.into()) {
        let (kind, tag, delay) = match *timer {
            TimerChange::Every(tag, period) => (0, tag, period),
            TimerChange::After(tag, delay) => (1, tag, delay),
            TimerChange::Cancel(tag) => (2, tag, Duration::ZERO),
        };
        out.push(kind);
        out.extend_from_slice(&tag.0.to_le_bytes());
        out.extend_from_slice(&u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    }
    out.extend_from_slice(change.wish.as_ref().map_or(&[], |group| group.0.as_slice()));
    if !change.roster.is_empty() {
        out.extend_from_slice(&u32::try_from(change.roster.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(change.roster);
    }
    out.extend_from_slice(change.game);
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Change<'_>, BytesError> {
    let mut reader = Reader { rest: bytes };
    expect("version", u64::from(VERSION), u64::from(reader.u8("version")?))?;
    let flags = reader.u8("flags")?;
    let time = reader.time("time")?;
    let (inputs, random) = (reader.u64("inputs")?, reader.u64("random")?);
    let number = reader.u64("cause")?;
    let cause = match flags & !(FLAG_CLOSE | FLAG_WISH | FLAG_ROSTER) {
        0 => Cause::Other,
        FLAG_CLOSED => Cause::Closed,
        FLAG_TIMER => Cause::Timer(Tag(number)),
        FLAG_FINISHED => Cause::Finished(number),
        FLAG_REFUSED => Cause::JoinRefused,
        other => return Err(BytesError::Value { field: "flags", expected: 0, got: other.into() }),
    };
    let mut work = Vec::new();
    for _ in 0..reader.u16("work")? {
        work.push((reader.u64("ordinal")?, Tag(reader.u64("tag")?)));
    }
    let mut timers = Vec::new();
    for _ in 0..reader.u16("timers")? {
        let kind = reader.u8("kind")?;
        let tag = Tag(reader.u64("tag")?);
        let delay = Duration::from_nanos(reader.u64("delay")?);
        timers.push(match kind {
            0 => TimerChange::Every(tag, delay),
            1 => TimerChange::After(tag, delay),
            2 => TimerChange::Cancel(tag),
            other => return Err(BytesError::Value { field: "kind", expected: 2, got: other.into() }),
        });
    }
    let wish = if flags & FLAG_WISH != 0 { Some(GroupId(reader.array("group")?)) } else { None };
    let roster = if flags & FLAG_ROSTER != 0 {
        let length = reader.u32("length of the members' change")? as usize;
        reader.slice("members' change", length)?
    } else {
        &[]
    };
    let close = flags & FLAG_CLOSE != 0;
    Ok(Change { cause, close, time, inputs, random, work, timers, wish, roster, game: reader.rest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bytes::time_of;
    use super::*;

    proptest! {
        #[test]
        fn a_change_reads_back_as_written(
            numbers: [u64; 4],
            close: bool,
            kind in 0..5,
            pairs: Vec<(u64, u64)>,
            game: Vec<u8>,
            roster: Vec<u8>,
            cut in 0_usize..200,
        ) {
            let [nanos, inputs, random, number] = numbers;
            let cause = match kind {
                0 => Cause::Other,
                1 => Cause::Closed,
                2 => Cause::Timer(Tag(number)),
                3 => Cause::Finished(number),
                _ => Cause::JoinRefused,
            };
            let work = pairs.iter().map(|&(ordinal, tag)| (ordinal, Tag(tag))).collect();
            let timers = pairs.iter().flat_map(|&(tag, nanos)| {
                let (tag, delay) = (Tag(tag), Duration::from_nanos(nanos));
                [TimerChange::Every(tag, delay), TimerChange::After(tag, delay), TimerChange::Cancel(tag)]
            }).collect();
            let wish = (inputs % 2 == 1).then_some(GroupId([7; 16]));
            let time = time_of(nanos);
            let change =
                Change { cause, close, time, inputs, random, work, timers, wish, roster: &roster, game: &game };
            let mut bytes = Vec::new();
            write(&change, &mut bytes);
            prop_assert_eq!(parse(&bytes), Ok(change));
            let _ = parse(&bytes[..cut.min(bytes.len())]);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
