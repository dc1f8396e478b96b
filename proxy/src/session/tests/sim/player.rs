//! A player: sends frames, reads at its own pace, and checks every answer against the game's chain.

use std::collections::BTreeSet;

use super::game::{Ask, COMMON_BYTES, Kind, Shown, common};
use super::io::{ConnId, Event, Holder, Io, NEVER, Read, Time, Written};
use super::plan::{Departure, PlayerPlan};

/// The player's end of its connection.
const HERE: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Waits,
    Plays,
    /// It sends no more, and listens.
    Listens,
    Gone,
}

pub struct Player {
    pub index: usize,
    pub plan: PlayerPlan,
    pub stage: Stage,
    pub conn: Option<ConnId>,
    pub sent: Vec<Vec<u8>>,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    next_frame: Time,
    next_read: Time,
    alarm: Time,
    pub slow_until: Time,
    /// Nothing goes wrong any more: it may come to its end.
    pub calm: bool,
    pub oracle: Oracle,
    /// A crash may take its last frame: it asks again.
    pub insists: bool,
    wants_in: bool,
    asked_at: Time,
    /// It has seen the end of the stream.
    pub saw_end: bool,
}

/// How long a player waits for the answer to its last frame before it asks again, where it has to.
const INSISTS_AFTER: Time = Time::from_secs(2);

impl Player {
    pub fn new(index: usize, plan: PlayerPlan) -> Self {
        Self {
            index,
            plan,
            stage: Stage::Waits,
            conn: None,
            sent: Vec::new(),
            outbox: Vec::new(),
            inbox: Vec::new(),
            next_frame: Time::ZERO,
            next_read: Time::ZERO,
            alarm: NEVER,
            slow_until: Time::ZERO,
            calm: false,
            oracle: Oracle::default(),
            insists: false,
            wants_in: false,
            asked_at: Time::ZERO,
            saw_end: false,
        }
    }

    /// It connects: the proxy takes the connection at once.
    pub fn connect(&mut self, io: &mut Io) -> ConnId {
        let holders = [Holder::Player(self.index), Holder::Client(self.plan.proxy, self.index)];
        let conn = io.open(holders, self.plan.shape);
        self.conn = Some(conn);
        self.stage = Stage::Plays;
        conn
    }

    /// Its turn: it reads, sends, and leaves.
    pub fn turn(&mut self, io: &mut Io) {
        let Some(conn) = self.conn else { return };
        self.read(conn, io);
        if self.stage == Stage::Plays && io.now >= self.next_frame {
            self.next_frame = io.now + self.plan.gap;
            self.play(conn, io);
        }
        if self.stage != Stage::Gone && !self.outbox.is_empty() {
            io.write(conn, HERE, &mut self.outbox);
        }
        self.set_alarm(io);
    }

    /// When it wants its turn, if nothing comes before.
    fn set_alarm(&mut self, io: &mut Io) {
        if self.alarm <= io.now {
            self.alarm = NEVER;
        }
        let plays = (self.stage == Stage::Plays).then_some(self.next_frame);
        let reads = Some(self.may_read_at()).filter(|at| *at > io.now);
        if let Some(due) = plays.into_iter().chain(reads).min()
            && due < self.alarm
        {
            self.alarm = due;
            io.at(due, Event::Player(self.index));
        }
    }

    fn may_read_at(&self) -> Time {
        self.next_read.max(self.slow_until)
    }

    fn end_its_stream(&mut self, conn: ConnId, io: &mut Io) {
        if io.write(conn, HERE, &mut self.outbox) == Written::All {
            io.end(conn, HERE);
            self.stage = Stage::Listens;
        }
    }

    fn play(&mut self, conn: ConnId, io: &mut Io) {
        let count = u32::try_from(self.sent.len()).unwrap();
        match self.plan.departure {
            Departure::Half(frames) if count > frames => self.end_its_stream(conn, io),
            Departure::Hurried(frames) if count > frames => {
                io.write(conn, HERE, &mut self.outbox);
                self.leave(conn, io);
            }
            Departure::Broken(frames) if count > frames => {
                io.cut(conn, [Some(Time::ZERO), Some(self.plan.shape.latency)]);
                self.leave(conn, io);
            }
            Departure::Content if self.calm && self.is_content() => self.leave(conn, io),
            // The last frame waits for the calm, so that its answer shows that all is well.
            Departure::Quits if self.calm && count >= self.plan.frames => {
                let again = io.now >= self.asked_at + INSISTS_AFTER;
                if count == self.plan.frames || (self.insists && again) {
                    self.asked_at = io.now;
                    self.say(Ask::Quit, io);
                }
            }
            _ if count < self.plan.frames || (self.calm && count == self.plan.frames) => {
                let ask = match io.rng.u8(0..12) {
                    _ if count == self.plan.frames => Ask::Answer,
                    0..=2 if self.plan.party.is_some() => self.comes_or_goes(),
                    0..=4 => Ask::Answer,
                    5 | 6 => Ask::Quiet,
                    7 => Ask::Burst,
                    8 => Ask::Work,
                    9 => Ask::Once,
                    _ => Ask::Values,
                };
                self.asked_at = io.now;
                self.say(ask, io);
            }
            Departure::Content if self.insists && io.now >= self.asked_at + INSISTS_AFTER => {
                self.asked_at = io.now;
                self.say(Ask::Answer, io);
            }
            _ => {}
        }
    }

    /// Whoever isn't in the match wants to be; now and then also who is, which changes nothing.
    fn comes_or_goes(&mut self) -> Ask {
        self.wants_in = !self.wants_in;
        if self.wants_in { Ask::Join } else { Ask::Leave }
    }

