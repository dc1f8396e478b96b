//! Whole worlds in one process and in virtual time: proxies (the session machine, with the worker's logic around it),
//! backends (the SDK's core and a game), players, and a network that is slow, splits anywhere and breaks anywhere.
//!
//! A seed is a world: how many of each, how fast they are, what goes wrong when. The same seed is the same world, to
//! the byte. Whatever happens, each player's answers must be those of a game that had every input exactly once and in
//! order, as far as the service's `recovery` promises; and when nothing goes wrong any more, everybody must come to
//! their end, and nothing may be left behind.
//!
//! `HOLDFAST_SIM_SEED=<n> cargo test -p holdfast simulation_replays -- --nocapture` replays one seed and prints what
//! happened; `HOLDFAST_SIM_SEEDS=<count>` and `HOLDFAST_SIM_FIRST=<n>` choose others than the default ones.

mod check;
mod game;
mod io;
mod plan;
mod player;
mod process;
mod trace;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use plan::Plan;
use world::World;

/// Worlds in an ordinary test run.
const SEEDS: u64 = 5000;
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, expected a number")))
}

/// What a world came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    digest: u64,
    events: u64,
    /// How often players came into matches, and what they were told there.
    joins: u64,
    told: u64,
}

/// Runs one world to its end.
fn run(seed: u64, prints: bool) -> Outcome {
    let mut world = World::new(Plan::draw(seed), prints);
    world.run();
    world.assert_all_is_well();
    let seats = world.workers.iter().flat_map(|worker| worker.ended.values());
    Outcome {
        digest: world.io.trace.digest(),
        events: world.io.trace.events(),
        joins: seats.map(|seat| u64::from(seat.company.joined)).sum(),
        told: world.players.iter().map(|player| player.oracle.shared).sum(),
    }
}

#[test]
fn simulation_keeps_every_promise_in_thousands_of_worlds() {
    let first = number("HOLDFAST_SIM_FIRST").unwrap_or(0);
    let end = first + number("HOLDFAST_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let [events, joins, told] = [const { AtomicU64::new(0) }; 3];
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
                Ok(outcome) => {
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    joins.fetch_add(outcome.joins, Ordering::Relaxed);
                    told.fetch_add(outcome.told, Ordering::Relaxed);
                }
                Err(panic) => {
                    next.store(end, Ordering::Relaxed);
                    eprintln!(
                        "seed {seed} failed; replay it: HOLDFAST_SIM_SEED={seed} cargo test -p holdfast --lib simulation_replays -- --nocapture"
                    );
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
    let [events, joins, told] = [events, joins, told].map(AtomicU64::into_inner);
    println!("{} worlds, {events} events; {joins} times into a match, {told} frames there", end - first);
    assert!(end - first < 100 || (joins > end - first && told > joins), "matches are played");
}

#[test]
fn simulation_replays_a_seed_exactly() {
    if let Some(seed) = number("HOLDFAST_SIM_SEED") {
        println!("{:#?}", Plan::draw(seed));
        run(seed, true);
    }
    for seed in 0..20 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
