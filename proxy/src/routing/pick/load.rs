//! What backends tell of their load, made comparable: the policies then compare it as they compare sessions.
//!
//! A report is a moment old, and everybody who looks at it would run to the same backend. So what this worker has sent
//! there since, or taken off, is reckoned in: each session as what it is likely to weigh.

use super::Candidate;

/// A backend at this load is full.
pub const FULL_PERMILLE: u16 = 1_000;
/// Loads are reckoned in parts of a thousandth, so that one session of many is still something.
const PARTS: u64 = 1_000;

/// What a backend has told, and what has happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub permille: u16,
    /// All that the backend had then, whoever sent them.
    pub attachments: u32,
    /// Sessions that it is to have at most, if that is known.
    pub capacity: Option<u64>,
    /// By how many this worker's sessions there have become more.
    pub change: i64,
}

impl Report {
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.permille >= FULL_PERMILLE
    }

    /// What one session weighs: its part of the capacity, or else of the load. `None`: nothing tells.
    fn session(&self) -> Option<u64> {
        let full = u64::from(FULL_PERMILLE) * PARTS;
        let of_capacity = self.capacity.filter(|&capacity| capacity > 0).map(|capacity| full / capacity);
        let of_load = || (u64::from(self.permille) * PARTS).checked_div(self.attachments.into());
        of_capacity.or_else(of_load).map(|part| part.max(1))
    }
}

/// Turns the candidates' numbers of sessions into loads. Who has told none is taken to bear for each of its sessions
/// what one weighs elsewhere.
pub fn weigh(candidates: &mut [Candidate<'_>]) {
    let known = candidates.iter().filter_map(|candidate| candidate.report?.session());
    let (sum, count) = known.fold((0u64, 0u64), |(sum, count), part| (sum + part, count + 1));
    let usual = sum.checked_div(count).unwrap_or(PARTS);
    for candidate in candidates {
        candidate.load = match candidate.report {
            Some(report) => {
                let part = report.session().unwrap_or(usual);
                let told = u64::from(report.permille) * PARTS;
                let change = report.change.unsigned_abs().saturating_mul(part);
                if report.change < 0 { told.saturating_sub(change) } else { told.saturating_add(change) }
            }
            None => candidate.load.saturating_mul(usual),
        };
    }
}
