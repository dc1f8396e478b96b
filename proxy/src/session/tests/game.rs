//! The game of these tests: a hash chain over every client frame, and numbered server frames, so that a lost, repeated
//! or reordered frame in either direction can't hide.

mod party;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_backend::{Context, Game, Group, GroupContext, GroupId, Opening, Refusal, Session, Tag};
pub use party::common;

pub const TICK: Duration = Duration::from_millis(50);

/// What a test may change in a running game, and read of it.
#[derive(Debug, Default)]
pub struct Knobs {
    /// 0: takes everybody; 1: refuses, may be asked again; 2: refuses for good.
    pub refuses: AtomicU8,
    pub ticks: AtomicBool,
    /// Bytes added to every state.
    pub padding: AtomicUsize,
    /// Frames and chains of the sessions that were closed here.
    pub closed: Mutex<Vec<(u32, u64)>>,
    pub opened: AtomicUsize,
    /// How often it was told that it begins at an older checkpoint.
    pub recovered: AtomicUsize,
    /// Groups that were opened here.
    pub parties: AtomicUsize,
    /// As `refuses`, of groups.
    pub refuses_parties: AtomicU8,
    /// Groups take no newcomers.
    pub turns_away: AtomicBool,
    /// Sessions were told so often that they can't be in their group.
    pub told_off: AtomicUsize,
}

pub struct Chain {
    pub knobs: Arc<Knobs>,
}

pub struct Player {
    knobs: Arc<Knobs>,
    /// 1, or after a loss the epoch at which this history began.
    lineage: u32,
    count: u32,
    chain: u64,
    sent: u32,
}

/// A server frame, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub lineage: u32,
    pub number: u32,
    pub count: u32,
    pub chain: u64,
}

pub fn group(number: u8) -> GroupId {
    GroupId([number; 16])
}

pub fn link_in_chain(chain: u64, frame: &[u8]) -> u64 {
    frame.iter().fold(chain ^ 0x9e37_79b9, |chain, byte| {
        (chain ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(7)
    })
}

pub fn chain_of<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> u64 {
    frames.into_iter().fold(0, |chain, frame| link_in_chain(chain, frame))
}

pub const SHOWN_BYTES: usize = 20;

impl Shown {
    fn bytes(self) -> Vec<u8> {
        let words = [self.lineage, self.number, self.count];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        bytes
    }

    pub fn parse(frame: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        let chain = u64::from_le_bytes(frame[12..20].try_into().unwrap());
        Self { lineage: word(0), number: word(4), count: word(8), chain }
    }
}

impl Game for Chain {
    type Session = Player;

    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Player, Refusal> {
        match self.knobs.refuses.load(Ordering::Relaxed) {
            0 => {}
            1 => return Err(Refusal::for_now("full")),
            _ => return Err(Refusal::for_good("not mine")),
        }
        self.knobs.opened.fetch_add(1, Ordering::Relaxed);
        let knobs = Arc::clone(&self.knobs);
        if knobs.ticks.load(Ordering::Relaxed) {
            context.every(Tag(1), TICK);
        }
        let lost = u32::try_from(context.epoch().0).unwrap();
        let new = |lineage| Player { knobs: Arc::clone(&knobs), lineage, count: 0, chain: 0, sent: 0 };
        Ok(match opening {
            Opening::Fresh => new(1),
            Opening::Lost => new(lost),
            Opening::State(bytes) | Opening::Recovered(bytes) => {
                let told = usize::from(matches!(opening, Opening::Recovered(_)));
                knobs.recovered.fetch_add(told, Ordering::Relaxed);
                let shown = Shown::parse(bytes);
                let Shown { lineage, number, count, chain } = shown;
                Player { knobs, lineage, count, chain, sent: number }
            }
        })
    }

    fn open_group(
        &self,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Box<dyn Group>, Refusal> {
        Ok(Box::new(party::Party::open(&self.knobs, opening, context)?))
    }
}

impl Player {
    fn show(&self) -> Vec<u8> {
        let Self { lineage, sent: number, count, chain, .. } = *self;
        Shown { lineage, number, count, chain }.bytes()
    }

    fn send(&mut self, context: &mut Context<'_>) {
        self.sent += 1;
        context.send(&self.show());
    }
}

impl Session for Player {
    /// `quiet..` gets no answer, `burst..` twenty, `quit..` one and then the end; `join <n>` wants to be in group n;
    /// `poison..` is the end of its handler.
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        assert!(!frame.starts_with(b"poison"), "the game can't bear it");
        self.chain = link_in_chain(self.chain, frame);
        self.count += 1;
        if let Some(number) = frame.strip_prefix(b"join ") {
            context.join(group(number[0] - b'0'));
        }
        if frame.starts_with(b"quiet") {
            return context.change(&self.show());
        }
        let answers = if frame.starts_with(b"burst") { 20 } else { 1 };
        for _ in 0..answers {
            self.send(context);
        }
        if frame.starts_with(b"quit") {
            context.close();
        }
        context.change(&self.show());
    }

    fn timer(&mut self, _timer: Tag, context: &mut Context<'_>) {
        self.send(context);
        context.change(&self.show());
    }

    fn join_refused(&mut self, _group: GroupId, _reason: &str, _context: &mut Context<'_>) {
        self.knobs.told_off.fetch_add(1, Ordering::Relaxed);
    }

    fn apply(&mut self, change: &[u8], _context: &mut Context<'_>) {
        let shown = Shown::parse(change);
        (self.count, self.chain, self.sent) = (shown.count, shown.chain, shown.number);
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.show();
        bytes.resize(bytes.len() + self.knobs.padding.load(Ordering::Relaxed), 0xaa);
        bytes
    }

    fn closed(&mut self, _context: &mut Context<'_>) {
        self.knobs.closed.lock().unwrap().push((self.count, self.chain));
    }
}
