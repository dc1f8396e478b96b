//! One bot's judgement of what it receives: computes what the game must have computed, and names each difference.
//!
//! After a difference the checker takes over the game's value, so that one fault counts once and not for the rest
//! of the run. What never came shows at the end, in `finish`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::hero::Core;
use crate::players::sequence::Sequence;
use crate::players::watch::Watch;
use crate::players::worlds::Seen;
use crate::wire::{Ask, Input, Joined, Refused, Reply, Tick, Turn};
use crate::world::frame_hash;

/// How often each kind of fault was seen. All zero is the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Faults {
    /// Replies or ticks that never came, or frames whose effect is gone.
    pub lost: u64,
    /// Replies or ticks that came twice, or frames that took effect twice.
    pub repeated: u64,
    pub reordered: u64,
    /// Right place, wrong content.
    pub mismatched: u64,
    /// A world's hash that doesn't follow from the one before, or isn't what another player of the match saw.
    pub diverged: u64,
    /// Matches that the bot asked for and wasn't let into.
    pub refused: u64,
}

impl Faults {
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.mismatched += other.mismatched;
        self.diverged += other.diverged;
        self.refused += other.refused;
    }

    /// What came on top of `before`.
    pub fn since(&self, before: Self) -> Self {
        Self {
            lost: self.lost - before.lost,
            repeated: self.repeated - before.repeated,
            reordered: self.reordered - before.reordered,
            mismatched: self.mismatched - before.mismatched,
            diverged: self.diverged - before.diverged,
            refused: self.refused - before.refused,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, repeated, reordered, mismatched, diverged, refused } = self;
        write!(f, "lost {lost}, repeated {repeated}, reordered {reordered}, mismatched {mismatched}")?;
        if diverged + refused > 0 {
            write!(f, ", worlds diverged {diverged}, joins refused {refused}")?;
        }
        Ok(())
    }
}

/// A frame that waits for its reply.
#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    sent_us: u64,
    ask: Ask,
}

pub struct Checker {
    seed: u64,
    frame_bytes: usize,
    faults: Faults,
    /// The state after the last reply.
    core: Core,
    last_sent: u64,
    /// Consecutive seqs, oldest first.
    waiting: VecDeque<Sent>,
    /// Overtaken by a later reply: late until they come, lost if they never do. By seq.
    overtaken: BTreeMap<u64, Sent>,
    ticks: Sequence,
    /// The highest count a tick has shown: a reply that comes later with no more than that was overtaken by it.
    tick_count: u64,
    pub watch: Watch,
    /// A frame made anew for comparison; kept for its allocation.
    scratch: Vec<u8>,
}

impl Checker {
    /// For a bot whose frames have `frame_bytes` bytes, without prefix.
    pub fn new(seed: u64, frame_bytes: usize) -> Self {
        Self {
            seed,
            frame_bytes,
            faults: Faults::default(),
            core: Core::default(),
            last_sent: 0,
            waiting: VecDeque::new(),
            overtaken: BTreeMap::new(),
            ticks: Sequence::after(0),
            tick_count: 0,
            watch: Watch::default(),
            scratch: Vec::new(),
        }
    }

    /// The next frame to send; from now on a reply is owed.
    pub fn next_input(&mut self, now_us: u64, ask: Ask) -> Input {
        self.last_sent += 1;
        self.waiting.push_back(Sent { seq: self.last_sent, sent_us: now_us, ask });
        self.watch.asks(ask, self.last_sent);
        Input { seed: self.seed, seq: self.last_sent, sent_us: now_us, ask }
    }

    pub fn sent(&self) -> u64 {
        self.last_sent
    }

    pub fn ticks(&self) -> u64 {
        self.ticks.last()
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Send times of the frames whose reply hasn't come.
    pub fn unanswered(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().chain(self.overtaken.values()).map(|sent| sent.sent_us)
    }

    /// When the frame was sent that has waited longest for its reply.
    pub fn waits_since(&self) -> Option<u64> {
        let overtaken = self.overtaken.values().map(|sent| sent.sent_us).min();
        self.waiting.front().map(|sent| sent.sent_us).into_iter().chain(overtaken).min()
    }

    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
            && self.overtaken.is_empty()
            && !self.watch.is_waiting()
            && self.watch.behind() == 0
    }

    /// The oldest frame that may still be answered in order.
    fn first_waiting(&self) -> u64 {
        self.waiting.front().map_or(self.last_sent + 1, |sent| sent.seq)
    }

