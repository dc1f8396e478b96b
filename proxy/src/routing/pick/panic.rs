//! The panic threshold. Checks that find most of a fleet unfit are more likely wrong than right, and the few who are
//! left would go down under everybody's players.

use super::Candidate;

/// Whether fitness counts: at least `panic_percent` of those who could take anybody are fit.
#[must_use]
pub fn believes(candidates: &[Candidate<'_>], panic_percent: u8) -> bool {
    let all = candidates.iter().filter(|candidate| candidate.weight > 0);
    let fit = all.clone().filter(|candidate| candidate.fit).count();
    fit * 100 >= all.count() * usize::from(panic_percent)
}
