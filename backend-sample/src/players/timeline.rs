//! What one session felt, frame by frame: kept whole, so that pauses are computed after the fact.
//!
//! Eight bytes a frame: a million frames (1,000 sessions at 20 Hz for 50 s) are 8 MB.

/// Send times are kept in steps of 16 us: 19 hours fit.
const STEP_US: u64 = 16;

#[derive(Debug, Clone, Copy)]
struct Trip {
    sent_steps: u32,
    latency_us: u32,
}

/// Who served the session from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub since_us: u64,
    /// Index into the swarm's list of backends.
    pub backend: usize,
}

#[derive(Debug, Default)]
pub struct Timeline {
    trips: Vec<Trip>,
    served: Vec<Served>,
}

impl Timeline {
    pub fn record(&mut self, sent_us: u64, now_us: u64) {
        let sent_steps = u32::try_from(sent_us / STEP_US).unwrap_or(u32::MAX);
        let latency_us = u32::try_from(now_us.saturating_sub(sent_us)).unwrap_or(u32::MAX);
        self.trips.push(Trip { sent_steps, latency_us });
    }

    /// A reply came from this backend.
    pub fn served_by(&mut self, backend: usize, now_us: u64) {
        if self.served.last().is_none_or(|last| last.backend != backend) {
            self.served.push(Served { since_us: now_us, backend });
        }
    }

    pub fn backend(&self) -> Option<usize> {
        self.served.last().map(|last| last.backend)
    }

    pub fn len(&self) -> usize {
        self.trips.len()
    }

    pub fn is_empty(&self) -> bool {
        self.trips.is_empty()
    }

    pub fn latencies_us(&self) -> impl Iterator<Item = u32> + '_ {
        self.trips.iter().map(|trip| trip.latency_us)
    }

    /// Who served the session at that time.
    pub fn backend_at(&self, at_us: u64) -> Option<usize> {
        let mut before = self.served.iter().rev().skip_while(|served| served.since_us > at_us);
        before.next().map(|served| served.backend)
    }

    /// When the session was first answered by another backend than before, within (begin, end]; the last such time.
    pub fn moved_within(&self, begin_us: u64, end_us: u64) -> Option<u64> {
        let mut moves = self.served.iter().skip(1).map(|served| served.since_us);
        moves.rfind(|&at| at > begin_us && at <= end_us)
    }

    /// The longest reply time that overlaps [begin, end].
    pub fn longest_us(&self, begin_us: u64, end_us: u64) -> Option<u64> {
        let overlaps = |sent_us: u64, latency_us: u64| sent_us <= end_us && sent_us + latency_us >= begin_us;
        self.longest_of(overlaps)
    }

    /// The same for replies that were there by the end: what is under way then belongs to what comes next.
    pub fn longest_done_us(&self, begin_us: u64, end_us: u64) -> Option<u64> {
        let is_done = |sent_us: u64, latency_us: u64| (begin_us..=end_us).contains(&(sent_us + latency_us));
        self.longest_of(is_done)
    }

    fn longest_of(&self, wanted: impl Fn(u64, u64) -> bool) -> Option<u64> {
        let latencies = self.trips.iter().filter_map(|trip| {
            let (sent_us, latency_us) = (u64::from(trip.sent_steps) * STEP_US, u64::from(trip.latency_us));
            wanted(sent_us, latency_us).then_some(latency_us)
        });
        latencies.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_reply_that_overlaps_counts_wherever_it_began() {
        let mut timeline = Timeline::default();
        timeline.record(1_600, 2_000);
        timeline.record(16_000, 96_000);
        timeline.record(160_000, 160_500);
        assert_eq!(timeline.longest_us(3_000, 15_000), None);
        assert_eq!(timeline.longest_us(90_000, 120_000), Some(80_000));
        assert_eq!(timeline.longest_us(0, 1_000_000), Some(80_000));
        assert_eq!(timeline.longest_us(160_200, 160_300), Some(500));
        assert_eq!(timeline.longest_done_us(1_000, 95_000), Some(400), "the slow one is still under way");
        assert_eq!(timeline.longest_done_us(1_000, 96_000), Some(80_000));
    }

    #[test]
    fn the_first_backend_is_no_move() {
        let mut timeline = Timeline::default();
        timeline.served_by(0, 10);
        timeline.served_by(0, 20);
        assert_eq!(timeline.moved_within(0, 100), None);
        timeline.served_by(1, 30);
        timeline.served_by(0, 40);
        assert_eq!(timeline.moved_within(0, 100), Some(40));
        assert_eq!(timeline.moved_within(0, 35), Some(30));
        assert_eq!(timeline.moved_within(40, 100), None);
        assert_eq!([9, 10, 30, 100].map(|at| timeline.backend_at(at)), [None, Some(0), Some(1), Some(0)]);
    }
}
