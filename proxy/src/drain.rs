//! Which sessions leave a draining backend, when, and how fast. Pure: it knows keys and times, no sessions.
//!
//! Idle sessions go first; handoffs under way and handoffs begun per second are bounded by the service's document.

pub mod progress;
pub mod rebalance;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::routing::table::DrainPolicy;
use crate::telemetry::counters::HandoffResult;
use progress::{Counts, Progress, Reporter, State};

/// A session that couldn't begin to move is asked again after this.
const NOT_NOW_DELAY: Duration = Duration::from_millis(20);
/// A session that was thawed is asked again after this.
const THAWED_DELAY: Duration = Duration::from_millis(250);

/// Why a session that had its turn is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// It can't be frozen now: it is attaching, or there is no room for its state.
    NotNow,
    /// The link to the backend that it would go to isn't up yet.
    Link,
    /// No other backend can take it.
    NoPlace,
    /// It left, and came back.
    Thawed,
}

impl Delay {
    fn time(self) -> Duration {
        match self {
            Self::NotNow | Self::Link => NOT_NOW_DELAY,
            Self::NoPlace | Self::Thawed => THAWED_DELAY,
        }
    }

    /// What a drain waits for whose sessions are all held up by this.
    fn waits_for(self) -> &'static str {
        match self {
            Self::NotNow => "sessions that can't be frozen now",
            Self::Link => "a link to the backend that is to take its sessions",
            Self::NoPlace => "another backend that can take its sessions",
            Self::Thawed => "another try with sessions that came back",
        }
    }
}

/// A session that is asked again.
#[derive(Debug, Clone, Copy)]
struct Later<K> {
    due: Instant,
    key: K,
    why: Delay,
}

/// The pace of one drain on one worker.
#[derive(Debug)]
pub struct Drain<K> {
    policy: DrainPolicy,
    waiting: VecDeque<K>,
    later: VecDeque<Later<K>>,
    in_flight: u32,
    /// The earliest moment for the next begin; advances by the reciprocal of the rate.
    next_begin: Instant,
    pub begun: Instant,
    pub deadline: Instant,
    pub counts: Counts,
    /// How the latest turn was held up, if it was.
    held_up: Option<Delay>,
    /// Its end (or the end of its time) has been logged.
    pub told: bool,
    pub reporter: Reporter,
    /// When the backend was last asked how many attachments it has.
    pub asked: Option<Instant>,
}

impl<K: Copy + PartialEq> Drain<K> {
    /// `under_way` sessions are leaving already, under an earlier drain of the same backend.
    #[must_use]
    pub fn new(policy: DrainPolicy, under_way: u32, now: Instant, deadline: Instant) -> Self {
        Self {
            policy,
            waiting: VecDeque::new(),
            later: VecDeque::new(),
            in_flight: under_way,
            next_begin: now,
            begun: now,
            deadline,
            counts: Counts::default(),
            held_up: None,
            told: false,
            reporter: Reporter::default(),
            asked: None,
        }
    }

    /// Takes the sessions that are to leave, as (key, nothing in flight).
    pub fn add(&mut self, sessions: impl IntoIterator<Item = (K, bool)>) {
        for (key, idle) in sessions {
            if idle { self.waiting.push_front(key) } else { self.waiting.push_back(key) }
        }
    }

    /// The next session that may begin to leave now. It counts as under way until it is settled, ended, skipped or
    /// held up.
    pub fn next(&mut self, now: Instant) -> Option<K> {
        if self.in_flight >= self.policy.in_flight.max(1) || now < self.next_begin || now >= self.deadline {
            return None;
        }
        // Those that couldn't go once wait until all others have had their turn, so that some that never can don't
        // hold up the rest.
        let key = match self.waiting.pop_front() {
            Some(key) => key,
            None if self.later.front()?.due <= now => self.later.pop_front()?.key,
            None => return None,
        };
        self.in_flight += 1;
        let interval = Duration::from_secs(1) / self.policy.per_second.max(1);
        // A late caller may catch up, by a tenth of a second at most.
        let floor = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
        self.next_begin = self.next_begin.max(floor) + interval;
        Some(key)
    }

    /// Its turn has come to something: it is on its way.
    pub fn begins(&mut self) {
        self.held_up = None;
    }

    /// It couldn't begin, or was thawed.
    pub fn held_up(&mut self, key: K, why: Delay, now: Instant) {
        self.held_up = Some(why);
        self.in_flight = self.in_flight.saturating_sub(1);
        let due = now + why.time();
        let at = self.later.partition_point(|other| other.due <= due);
        self.later.insert(at, Later { due, key, why });
    }

    /// Whoever couldn't go may try again at once.
    pub fn retry(&mut self, now: Instant) {
        for later in &mut self.later {
            later.due = now.min(later.due);
        }
    }

    /// Its handoff is over.
    pub fn settled(&mut self, key: K, result: HandoffResult, now: Instant) {
        if result == HandoffResult::Thawed {
            self.counts.thawed += 1;
            return self.held_up(key, Delay::Thawed, now);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match result {
            HandoffResult::Moved => self.counts.moved += 1,
            HandoffResult::Parked => self.counts.parked += 1,
            HandoffResult::Closed | HandoffResult::Thawed => self.counts.ended += 1,
        }
    }

    /// Its session has ended on the way.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counts.ended += 1;
    }

    /// It had left by itself before its turn.
    pub fn skipped(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The causes have changed. A later deadline gives those that stayed another chance.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.told &= deadline <= self.deadline;
        self.deadline = deadline;
    }

    /// The service's document has changed.
    pub fn set_policy(&mut self, policy: DrainPolicy) {
        self.policy = policy;
    }

    /// Nothing waits and nothing is under way: time to look for sessions that were attaching when it began.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty() && self.later.is_empty()
    }

    /// Handoffs that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When `next` is worth asking again, without any session finishing in between. After the deadline never: a clock
    /// that is set to it then would do nothing but ring.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.in_flight >= self.policy.in_flight.max(1) || now >= self.deadline {
            return None;
        }
        let first = if self.waiting.is_empty() { self.later.front()?.due } else { self.next_begin };
        Some(first.max(self.next_begin).min(self.deadline))
    }

    /// How far it is, with `left` sessions on the backend.
    #[must_use]
    pub fn progress(&self, left: u64, now: Instant) -> Progress {
        let homeless = self.later.iter().filter(|later| later.why == Delay::NoPlace).count() as u64;
        let state = match self.held_up {
            _ if left == 0 && self.in_flight == 0 => State::Drained,
            _ if now >= self.deadline && self.in_flight == 0 => State::Deadline,
            Some(Delay::NoPlace) if self.in_flight == 0 && homeless > 0 => State::Stuck,
            Some(_) if self.in_flight == 0 => State::Waiting,
            _ => State::Moving,
        };
        let waits_for = match state {
            State::Stuck | State::Waiting => self.held_up.map(Delay::waits_for),
            State::Moving | State::Deadline | State::Drained => None,
        };
        Progress {
            state,
            left,
            in_flight: u64::from(self.in_flight),
            homeless,
            counts: self.counts,
            waits_for,
            running: now.saturating_duration_since(self.begun),
            remaining: self.deadline.saturating_duration_since(now),
        }
    }
}

#[cfg(test)]
mod tests;
