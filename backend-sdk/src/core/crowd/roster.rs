//! [`Roster`]: who is a member of a group, and whose arrival has come in part.
//!
//! It is written before the game's bytes in the group's snapshot; at level `delta` its changes stand in the records, for
//! client frames that a change covers aren't given again.
//!
//! Layouts, little-endian. In a snapshot: `u8` version; `u32` count of members, for each its id (16) and what is kept of
//! it (`u64` inputs, random state, work numbered by handlers, by `open`); `u32` count of arrivals, for each the id, `u32`
//! length, bytes. A change: `u8` kind (0 part, 1 joined, 2 gone), the id, then as above.

use std::collections::BTreeMap;

use holdfast_protocol::SessionId;
use holdfast_protocol::message::Recovery;

use super::super::bytes::{BytesError, Reader, expect};
use super::super::jobs::Ordinals;
use crate::context::Context;

const VERSION: u8 = 1;
const PART: u8 = 0;
const JOINED: u8 = 1;
const GONE: u8 = 2;

/// What of a session's own must go on when it leaves the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub inputs: u64,
    pub random: u64,
    pub ordinals: Ordinals,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Roster {
    members: BTreeMap<SessionId, Member>,
    /// Parts of arrivals, joined.
    arriving: BTreeMap<SessionId, Vec<u8>>,
    arriving_bytes: usize,
    /// While the game is told of a member's end: who it is, and whether they still listen.
    ending: Option<(SessionId, bool)>,
}

impl Roster {
    pub fn members(&self) -> impl ExactSizeIterator<Item = SessionId> + '_ {
        self.members.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn has(&self, member: SessionId) -> bool {
        self.members.contains_key(&member)
    }

    pub fn hears(&self, member: SessionId) -> bool {
        self.has(member) && self.ending != Some((member, false))
    }

    pub fn is_ending(&self, member: SessionId) -> bool {
        self.ending.is_some_and(|(ending, _)| ending == member)
    }

    pub fn arriving_bytes(&self) -> usize {
        self.arriving_bytes
    }

    /// The game is being told of a member's end; `None`: it has been.
    pub fn set_ending(&mut self, ending: Option<(SessionId, bool)>) {
        self.ending = ending;
    }

    pub fn add_part(&mut self, member: SessionId, part: &[u8], context: &mut Context<'_>) {
        note(context, PART, member, |out| write_bytes(part, out));
        self.push_part(member, part);
    }

    fn push_part(&mut self, member: SessionId, part: &[u8]) {
        self.arriving_bytes += part.len();
        self.arriving.entry(member).or_default().extend_from_slice(part);
    }

    /// The arrival is whole, or of no use: its parts so far.
    pub fn take_parts(&mut self, member: SessionId) -> Vec<u8> {
        let parts = self.arriving.remove(&member).unwrap_or_default();
        self.arriving_bytes -= parts.len();
        parts
    }

    pub fn join(&mut self, member: SessionId, kept: Member, context: &mut Context<'_>) {
        note(context, JOINED, member, |out| write_member(&kept, out));
        self.members.insert(member, kept);
    }

    pub fn remove(&mut self, member: SessionId, context: &mut Context<'_>) -> Option<Member> {
        let kept = self.members.remove(&member)?;
        note(context, GONE, member, |_| {});
        Some(kept)
    }

    /// An arrival that wasn't taken leaves nothing behind.
    pub fn forget(&mut self, member: SessionId, context: &mut Context<'_>) {
        note(context, GONE, member, |_| {});
        self.members.remove(&member);
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&u32::try_from(self.members.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (id, member) in &self.members {
            out.extend_from_slice(&id.0);
            write_member(member, out);
        }
        out.extend_from_slice(&u32::try_from(self.arriving.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (id, parts) in &self.arriving {
            out.extend_from_slice(&id.0);
            write_bytes(parts, out);
        }
    }

    /// Reads it, and says what stands behind it.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), BytesError> {
        let mut reader = Reader { rest: bytes };
        expect("version of the members", u64::from(VERSION), u64::from(reader.u8("version")?))?;
        let mut roster = Self::default();
        for _ in 0..reader.u32("count of members")? {
            let id = SessionId(reader.array("member")?);
            roster.members.insert(id, read_member(&mut reader)?);
        }
        for _ in 0..reader.u32("count of arrivals")? {
            let id = SessionId(reader.array("arrival")?);
            roster.push_part(id, read_bytes(&mut reader)?);
        }
        Ok((roster, reader.rest))
    }

    /// Does what one input did to it, at level `delta`.
    pub fn apply(&mut self, changes: &[u8]) -> Result<(), BytesError> {
        let mut reader = Reader { rest: changes };
        while !reader.rest.is_empty() {
            let kind = reader.u8("kind of a member's change")?;
            let id = SessionId(reader.array("member")?);
            match kind {
                PART => self.push_part(id, read_bytes(&mut reader)?),
                JOINED => {
                    self.take_parts(id);
                    self.members.insert(id, read_member(&mut reader)?);
                }
                GONE => {
                    self.take_parts(id);
                    self.members.remove(&id);
                }
                other => {
                    let (field, expected) = ("kind of a member's change", u64::from(GONE));
                    return Err(BytesError::Value { field, expected, got: other.into() });
                }
            }
        }
        Ok(())
    }
}

fn note(context: &mut Context<'_>, kind: u8, member: SessionId, more: impl FnOnce(&mut Vec<u8>)) {
    if context.recovery == Recovery::Delta {
        let out = &mut context.effects.roster;
        out.push(kind);
        out.extend_from_slice(&member.0);
        more(out);
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], BytesError> {
    let length = reader.u32("length of an arrival")? as usize;
    reader.slice("arrival", length)
}

fn write_member(member: &Member, out: &mut Vec<u8>) {
    let Member { inputs, random, ordinals: Ordinals { handlers, opens } } = *member;
    for number in [inputs, random, handlers, opens] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member, BytesError> {
    let (inputs, random) = (reader.u64("member's inputs")?, reader.u64("member's random")?);
    let ordinals = Ordinals { handlers: reader.u64("member's work")?, opens: reader.u64("member's work")? };
    Ok(Member { inputs, random, ordinals })
}
