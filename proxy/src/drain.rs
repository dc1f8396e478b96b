//! Which sessions leave a draining backend, when, and how fast. Pure: it knows keys and times, no sessions.
//!
//! Idle sessions go first; handoffs under way and handoffs begun per second are bounded by the service's document.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::routing::table::DrainPolicy;

/// A session that couldn't begin to move is asked again after this.
const NOT_NOW_DELAY: Duration = Duration::from_millis(20);
/// A session that was thawed is asked again after this.
const THAWED_DELAY: Duration = Duration::from_millis(250);

/// The pace of one drain on one worker.
#[derive(Debug)]
pub struct Drain<K> {
    policy: DrainPolicy,
    waiting: VecDeque<K>,
    later: VecDeque<(Instant, K)>,
    in_flight: u32,
    /// The earliest moment for the next begin; advances by the reciprocal of the rate.
    next_begin: Instant,
    pub begun: Instant,
    pub deadline: Instant,
    pub moved: u64,
    /// Its end (or the end of its time) has been logged.
    pub told: bool,
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
            moved: 0,
            told: false,
        }
    }

    /// Takes the sessions that are to leave, as (key, nothing in flight).
    pub fn add(&mut self, sessions: impl IntoIterator<Item = (K, bool)>) {
        for (key, idle) in sessions {
            if idle { self.waiting.push_front(key) } else { self.waiting.push_back(key) }
        }
    }

    /// The next session that may begin to leave now. It counts as under way until `finished` or `again_later`.
    pub fn next(&mut self, now: Instant) -> Option<K> {
        if self.in_flight >= self.policy.in_flight.max(1) || now < self.next_begin || now >= self.deadline {
            return None;
        }
        // Those that couldn't go once wait until all others have had their turn, so that some that never can don't
        // hold up the rest.
        let key = match self.waiting.pop_front() {
            Some(key) => key,
            None if self.later.front()?.0 <= now => self.later.pop_front()?.1,
            None => return None,
        };
        self.in_flight += 1;
        let interval = Duration::from_secs(1) / self.policy.per_second.max(1);
        // A late caller may catch up, by a tenth of a second at most.
        let floor = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
        self.next_begin = self.next_begin.max(floor) + interval;
        Some(key)
    }

    /// It couldn't begin.
    pub fn not_now(&mut self, key: K, now: Instant) {
        self.again_after(key, now + NOT_NOW_DELAY);
    }

    /// It began and was thawed.
    pub fn thawed(&mut self, key: K, now: Instant) {
        self.again_after(key, now + THAWED_DELAY);
    }

    /// Whoever couldn't go may try again at once.
    pub fn retry(&mut self, now: Instant) {
        for (due, _) in &mut self.later {
            *due = now.min(*due);
        }
    }

    fn again_after(&mut self, key: K, due: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let at = self.later.partition_point(|(other, _)| *other <= due);
        self.later.insert(at, (due, key));
    }

    /// It has left, or has ended.
    pub fn finished(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.moved += 1;
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
        let first = if self.waiting.is_empty() { self.later.front()?.0 } else { self.next_begin };
        Some(first.max(self.next_begin).min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::table::{OnDeadline, OnSigterm};

    fn policy(in_flight: u32, per_second: u32) -> DrainPolicy {
        DrainPolicy {
            in_flight,
            per_second,
            deadline: Duration::from_secs(60),
            on_deadline: OnDeadline::Keep,
            on_sigterm: OnSigterm::Move,
        }
    }

    #[test]
    fn idle_sessions_leave_first_and_no_more_than_allowed_at_once() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(2, 1_000_000), 0, now, now + Duration::from_secs(60));
        drain.add([(1, false), (2, true), (3, false)]);
        let later = now + Duration::from_secs(1);
        assert_eq!(drain.next(later), Some(2));
        assert_eq!(drain.next(later), Some(1));
        assert_eq!(drain.next(later), None, "two are under way");
        drain.finished();
        assert_eq!(drain.next(later), Some(3));
        assert!(!drain.is_idle());
    }

    #[test]
    fn a_rate_is_kept_over_a_second() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(u32::MAX, 100), 0, now, now + Duration::from_secs(60));
        drain.add((0..1000).map(|key| (key, true)));
        let mut begun = 0;
        for step in 0..=1000 {
            while drain.next(now + Duration::from_millis(step)).is_some() {
                begun += 1;
            }
        }
        assert!((100..=111).contains(&begun), "{begun} begun in a second at 100 a second");
    }

    #[test]
    fn a_thawed_session_is_tried_again_later_and_nothing_begins_after_the_deadline() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(8, 1000), 0, now, now + Duration::from_secs(1));
        drain.add([(7, true)]);
        assert_eq!(drain.next(now), Some(7));
        drain.thawed(7, now);
        assert_eq!(drain.next(now + Duration::from_millis(10)), None);
        let then = now + THAWED_DELAY;
        assert_eq!(drain.next(then), Some(7));
        drain.not_now(7, then);
        assert_eq!(drain.due(then), Some(then + NOT_NOW_DELAY));
        drain.retry(then);
        assert_eq!(drain.next(then), Some(7), "something has changed for the better");
        drain.not_now(7, then);
        let over = now + Duration::from_secs(1);
        assert_eq!((drain.next(over), drain.due(over)), (None, None));
    }

    #[test]
    fn sessions_that_cannot_go_hold_up_no_others() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(1, 1000), 0, now, now + Duration::from_secs(60));
        drain.add((0..100).map(|key| (key, false)));
        let mut met = std::collections::BTreeSet::new();
        for step in 0..200 {
            let now = now + Duration::from_millis(step);
            while let Some(key) = drain.next(now) {
                met.insert(key);
                drain.not_now(key, now);
            }
        }
        assert_eq!(met.len(), 100, "each has had a turn in 200 ms at 1,000 a second");
    }

    #[test]
    fn what_left_under_an_earlier_drain_holds_its_places() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(2, 1000), 2, now, now + Duration::from_secs(60));
        drain.add([(1, true)]);
        assert_eq!(drain.next(now), None);
        drain.finished();
        assert_eq!(drain.next(now), Some(1));
    }

    #[test]
    fn a_deadline_that_moves_out_is_told_anew_and_one_that_moves_in_counts() {
        let now = Instant::now();
        let mut drain = Drain::new(policy(2, 1000), 0, now, now + Duration::from_secs(10));
        drain.add([(1, true)]);
        drain.told = true;
        drain.set_deadline(now + Duration::from_secs(20));
        assert!(!drain.told);
        drain.set_deadline(now);
        assert_eq!(drain.next(now), None);
    }
}
