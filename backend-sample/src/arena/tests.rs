//! A player who is brought back after a crash has the chain, the ticks and the replies that they had.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_backend::testing::{Script, check_deltas, check_replay};

use super::*;

/// Another process each time it is made.
fn arena() -> Arena {
    static RUNS: AtomicU64 = AtomicU64::new(1);
    let instance = RUNS.fetch_add(1, Ordering::Relaxed);
    Arena::new(Rules {
        shares_tag: false,
        tag: Tag { instance, version: "1.4".into() },
        state_bytes: 256,
        first_state_bytes: None,
        tick: Some(Duration::from_millis(100)),
        faults: Faults { close_at: Some(9), ..Faults::default() },
        mishaps: Mishaps::default(),
    })
}

/// The third asks for a match, the fifth for ticks; the others for nothing.
fn frame(seq: u64) -> Vec<u8> {
    let ask = match seq {
        3 => Ask::Match(GroupId([6; 16])),
        5 => Ask::Burst(2),
        _ => Ask::Nothing,
    };
    let mut frame = Vec::new();
    Input { seed: 5, seq, sent_us: seq * 1000, ask }.encode(100, &mut frame);
    frame
}

/// Frames and ticks, before and after the player's game knows who serves it.
fn script(frames: u64) -> Script {
    let script = Script::new().frame(frame(1)).finish(SERVED, b"INSTANCE1.4".as_slice());
    (2..=frames).fold(script, |script, seq| script.frame(frame(seq)).wait(Duration::from_millis(70)))
}

#[test]
fn a_replayed_player_has_the_chain_and_the_ticks_that_they_had() {
    for script in [script(8), script(8).close(), script(9), script(3).frame("nonsense")] {
        assert_eq!(check_replay(arena, &script), Ok(()));
    }
}

#[test]
fn a_player_brought_back_by_changes_has_the_chain_and_the_ticks_that_they_had() {
    for script in [script(8), script(8).close(), script(9), script(3).frame("nonsense")] {
        assert_eq!(check_deltas(arena, &script), Ok(()));
    }
}
