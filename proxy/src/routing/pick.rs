//! Placement: one pure pick for new and moved sessions.
//!
//! The version first, by weighted rendezvous hashing on the session's id (or the policy's key): it needs no memory,
//! every proxy and worker comes to the same answer, and a change of one share moves only the sessions that must move.
//! Then what the route prefers, then the service's policy, each in a file of its own. Nothing is allocated.

pub mod hash;
pub mod least_sessions;
pub mod load;
mod panic;
pub mod round_robin;
pub mod slow_start;
pub mod two_choices;

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::table::{Backend, Policy, Prefer};
use load::Report;

/// A backend that could take the session: alive, not draining, able to read its state, below its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub backend: &'a Arc<Backend>,
    /// What its weight is now, in parts of [`slow_start::WHOLE`].
    pub weight: u64,
    /// What it bears: live sessions of this worker; by [`load::weigh`], what it has told.
    pub load: u64,
    /// What it has told of its load.
    pub report: Option<Report>,
    /// It is the backend beside this proxy.
    pub local: bool,
    /// It is in this proxy's zone.
    pub same_zone: bool,
    pub logic: Logic,
    /// Nothing speaks against its health.
    pub fit: bool,
}

/// What the documents say of a place.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The route's, by version; empty: every version counts, by its backends' weights.
    pub shares: &'a BTreeMap<Arc<str>, u32>,
    pub prefer: Prefer,
    pub policy: Policy,
    /// With fewer than this share of the candidates fit, fitness is ignored.
    pub panic_percent: u8,
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

/// Chooses the backend for the player of that seed ([`hash::seed`]): an index into `candidates`, or none if nobody may
/// take it. `turns` are what the policy `round_robin` remembers of each of them.
///
/// A backend of the same logic comes before all others, whatever the shares say: it is what makes a replay sure. A
/// version with share 0 (or none) takes nothing, nor does a backend of weight 0. Who is overloaded takes somebody only
/// if all are.
#[must_use]
pub fn pick(seed: u64, rules: &Rules<'_>, candidates: &[Candidate<'_>], turns: &mut [i64]) -> Option<usize> {
    let fit_only = panic::believes(candidates, rules.shares, rules.panic_percent);
    let may = |candidate: &Candidate<'_>| candidate.weight > 0 && (candidate.fit || !fit_only);
    Logic::ALL.into_iter().find_map(|logic| {
        let of_logic = |candidate: &Candidate<'_>| candidate.logic == logic && may(candidate);
        pick_among(seed, rules, candidates, turns, of_logic)
    })
}

fn pick_among(
    seed: u64,
    rules: &Rules<'_>,
    candidates: &[Candidate<'_>],
    turns: &mut [i64],
    may: impl Fn(&Candidate<'_>) -> bool,
) -> Option<usize> {
    let shares = rules.shares;
    let spare = |candidate: &Candidate<'_>| !candidate.report.is_some_and(|report| report.is_overloaded());
    let any_spare = candidates
        .iter()
        .any(|candidate| may(candidate) && spare(candidate) && has_share(shares, &candidate.backend.version));
    let may = |candidate: &Candidate<'_>| may(candidate) && (!any_spare || spare(candidate));
    let version = if shares.is_empty() { None } else { Some(pick_version(seed, shares, candidates, may)?) };
    let takes = |candidate: &Candidate<'_>| {
        may(candidate) && version.is_none_or(|version| *candidate.backend.version == *version)
    };
    let preferred = |candidate: &Candidate<'_>| match rules.prefer {
        Prefer::Local => candidate.local,
        Prefer::Zone => candidate.same_zone,
        Prefer::None => true,
    };
    let any_preferred = candidates.iter().any(|candidate| takes(candidate) && preferred(candidate));
    let among = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| takes(candidate) && (!any_preferred || preferred(candidate)));
    match rules.policy {
        Policy::LeastSessions => least_sessions::pick(seed, among),
        Policy::RoundRobin => round_robin::pick(turns, among),
        Policy::TwoChoices => two_choices::pick(seed, among),
        Policy::Hash(_) => hash::pick(seed, among),
    }
}

/// Versions without a share take nobody.
fn has_share(shares: &BTreeMap<Arc<str>, u32>, version: &str) -> bool {
    shares.is_empty() || shares.get(version).is_some_and(|&share| share > 0)
}

/// The version with the lowest score among those that somebody can serve.
fn pick_version<'a>(
    seed: u64,
    shares: &BTreeMap<Arc<str>, u32>,
    candidates: &'a [Candidate<'_>],
    may: impl Fn(&Candidate<'_>) -> bool,
) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates.iter().filter(|candidate| may(candidate)) {
        let version = &*candidate.backend.version;
        if best.is_some_and(|(_, known)| known == version) {
            continue;
        }
        let share = shares.get(version).copied().unwrap_or(0);
        let score = rendezvous(seed, version, share.into());
        if share > 0 && best.is_none_or(|(lowest, _)| score < lowest) {
            best = Some((score, version));
        }
    }
    best.map(|(_, version)| version)
}

/// Weighted rendezvous hashing: of independent exponential variables with rates `weight`, each is the least with
/// probability `weight / sum`.
fn rendezvous(seed: u64, name: &str, weight: u64) -> f64 {
    let hash = xxh3_64_with_seed(name.as_bytes(), seed);
    // The upper 53 bits, put in the middle of their step: 0 < u < 1.
    let u = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -u.ln() / weight as f64
}

#[cfg(test)]
mod tests;
