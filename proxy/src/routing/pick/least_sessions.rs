//! Weighted least sessions: the one with the fewest sessions, or the least load, for its weight.

use std::cmp::Ordering;

use super::{Candidate, rendezvous};

/// Among equals (an empty fleet, say) each seed has an order of its own.
pub fn pick<'a>(seed: u64, among: impl Iterator<Item = (usize, &'a Candidate<'a>)>) -> Option<usize> {
    let score = |candidate: &Candidate<'_>| rendezvous(seed, &candidate.backend.id.name, candidate.weight);
    among
        .min_by(|(_, a), (_, b)| by_load(a, b).then_with(|| score(a).total_cmp(&score(b))))
        .map(|(index, _)| index)
}

/// Sessions (or load) for the weight, the less first.
pub fn by_load(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let load = |own: &Candidate<'_>, other: &Candidate<'_>| u128::from(own.load) * u128::from(other.weight);
    load(a, b).cmp(&load(b, a))
}
