//! States as large as they may be, and larger.

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::{Value, json};

use super::MIB;
use crate::support::arena_client::ArenaClient;
use crate::support::scene::{Scene, Script, clean};

/// More than the SDK puts around a game's state.
const ENVELOPE_BYTES: u64 = 4096;

/// Arenas whose first player's state has that size; that player is there, and plays at `a`.
fn scene(first_state_bytes: u64, limits: Value) -> (Scene, ArenaClient) {
    let bytes = first_state_bytes.to_string();
    let big = |name| ArenaSpec::new(name).flags(["--first-state-bytes", &bytes]);
    let script = Script::new("bounds").arenas([big("a"), big("b")]).service(limits);
    let scene = script.beside("a").open();
    let mut giant = ArenaClient::connect(scene.proxy.address());
    giant.send(100);
    assert!(giant.read_replies(1));
    assert_eq!(scene.sessions_on("a"), 1, "it prefers its own host's arena");
    (scene, giant)
}

/// Whether that session's state is between two backends.
fn is_moving(scene: &Scene, id: &Value) -> bool {
    let sessions = scene.sessions();
    let found = sessions.iter().find(|session| session["id"] == *id).unwrap();
    ["freezing", "moving"].contains(&found["phase"].as_str().unwrap())
}

#[test]
fn a_state_of_64_mib_moves_in_turn_with_the_frames_of_others() {
    let limits = json!({"limits": {"freeze_timeout_ms": 20_000, "attach_timeout_ms": 20_000}});
    let (mut scene, mut giant) = scene(64 * MIB - ENVELOPE_BYTES, limits);
    let id = scene.sessions()[0]["id"].clone();
    let spec = PlayersSpec::new([scene.proxy.address()], 10).closed_loop();
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    scene.wait_settled("a", 11);
    scene.drain("a");
    scene.wait("its state is on its way", |scene| is_moving(scene, &id));
    let first = players.progress().unwrap().replied;
    scene.wait("its state has arrived", |scene| !is_moving(scene, &id));
    let round_trips = players.progress().unwrap().replied - first;
    assert!(round_trips >= 10, "{round_trips} round trips beside the state");
    scene.wait_settled("b", 11);
    giant.send(100);
    assert!(giant.read_replies(2), "its player is closed");
    assert_eq!(scene.handoffs("operator", "moved"), 11);
    clean(players);
}

#[test]
fn a_state_over_the_limit_stays_where_it_is_and_the_log_names_both_sizes() {
    let limits = json!({"limits": {"max_state_bytes": MIB}});
    let (mut scene, mut giant) = scene(2 * MIB, limits);
    let players = scene.players(10);
    scene.wait_settled("a", 11);
    scene.drain("a");
    scene.wait_settled("b", 10);
    scene.wait_log("its state is over the service's limit");
    let log = scene.log();
    let line = log.lines().find(|line| line.contains("over the service's limit")).unwrap();
    // Two mebibytes, and what stands around a state.
    assert!(line.contains(" state_bytes=2097") && line.contains("limits.max_state_bytes=1048576"), "{line}");
    giant.send(100);
    assert!(giant.read_replies(2), "its player is closed");
    clean(players);
}
