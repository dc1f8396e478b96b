//! The weight of a fresh backend: its caches are cold, and a flood of players is no way to warm them.

use std::time::Duration;

/// Weights are told in parts of this, so that a tenth of the least one is still something.
pub const WHOLE: u64 = 1_000;
const FIRST: u64 = WHOLE / 10;

/// From a tenth to the whole within `slow_start`, evenly.
#[must_use]
pub fn weight(full: u32, age: Duration, slow_start: Duration) -> u64 {
    let grown = if age >= slow_start {
        WHOLE
    } else {
        let gained = u128::from(WHOLE - FIRST) * age.as_nanos() / slow_start.as_nanos();
        FIRST + u64::try_from(gained).unwrap_or(WHOLE)
    };
    u64::from(full) * grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_backend_comes_to_its_whole_weight_evenly_and_in_time() {
        let slow_start = Duration::from_secs(10);
        let at = |age_ms| weight(100, Duration::from_millis(age_ms), slow_start);
        assert_eq!(
            [at(0), at(5_000), at(9_999), at(10_000), at(u64::MAX)],
            [10_000, 55_000, 99_900, 100_000, 100_000]
        );
        assert!((0..=10_000).map(at).is_sorted());
    }

    #[test]
    fn without_a_slow_start_it_is_whole_at_once_and_nothing_stays_nothing() {
        assert_eq!(weight(7, Duration::ZERO, Duration::ZERO), 7 * WHOLE);
        assert_eq!(weight(0, Duration::ZERO, Duration::from_secs(1)), 0);
        assert!(
            weight(1, Duration::ZERO, Duration::from_secs(3_600)) > 0,
            "the least weight takes somebody, too"
        );
    }
}
