//! A backend may end and come back, with everybody on it: its players wait in the proxy.

use holdfast_stage::ArenaSpec;
use serde_json::json;

use crate::support::scene::{SOON, Scene, Script, clean, moved};

/// Tells an arena to end; it must do so by itself, and content.
fn end(scene: &mut Scene, arena: &str) {
    let process = scene.arena(arena).process();
    process.terminate().unwrap();
    let status = process.wait(SOON).unwrap();
    assert!(status.success(), "arena {arena} ended with {status}");
}

fn parked(scene: &Scene) -> u64 {
    scene.metric("holdfast_parked_sessions", "")
}

#[test]
fn a_restart_in_place_parks_everybody_and_brings_them_back_with_their_state() {
    let mut scene = Script::new("restart").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(60);
    players.begin("restart").unwrap();
    end(&mut scene, "a");
    assert_eq!(parked(&scene), 60, "the backend ended before everybody was parked");
    assert_eq!(scene.in_phase("parked"), 60);
    scene.arena("a").start_again().unwrap();
    scene.wait_settled("a", 60);
    players.wait_until("all play at the new process", SOON, |progress| progress.moved == 60).unwrap();
    assert_eq!((scene.handoffs("backend", "parked"), scene.handoffs("backend", "moved")), (60, 60));
    assert_eq!(parked(&scene), 0);
    assert_eq!(moved(&clean(players), "restart"), 60);
}

#[test]
fn a_backend_may_restart_again_and_again() {
    let mut scene = Script::new("restart").arenas([ArenaSpec::new("a").unix()]).open();
    let mut players = scene.players(30);
    for turn in 1..=3 {
        players.begin(&format!("restart {turn}")).unwrap();
        end(&mut scene, "a");
        scene.arena("a").start_again().unwrap();
        scene.wait_settled("a", 30);
        players.wait_until("all play on", SOON, |progress| progress.moved == 30).unwrap();
        players.end(&format!("restart {turn}")).unwrap();
    }
    clean(players);
}

#[test]
fn with_a_second_backend_players_move_there_instead_of_waiting() {
    let mut scene = Script::new("restart").open();
    let mut players = scene.players(40);
    let leaving = scene.sessions_on("a");
    players.begin("restart").unwrap();
    end(&mut scene, "a");
    scene.wait_settled("b", 40);
    players.wait_until("they play at b", SOON, |progress| progress.moved == leaving).unwrap();
    assert_eq!((scene.handoffs("backend", "parked"), scene.handoffs("backend", "moved")), (0, leaving));
    clean(players);
}

#[test]
fn with_on_sigterm_park_players_wait_for_their_own_backend() {
    let mut scene = Script::new("restart").service(json!({"drain": {"on_sigterm": "park"}})).open();
    let mut players = scene.players(40);
    let (leaving, staying) = (scene.sessions_on("a"), scene.sessions_on("b"));
    players.begin("restart").unwrap();
    end(&mut scene, "a");
    assert_eq!((parked(&scene), scene.sessions_on("b")), (leaving, staying));
    scene.arena("a").start_again().unwrap();
    scene.wait_settled("a", leaving);
    players.wait_until("they play on", SOON, |progress| progress.moved == leaving).unwrap();
    assert_eq!(scene.sessions_on("b"), staying);
    assert_eq!(moved(&clean(players), "restart"), leaving);
}

#[test]
fn players_whose_backend_stays_away_go_to_another_after_park_home() {
    let service = json!({"drain": {"on_sigterm": "park"}, "limits": {"park_home_s": 1}});
    let mut scene = Script::new("restart").service(service).open();
    let mut players = scene.players(40);
    let leaving = scene.sessions_on("a");
    players.begin("no way home").unwrap();
    end(&mut scene, "a");
    assert_eq!(parked(&scene), leaving);
    scene.wait_settled("b", 40);
    players.wait_until("they play at b", SOON, |progress| progress.moved == leaving).unwrap();
    assert_eq!(moved(&clean(players), "no way home"), leaving);
}

#[test]
fn after_the_park_deadline_sessions_end_and_their_states_are_counted() {
    let service = json!({"limits": {"park_deadline_s": 1}});
    let mut scene = Script::new("restart").arenas([ArenaSpec::new("a")]).service(service).open();
    let mut players = scene.players(20);
    end(&mut scene, "a");
    players.wait_until("all are disconnected", SOON, |progress| progress.disconnects == 20).unwrap();
    scene.wait("all are closed", |scene| scene.closed("park_deadline") == 20);
    assert_eq!(scene.metric("holdfast_states_dropped_total", ""), 20);
    assert_eq!(scene.metric("holdfast_sessions", ""), 0);
    assert!(scene.log().contains("state dropped"), "the loss isn't in the log");
    scene.proxy.process().terminate().unwrap();
    let status = scene.proxy.process().wait(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "dropped states don't show in the exit code");
}

#[test]
fn players_who_leave_while_parked_are_still_delivered_to_the_game() {
    let mut scene = Script::new("restart").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    end(&mut scene, "a");
    assert_eq!(parked(&scene), 20);
    players.process().kill().unwrap();
    scene.arena("a").start_again().unwrap();
    scene.wait("all have left", |scene| scene.metric("holdfast_sessions", "") == 0);
    // Each was attached once more, so that the game could save it, and then closed by its player's leave.
    assert_eq!(scene.handoffs("backend", "moved"), 20);
    assert_eq!(scene.closed("client_close"), 20);
    assert_eq!(scene.metric("holdfast_states_dropped_total", ""), 0);
}

#[test]
fn new_players_wait_for_a_backend_that_restarts() {
    let mut scene = Script::new("restart").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    end(&mut scene, "a");
    players.add(10, None).unwrap();
    scene.wait("the new ones are in", |scene| scene.metric("holdfast_sessions", "") == 30);
    scene.arena("a").start_again().unwrap();
    scene.wait_settled("a", 30);
    players
        .wait_until("all are answered", SOON, |progress| {
            progress.by_backend.iter().map(|share| share.sessions).sum::<u64>() == 30
        })
        .unwrap();
    clean(players);
}
