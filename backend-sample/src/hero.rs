//! One player's state: what must survive every move, and shows at once when it didn't.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::wire::{Fields, Tag, Tick, WireError, fill};

/// Stands at the front of a saved hero; the last digit is the layout's number.
const MAGIC: u32 = 0x4152_4e32;
/// Longest name kept, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The part of the state that follows from the player's frames alone, so that the player can compute it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Core {
    /// xxh3-64 over each frame processed, seeded with the value before it.
    pub chain: u64,
    /// Frames processed.
    pub count: u64,
    pub x: i32,
    pub y: i32,
    pub score: u64,
}

/// What stands before the version in a saved tag.
const INSTANCE_BYTES: usize = 8;
/// Longest version that is told.
pub const MAX_VERSION_BYTES: usize = 64;

impl Tag {
    pub fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.instance.to_be_bytes());
        out.extend(self.version.as_bytes());
    }

    pub fn load(bytes: &[u8]) -> Option<Self> {
        let (instance, version) = bytes.split_first_chunk::<INSTANCE_BYTES>()?;
        let version = std::str::from_utf8(version).ok().filter(|text| text.len() <= MAX_VERSION_BYTES)?;
        Some(Self { instance: u64::from_be_bytes(*instance), version: version.to_owned() })
    }
}

impl Core {
    /// Processes one frame.
    pub fn advance(&mut self, frame: &[u8]) {
        self.chain = xxh3_64_with_seed(frame, self.chain);
        self.count += 1;
        let [dx, dy, luck, ..] = self.chain.to_be_bytes();
        self.x = self.x.wrapping_add(i32::from(dx as i8));
        self.y = self.y.wrapping_add(i32::from(dy as i8));
        self.score = self.score.wrapping_add(u64::from(luck > 250) * 10);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.chain.to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend(self.x.to_be_bytes());
        out.extend(self.y.to_be_bytes());
        out.extend(self.score.to_be_bytes());
    }

    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            chain: fields.u64()?,
            count: fields.u64()?,
            x: fields.u32()? as i32,
            y: fields.u32()? as i32,
            score: fields.u64()?,
        })
    }
}

/// Everything the arena knows of one player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hero {
    pub core: Core,
    /// Ticks pushed so far.
    pub ticks: u64,
    pub name: String,
    /// Who serves the player, as far as that is known: instance 0 until then.
    pub served_by: Tag,
}

/// Why a saved hero can't be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadState {
    Layout(String),
    /// The padding doesn't follow from the chain: some byte has changed on the way.
    Corrupt,
}

impl std::fmt::Display for BadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout(reason) => write!(f, "not a saved state: {reason}"),
            Self::Corrupt => write!(f, "some of the saved bytes have changed"),
        }
    }
}

impl std::error::Error for BadState {}

impl From<WireError> for BadState {
    fn from(error: WireError) -> Self {
        Self::Layout(error.to_string())
    }
}

impl Hero {
    pub fn new(name: &str) -> Self {
        let end = (0..=name.len().min(MAX_NAME_BYTES)).rev().find(|&end| name.is_char_boundary(end));
        let name = name[..end.unwrap_or(0)].to_owned();
        let served_by = Tag { instance: 0, version: String::new() };
        Self { core: Core::default(), ticks: 0, name, served_by }
    }

    pub fn tick(&mut self) -> Tick {
        self.ticks += 1;
        Tick { number: self.ticks, count: self.core.count, chain: self.core.chain }
    }

    /// The state in `size` bytes (more if the fields need them); what the fields leave is filled from the chain.
    pub fn save(&self, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size);
        out.extend(MAGIC.to_be_bytes());
        self.core.encode(&mut out);
        out.extend(self.ticks.to_be_bytes());
        out.push(self.name.len() as u8);
        out.extend(self.name.as_bytes());
        out.push(self.served_by.version.len() as u8);
        self.served_by.save(&mut out);
        let fields = out.len();
        let checksum = xxh3_64_with_seed(&out[..fields], 0);
        out.extend(checksum.to_be_bytes());
        fill(self.core.chain ^ self.ticks, size, &mut out);
        out
    }

    pub fn load(bytes: &[u8]) -> Result<Self, BadState> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        if magic != MAGIC {
            return Err(BadState::Layout(format!("it begins with {magic:#x}, not with {MAGIC:#x}")));
        }
        let core = Core::decode(&mut fields)?;
        let ticks = fields.u64()?;
        let length = usize::from(fields.u8()?);
        let name = String::from_utf8(fields.take(length)?.to_vec()).map_err(|_| BadState::Corrupt)?;
        let length = usize::from(fields.u8()?);
        let served_by = Tag::load(fields.take(INSTANCE_BYTES + length)?).ok_or(BadState::Corrupt)?;
        let hero = Self { core, ticks, name, served_by };
        // Saving again is the whole check: every byte is a function of the fields.
        if hero.save(bytes.len()) == bytes { Ok(hero) } else { Err(BadState::Corrupt) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hero_survives_saving_and_any_changed_byte_is_noticed() {
        let mut hero = Hero::new("Ada");
        hero.core.advance(b"north");
        hero.ticks = 3;
        hero.served_by = Tag { instance: 7, version: "1.4".into() };
        let saved = hero.save(4096);
        assert_eq!(saved.len(), 4096);
        assert_eq!(Hero::load(&saved), Ok(hero));
        for position in 0..saved.len() {
            let mut damaged = saved.clone();
            damaged[position] ^= 1;
            assert!(Hero::load(&damaged).is_err(), "byte {position}");
        }
        assert!(Hero::load(&saved[..20]).is_err());
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let hero = Hero::new(&"ä".repeat(100));
        assert_eq!(hero.name.len(), MAX_NAME_BYTES);
        assert_eq!(Hero::load(&hero.save(0)), Ok(hero));
    }

    #[test]
    fn the_chain_depends_on_the_order_of_frames() {
        let (mut one, mut other) = (Core::default(), Core::default());
        one.advance(b"a");
        one.advance(b"b");
        other.advance(b"b");
        other.advance(b"a");
        assert_ne!(one.chain, other.chain);
    }
}
