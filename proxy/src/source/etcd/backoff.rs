//! How long to wait before the next try: doubling, jittered, bounded.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// A random time between half of what is due and all of it, so that a fleet doesn't come back in step.
    pub fn next(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        due.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.next = SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_never_vanish() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|&wait| wait >= SHORTEST / 2 && wait <= LONGEST), "{waits:?}");
        assert!(waits[10..].iter().all(|&wait| wait >= LONGEST / 2), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
    }
}
