//! What is kept for a crash, when it alone would be more than the bound.

use serde_json::json;

use super::{MIB, kept, play_on};
use crate::support::scene::{Scene, Script, clean};
use holdfast_stage::{Players, PlayersSpec};

/// States on their way in, and what one turn may add.
const UNDER_WAY: u64 = MIB;

#[test]
fn journals_that_reach_the_bound_are_trimmed_and_everybody_plays_on() {
    const PLAYERS: usize = 40;
    let service = json!({"recovery": "replay", "limits": {"checkpoint_interval_ms": 600_000}});
    let scene: Scene =
        Script::new("bounds").config("[limits]\nkept_bytes = 1048576\n").service(service).open();
    let spec =
        PlayersSpec { frame_bytes: 4000, ..PlayersSpec::new([scene.proxy.address()], PLAYERS).closed_loop() };
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    let mut most = 0;
    // Some twenty times the bound.
    for _ in 0..50 {
        play_on(&mut players, 100);
        most = most.max(kept(&scene));
    }
    assert!(most <= MIB + UNDER_WAY, "{most} bytes were held");
    assert_eq!(scene.closed("slow_player") + scene.closed("slow_backend"), 0);
    clean(players);
}
