//! The pace at which live sessions are brought to where shares and weights want them. Pure: whoever asks knows what
//! is to be gained by a move.
//!
//! Something has changed (a document, a link): a pass over all sessions begins, the idle first, and each that has
//! something to gain moves. Passes follow one another until one has begun nothing. Moves that fail slow it down, and
//! after some in a row it rests until something changes again: a backend that is listed but refuses everybody costs
//! a few players a pause, not all of them one after another.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two passes, and before a session that couldn't be asked is asked again.
const REST: Duration = Duration::from_millis(250);
/// Between two looks of one pass: many sessions are never looked at in one turn of the worker.
const BREATH: Duration = Duration::from_millis(5);
/// After the first failure; doubles with each that follows.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// After so many failures in a row it gives up, until something changes.
const FAILURES: u32 = 5;

/// A handoff that this has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move<K, L> {
    pub key: K,
    pub from: L,
    pub to: L,
}

/// One service's rebalancing on one worker.
#[derive(Debug)]
pub struct Rebalance<K, L> {
    queue: VecDeque<K>,
    pub moving: Vec<Move<K, L>>,
    /// A pass is to be made when the one that runs is over.
    again: bool,
    /// The earliest moment for the next begin; advances by the reciprocal of the rate.
    next_begin: Instant,
    /// The earliest moment for the next look at anything.
    next_look: Instant,
    failures: u32,
}

