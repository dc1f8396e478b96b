//! What the arena tells the members of a match, besides the replies and ticks that every player gets.

use holdfast_backend::{GroupId, SessionId};

use super::{Fields, KIND_JOINED, KIND_REFUSED, KIND_WORLD, WireError};
use crate::world::World;

/// The player is in the match from here on: their later frames are turns of its world, until they leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub game: GroupId,
    pub you: SessionId,
    /// As it is before the player's first turn.
    pub world: World,
    /// All who are in it now, the player too.
    pub members: Vec<SessionId>,
}

/// A frame of some member has taken effect. A member's own comes just before the reply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Consecutive, beginning behind the one in [`Joined`].
    pub number: u64,
    pub member: SessionId,
    /// The frame's, see [`crate::wire::Input`].
    pub seq: u64,
    /// See [`crate::world::frame_hash`].
    pub frame_hash: u64,
    /// The world's, after it.
    pub hash: u64,
}

/// The player won't be in the match, and goes on as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    pub game: GroupId,
    pub reason: &'a str,
}

impl Joined {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_JOINED);
        out.extend(self.game.0);
        out.extend(self.you.0);
        self.world.encode(out);
        out.extend((self.members.len() as u32).to_be_bytes());
        self.members.iter().for_each(|member| out.extend(member.0));
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        let (game, you) = (GroupId(fields.array()?), SessionId(fields.array()?));
        let world = World::decode(fields)?;
        let count = fields.u32()?;
        // A wrong count ends with the frame's bytes, before it has cost anything.
        let members = (0..count).map(|_| fields.array().map(SessionId)).collect::<Result<_, _>>()?;
        Ok(Self { game, you, world, members })
    }
}

impl Turn {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_WORLD);
        out.extend(self.number.to_be_bytes());
        out.extend(self.member.0);
        out.extend(self.seq.to_be_bytes());
        out.extend(self.frame_hash.to_be_bytes());
        out.extend(self.hash.to_be_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            number: fields.u64()?,
            member: SessionId(fields.array()?),
            seq: fields.u64()?,
            frame_hash: fields.u64()?,
            hash: fields.u64()?,
        })
    }
}

impl<'a> Refused<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_REFUSED);
        out.extend(self.game.0);
        out.extend(self.reason.as_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, WireError> {
        let game = GroupId(fields.array()?);
        let reason = std::str::from_utf8(std::mem::take(&mut fields.0)).unwrap_or("?");
        Ok(Self { game, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FromArena;

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn what_a_match_tells_comes_as_it_was_and_never_cut_short() {
        let [ada, bob] = [SessionId([1; 16]), SessionId([2; 16])];
        let world = World { name: 3, turn: 4, hash: 5 };
        let joined = Joined { game: GroupId([9; 16]), you: ada, world, members: vec![ada, bob] };
        let turn = Turn { number: 5, member: bob, seq: 6, frame_hash: 7, hash: 8 };
        let refused = Refused { game: GroupId([9; 16]), reason: "full" };
        let frames = [
            encoded(|out| joined.encode(out)),
            encoded(|out| turn.encode(out)),
            encoded(|out| refused.encode(out)),
        ];
        assert_eq!(FromArena::decode(&frames[0]), Ok(FromArena::Joined(joined)));
        assert_eq!(FromArena::decode(&frames[1]), Ok(FromArena::Turn(turn)));
        assert_eq!(FromArena::decode(&frames[2]), Ok(FromArena::Refused(refused)));
        for frame in &frames[..2] {
            assert_eq!(FromArena::decode(&frame[..frame.len() - 1]), Err(WireError::Short));
        }
    }
}
