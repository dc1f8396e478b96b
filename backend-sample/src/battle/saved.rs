//! A match in bytes: parts, each of which says how something is now. Saved, it is a part for everything; a change has
//! those that are different. So one reader is enough for both.

use holdfast_backend::SessionId;
use xxhash_rust::xxh3::xxh3_64;

use super::{Battle, Member};
use crate::hero::{BadState, Hero};
use crate::wire::{Fields, Tag, WireError, with_prefix};
use crate::world::World;

/// What a part begins with.
const WORLD: u8 = 1;
const MEMBER: u8 = 2;
const GONE: u8 = 3;

const CHECKSUM_BYTES: usize = 8;

pub(super) fn write_gone(member: SessionId, out: &mut Vec<u8>) {
    out.push(GONE);
    out.extend(member.0);
}

impl Battle {
    /// The world, then each hero, behind a checksum.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut saved = vec![0; CHECKSUM_BYTES];
        self.write_world(&mut saved);
        for (member, Member { state_bytes, .. }) in &self.members {
            self.write_member(*member, *state_bytes, &mut saved);
        }
        let checksum = xxh3_64(&saved[CHECKSUM_BYTES..]) ^ u64::from(self.rules.faults.corrupt_state);
        saved[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
        saved
    }

    pub(super) fn load(&mut self, saved: &[u8]) -> Result<(), BadState> {
        let mut fields = Fields(saved);
        if fields.u64()? != xxh3_64(fields.0) {
            return Err(BadState::Corrupt);
        }
        self.read(fields.0)
    }

    pub(super) fn write_world(&self, out: &mut Vec<u8>) {
        out.push(WORLD);
        self.world.encode(out);
        with_prefix(out, |out| self.served_by.save(out));
    }

    /// The hero in `size` bytes, or as many as it takes.
    pub(super) fn write_member(&self, member: SessionId, size: usize, out: &mut Vec<u8>) {
        let Some(Member { hero, state_bytes }) = self.members.get(&member) else { return };
        out.push(MEMBER);
        out.extend(member.0);
        out.extend((*state_bytes as u32).to_be_bytes());
        with_prefix(out, |out| out.extend(hero.save(size)));
    }

    pub(super) fn read(&mut self, parts: &[u8]) -> Result<(), BadState> {
        let mut fields = Fields(parts);
        while !fields.0.is_empty() {
            match fields.u8()? {
                WORLD => {
                    self.world = World::decode(&mut fields)?;
                    self.served_by = Tag::load(read_with_length(&mut fields)?).ok_or(BadState::Corrupt)?;
                }
                MEMBER => {
                    let member = SessionId(fields.array()?);
                    let state_bytes = fields.u32()? as usize;
                    let hero = Hero::load(read_with_length(&mut fields)?)?;
                    self.members.insert(member, Member { hero, state_bytes });
                }
                GONE => drop(self.members.remove(&SessionId(fields.array()?))),
                part => return Err(BadState::Layout(format!("unknown part {part} of a match"))),
            }
        }
        Ok(())
    }
}

fn read_with_length<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], WireError> {
    let length = fields.u32()? as usize;
    fields.take(length)
}
