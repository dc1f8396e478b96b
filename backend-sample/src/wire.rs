//! The bytes between a player and the arena: frames behind a 4-byte big-endian length.
//!
//! Every byte of a player's frame is a function of (seed, seq, send time, size), so that the checker can make it
//! anew when the reply comes and compare the echo byte by byte, instead of keeping a copy.

use holdfast_backend::GroupId;

use crate::hero::Core;

mod matches;

pub use self::matches::{Joined, Refused, Turn};

/// Length prefix: 4 bytes, big-endian, not counting itself.
pub const PREFIX_BYTES: usize = 4;
/// Largest frame either side takes, without its prefix.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Kind, seed, seq, send time.
pub const PLAYER_HEAD_BYTES: usize = 1 + 8 + 8 + 8;

const KIND_INPUT: u8 = 1;
const KIND_REPLY: u8 = 2;
const KIND_TICK: u8 = 3;
const KIND_BURST: u8 = 4;
const KIND_MATCH: u8 = 5;
const KIND_LEAVE: u8 = 6;
const KIND_JOINED: u8 = 7;
const KIND_WORLD: u8 = 8;
const KIND_REFUSED: u8 = 9;

/// What went wrong with a frame; always the fault of who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    Short,
    Kind(u8),
    TooLong(usize),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => write!(f, "the frame ends before its fields do"),
            Self::Kind(kind) => write!(f, "unknown kind of frame {kind}"),
            Self::TooLong(bytes) => write!(f, "a frame of {bytes} bytes; {MAX_FRAME_BYTES} is the maximum"),
        }
    }
}

impl std::error::Error for WireError {}

/// One input of a player, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Names the bot.
    pub seed: u64,
    /// Consecutive from 1.
    pub seq: u64,
    /// Microseconds since the bots' start.
    pub sent_us: u64,
    pub ask: Ask,
}

/// What an input asks of the arena, besides its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    #[default]
    Nothing,
    /// So many ticks at once, behind the reply.
    Burst(u32),
    /// To be in this match; nothing, if the player is in one.
    Match(GroupId),
    /// To leave the match: this input is the last of the player's that it sees.
    Leave,
}

/// Most ticks that one input may ask for: a burst well above a session's usual window.
pub const MAX_BURST: u32 = 50_000;

impl Input {
    /// Appends the frame of `size` bytes (at least its head), without prefix.
    pub fn encode(&self, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + size;
        out.push(match self.ask {
            Ask::Nothing => KIND_INPUT,
            Ask::Burst(_) => KIND_BURST,
            Ask::Match(_) => KIND_MATCH,
            Ask::Leave => KIND_LEAVE,
        });
        out.extend(self.seed.to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.sent_us.to_be_bytes());
        match self.ask {
            Ask::Nothing | Ask::Leave => {}
            Ask::Burst(ticks) => out.extend(ticks.to_be_bytes()),
            Ask::Match(game) => out.extend(game.0),
        }
        fill(self.seed ^ self.seq.rotate_left(32), end, out);
    }

    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(frame);
        let kind = fields.u8()?;
        if ![KIND_INPUT, KIND_BURST, KIND_MATCH, KIND_LEAVE].contains(&kind) {
            return Err(WireError::Kind(kind));
        }
        let (seed, seq, sent_us) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let ask = match kind {
            KIND_BURST => Ask::Burst(fields.u32()?.min(MAX_BURST)),
            KIND_MATCH => Ask::Match(GroupId(fields.array()?)),
            KIND_LEAVE => Ask::Leave,
            _ => Ask::Nothing,
        };
        Ok(Self { seed, seq, sent_us, ask })
    }
}

/// Who answers: stands in replies, so that players see when they have moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Random, one for each run of the process.
    pub instance: u64,
    pub version: String,
}

/// A frame from the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromArena<'a> {
    Reply(Reply<'a>),
    Tick(Tick),
    Joined(Joined),
    Turn(Turn),
    Refused(Refused<'a>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    pub seq: u64,
    pub core: Core,
    pub tick_ms: u32,
    pub instance: u64,
    pub version: &'a str,
    /// The input's bytes from this reply's head length on: a reply is as long as its input, if its head fits.
    pub echo: &'a [u8],
    pub head_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Consecutive from 1, from the player's state.
    pub number: u64,
    /// The state at that moment.
    pub count: u64,
    pub chain: u64,
}

/// Appends the reply to `input` (its frame, without prefix).
pub fn encode_reply(input: &[u8], seq: u64, core: &Core, tick_ms: u32, tag: &Tag, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(KIND_REPLY);
    out.extend(seq.to_be_bytes());
    core.encode(out);
    out.extend(tick_ms.to_be_bytes());
    out.extend(tag.instance.to_be_bytes());
    let version = &tag.version.as_bytes()[..tag.version.len().min(255)];
    out.push(version.len() as u8);
    out.extend(version);
    let head_bytes = out.len() - start;
    if let Some(echo) = input.get(head_bytes..) {
        out.extend(echo);
    }
}

impl Tick {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_TICK);
        out.extend(self.number.to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend(self.chain.to_be_bytes());
    }
}