impl<K: Copy + PartialEq, L: Copy + PartialEq> Rebalance<K, L> {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            moving: Vec::new(),
            again: false,
            next_begin: now,
            next_look: now,
            failures: 0,
        }
    }

    /// Something has changed: each session is looked at anew.
    pub fn changed(&mut self, now: Instant) {
        self.again = true;
        self.failures = 0;
        self.next_look = now;
    }

    /// What counts changes by itself meanwhile: there is to be another pass, if moves succeed at all.
    pub fn later(&mut self, at: Instant) {
        if self.failures < FAILURES {
            self.again = true;
            self.next_look = self.next_look.max(at);
        }
    }

    /// Whether the sessions are to be listed for a new pass, through `begin_pass`.
    #[must_use]
    pub fn wants_pass(&self, now: Instant) -> bool {
        self.again && self.queue.is_empty() && self.moving.is_empty() && now >= self.next_look
    }

    /// All sessions of the service, as (key, nothing in flight).
    pub fn begin_pass(&mut self, sessions: impl IntoIterator<Item = (K, bool)>) {
        self.again = false;
        for (key, idle) in sessions {
            if idle { self.queue.push_front(key) } else { self.queue.push_back(key) }
        }
    }

    /// The next session to be looked at, if one may begin to move now.
    pub fn next(&mut self, in_flight: u32, now: Instant) -> Option<K> {
        let full = self.moving.len() >= in_flight.max(1) as usize;
        if full || now < self.next_begin || now < self.next_look {
            return None;
        }
        self.queue.pop_front()
    }

    pub fn begins(&mut self, begun: Move<K, L>, per_second: u32, now: Instant) {
        self.moving.push(begun);
        self.again = true;
        let floor = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
        self.next_begin = self.next_begin.max(floor) + Duration::from_secs(1) / per_second.max(1);
    }

    /// It has something to gain, but can't begin now.
    pub fn not_now(&mut self, key: K, now: Instant) {
        self.queue.push_back(key);
        self.next_look = now + REST;
    }

    /// Enough sessions have been looked at in one turn.
    pub fn breathe(&mut self, now: Instant) {
        self.next_look = self.next_look.max(now + BREATH);
    }

    /// Moves that are over, each with whether the session is where it was to go.
    pub fn settle(&mut self, over: impl Fn(&Move<K, L>) -> Option<bool>, now: Instant) {
        let mut results = Vec::new();
        self.moving.retain(|one| match over(one) {
            Some(arrived) => {
                results.push(arrived);
                false
            }
            None => true,
        });
        let last_is_over = !results.is_empty() && self.moving.is_empty() && self.queue.is_empty();
        for arrived in results {
            self.failures = if arrived { 0 } else { self.failures + 1 };
            if !arrived {
                let backoff = FIRST_BACKOFF * (1 << self.failures.min(FAILURES).saturating_sub(1));
                self.next_look = self.next_look.max(now + backoff);
            }
        }
        if self.failures >= FAILURES {
            self.queue.clear();
            self.again = false;
        }
        if last_is_over {
            self.next_look = self.next_look.max(now + REST);
        }
    }

    /// Nothing is to be done, or is under way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.queue.is_empty() && self.moving.is_empty() && !self.again
    }

    /// When it is worth looking again.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let first = if self.queue.is_empty() { self.next_look } else { self.next_look.max(self.next_begin) };
        // Whether a move is over shows when it is looked at.
        let look = if self.moving.is_empty() { first } else { first.min(now + BREATH) };
        Some(look.max(now + Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn without_a_change_nothing_is_looked_at() {
        let now = Instant::now();
        let mut rebalance = Rebalance::<u32, u32>::new(now);
        assert!(rebalance.is_over() && !rebalance.wants_pass(now + ms(10_000)));
        assert_eq!(rebalance.due(now), None);
        rebalance.changed(now);
        assert!(rebalance.wants_pass(now));
    }

    #[test]
    fn idle_sessions_are_first_and_the_rate_is_kept() {
        let now = Instant::now();
        let mut rebalance = Rebalance::new(now);
        rebalance.changed(now);
        rebalance.begin_pass((0..1000).map(|key| (key, key == 500)));
        let mut begun = Vec::new();
        for step in 0..=1000 {
            let now = now + ms(step);
            while let Some(key) = rebalance.next(64, now) {
                rebalance.begins(Move { key, from: 'a', to: 'b' }, 50, now);
                begun.push(key);
            }
            rebalance.settle(|_| Some(true), now);
        }
        assert_eq!(begun[0], 500, "the idle one");
        assert!((50..=56).contains(&begun.len()), "{} begun in a second at 50 a second", begun.len());
    }

    #[test]
    fn passes_follow_until_one_begins_nothing() {
        let now = Instant::now();
        let mut rebalance = Rebalance::new(now);
        rebalance.changed(now);
        rebalance.begin_pass([(1, true)]);
        let key = rebalance.next(1, now).unwrap();
        rebalance.begins(Move { key, from: 'a', to: 'b' }, 1000, now);
        rebalance.settle(|_| None, now);
        assert!(!rebalance.is_over() && !rebalance.wants_pass(now + REST));
        rebalance.settle(|_| Some(true), now);
        rebalance.settle(|_| None, now + REST);
        assert!(rebalance.wants_pass(now + REST), "however often somebody looks meanwhile");
        rebalance.begin_pass([(1, true)]);
        assert_eq!(rebalance.next(1, now + REST), Some(1));
        assert!(rebalance.is_over(), "it had nothing to gain");
    }

    #[test]
    fn what_changes_by_itself_gets_its_pass_in_time_unless_moves_fail() {
        let now = Instant::now();
        let mut rebalance = Rebalance::<u32, u32>::new(now);
        rebalance.later(now + ms(1_000));
        assert!(!rebalance.is_over() && !rebalance.wants_pass(now + ms(999)));
        assert!(rebalance.wants_pass(now + ms(1_000)));
        rebalance.failures = FAILURES;
        rebalance.again = false;
        rebalance.later(now);
        assert!(rebalance.is_over(), "nobody is tried out on a backend that refuses everybody");
    }

    #[test]
    fn moves_that_fail_slow_it_down_and_then_end_it() {
        let begun = Instant::now();
        let mut rebalance = Rebalance::new(begun);
        rebalance.changed(begun);
        rebalance.begin_pass((0..100).map(|key| (key, true)));
        let mut tried = Vec::new();
        for step in 0..60_000 {
            let now = begun + ms(step);
            while let Some(key) = rebalance.next(1, now) {
                tried.push(step);
                rebalance.begins(Move { key, from: 'a', to: 'b' }, 1000, now);
                rebalance.settle(|_| Some(false), now);
            }
        }
        assert_eq!(tried, [0, 1000, 3000, 7000, 15_000]);
        assert!(rebalance.is_over());
        rebalance.changed(begun + ms(60_000));
        assert!(rebalance.wants_pass(begun + ms(60_000)), "it might go better now");
    }
}
