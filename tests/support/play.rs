//! The frame of a test: a stage that stays when the test fails, and the verdict that every test with players ends on.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_stage::{Players, Progress, Stage, Verdict};

/// Long enough for a busy machine; reached only when a promise is broken.
pub const SOON: Duration = Duration::from_secs(20);

/// Plays a scene on a stage of its own. If it fails, its files stay and the ends of its logs are shown.
pub fn play(name: &str, act: impl FnOnce(&mut Stage) -> Result<()>) {
    let outcome = Stage::new(name).and_then(|mut stage| {
        let outcome = act(&mut stage);
        if outcome.is_err() {
            stage.keep();
        }
        outcome
    });
    if let Err(error) = outcome {
        panic!("{name}: {error:?}");
    }
}

/// More players come, and each is answered: being connected alone says nothing of the proxy. `all` play then.
pub fn more_players(players: &mut Players, count: usize, all: u64) -> Result<()> {
    players.add(count, None)?;
    let served = |now: &Progress| now.by_backend.iter().map(|share| share.sessions).sum::<u64>();
    players.wait_until("those who came are answered", SOON, |now| served(now) == all).map(drop)
}

/// Ends the game: nothing lost, repeated or out of order, and nobody disconnected.
pub fn four_zeros(players: Players) -> Result<Verdict> {
    let verdict = players.finish()?;
    let zeros = [verdict.lost, verdict.repeated, verdict.reordered, verdict.disconnects];
    ensure!(zeros == [0; 4] && verdict.is_clean(), "expected four zeros: {verdict:?}");
    ensure!(verdict.frames > 0 && verdict.received >= verdict.frames, "nobody played: {verdict:?}");
    Ok(verdict)
}
