//! Placement's promises, over many sessions.

mod loads;
mod policies;

use holdfast_protocol::SessionId;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::routing::table::{BackendAddress, BackendId};

/// The pick of the policy that services have by themselves.
fn pick(
    session: SessionId,
    shares: &BTreeMap<Arc<str>, u32>,
    prefer: Prefer,
    candidates: &[Candidate<'_>],
) -> Option<usize> {
    let rules = Rules { shares, prefer, policy: Policy::LeastSessions, panic_percent: 50 };
    super::pick(xxh3_64(&session.0), &rules, candidates, &mut [])
}

fn backend(name: &str, version: &str, weight: u32) -> Arc<Backend> {
    Arc::new(Backend {
        id: BackendId { service: "arena".into(), name: name.into() },
        address: BackendAddress::Tcp("127.0.0.1:1".into()),
        version: version.into(),
        weight,
        zone: None,
        capacity: None,
    })
}

fn shares(of: &[(&str, u32)]) -> BTreeMap<Arc<str>, u32> {
    of.iter().map(|&(version, share)| (version.into(), share)).collect()
}

fn idle(backend: &Arc<Backend>) -> Candidate<'_> {
    Candidate {
        backend,
        weight: u64::from(backend.weight) * slow_start::WHOLE,
        load: 0,
        report: None,
        local: false,
        same_zone: false,
        logic: Logic::Unknown,
        fit: true,
    }
}

/// Session ids as they come: random, here from a seed.
fn sessions(seed: u64, count: u64) -> impl Iterator<Item = SessionId> {
    (0..count).map(move |n| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&xxh3_64_with_seed(&n.to_le_bytes(), seed).to_le_bytes());
        id[8..].copy_from_slice(&seed.to_le_bytes());
        SessionId(id)
    })
}

