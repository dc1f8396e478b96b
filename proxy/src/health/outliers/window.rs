//! What a backend did within the last seconds, from counts that only grow. Kept in a few slices, so that a long window
//! costs no more than a short one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Account;
use crate::worker::tally::{Histogram, Tally};

/// A window's slices; the oldest is dropped whole.
const SLICES: u32 = 10;

/// Of one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    pub attached: u64,
    /// Refused, or not answered in time.
    pub refused: u64,
    /// Crashed, given up, ended for a broken rule, diverged.
    pub failed: u64,
    /// Sessions that were there when it began, and those that have come since.
    pub sessions: u64,
    pub service: Histogram,
}

#[derive(Debug, Clone)]
struct Slice {
    begun: Instant,
    sessions_before: u64,
    since: Tally,
}

#[derive(Debug, Default)]
pub struct Window {
    last: Option<Account>,
    slices: VecDeque<Slice>,
    sums: Sums,
}

impl Window {
    /// What has been counted by now. Without a length nothing is kept but where the counts stand.
    pub fn add(&mut self, account: &Account, length: Option<Duration>, now: Instant) {
        let last = self.last.replace(account.clone()).unwrap_or_default();
        let Some(length) = length else { return self.forget() };
        // The backend has another version, or a worker has a new link to it: what was known is of no use.
        let Some(since) = difference(&account.tally, &last.tally) else { return self.forget() };
        while self.slices.front().is_some_and(|slice| now.saturating_duration_since(slice.begun) >= length) {
            self.slices.pop_front();
        }
        match self.slices.back_mut() {
            Some(slice) if now.saturating_duration_since(slice.begun) < length / SLICES => {
                add(&mut slice.since, &since);
            }
            _ => self.slices.push_back(Slice { begun: now, sessions_before: last.sessions, since }),
        }
        self.sum();
    }

    pub fn forget(&mut self) {
        self.slices.clear();
        self.sums = Sums::default();
    }

    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    fn sum(&mut self) {
        let mut all = Tally::default();
        self.slices.iter().for_each(|slice| add(&mut all, &slice.since));
        let before = self.slices.front().map_or(0, |slice| slice.sessions_before);
        self.sums = Sums {
            attached: all.attached,
            refused: all.refused + all.late,
            failed: all.faults + all.crashes + all.diverged,
            sessions: before + all.attached,
            service: all.service,
        };
    }
}

pub fn add(sum: &mut Tally, more: &Tally) {
    let Tally { attached, refused, late, faults, closes, crashes, diverged, service } = more;
    sum.attached += attached;
    sum.refused += refused;
    sum.late += late;
    sum.faults += faults;
    sum.closes += closes;
    sum.crashes += crashes;
    sum.diverged += diverged;
    sum.service.merge(service);
}

/// None: a count fell.
fn difference(now: &Tally, before: &Tally) -> Option<Tally> {
    let fell = now.service.count() < before.service.count();
    (!fell).then_some(())?;
    Some(Tally {
        attached: now.attached.checked_sub(before.attached)?,
        refused: now.refused.checked_sub(before.refused)?,
        late: now.late.checked_sub(before.late)?,
        faults: now.faults.checked_sub(before.faults)?,
        closes: now.closes.checked_sub(before.closes)?,
        crashes: now.crashes.checked_sub(before.crashes)?,
        diverged: now.diverged.checked_sub(before.diverged)?,
        service: now.service.since(&before.service),
    })
}
