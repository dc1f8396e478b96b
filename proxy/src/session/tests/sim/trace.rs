//! What happened, in order: hashed always, so that two runs of a seed can be compared, and printed when asked for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3Default;

/// The events of one run.
pub struct Trace {
    hash: Xxh3Default,
    prints: bool,
    events: u64,
}

impl Trace {
    pub fn new(prints: bool) -> Self {
        Self { hash: Xxh3Default::new(), prints, events: 0 }
    }

    /// One event: what it is and its numbers are hashed; `detail` is only made to be printed.
    pub fn event<D: fmt::Display>(
        &mut self,
        now: Duration,
        what: &str,
        numbers: &[u64],
        detail: impl FnOnce() -> D,
    ) {
        self.events += 1;
        now.hash(&mut self.hash);
        self.hash.write(what.as_bytes());
        numbers.hash(&mut self.hash);
        if self.prints {
            println!("{:>12.6} {what:<14} {}", now.as_secs_f64(), detail());
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }
}
