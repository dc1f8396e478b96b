//! The game of the simulation: a hash chain over all its inputs, timers and results of work included. Every server
//! frame tells the inputs since the one before, so that the player can compute the chain and nothing can hide.

mod crowd;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use holdfast_backend::{
    Context, Game, Group, GroupContext, GroupId, Opening, Refusal, Session, SessionId, Tag,
};

pub use self::crowd::{COMMON_BYTES, common};

/// A periodic timer's tag; other tags are a client frame's index plus one.
const TICK: Tag = Tag(0);
/// One-shot timers and work are told apart by this bit of their tags.
const ONCE: u64 = 1 << 40;
/// A client frame: its index, what it asks for, then anything.
pub const FRAME_HEAD: usize = 5;

/// What a client frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Answer = 0,
    /// No answer now.
    Quiet = 1,
    /// Many answers.
    Burst = 2,
    /// Work beside the session.
    Work = 3,
    /// A timer that fires once.
    Once = 4,
    /// The time and a random number in the chain.
    Values = 5,
    /// The end of the session.
    Quit = 6,
    /// To be in the match whose number follows.
    Join = 7,
    /// To leave it.
    Leave = 8,
}

impl Ask {
    const ALL: [Self; 9] = [
        Self::Answer,
        Self::Quiet,
        Self::Burst,
        Self::Work,
        Self::Once,
        Self::Values,
        Self::Quit,
        Self::Join,
        Self::Leave,
    ];

    pub fn of(frame: &[u8]) -> Self {
        Self::ALL[usize::from(frame[4])]
    }

    /// The tag of what the frame of that index begins.
    fn begins(self, index: u64) -> Option<u64> {
        match self {
            Self::Work => Some(index + 1),
            Self::Once => Some((index + 1) | ONCE),
            _ => None,
        }
    }

    fn answers(self) -> usize {
        match self {
            Self::Quiet => 0,
            Self::Burst => 10,
            _ => 1,
        }
    }
}

/// One input as the chain takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    pub kind: Kind,
    pub a: u64,
    pub b: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `a`: its index; `b`: the values it asked for.
    Frame = 0,
    Tick = 1,
    /// `a`: the tag; `b`: the values of that moment.
    Once = 2,
    /// `a`: the tag; `b`: what came back.
    Result = 3,
}

pub const INPUT_BYTES: usize = 17;

impl Input {
    pub fn write(self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.extend_from_slice(&self.a.to_le_bytes());
        out.extend_from_slice(&self.b.to_le_bytes());
    }

    pub fn read(bytes: &[u8]) -> Self {
        let kind = [Kind::Frame, Kind::Tick, Kind::Once, Kind::Result][usize::from(bytes[0])];
        Self { kind, a: word(bytes, 1), b: word(bytes, 9) }
    }

    /// The chain after this input; `frame` is the client's, if it is one.
    pub fn link(self, chain: u64, frame: &[u8]) -> u64 {
        let mut bytes = Vec::with_capacity(INPUT_BYTES);
        self.write(&mut bytes);
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, chain);
        xxhash_rust::xxh3::xxh3_64_with_seed(frame, seed)
    }
}

pub fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What faults may change in a running game, and what a test reads of it. They outlive the process.
#[derive(Debug, Default)]
pub struct Knobs {
    /// 0: takes everybody; 1: refuses, may be asked again; 2: refuses states for good.
    pub refuses: AtomicU8,
    /// Bytes added to every state.
    pub padding: AtomicUsize,
    /// Microseconds between ticks; 0: none.
    pub tick_us: AtomicU64,
    /// Counts what work brings back: another number each time, also for the same work begun again.
    pub results: AtomicU64,
    /// By session: how often it was told of its end, and the chains it had then.
    pub closed: Mutex<BTreeMap<SessionId, Vec<u64>>>,
    pub opened: AtomicUsize,
}

pub struct Chain {
    pub knobs: Arc<Knobs>,
}

pub struct Player {
    knobs: Arc<Knobs>,
    state: State,
}

/// All that moves with the session.
#[derive(Debug, Default)]
struct State {
    /// The epoch at which this history began after a loss, else 0.
    lineage: u32,
    /// Server frames sent in it.
    number: u32,
    chain: u64,
    /// Inputs that no server frame has told.
    untold: Vec<Input>,
    /// Tags of work and timers under way.
    under_way: Vec<u64>,
}

impl State {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lineage.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&(u32::try_from(self.untold.len()).unwrap()).to_le_bytes());
        self.untold.iter().for_each(|input| input.write(out));
    }

    fn read(bytes: &[u8]) -> Self {
        let shown = Shown::parse(bytes);
        let rest = &bytes[HEAD + shown.inputs.len() * INPUT_BYTES..];
        let under_way = (0..short(rest, 0) as usize).map(|at| word(rest, 4 + 8 * at)).collect();
        let Shown { lineage, number, chain, inputs: untold } = shown;
        Self { lineage, number, chain, untold, under_way }
    }

    fn take(&mut self, input: Input, frame: &[u8]) {
        self.chain = input.link(self.chain, frame);
        self.untold.push(input);
    }

    /// A server frame.
    fn tell(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        self.untold.clear();
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes.extend_from_slice(&(u32::try_from(self.under_way.len()).unwrap()).to_le_bytes());
        self.under_way.iter().for_each(|tag| bytes.extend_from_slice(&tag.to_le_bytes()));
        bytes
    }
}