/// Whether `hits` of `count` is what a probability `p` gives, within five standard deviations.
fn plausible(hits: u64, count: u64, p: f64) -> bool {
    let (hits, count) = (hits as f64, count as f64);
    (hits - count * p).abs() <= 5.0 * (count * p * (1.0 - p)).sqrt() + 1.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn versions_get_their_shares(seed: u64, old in 1u32..1_000, new in 1u32..1_000) {
        let fleet = [backend("a", "1.4", 100), backend("b", "1.4", 100), backend("c", "1.5", 1)];
        let candidates: Vec<_> = fleet.iter().map(idle).collect();
        let shares = shares(&[("1.4", old), ("1.5", new)]);
        let hits = sessions(seed, 4_000)
            .filter(|&id| pick(id, &shares, Prefer::None, &candidates) == Some(2))
            .count() as u64;
        prop_assert!(plausible(hits, 4_000, f64::from(new) / f64::from(old + new)), "{hits} of 4000");
    }

    #[test]
    fn a_new_version_takes_its_share_and_moves_nobody_else(seed: u64, added in 1u32..500) {
        let fleet = [backend("a", "1.4", 100), backend("b", "1.5", 100), backend("c", "1.6", 100)];
        let candidates: Vec<_> = fleet.iter().map(idle).collect();
        let before = shares(&[("1.4", 60), ("1.5", 40)]);
        let after = shares(&[("1.4", 60), ("1.5", 40), ("1.6", added)]);
        let mut moved = 0;
        for id in sessions(seed, 2_000) {
            let (old, new) = (pick(id, &before, Prefer::None, &candidates), pick(id, &after, Prefer::None, &candidates));
            prop_assert!(old == new || new == Some(2));
            moved += u64::from(old != new);
        }
        prop_assert!(plausible(moved, 2_000, f64::from(added) / f64::from(100 + added)), "{moved} of 2000");
    }

    #[test]
    fn a_fleet_fills_by_its_weights(seed: u64, weights in prop::collection::vec(0u32..200, 1..6)) {
        let fleet: Vec<_> = weights.iter().enumerate().map(|(n, &weight)| backend(&n.to_string(), "1", weight)).collect();
        let mut counts = vec![0u64; fleet.len()];
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        for id in sessions(seed, 1_000) {
            let candidates: Vec<_> = fleet.iter().zip(&counts)
                .map(|(backend, &load)| Candidate { load, ..idle(backend) }).collect();
            match pick(id, &BTreeMap::new(), Prefer::None, &candidates) {
                Some(index) => counts[index] += 1,
                None => prop_assert_eq!(total, 0),
            }
        }
        for (&count, &weight) in counts.iter().zip(&weights) {
            if total > 0 {
                // Least sessions is exact but for the rounding of each backend.
                let due = 1_000.0 * f64::from(weight) / total as f64;
                prop_assert!((count as f64 - due).abs() <= weights.len() as f64, "{counts:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn weight_zero_and_share_zero_take_nobody(seed: u64) {
        let fleet = [backend("a", "1.4", 0), backend("b", "1.5", 100), backend("c", "1.6", 100)];
        let candidates: Vec<_> = fleet.iter().map(idle).collect();
        let shares = shares(&[("1.4", 100), ("1.5", 0), ("1.6", 1)]);
        for id in sessions(seed, 50) {
            prop_assert_eq!(pick(id, &shares, Prefer::None, &candidates), Some(2));
            prop_assert_eq!(pick(id, &shares, Prefer::None, &candidates[..2]), None);
        }
    }
}

#[test]
fn an_empty_fleet_of_equals_is_spread() {
    let fleet = [backend("a", "1", 300), backend("b", "1", 100)];
    let candidates: Vec<_> = fleet.iter().map(idle).collect();
    let hits = sessions(7, 4_000)
        .filter(|&id| pick(id, &BTreeMap::new(), Prefer::None, &candidates) == Some(0))
        .count() as u64;
    assert!(plausible(hits, 4_000, 0.75), "{hits} of 4000");
}

#[test]
fn a_version_with_nobody_eligible_yields_to_the_next() {
    let fleet = [backend("c", "1.5", 100)];
    let candidates: Vec<_> = fleet.iter().map(idle).collect();
    let shares = shares(&[("1.4", 95), ("1.5", 5)]);
    for id in sessions(1, 100) {
        assert_eq!(pick(id, &shares, Prefer::None, &candidates), Some(0));
        assert_eq!(pick(id, &shares, Prefer::None, &[]), None);
    }
}

#[test]
fn the_preferred_backend_comes_first_however_busy_it_is() {
    let fleet = [backend("a", "1", 100), backend("b", "1", 100), backend("c", "1", 100)];
    let candidates = [
        Candidate { local: true, same_zone: true, load: 1_000, ..idle(&fleet[0]) },
        Candidate { same_zone: true, ..idle(&fleet[1]) },
        idle(&fleet[2]),
    ];
    for id in sessions(2, 100) {
        assert_eq!(pick(id, &BTreeMap::new(), Prefer::Local, &candidates), Some(0));
        assert_eq!(pick(id, &BTreeMap::new(), Prefer::Zone, &candidates), Some(1));
        assert_ne!(pick(id, &BTreeMap::new(), Prefer::None, &candidates), Some(0));
        // Nobody preferred is there: anyone will do.
        assert_eq!(pick(id, &BTreeMap::new(), Prefer::Local, &candidates[2..]), Some(0));
    }
}

#[test]
fn the_versions_shares_come_before_what_is_preferred() {
    let fleet = [backend("a", "1.4", 100), backend("b", "1.5", 100)];
    let candidates = [Candidate { local: true, ..idle(&fleet[0]) }, idle(&fleet[1])];
    let shares = shares(&[("1.5", 1)]);
    for id in sessions(3, 100) {
        assert_eq!(pick(id, &shares, Prefer::Local, &candidates), Some(1));
    }
}

#[test]
fn a_session_to_be_replayed_goes_to_its_own_logic_first() {
    let fleet = [backend("a", "1.4", 1), backend("b", "1.5", 100), backend("c", "1.5", 100)];
    let of = |logics: [Logic; 3]| {
        fleet
            .iter()
            .zip(logics)
            .map(|(backend, logic)| Candidate { logic, ..idle(backend) })
            .collect::<Vec<_>>()
    };
    let (same, unknown, other) = (Logic::Same, Logic::Unknown, Logic::Other);
    let picks = |logics, shares: &[(&str, u32)]| {
        let candidates = of(logics);
        let shares = self::shares(shares);
        let picked = sessions(7, 200).map(|id| pick(id, &shares, Prefer::None, &candidates));
        picked.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(picks([same, other, other], &[]), [Some(0)], "whatever its weight");
    assert_eq!(picks([same, other, other], &[("1.4", 1), ("1.5", 99)]), [Some(0)], "and whatever its share");
    assert_eq!(picks([other, unknown, other], &[]), [Some(1)], "it may be the same");
    assert_eq!(picks([other, other, other], &[("1.5", 1)]), [Some(1), Some(2)], "somebody else, then");
    assert_eq!(
        picks([same, other, other], &[("1.5", 1)]),
        [Some(1), Some(2)],
        "a version that takes nothing"
    );
}

#[test]
fn versions_that_take_nobody_say_nothing_of_those_that_do() {
    let (old, new) = (backend("a", "1.4", 100), backend("b", "1.5", 100));
    let mut candidates = vec![idle(&old); 10];
    candidates.extend([Candidate { fit: false, ..idle(&new) }; 2]);
    let only_new = shares(&[("1.4", 0), ("1.5", 100)]);
    for id in sessions(1, 20) {
        let picked = pick(id, &only_new, Prefer::None, &candidates);
        assert!(picked.is_some_and(|index| index >= 10), "{picked:?}: all that may be picked are unfit");
    }
}

#[test]
fn turns_from_before_a_change_of_weights_are_soon_used_up() {
    let (a, b) = (backend("a", "1", 100), backend("b", "1", 100));
    let candidates = [idle(&a), idle(&b)];
    // As if they came from weights of a million.
    let mut turns = [1_000_000_000_000, -1_000_000_000_000];
    let rules =
        Rules { shares: &shares(&[]), prefer: Prefer::None, policy: Policy::RoundRobin, panic_percent: 50 };
    let picks: Vec<_> = (0..20).map(|_| super::pick(0, &rules, &candidates, &mut turns)).collect();
    let of_b = picks.iter().filter(|pick| **pick == Some(1)).count();
    assert!(of_b >= 8, "{picks:?}");
}
