//! What each policy promises: shares by weight, nothing for nothing, and no more moves than must be.

use std::net::IpAddr;

use super::*;
use crate::routing::pick::hash::Player;
use crate::routing::table::HashKey;

pub const POLICIES: [Policy; 4] =
    [Policy::LeastSessions, Policy::RoundRobin, Policy::TwoChoices, Policy::Hash(HashKey::Session)];

fn fleet(weights: &[u32]) -> Vec<Arc<Backend>> {
    weights.iter().enumerate().map(|(n, &weight)| backend(&n.to_string(), "1", weight)).collect()
}

fn rules(policy: Policy, shares: &BTreeMap<Arc<str>, u32>) -> Rules<'_> {
    Rules { shares, prefer: Prefer::None, policy, panic_percent: 50 }
}

/// Where so many newcomers go, each counted for those who follow.
fn fill(policy: Policy, seed: u64, fleet: &[Arc<Backend>], count: u64) -> Vec<u64> {
    let mut counts = vec![0u64; fleet.len()];
    let mut turns = vec![0; fleet.len()];
    let shares = BTreeMap::new();
    for id in sessions(seed, count) {
        let candidates: Vec<_> =
            fleet.iter().zip(&counts).map(|(backend, &load)| Candidate { load, ..idle(backend) }).collect();
        if let Some(index) =
            super::super::pick(xxh3_64(&id.0), &rules(policy, &shares), &candidates, &mut turns)
        {
            counts[index] += 1;
        }
    }
    counts
}

