//! What goes wrong by chance, on purpose: refusals, slow frames, closes, crashes; settable while the game runs.
//!
//! The dice are numbered throws of one seed, so that a single player's run can be had again. They ask nothing of the
//! game's context: a mishap is the process's fault, not a move of the game.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::follow::follow;

/// The exit code of a crash that was asked for.
const CRASHED: i32 = 70;
/// A fault that lasts longer is a slip of the pen.
const MAX_SLOW: Duration = Duration::from_secs(600);

/// How often each happens, from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chances {
    /// Of a player (or match) who comes: refused, for now.
    pub refuse: f64,
    /// Of a frame: it takes so long. The whole game waits with it.
    pub slow: Option<(Duration, f64)>,
    /// Of a frame: its player is closed.
    pub close: f64,
    /// Of a frame: the process dies of it.
    pub crash: f64,
}

/// What is wrong with the text of a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: expected none, or a list of refuse=0.3, slow=1500ms, slow=1500ms@0.5, close=0.01, crash=0.001"
)]
pub struct BadFault(String);

impl FromStr for Chances {
    type Err = BadFault;

    /// `refuse=0.3,slow=1500ms@0.5,close=0.01,crash=0.001`; empty or `none`: nothing.
    fn from_str(text: &str) -> Result<Self, BadFault> {
        let mut chances = Self::default();
        let parts = text.split([',', '\n', ' ']).filter(|part| !part.is_empty() && *part != "none");
        for part in parts {
            let bad = || BadFault(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            let known = match name {
                "refuse" => share(value).map(|share| chances.refuse = share),
                "close" => share(value).map(|share| chances.close = share),
                "crash" => share(value).map(|share| chances.crash = share),
                "slow" => slow(value).map(|slow| chances.slow = Some(slow)),
                _ => None,
            };
            known.ok_or_else(bad)?;
        }
        Ok(chances)
    }
}

fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

fn slow(text: &str) -> Option<(Duration, f64)> {
    let (time, often) = text.split_once('@').unwrap_or((text, "1"));
    let time = Duration::from_millis(time.strip_suffix("ms")?.parse().ok()?);
    Some((time, share(often)?)).filter(|_| time <= MAX_SLOW)
}

/// The chances in force, and the dice. All clones are the same.
#[derive(Clone, Default)]
pub struct Mishaps(Arc<Shared>);

#[derive(Default)]
struct Shared {
    chances: RwLock<Chances>,
    seed: u64,
    throws: AtomicU64,
}

impl fmt::Debug for Mishaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chances().fmt(f)
    }
}

impl Mishaps {
    #[must_use]
    pub fn new(chances: Chances, seed: u64) -> Self {
        Self(Arc::new(Shared { chances: RwLock::new(chances), seed, throws: AtomicU64::new(0) }))
    }

    /// From here on they are what the file says, which need not be there yet: then they stay as they are.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn follow(&self, file: PathBuf) -> std::io::Result<()> {
        let mishaps = self.clone();
        follow(file, move |chances| mishaps.set(chances))
    }

    fn set(&self, chances: Chances) {
        *self.0.chances.write().unwrap_or_else(PoisonError::into_inner) = chances;
    }

    fn chances(&self) -> Chances {
        *self.0.chances.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody comes: are they refused?
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.happens(self.chances().refuse)
    }

    /// A frame has come: takes its time, or the process's life. `true`: its player is to be closed.
    #[must_use]
    pub fn befall_frame(&self) -> bool {
        let Chances { slow, close, crash, .. } = self.chances();
        if let Some((time, often)) = slow
            && self.happens(often)
        {
            std::thread::sleep(time);
        }
        if self.happens(crash) {
            tracing::error!("crashes, as told");
            std::process::exit(CRASHED);
        }
        self.happens(close)
    }

    /// What never happens costs no throw, and what always happens needs none.
    fn happens(&self, chance: f64) -> bool {
        if chance <= 0.0 || chance >= 1.0 {
            return chance >= 1.0;
        }
        let number = self.0.throws.fetch_add(1, Ordering::Relaxed);
        let hash = xxh3_64_with_seed(&number.to_be_bytes(), self.0.seed);
        ((hash >> 11) as f64) / ((1u64 << 53) as f64) < chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_as_they_are_written() {
        let chances: Chances = "refuse=0.3,slow=1500ms@0.5, close=0.01\ncrash=1".parse().unwrap();
        let slow = Some((Duration::from_millis(1500), 0.5));
        assert_eq!(chances, Chances { refuse: 0.3, slow, close: 0.01, crash: 1.0 });
        assert_eq!("slow=20ms".parse::<Chances>().unwrap().slow, Some((Duration::from_millis(20), 1.0)));
        for none in ["", "none", " \n"] {
            assert_eq!(none.parse(), Ok(Chances::default()), "{none:?}");
        }
    }

    #[test]
    fn a_fault_that_is_not_one_is_named() {
        for bad in
            ["refuse", "refuse=2", "refuse=-1", "slow=5", "slow=5ms@2", "slow=600001ms", "fast=1", "close=x"]
        {
            assert_eq!(bad.parse::<Chances>(), Err(BadFault(bad.to_owned())));
        }
    }

    #[test]
    fn what_happens_by_chance_happens_about_as_often_and_alike_for_a_seed() {
        let run = |seed| -> Vec<bool> {
            let mishaps = Mishaps::new(Chances { refuse: 0.3, ..Chances::default() }, seed);
            (0..10_000).map(|_| mishaps.refuses()).collect()
        };
        let refused = run(7).iter().filter(|refused| **refused).count();
        assert!((2_800..3_200).contains(&refused), "{refused}");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
