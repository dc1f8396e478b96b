//! The panic threshold. Checks that find most of a fleet unfit are more likely wrong than right, and the few who are
//! left would go down under everybody's players.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Candidate, has_share};

/// Whether fitness counts: at least `panic_percent` of those who could take anybody are fit. With 0 it always does.
#[must_use]
pub fn believes(candidates: &[Candidate<'_>], shares: &BTreeMap<Arc<str>, u32>, panic_percent: u8) -> bool {
    // How versions without a share are says nothing of those that have one.
    let all = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0 && has_share(shares, &candidate.backend.version));
    let fit = all.clone().filter(|candidate| candidate.fit).count();
    fit * 100 >= all.count() * usize::from(panic_percent)
}