/// Two draws by weight that are compared spread no worse than one: a tenth of it is far outside.
fn is_near(policy: Policy, count: u64, all: u64, p: f64) -> bool {
    let due = all as f64 * p;
    match policy {
        Policy::LeastSessions | Policy::RoundRobin => (count as f64 - due).abs() <= 6.0,
        Policy::TwoChoices | Policy::Hash(_) => plausible(count, all, p),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_policy_fills_a_fleet_by_its_weights(seed: u64, weights in prop::collection::vec(0u32..200, 1..6)) {
        let fleet = fleet(&weights);
        let total: u32 = weights.iter().sum();
        for policy in POLICIES {
            let counts = fill(policy, seed, &fleet, 2_000);
            prop_assert_eq!(counts.iter().sum::<u64>(), if total == 0 { 0 } else { 2_000 });
            for (&count, &weight) in counts.iter().zip(&weights) {
                prop_assert!(weight > 0 || count == 0, "{policy}: a weight of 0 took {count}");
                let p = f64::from(weight) / f64::from(total.max(1));
                prop_assert!(is_near(policy, count, 2_000, p), "{policy}: {counts:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn a_round_gives_each_its_turns_exactly(weights in prop::collection::vec(0u32..20, 1..6)) {
        let fleet = fleet(&weights);
        let rounds = 3;
        let counts = fill(Policy::RoundRobin, 0, &fleet, u64::from(weights.iter().sum::<u32>()) * rounds);
        prop_assert_eq!(counts, weights.iter().map(|&weight| u64::from(weight) * rounds).collect::<Vec<_>>());
    }

    #[test]
    fn of_two_choices_the_more_loaded_is_never_taken(
        seed: u64, loads in prop::collection::vec((1u32..200, 0u64..1_000), 1..8),
    ) {
        let fleet = fleet(&loads.iter().map(|&(weight, _)| weight).collect::<Vec<_>>());
        let candidates: Vec<_> = fleet.iter().zip(&loads)
            .map(|(backend, &(_, load))| Candidate { load, ..idle(backend) }).collect();
        let among = || candidates.iter().enumerate();
        let (first, second) = two_choices::draw(seed, among()).unwrap();
        let picked = two_choices::pick(seed, among()).unwrap();
        prop_assert_eq!(second.is_some(), candidates.len() > 1);
        let drawn = [Some(first), second];
        prop_assert!(drawn.iter().flatten().any(|&(index, _)| index == picked), "one of the two");
        let load = |index: usize| candidates[index].load as f64 / candidates[index].weight as f64;
        for (index, _) in drawn.into_iter().flatten() {
            prop_assert!(load(picked) <= load(index));
        }
    }

    #[test]
    fn a_backend_that_comes_or_goes_moves_only_keys_of_its_own(seed: u64, weight in 1u32..300) {
        let fleet = fleet(&[100, 200, weight]);
        let all: Vec<_> = fleet.iter().map(idle).collect();
        let mut moved = 0;
        for key in 0..2_000u64 {
            let key = seed.wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let before = hash::pick(key, all[..2].iter().enumerate());
            let after = hash::pick(key, all.iter().enumerate());
            prop_assert!(after == before || after == Some(2));
            moved += u64::from(after != before);
        }
        prop_assert!(plausible(moved, 2_000, f64::from(weight) / f64::from(300 + weight)), "{moved} of 2000");
    }

    #[test]
    fn a_weight_that_grows_takes_keys_and_gives_none(seed: u64, first in 1u64..1_000, more in 1u64..1_000) {
        let fleet = fleet(&[100, 100]);
        let with = |weight| [idle(&fleet[0]), Candidate { weight, ..idle(&fleet[1]) }];
        let (before, after) = (with(first * 100), with((first + more) * 100));
        for key in 0..500u64 {
            let key = seed.wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let was = hash::pick(key, before.iter().enumerate());
            let is = hash::pick(key, after.iter().enumerate());
            prop_assert!(was == is || is == Some(1));
        }
    }
}

#[test]
fn smooth_turns_are_spread_over_the_round() {
    let fleet = fleet(&[5, 1, 1]);
    let candidates: Vec<_> = fleet.iter().map(idle).collect();
    let mut turns = vec![0; 3];
    let round: Vec<_> =
        (0..7).filter_map(|_| round_robin::pick(&mut turns, candidates.iter().enumerate())).collect();
    assert_eq!(round, [0, 0, 1, 0, 2, 0, 0], "as nginx's own example has it");
    assert_eq!(turns, [0, 0, 0], "and the next round begins anew");
}

#[test]
fn the_policy_comes_after_what_is_preferred_and_after_the_shares() {
    let fleet = [backend("a", "1.4", 100), backend("b", "1.4", 100), backend("c", "1.5", 100)];
    let candidates =
        [Candidate { local: true, load: 50, ..idle(&fleet[0]) }, idle(&fleet[1]), idle(&fleet[2])];
    let shares = shares(&[("1.4", 1)]);
    for policy in POLICIES {
        for id in sessions(5, 50) {
            let local = Rules { prefer: Prefer::Local, ..rules(policy, &shares) };
            let seed = xxh3_64(&id.0);
            assert_eq!(super::super::pick(seed, &local, &candidates, &mut [0; 3]), Some(0), "{policy}");
            assert_ne!(super::super::pick(seed, &rules(policy, &shares), &candidates, &mut [0; 3]), Some(2));
        }
    }
}

#[test]
fn a_client_is_told_by_its_address_whatever_its_port_or_notation() {
    let by_client = Policy::Hash(HashKey::Client);
    let seed = |session: u8, client: &str| {
        let client = client.parse::<IpAddr>().ok();
        hash::seed(by_client, &Player { session: SessionId([session; 16]), client, sni: Some("a.example") })
    };
    assert_eq!(seed(1, "192.0.2.7"), seed(2, "::ffff:192.0.2.7"));
    assert_ne!(seed(1, "192.0.2.7"), seed(1, "192.0.2.8"));
    assert_ne!(seed(1, "a group"), seed(2, "a group"), "a group goes by its own id");
}

#[test]
fn a_server_name_is_the_same_in_capitals_and_without_one_the_session_counts() {
    let by_name = Policy::Hash(HashKey::Sni);
    let client = "192.0.2.7".parse::<IpAddr>().ok();
    let seed =
        |session: u8, sni| hash::seed(by_name, &Player { session: SessionId([session; 16]), client, sni });
    assert_eq!(seed(1, Some("Eu.example")), seed(2, Some("eu.EXAMPLE.")));
    assert_ne!(seed(1, Some("eu.example")), seed(1, Some("us.example")));
    assert_ne!(seed(1, None), seed(2, None));
    assert_eq!(
        seed(1, None),
        hash::seed(Policy::LeastSessions, &Player { session: SessionId([1; 16]), client, sni: None })
    );
}

#[test]
fn the_unfit_are_passed_over_until_too_many_are() {
    let fleet = fleet(&[100, 100, 100, 100, 0]);
    let shares = BTreeMap::new();
    let picks = |unfit: &[usize], panic_percent| {
        let candidates: Vec<_> = fleet
            .iter()
            .enumerate()
            .map(|(n, backend)| Candidate { fit: !unfit.contains(&n), ..idle(backend) })
            .collect();
        let rules = Rules { panic_percent, ..rules(Policy::Hash(HashKey::Session), &shares) };
        let picked =
            sessions(7, 200).map(|id| super::super::pick(xxh3_64(&id.0), &rules, &candidates, &mut []));
        picked.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let everybody = [Some(0), Some(1), Some(2), Some(3)];
    assert_eq!(picks(&[], 50), everybody);
    assert_eq!(picks(&[0], 50), [Some(1), Some(2), Some(3)]);
    assert_eq!(picks(&[0, 1], 50), [Some(2), Some(3)], "half of them is enough");
    assert_eq!(picks(&[0, 1, 2], 50), everybody, "a quarter isn't");
    assert_eq!(picks(&[0, 1, 2], 25), [Some(3)]);
    assert_eq!(picks(&[0, 1, 2, 3], 0), [None], "never, says 0");
    assert_eq!(picks(&[0, 1, 2, 3], 1), everybody);
}
