//! The model's game and its player: small enough to be seen whole, and such that a lost, doubled or reordered frame in
//! either direction can't hide.
//!
//! Client frame `n` is the byte `n`. The game keeps the list of those that it has processed, and answers each with
//! where it stands.

use super::ghost::Wrong;

/// What the game knows: the list itself, not a hash of it, so that a trace can be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Game {
    /// What names this history: another one begins after a loss.
    pub lineage: u8,
    /// Server frames made so far in this history.
    pub number: u8,
    /// Frames before its first one went down with a backend, and the game was told.
    pub lost: bool,
    pub frames: Vec<u8>,
}

/// A server frame: where the game stood when it made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reply {
    pub lineage: u8,
    pub number: u8,
    /// The last client frame processed.
    pub last: u8,
    /// What it was told by the world, which says something else the next time.
    pub value: u8,
}

pub const REPLY_BYTES: usize = 4;

impl Reply {
    pub fn bytes(self) -> [u8; REPLY_BYTES] {
        [self.lineage, self.number, self.last, self.value]
    }

    pub fn parse(bytes: &[u8]) -> Self {
        Self { lineage: bytes[0], number: bytes[1], last: bytes[2], value: bytes[3] }
    }
}

impl Game {
    pub fn new(lineage: u8, lost: bool) -> Self {
        Self { lineage, number: 0, lost, frames: Vec::new() }
    }

    /// Processes one client frame.
    pub fn frame(&mut self, frame: &[u8], value: u8) -> Result<Reply, Wrong> {
        let &[frame] = frame else { return Err(Wrong::ClientFrames) };
        let in_order = match self.frames.last() {
            Some(last) => frame == last + 1,
            None => frame == 1 || self.lost,
        };
        self.frames.push(frame);
        if in_order { Ok(self.say(value)) } else { Err(Wrong::ClientFrames) }
    }

    pub fn say(&mut self, value: u8) -> Reply {
        self.number += 1;
        let last = self.frames.last().copied().unwrap_or(0);
        Reply { lineage: self.lineage, number: self.number, last, value }
    }

    pub fn write(&self, bytes: &mut Vec<u8>) {
        let count = u8::try_from(self.frames.len()).unwrap();
        bytes.extend_from_slice(&[self.lineage, self.number, u8::from(self.lost), count]);
        bytes.extend_from_slice(&self.frames);
    }

    /// The game, and what stands behind it.
    pub fn read(bytes: &[u8]) -> (Self, &[u8]) {
        let (head, rest) = bytes.split_at(4);
        let (frames, rest) = rest.split_at(usize::from(head[3]));
        (Self { lineage: head[0], number: head[1], lost: head[2] != 0, frames: frames.to_vec() }, rest)
    }
}

/// The client: what it has sent, and the last that it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Player {
    pub sent: u8,
    pub seen: Option<Reply>,
    /// Last server seq that was delivered.
    pub delivered: u64,
    /// The proxy ends the connection when all is written.
    pub finishing: bool,
}

impl Player {
    /// A server frame is shown: the next of its history, or the first of a younger one.
    pub fn see(&mut self, seq: u64, frame: &[u8]) -> Result<(), Wrong> {
        let reply = Reply::parse(frame);
        let follows = match self.seen {
            Some(before) if before.lineage == reply.lineage => {
                reply.number == before.number + 1 && reply.last >= before.last
            }
            Some(before) => reply.lineage > before.lineage && reply.number == 1,
            None => reply.number == 1,
        };
        let in_order = seq == self.delivered + 1 && follows && reply.last <= self.sent;
        self.seen = Some(reply);
        self.delivered = seq;
        if in_order { Ok(()) } else { Err(Wrong::ServerFrames) }
    }
}