const HEAD: usize = 20;

/// A server frame, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub lineage: u32,
    pub number: u32,
    pub chain: u64,
    pub inputs: Vec<Input>,
}

impl Shown {
    /// What follows its own part: of a match, the common one.
    pub fn rest<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[HEAD + self.inputs.len() * INPUT_BYTES..]
    }

    pub fn parse(frame: &[u8]) -> Self {
        let count = short(frame, 16) as usize;
        let input = |index| Input::read(&frame[HEAD + index * INPUT_BYTES..]);
        Self {
            lineage: short(frame, 0),
            number: short(frame, 4),
            chain: word(frame, 8),
            inputs: (0..count).map(input).collect(),
        }
    }
}

fn micros(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

impl Game for Chain {
    type Session = Player;

    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Player, Refusal> {
        match (self.knobs.refuses.load(Ordering::Relaxed), opening) {
            (1, _) => return Err(Refusal::for_now("full")),
            (2, Opening::State(_)) => return Err(Refusal::for_good("not mine")),
            _ => {}
        }
        self.knobs.opened.fetch_add(1, Ordering::Relaxed);
        let state = match opening {
            Opening::Fresh => State::default(),
            Opening::Lost => {
                let lineage = u32::try_from(context.epoch().0).unwrap();
                State { lineage, ..State::default() }
            }
            Opening::State(bytes) | Opening::Recovered(bytes) => State::read(bytes),
        };
        let player = Player { knobs: Arc::clone(&self.knobs), state };
        let tick_us = self.knobs.tick_us.load(Ordering::Relaxed);
        if tick_us > 0 {
            context.every(TICK, Duration::from_micros(tick_us));
        }
        player.state.under_way.iter().for_each(|tag| player.begin(*tag, context));
        Ok(player)
    }

    fn open_group(
        &self,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Box<dyn Group>, Refusal> {
        Ok(Box::new(crowd::Crowd::open(&self.knobs, opening, context)?))
    }
}

impl Player {
    fn begin(&self, tag: u64, context: &mut Context<'_>) {
        if tag & ONCE != 0 {
            return context.after(Tag(tag), Duration::from_millis(5 + tag % 64));
        }
        let knobs = Arc::clone(&self.knobs);
        context.spawn(Tag(tag), async move {
            knobs.results.fetch_add(1, Ordering::Relaxed).to_le_bytes().to_vec()
        });
    }

    fn take(&mut self, input: Input, frame: &[u8]) {
        self.state.take(input, frame);
    }

    /// At level `delta`: the whole state, it is small.
    fn tell_change(&self, context: &mut Context<'_>) {
        if context.wants_change() {
            context.change(&self.state.bytes());
        }
    }

    fn send(&mut self, context: &mut Context<'_>) {
        context.send(&self.state.tell());
    }
}

impl Session for Player {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        let index = u64::from(short(frame, 0));
        let ask = Ask::of(frame);
        let values = ask == Ask::Values;
        let b = if values { micros(context.now()) ^ context.random() } else { 0 };
        self.take(Input { kind: Kind::Frame, a: index, b }, frame);
        if let Some(tag) = ask.begins(index) {
            self.state.under_way.push(tag);
            self.begin(tag, context);
        }
        (0..ask.answers()).for_each(|_| self.send(context));
        match ask {
            Ask::Quit => context.close(),
            Ask::Join => context.join(GroupId([frame[FRAME_HEAD]; 16])),
            _ => {}
        }
        self.tell_change(context);
    }

    fn timer(&mut self, timer: Tag, context: &mut Context<'_>) {
        let values = micros(context.now()) ^ context.random();
        if timer == TICK {
            self.take(Input { kind: Kind::Tick, a: 0, b: values }, &[]);
        } else {
            self.state.under_way.retain(|tag| *tag != timer.0);
            self.take(Input { kind: Kind::Once, a: timer.0, b: values }, &[]);
        }
        self.send(context);
        self.tell_change(context);
    }

    fn finished(&mut self, work: Tag, result: &[u8], context: &mut Context<'_>) {
        self.state.under_way.retain(|tag| *tag != work.0);
        self.take(Input { kind: Kind::Result, a: work.0, b: word(result, 0) }, &[]);
        self.send(context);
        self.tell_change(context);
    }

    fn apply(&mut self, change: &[u8], context: &mut Context<'_>) {
        let before = std::mem::replace(&mut self.state, State::read(change));
        let begun = self.state.under_way.iter().filter(|tag| !before.under_way.contains(tag));
        begun.filter(|tag| *tag & ONCE == 0).for_each(|tag| self.begin(*tag, context));
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.state.bytes();
        bytes.resize(bytes.len() + self.knobs.padding.load(Ordering::Relaxed), 0xaa);
        bytes
    }

    fn closed(&mut self, context: &mut Context<'_>) {
        let mut closed = self.knobs.closed.lock().unwrap();
        closed.entry(context.session()).or_default().push(self.state.chain);
    }
}
