//! Whatever happens to games, links and etcd, one after another and at once: no player notices more than a pause.
//!
//! The same storm as `./dev chaos`, shorter and at half its pace of play, for a machine that has other tests to run.

use std::time::Duration;

use holdfast_stage::chaos::{Options, Recovery, run};

const SEED: u64 = 20_261_123;
const STORM: Duration = Duration::from_secs(60);

#[test]
fn every_player_survives_a_storm_of_faults() {
    let options = Options { rate_hz: 4.0, ..Options::new(SEED, STORM, Recovery::BEST) };
    let outcome = run(&options, &mut |line| println!("{line}")).unwrap();
    println!("{}", outcome.table());
    assert!(outcome.is_good(), "again: {}", outcome.again);
    let faults = outcome.faults();
    for kind in &options.kinds {
        assert!(
            faults.get(kind.name()).is_some_and(|count| *count > 0),
            "no {} at all: {faults:?}",
            kind.name()
        );
    }
}
