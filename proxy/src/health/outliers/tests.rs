//! The detector against made-up accounts.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::routing::Backend;
use crate::routing::document::{Document, Key};

const SECOND: Duration = Duration::from_secs(1);

fn table(backends: usize, outliers: &str) -> Table {
    let mut table = Table::empty();
    let text = format!(
        r#"{{"protocol": "link", "framing": {{"kind": "length"}}, "health": {{"outliers": {outliers}}}}}"#
    );
    let parse = |key: &str, text: &str| Document::parse(&Key::parse(key).unwrap(), text.as_bytes()).unwrap();
    let Document::Service(service) = parse("services/arena", &text) else { panic!("a service") };
    table.services.insert("arena".into(), service);
    for number in 0..backends {
        let text = format!(r#"{{"address": "127.0.0.1:{}", "version": "1"}}"#, 1000 + number);
        let Document::Backend(backend) = parse(&format!("backends/arena/{number:02}"), &text) else {
            panic!("a backend")
        };
        table.backends.insert(backend.id.clone(), backend);
    }
    table
}

fn id(number: usize) -> BackendId {
    BackendId { service: "arena".into(), name: format!("{number:02}").into() }
}

/// A service, its detector, and the time.
struct Rig {
    table: Table,
    detector: Detector,
    accounts: BTreeMap<BackendId, Account>,
    now: Instant,
}

impl Rig {
    fn new(backends: usize, outliers: &str) -> Self {
        let table = table(backends, outliers);
        let accounts = table.backends.keys().map(|id| (id.clone(), Account::default())).collect();
        Self { table, detector: Detector::default(), accounts, now: Instant::now() }
    }

    fn tally(&mut self, number: usize) -> &mut Tally {
        &mut self.accounts.get_mut(&id(number)).unwrap().tally
    }

    /// A second later; the numbers of those who are ejected now.
    fn look(&mut self) -> Vec<usize> {
        self.now += SECOND;
        self.detector.look(&self.table, &self.accounts, &|_| false, self.now);
        self.ejected()
    }

    fn ejected(&self) -> Vec<usize> {
        self.detector.ejected().map(|(id, _)| id.name.parse().unwrap()).collect()
    }

    /// Lets it refuse until it is ejected; how long it stays so, in seconds.
    fn refuse_and_wait(&mut self) -> u32 {
        for _ in 0..20 {
            self.tally(0).refused += 20;
            if self.look() == [0] {
                return (1..1000).find(|_| self.look().is_empty()).expect("it ends");
            }
        }
        panic!("it isn't ejected");
    }
}

#[test]
fn who_refuses_is_ejected_and_who_takes_most_is_not() {
    let mut rig = Rig::new(4, "{}");
    for number in 0..4 {
        rig.tally(number).attached = 100;
    }
    rig.tally(1).refused = 60;
    assert_eq!(rig.look(), [] as [usize; 0], "60 of 160");
    rig.tally(1).refused += 60;
    assert_eq!(rig.look(), [1]);
    let (_, ejected) = rig.detector.ejected().next().unwrap();
    assert_eq!(ejected.reason, "refused or didn't answer 120 of 220 sessions in 10 s");
}

#[test]
fn too_few_sessions_are_no_evidence() {
    let mut rig = Rig::new(4, r#"{"min_volume": 10}"#);
    rig.tally(0).refused = 9;
    assert_eq!(rig.look(), [] as [usize; 0]);
    rig.tally(0).late = 1;
    assert_eq!(rig.look(), [0]);
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let mut rig = Rig::new(4, r#"{"min_volume": 10, "window_s": 5}"#);
    rig.tally(0).refused = 6;
    rig.look();
    for _ in 0..5 {
        rig.look();
    }
    rig.tally(0).refused += 6;
    assert_eq!(rig.look(), [] as [usize; 0]);
    rig.tally(0).refused += 6;
    assert_eq!(rig.look(), [0]);
}

#[test]
fn a_crash_counts_against_the_sessions_that_were_there() {
    let mut rig = Rig::new(4, "{}");
    rig.accounts.get_mut(&id(2)).unwrap().sessions = 100;
    rig.tally(2).attached = 100;
    (0..15).for_each(|_| drop(rig.look()));
    rig.tally(2).faults = 19;
    assert_eq!(rig.look(), [] as [usize; 0]);
    rig.accounts.get_mut(&id(2)).unwrap().sessions = 0;
    rig.tally(2).crashes = 81;
    assert_eq!(rig.look(), [2]);
}

#[test]
fn who_is_slower_than_its_limit_or_than_the_others_is_ejected() {
    for outliers in [r#"{"slow_ms": 500}"#, r#"{"slow_factor": 10}"#] {
        let mut rig = Rig::new(4, outliers);
        for number in 0..4 {
            (0..200).for_each(|_| rig.tally(number).service.add(10_000));
        }
        assert_eq!(rig.look(), [] as [usize; 0], "{outliers}");
        (0..200).for_each(|_| rig.tally(3).service.add(900_000));
        assert_eq!(rig.look(), [3], "{outliers}");
    }
}

#[test]
fn counts_that_fall_begin_anew() {
    let mut rig = Rig::new(4, "{}");
    rig.tally(0).refused = 8;
    rig.look();
    *rig.tally(0) = Tally { refused: 4, ..Tally::default() };
    assert_eq!(rig.look(), [] as [usize; 0]);
    rig.tally(0).refused += 9;
    assert_eq!(rig.look(), [] as [usize; 0], "9 since it began anew");
    rig.tally(0).refused += 1;
    assert_eq!(rig.look(), [0]);
}

#[test]
fn each_ejection_is_longer_up_to_the_longest_and_a_fit_time_begins_anew() {
    let mut rig = Rig::new(3, r#"{"base_ejection_s": 5, "max_ejection_s": 12}"#);
    let times = [(); 4].map(|()| rig.refuse_and_wait());
    assert_eq!(times, [5, 10, 12, 12]);
    (0..12).for_each(|_| drop(rig.look()));
    assert_eq!(rig.refuse_and_wait(), 5);
}

#[test]
fn who_takes_nobody_meanwhile_is_let_in_again_in_time_as_well() {
    let mut rig = Rig::new(4, r#"{"base_ejection_s": 5}"#);
    rig.tally(0).refused = 100;
    assert_eq!(rig.look(), [0]);
    let backend = rig.table.backends.get_mut(&id(0)).unwrap();
    *backend = Arc::new(Backend { weight: 0, ..Backend::clone(backend) });
    (0..5).for_each(|_| drop(rig.look()));
    assert_eq!(rig.ejected(), [] as [usize; 0]);
}

#[test]
fn without_the_policy_the_ejections_are_lifted() {
    let mut rig = Rig::new(4, "{}");
    rig.tally(0).refused = 100;
    assert_eq!(rig.look(), [0]);
    rig.table.services = Table::clone(&table(4, "null")).services;
    assert_eq!(rig.look(), [] as [usize; 0]);
}

#[test]
fn a_history_from_before_the_policy_is_not_held_against_anybody() {
    let mut rig = Rig::new(4, "null");
    rig.tally(0).refused = 100;
    rig.look();
    rig.table.services = table(4, "{}").services;
    assert_eq!(rig.look(), [] as [usize; 0]);
}

proptest! {
    #[test]
    fn never_more_than_the_share_are_unfit_by_it_and_one_always_stays(
        backends in 1usize..12,
        percent in 1u64..=100,
        rounds in prop::collection::vec((prop::collection::vec(0u64..40, 12), 0usize..12), 1..40),
    ) {
        let outliers = format!(r#"{{"max_ejected_percent": {percent}, "base_ejection_s": 3, "min_volume": 5}}"#);
        let mut rig = Rig::new(backends, &outliers);
        let most = (backends * percent as usize / 100).min(backends - 1);
        for (refusals, elsewhere) in rounds {
            for (number, refused) in refusals.into_iter().enumerate().take(backends) {
                rig.tally(number).refused += refused;
                rig.tally(number).attached += 10;
            }
            rig.now += SECOND;
            let before = rig.ejected();
            // Somebody fails its checks: it counts in the share.
            let unhealthy = id(elsewhere);
            let new = rig.detector.look(&rig.table, &rig.accounts, &|id| *id == unhealthy, rig.now);
            prop_assert!(rig.ejected().len() <= most);
            if !new.is_empty() {
                let checked = usize::from(elsewhere < backends && !rig.ejected().contains(&elsewhere));
                prop_assert!(rig.ejected().len() + checked <= most, "{:?} before", before);
                prop_assert!(new.iter().all(|(id, _)| *id != unhealthy));
            }
        }
    }
}
