//! What is promised where backends tell their load.

use super::*;
use crate::routing::pick::load::{FULL_PERMILLE, Report, weigh};

fn report(permille: u16, attachments: u32, capacity: Option<u64>) -> Report {
    Report { permille, attachments, capacity, change: 0 }
}

/// Where so many newcomers go while no report changes.
fn burst(policy: Policy, seed: u64, fleet: &[Arc<Backend>], reports: &[Report], count: u64) -> Vec<u64> {
    let mut counts = vec![0u64; fleet.len()];
    let shares = BTreeMap::new();
    let rules = Rules { shares: &shares, prefer: Prefer::None, policy, panic_percent: 50 };
    for id in sessions(seed, count) {
        let mut candidates: Vec<_> = fleet
            .iter()
            .zip(reports.iter().zip(&counts))
            .map(|(backend, (&report, &sessions))| {
                let report = Report { change: sessions as i64, ..report };
                Candidate { load: sessions, report: Some(report), ..idle(backend) }
            })
            .collect();
        weigh(&mut candidates);
        let index = super::super::pick(xxh3_64(&id.0), &rules, &candidates, &mut []).unwrap();
        counts[index] += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_burst_levels_what_was_told(seed: u64, loads in prop::collection::vec(0u16..900, 2..5)) {
        let fleet: Vec<_> = (0..loads.len()).map(|n| backend(&n.to_string(), "1", 100)).collect();
        let reports: Vec<_> = loads.iter().map(|&load| report(load, 50, Some(1_000))).collect();
        // Each weighs a thousandth: enough of them to fill up the emptiest.
        let count: u64 = loads.iter().map(|&load| u64::from(900 - load)).sum();
        let counts = burst(Policy::LeastSessions, seed, &fleet, &reports, count);
        for (&load, &came) in loads.iter().zip(&counts) {
            prop_assert!((u64::from(load) + came).abs_diff(900) <= 1, "{counts:?} for {loads:?}");
        }
    }

    #[test]
    fn more_sessions_never_make_it_less_and_nothing_overflows(
        permille in 0u16..u16::MAX, attachments: u32, capacity: Option<u64>, change: i64, more in 0i64..1_000, load: u64,
    ) {
        let backend = backend("a", "1", 1);
        let of = |change| {
            let report = Report { change, ..report(permille, attachments, capacity) };
            let mut candidates =
                [Candidate { load, report: Some(report), ..idle(&backend) }, Candidate { load, ..idle(&backend) }];
            weigh(&mut candidates);
            candidates.map(|candidate| candidate.load)
        };
        let (before, after) = (of(change), of(change.saturating_add(more)));
        prop_assert!(before[0] <= after[0]);
        prop_assert_eq!(before[1], after[1]);
    }

    #[test]
    fn the_overloaded_take_nobody_while_others_can_whatever_the_policy(
        seed: u64, loads in prop::collection::vec(0u16..2_000, 1..6),
    ) {
        let fleet: Vec<_> = (0..loads.len()).map(|n| backend(&n.to_string(), "1", 100)).collect();
        let candidates: Vec<_> = fleet.iter().zip(&loads)
            .map(|(backend, &load)| Candidate { report: Some(report(load, 1, None)), ..idle(backend) }).collect();
        let shares = BTreeMap::new();
        let has_room = loads.iter().any(|&load| load < FULL_PERMILLE);
        for policy in policies::POLICIES {
            let rules = Rules { shares: &shares, prefer: Prefer::None, policy, panic_percent: 50 };
            let mut turns = vec![0; loads.len()];
            let picked = super::super::pick(seed, &rules, &candidates, &mut turns).unwrap();
            prop_assert!(loads[picked] < FULL_PERMILLE || !has_room, "{policy}: {picked} of {loads:?}");
        }
    }
}

#[test]
fn where_nobody_tells_anything_sessions_count() {
    let fleet = [backend("a", "1", 1), backend("b", "1", 1)];
    let mut candidates = [Candidate { load: 3, ..idle(&fleet[0]) }, Candidate { load: 2, ..idle(&fleet[1]) }];
    weigh(&mut candidates);
    assert!(candidates[0].load > candidates[1].load && candidates[0].load * 2 == candidates[1].load * 3);
}

#[test]
fn who_tells_nothing_bears_for_each_session_what_one_weighs_elsewhere() {
    let fleet = [backend("a", "1", 1), backend("b", "1", 1)];
    let told = Some(report(500, 50, None));
    let mut candidates =
        [Candidate { load: 50, report: told, ..idle(&fleet[0]) }, Candidate { load: 20, ..idle(&fleet[1]) }];
    weigh(&mut candidates);
    assert_eq!(candidates.map(|candidate| candidate.load), [500_000, 200_000]);
}

#[test]
fn a_version_whose_backends_are_all_overloaded_yields_to_another_with_a_share() {
    let fleet = [backend("a", "1.4", 1), backend("b", "1.5", 1), backend("c", "1.6", 1)];
    let full = Some(report(FULL_PERMILLE, 1, None));
    let candidates = [idle(&fleet[0]), Candidate { report: full, ..idle(&fleet[1]) }, idle(&fleet[2])];
    let shares = shares(&[("1.4", 1), ("1.5", 99)]);
    for id in sessions(3, 50) {
        assert_eq!(pick(id, &shares, Prefer::None, &candidates), Some(0));
        let only_full = [Candidate { weight: 0, ..candidates[0] }, candidates[1], candidates[2]];
        assert_eq!(pick(id, &shares, Prefer::None, &only_full), Some(1), "1.6 has no share");
    }
}