impl<'a> FromArena<'a> {
    pub fn decode(frame: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields(frame);
        match fields.u8()? {
            KIND_REPLY => {
                let seq = fields.u64()?;
                let core = Core::decode(&mut fields)?;
                let (tick_ms, instance) = (fields.u32()?, fields.u64()?);
                let length = usize::from(fields.u8()?);
                let version = std::str::from_utf8(fields.take(length)?).unwrap_or("?");
                let echo = fields.0;
                let head_bytes = frame.len() - echo.len();
                Ok(Self::Reply(Reply { seq, core, tick_ms, instance, version, echo, head_bytes }))
            }
            KIND_TICK => {
                Ok(Self::Tick(Tick { number: fields.u64()?, count: fields.u64()?, chain: fields.u64()? }))
            }
            KIND_JOINED => Joined::decode(&mut fields).map(Self::Joined),
            KIND_WORLD => Turn::decode(&mut fields).map(Self::Turn),
            KIND_REFUSED => Refused::decode(&mut fields).map(Self::Refused),
            kind => Err(WireError::Kind(kind)),
        }
    }
}

/// Cuts `bytes` into whole frames; returns how many bytes they took.
pub fn split(bytes: &[u8], mut on_frame: impl FnMut(&[u8])) -> Result<usize, WireError> {
    let mut used = 0;
    while let Some(prefix) = bytes[used..].first_chunk::<PREFIX_BYTES>() {
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(WireError::TooLong(length));
        }
        let start = used + PREFIX_BYTES;
        let Some(frame) = bytes.get(start..start + length) else { break };
        on_frame(frame);
        used = start + length;
    }
    Ok(used)
}

/// Appends one frame, its prefix first.
pub fn with_prefix(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; PREFIX_BYTES]);
    write(out);
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Pseudo-random bytes (splitmix64) until `out` is `end` long.
pub fn fill(seed: u64, end: usize, out: &mut Vec<u8>) {
    let mut state = seed;
    while out.len() < end {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let wanted = (end - out.len()).min(8);
        out.extend(&word.to_be_bytes()[..wanted]);
    }
}

/// Reads fixed-width fields from the front of a frame.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(bytes).ok_or(WireError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_echoes_the_inputs_bytes_behind_its_head() {
        let input = Input { seed: 7, seq: 3, sent_us: 99, ask: Ask::Nothing };
        let mut frame = Vec::new();
        input.encode(128, &mut frame);
        assert_eq!(frame.len(), 128);
        assert_eq!(Input::decode(&frame), Ok(input));
        let mut core = Core::default();
        core.advance(&frame);
        let tag = Tag { instance: 5, version: "1.4".into() };
        let mut bytes = Vec::new();
        encode_reply(&frame, 3, &core, 1000, &tag, &mut bytes);
        assert_eq!(bytes.len(), 128);
        let Ok(FromArena::Reply(reply)) = FromArena::decode(&bytes) else { panic!("a reply") };
        assert_eq!((reply.seq, reply.core, reply.instance, reply.version), (3, core, 5, "1.4"));
        assert_eq!(reply.echo, &frame[reply.head_bytes..]);
    }

    #[test]
    fn frames_are_cut_at_any_split_of_the_stream() {
        let mut stream = Vec::new();
        for size in [0usize, 1, 300] {
            with_prefix(&mut stream, |out| out.resize(out.len() + size, 9));
        }
        for cut in 0..=stream.len() {
            let mut sizes = Vec::new();
            let used = split(&stream[..cut], |frame| sizes.push(frame.len())).unwrap();
            let rest = split(&stream[used..], |frame| sizes.push(frame.len())).unwrap();
            assert_eq!((used + rest, sizes), (stream.len(), vec![0, 1, 300]));
        }
    }

    #[test]
    fn an_input_may_ask_for_a_match_or_a_bounded_burst() {
        let unchanged = [Ask::Nothing, Ask::Burst(1), Ask::Match(GroupId([8; 16])), Ask::Leave];
        let cut = (Ask::Burst(u32::MAX), Ask::Burst(MAX_BURST));
        for (asked, given) in unchanged.map(|ask| (ask, ask)).into_iter().chain([cut]) {
            let input = Input { seed: 7, seq: 3, sent_us: 99, ask: asked };
            let mut frame = Vec::new();
            input.encode(PLAYER_HEAD_BYTES, &mut frame);
            assert_eq!(Input::decode(&frame), Ok(Input { ask: given, ..input }));
        }
    }

    #[test]
    fn frames_over_the_maximum_and_half_frames_are_errors() {
        assert_eq!(split(&u32::MAX.to_be_bytes(), |_| ()), Err(WireError::TooLong(u32::MAX as usize)));
        assert_eq!(FromArena::decode(&[KIND_TICK, 0, 0]), Err(WireError::Short));
        assert_eq!(FromArena::decode(&[77]), Err(WireError::Kind(77)));
    }
}
