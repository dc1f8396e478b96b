//! What a worker counts of each backend, for those who judge backends and versions.
//!
//! Counts only grow while a link stands for the same version; a consumer that sees one fall begins anew. All are in
//! players: what befalls a group befalls each of its members.

use std::time::Duration;

/// Two buckets to each doubling, from 1 us to about 70 minutes.
const BUCKETS: usize = 64;

/// How one backend has treated its sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sessions that it took.
    pub attached: u64,
    pub refused: u64,
    /// Answers that didn't come in time.
    pub late: u64,
    /// Sessions that ended because it broke a rule, or gave them up.
    pub faults: u64,
    /// Sessions that it closed.
    pub closes: u64,
    /// Sessions that its process was lost with.
    pub crashes: u64,
    /// Replays on it that made something else than the player had seen.
    pub diverged: u64,
    /// From a frame's arrival at the proxy until the game has processed it.
    pub service: Histogram,
}

/// Times by half-doublings, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    pub fn add(&mut self, micros: u64) {
        self.0[bucket(micros)] += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    /// What came since `before`; everything, if a count has fallen.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let fell = self.0.iter().zip(before.0).any(|(now, before)| *now < before);
        let mut difference = self.clone();
        if !fell {
            for (now, before) in difference.0.iter_mut().zip(before.0) {
                *now -= before;
            }
        }
        difference
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// An upper bound of the time that `share` of all frames (0 to 1) took at most; `None` without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let position = self.0.iter().position(|&frames| {
            seen += frames;
            seen >= rank
        });
        position.filter(|_| count > 0).map(|index| Duration::from_micros(upper_bound(index)))
    }

    /// The counts up to the last that isn't 0, for a status key.
    #[must_use]
    pub fn to_counts(&self) -> Vec<u64> {
        let used = self.0.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        self.0[..used].to_vec()
    }

    /// Of `to_counts`; what is beyond the last bucket counts there.
    #[must_use]
    pub fn from_counts(counts: &[u64]) -> Self {
        let mut histogram = Self::default();
        for (index, count) in counts.iter().enumerate() {
            let bucket = &mut histogram.0[index.min(BUCKETS - 1)];
            *bucket = bucket.saturating_add(*count);
        }
        histogram
    }
}

/// The doubling, then which half of it.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let doubling = micros.ilog2();
    let half = if doubling == 0 { 0 } else { (micros >> (doubling - 1)) & 1 };
    (2 * doubling as usize + half as usize).min(BUCKETS - 1)
}

/// The first time above the bucket.
fn upper_bound(index: usize) -> u64 {
    let (doubling, half) = (index / 2, index as u64 % 2);
    let start = 1u64 << doubling;
    start + (half + 1) * start.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_never_below_what_was_counted_and_at_most_half_above() {
        for micros in [2, 3, 4, 7, 100, 999, 1_000, 50_000, 1_000_000, 3_000_000_000] {
            let mut histogram = Histogram::default();
            histogram.add(micros);
            let bound = histogram.quantile(0.99).unwrap().as_micros() as u64;
            assert!(bound > micros && bound <= micros + micros / 2 + 2, "{micros} -> {bound}");
        }
        assert_eq!(Histogram::default().quantile(0.99), None);
    }

    #[test]
    fn the_slowest_in_a_hundred_decide_the_99th() {
        let mut histogram = Histogram::default();
        (0..98).for_each(|_| histogram.add(100));
        histogram.add(1_000_000);
        histogram.add(1_000_000);
        assert!(histogram.quantile(0.98).unwrap() < Duration::from_millis(1));
        assert!(histogram.quantile(0.99).unwrap() > Duration::from_secs(1));
    }

    #[test]
    fn a_difference_is_what_came_between_and_a_fall_begins_anew() {
        let mut before = Histogram::default();
        before.add(10);
        let mut after = before.clone();
        after.add(1_000);
        assert_eq!(after.since(&before).count(), 1);
        assert_eq!(before.since(&after), before, "the counts fell");
        assert_eq!(Histogram::from_counts(&after.to_counts()), after);
    }
}