    /// Many frames at once.
    pub fn flood(&mut self, frames: u32, io: &mut Io) {
        let left = self.plan.frames.saturating_sub(u32::try_from(self.sent.len()).unwrap());
        if self.stage == Stage::Plays {
            (0..frames.min(left)).for_each(|_| self.say(Ask::Answer, io));
        }
    }

    fn say(&mut self, ask: Ask, io: &mut Io) {
        let mut frame = u32::try_from(self.sent.len()).unwrap().to_le_bytes().to_vec();
        frame.push(ask as u8);
        frame.extend(self.plan.party.filter(|_| ask == Ask::Join));
        let more = io.rng.usize(0..=self.plan.frame_bytes);
        frame.resize(frame.len() + more, io.rng.u8(..));
        self.outbox.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        self.outbox.extend_from_slice(&frame);
        self.sent.push(frame);
    }

    fn is_content(&self) -> bool {
        let last = u32::try_from(self.sent.len()).unwrap().checked_sub(1);
        self.sent.len() > self.plan.frames as usize && self.oracle.last == last && self.oracle.owed.is_empty()
    }

    /// Its last frame that has an answer.
    pub fn last_loud(&self) -> Option<u32> {
        let at = self.sent.iter().rposition(|frame| Ask::of(frame) != Ask::Quiet)?;
        Some(u32::try_from(at).unwrap())
    }

    fn leave(&mut self, conn: ConnId, io: &mut Io) {
        io.close(conn, HERE);
        self.stage = Stage::Gone;
        self.conn = None;
    }

    fn read(&mut self, conn: ConnId, io: &mut Io) {
        if io.now < self.may_read_at() {
            return;
        }
        let (most, pause) = self.plan.reads;
        match io.read(conn, HERE, most) {
            Read::Nothing => {}
            Read::Bytes(bytes) => {
                self.next_read = io.now + pause;
                self.inbox.extend_from_slice(&bytes);
                self.take_frames(io);
            }
            Read::End | Read::Reset => {
                self.saw_end = true;
                let quit = self.sent.last().is_some_and(|frame| Ask::of(frame) == Ask::Quit);
                assert!(quit || self.stage == Stage::Listens, "player {} was thrown out", self.index);
                self.leave(conn, io);
            }
        }
    }

    fn take_frames(&mut self, io: &mut Io) {
        let mut at = 0;
        while let Some(head) = self.inbox.get(at..at + 4) {
            let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
            let Some(frame) = self.inbox.get(at + 4..at + 4 + length) else { break };
            let shown = Shown::parse(frame);
            let numbers = [self.index as u64, shown.chain];
            io.trace.event(io.now, "shown", &numbers, || format!("player {} {shown:?}", self.index));
            self.oracle.see(self.index, &shown, &self.sent);
            if let Some(party) = self.plan.party.filter(|_| shown.rest(frame).len() == COMMON_BYTES) {
                let (born, count, chain) = common(shown.rest(frame));
                let known = *io.matches.entry((party, born, count)).or_insert(chain);
                assert_eq!(chain, known, "player {}: its match had one order of inputs", self.index);
                self.oracle.shared += 1;
            }
            at += 4 + length;
        }
        self.inbox.drain(..at);
    }
}

/// What the answers must be.
#[derive(Debug, Default)]
pub struct Oracle {
    lineage: Option<u32>,
    pub lineages: u32,
    number: u32,
    chain: u64,
    /// No own frame has been told of in this history.
    fresh: bool,
    /// Last own frame that an answer has told of.
    pub last: Option<u32>,
    /// Work and timers that the game has begun for us and not ended, by tag.
    pub owed: BTreeSet<u64>,
    /// Frames that it was sent in a match.
    pub shared: u64,
}

impl Oracle {
    fn see(&mut self, player: usize, shown: &Shown, sent: &[Vec<u8>]) {
        if self.lineage != Some(shown.lineage) {
            assert!(
                self.lineage.is_none_or(|before| before < shown.lineage),
                "player {player}: an old history"
            );
            self.lineage = Some(shown.lineage);
            self.lineages += 1;
            self.number = 0;
            self.chain = 0;
            self.owed.clear();
            self.fresh = true;
        }
        assert_eq!(shown.number, self.number + 1, "player {player}: server frames are numbered on");
        self.number = shown.number;
        for input in &shown.inputs {
            let frame: &[u8] = match input.kind {
                Kind::Frame => self.frame(player, input.a, sent),
                Kind::Once | Kind::Result => {
                    assert!(self.owed.remove(&input.a), "player {player}: {input:?} wasn't owed");
                    &[]
                }
                Kind::Tick => &[],
            };
            self.chain = input.link(self.chain, frame);
        }
        assert_eq!(shown.chain, self.chain, "player {player}: the game had these inputs, in this order");
    }

    /// One of the player's own frames: the one after the last, but for those that a crash took.
    fn frame<'a>(&mut self, player: usize, index: u64, sent: &'a [Vec<u8>]) -> &'a [u8] {
        let index = u32::try_from(index).unwrap();
        let next = self.last.map_or(0, |last| last + 1);
        let begins = std::mem::take(&mut self.fresh);
        assert!(index == next || (begins && index > next), "player {player}: frame {index}, not {next}");
        self.last = Some(index);
        let frame = &sent[index as usize];
        match Ask::of(frame) {
            Ask::Work => self.owed.insert(u64::from(index) + 1),
            Ask::Once => self.owed.insert((u64::from(index) + 1) | 1 << 40),
            _ => false,
        };
        frame
    }
}