    /// Takes a reply; returns the send time of the frame that it answers, unless it answers none.
    pub fn reply(&mut self, reply: &Reply<'_>) -> Option<u64> {
        if reply.seq > self.last_sent || reply.seq == 0 {
            self.faults.mismatched += 1;
            return None;
        }
        if reply.seq < self.first_waiting() {
            return self.late_or_repeated(reply);
        }
        let overtaken_before = self.overtaken.len();
        let mut with_skipped = self.core;
        while let Some(skipped) = self.waiting.pop_front_if(|sent| sent.seq < reply.seq) {
            self.make_frame(skipped);
            with_skipped.advance(&self.scratch);
            self.overtaken.insert(skipped.seq, skipped);
        }
        let skipped = (self.overtaken.len() - overtaken_before) as u64;
        let sent = self.waiting.pop_front()?;
        self.make_frame(sent);
        self.check_echo(reply);
        if reply.core.count <= self.tick_count && reply.core.count == self.core.count + 1 {
            self.faults.reordered += 1;
        }
        self.check_core(&reply.core, with_skipped, skipped);
        self.watch.answered(reply.seq, &mut self.faults);
        Some(sent.sent_us)
    }

    fn late_or_repeated(&mut self, reply: &Reply<'_>) -> Option<u64> {
        let late = self.overtaken.remove(&reply.seq);
        match late {
            Some(_) => self.faults.reordered += 1,
            None => self.faults.repeated += 1,
        }
        // Processed only now (out of order, or once more): the chain goes on from here.
        if reply.core.count == self.core.count + 1 {
            if let Some(sent) = late {
                self.make_frame(sent);
                let mut expected = self.core;
                expected.advance(&self.scratch);
                self.faults.mismatched += u64::from(expected != reply.core);
            }
            self.core = reply.core;
        }
        late.map(|sent| sent.sent_us)
    }

    /// `scratch` holds the answered frame; `with_skipped` is the state if the game also processed what it skipped.
    fn check_core(&mut self, got: &Core, mut with_skipped: Core, skipped: u64) {
        let mut alone = self.core;
        alone.advance(&self.scratch);
        with_skipped.advance(&self.scratch);
        if *got != with_skipped && *got != alone {
            if got.count > with_skipped.count {
                self.faults.repeated += got.count - with_skipped.count;
            } else if got.count + skipped < with_skipped.count {
                self.faults.lost += with_skipped.count - skipped - got.count;
            } else {
                self.faults.mismatched += 1;
            }
        }
        self.core = *got;
    }

    fn check_echo(&mut self, reply: &Reply<'_>) {
        let expected = self.scratch.get(reply.head_bytes..).unwrap_or_default();
        self.faults.mismatched += u64::from(reply.echo != expected);
    }

    fn make_frame(&mut self, sent: Sent) {
        self.scratch.clear();
        let input = Input { seed: self.seed, seq: sent.seq, sent_us: sent.sent_us, ask: sent.ask };
        input.encode(self.frame_bytes, &mut self.scratch);
    }

    pub fn tick(&mut self, tick: &Tick) {
        if !self.ticks.take(tick.number, &mut self.faults) {
            return;
        }
        if tick.count < self.core.count {
            self.faults.reordered += 1;
        } else if tick.count == self.core.count && tick.chain != self.core.chain {
            self.faults.mismatched += 1;
        }
        self.tick_count = self.tick_count.max(tick.count);
    }

    /// The bot is in a match; `seen` is what others have told of its world.
    pub fn joined(&mut self, joined: Joined, seen: Rc<Seen>) {
        let answered = self.first_waiting() - 1;
        self.watch.joined(joined, answered, seen, &mut self.faults);
    }

    pub fn refused(&mut self, refused: &Refused<'_>) {
        self.watch.refused(refused.game, &mut self.faults);
    }

    /// A turn of the match's world.
    pub fn turn(&mut self, turn: &Turn) {
        let index = turn.seq.checked_sub(self.first_waiting()).and_then(|index| usize::try_from(index).ok());
        let own =
            index.filter(|_| self.watch.is_own(turn)).and_then(|index| self.waiting.get(index).copied());
        let own_hash = own.map(|sent| {
            self.make_frame(sent);
            frame_hash(&self.scratch)
        });
        self.watch.turn(turn, self.last_sent, own_hash, &mut self.faults);
    }

    /// A tick was due and didn't come.
    pub fn tick_missing(&mut self) {
        self.faults.lost += 1;
    }

    /// What hasn't come by now is lost.
    pub fn finish(&mut self) -> Faults {
        self.faults.lost += (self.waiting.len() + self.overtaken.len()) as u64;
        self.waiting.clear();
        self.overtaken.clear();
        self.ticks.finish(&mut self.faults);
        self.watch.finish(&mut self.faults);
        self.faults
    }
}

#[cfg(test)]
mod tests;
