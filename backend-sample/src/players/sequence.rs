//! Numbers that must come one by one, and what is to be said of one that doesn't.

use std::collections::BTreeSet;

use crate::players::checker::Faults;

/// A wild number is one fault, not billions of missing ones.
const MAX_GAP: u64 = 100_000;

pub struct Sequence {
    last: u64,
    /// Below `last`: late until they come, lost if they never do.
    overtaken: BTreeSet<u64>,
}

impl Sequence {
    /// The next number is the one after `last`.
    pub fn after(last: u64) -> Self {
        Self { last, overtaken: BTreeSet::new() }
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// Takes a number; false, and a fault, unless it is above all before it.
    pub fn take(&mut self, number: u64, faults: &mut Faults) -> bool {
        if number <= self.last {
            match self.overtaken.remove(&number) {
                true => faults.reordered += 1,
                false => faults.repeated += 1,
            }
            return false;
        }
        if number - self.last > MAX_GAP {
            faults.mismatched += 1;
            return false;
        }
        self.skip_to(number - 1);
        self.last = number;
        true
    }

    /// Whatever hasn't come up to this number is overtaken.
    pub fn skip_to(&mut self, number: u64) {
        self.overtaken.extend(self.last + 1..=number);
        self.last = self.last.max(number);
    }

    /// What hasn't come by now is lost.
    pub fn finish(&mut self, faults: &mut Faults) {
        faults.lost += std::mem::take(&mut self.overtaken).len() as u64;
    }
}
