//! Whatever is slow, floods or is large: memory stays within its bound, and the others play on.

mod floods;
mod journals;
mod parked;
mod slow;
mod states;

use holdfast_stage::Players;

use crate::support::scene::{SOON, Scene};

const MIB: u64 = 1 << 20;

/// Bytes that the proxy holds, of all kinds.
fn kept(scene: &Scene) -> u64 {
    scene.metric("holdfast_kept_bytes", "")
}

/// The bystanders complete that many more round trips, whatever goes on meanwhile.
fn play_on(players: &mut Players, round_trips: u64) {
    let before = players.progress().unwrap().replied;
    let what = format!("{round_trips} more round trips");
    players.wait_until(&what, SOON, |now| now.replied >= before + round_trips).unwrap();
}
