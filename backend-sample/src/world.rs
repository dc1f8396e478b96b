//! What the players of a match share: one hash chain over all their frames, in the order in which they took effect.

use holdfast_backend::SessionId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::wire::{Fields, WireError};

/// A world after some turn. Each frame of each member is one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct World {
    /// Names this world: another one each time that a match is formed, also under an old id.
    pub name: u64,
    /// Frames processed, of all members.
    pub turn: u64,
    /// xxh3-64 over the member and the frame's own hash, seeded with the value before it.
    pub hash: u64,
}

/// A world's hash of a frame: what stands in for its bytes, so that members need not be sent each other's.
pub fn frame_hash(frame: &[u8]) -> u64 {
    xxh3_64(frame)
}

impl World {
    pub fn new(name: u64) -> Self {
        Self { name, turn: 0, hash: name }
    }

    /// Processes one frame, of which `frame_hash` is enough.
    pub fn advance(&mut self, member: SessionId, frame_hash: u64) {
        let mut turn = [0; 24];
        turn[..16].copy_from_slice(&member.0);
        turn[16..].copy_from_slice(&frame_hash.to_be_bytes());
        self.turn += 1;
        self.hash = xxh3_64_with_seed(&turn, self.hash);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.name.to_be_bytes());
        out.extend(self.turn.to_be_bytes());
        out.extend(self.hash.to_be_bytes());
    }

    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { name: fields.u64()?, turn: fields.u64()?, hash: fields.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_frames_whose_they_are_and_their_order() {
        let [ada, bob] = [SessionId([1; 16]), SessionId([2; 16])];
        let played = |turns: &[(SessionId, &[u8])]| {
            let mut world = World::new(7);
            turns.iter().for_each(|(member, frame)| world.advance(*member, frame_hash(frame)));
            world
        };
        let first = played(&[(ada, b"north"), (bob, b"south")]);
        assert_eq!(first.turn, 2);
        assert_eq!(first, played(&[(ada, b"north"), (bob, b"south")]));
        for other in [
            [(bob, b"south".as_slice()), (ada, b"north")],
            [(ada, b"north"), (ada, b"south")],
            [(ada, b"north"), (bob, b"South")],
        ] {
            assert_ne!(first.hash, played(&other).hash, "{other:?}");
        }
    }
}
