//! Placement: one pure pick for new and moved sessions.
//!
//! The version first, by weighted rendezvous hashing on the session's id: it needs no memory, every proxy and worker
//! comes to the same answer, and a change of one share moves only the sessions that must move. Then what the route
//! prefers, then the fewest sessions for the weight. Nothing is allocated.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_protocol::SessionId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::table::{Backend, Prefer};

/// A backend that could take the session: alive, not draining, able to read its state.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub backend: &'a Arc<Backend>,
    /// Live sessions of this worker on it.
    pub sessions: u64,
    /// It is the backend beside this proxy.
    pub local: bool,
    /// It is in this proxy's zone.
    pub same_zone: bool,
    pub logic: Logic,
}

/// Whether a backend runs the logic that a session was played with, so that a replay there is sure to come out the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    Same,
    /// It hasn't been asked yet.
    Unknown,
    Other,
}

impl Logic {
    /// The better ones first.
    const ALL: [Self; 3] = [Self::Same, Self::Unknown, Self::Other];
}

/// Chooses the backend for `session`: an index into `candidates`, or none if nobody may take it.
///
/// A backend of the same logic comes before all others, whatever the shares say: it is what makes a replay sure.
/// /// `shares` are the route's, by version; empty: every version counts, by its backends' weights. A version with share 0
/// (or none) takes nothing, nor does a backend of weight 0.
#[must_use]
pub fn pick(
    session: SessionId,
    shares: &BTreeMap<Arc<str>, u32>,
    prefer: Prefer,
    candidates: &[Candidate<'_>],
) -> Option<usize> {
    let seed = xxh3_64(&session.0);
    Logic::ALL.into_iter().find_map(|logic| pick_of(logic, seed, shares, prefer, candidates))
}

/// The pick among the candidates of that logic.
fn pick_of(
    logic: Logic,
    seed: u64,
    shares: &BTreeMap<Arc<str>, u32>,
    prefer: Prefer,
    candidates: &[Candidate<'_>],
) -> Option<usize> {
    let version = if shares.is_empty() { None } else { Some(pick_version(logic, seed, shares, candidates)?) };
    let takes = |candidate: &Candidate<'_>| {
        candidate.logic == logic
            && candidate.backend.weight > 0
            && version.is_none_or(|version| *candidate.backend.version == *version)
    };
    let preferred = |candidate: &Candidate<'_>| match prefer {
        Prefer::Local => candidate.local,
        Prefer::Zone => candidate.same_zone,
        Prefer::None => true,
    };
    let any_preferred = candidates.iter().any(|candidate| takes(candidate) && preferred(candidate));
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| takes(candidate) && (!any_preferred || preferred(candidate)))
        .min_by(|(_, a), (_, b)| by_load(seed, a, b))
        .map(|(index, _)| index)
}

/// The version with the lowest score among those that somebody can serve.
fn pick_version<'a>(
    logic: Logic,
    seed: u64,
    shares: &BTreeMap<Arc<str>, u32>,
    candidates: &'a [Candidate<'_>],
) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    let of_logic =
        candidates.iter().filter(|candidate| candidate.logic == logic && candidate.backend.weight > 0);
    for candidate in of_logic {
        let version = &*candidate.backend.version;
        if best.is_some_and(|(_, known)| known == version) {
            continue;
        }
        let share = shares.get(version).copied().unwrap_or(0);
        let score = rendezvous(seed, version, share);
        if share > 0 && best.is_none_or(|(lowest, _)| score < lowest) {
            best = Some((score, version));
        }
    }
    best.map(|(_, version)| version)
}

/// Fewest sessions for the weight; among equals (an empty fleet, say) each session has an order of its own.
fn by_load(seed: u64, a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let load = |own: &Candidate<'_>, other: &Candidate<'_>| {
        u128::from(own.sessions) * u128::from(other.backend.weight)
    };
    let score =
        |candidate: &Candidate<'_>| rendezvous(seed, &candidate.backend.id.name, candidate.backend.weight);
    load(a, b).cmp(&load(b, a)).then_with(|| score(a).total_cmp(&score(b)))
}

/// Weighted rendezvous hashing: of independent exponential variables with rates `weight`, each is the least with
/// probability `weight / sum`.
fn rendezvous(seed: u64, name: &str, weight: u32) -> f64 {
    let hash = xxh3_64_with_seed(name.as_bytes(), seed);
    // The upper 53 bits, put in the middle of their step: 0 < u < 1.
    let u = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -u.ln() / f64::from(weight)
}

#[cfg(test)]
mod tests;
