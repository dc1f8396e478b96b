//! A drain moves every session with its state, at its pace, and never costs a player anything.

mod failures;
mod fleet;
mod leaving;
mod limits;
mod orders;
mod overlapping;
mod progress;
mod waiting;

use holdfast_stage::{Players, Progress};
use serde_json::json;

use crate::support::scene::{SOON, Scene, Script, clean, moved};

/// Lets everybody play on until that many have moved in the event that runs.
fn until_moved(players: &mut Players, count: u64) -> Progress {
    players.wait_until(&format!("{count} players moved"), SOON, |progress| progress.moved == count).unwrap()
}

/// Drains `from`; returns how many sessions were there, when all of them play at `to`.
fn empty(scene: &mut Scene, players: &mut Players, from: &str, to: &str) -> u64 {
    let (leaving, staying) = (scene.sessions_on(from), scene.sessions_on(to));
    assert!(leaving > 0, "nobody to move on {from}");
    players.begin(&format!("drain {from}")).unwrap();
    scene.drain(from);
    scene.wait_settled(to, leaving + staying);
    assert_eq!(scene.sessions_on(from), 0);
    until_moved(players, leaving);
    players.end(&format!("drain {from}")).unwrap();
    leaving
}

#[test]
fn a_drain_key_moves_every_session_with_its_state() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(60);
    let leaving = empty(&mut scene, &mut players, "a", "b");
    assert_eq!(scene.handoffs("operator", "moved"), leaving);
    assert_eq!(scene.metric("holdfast_handoff_pause_seconds_count", ""), leaving);
    scene.wait_log("drained");
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "drain a"), leaving);
    assert_eq!(scene.metric("holdfast_frames_lost_total", ""), 0);
}

#[test]
fn two_workers_drain_together() {
    let mut scene = Script::new("drain").workers(2).open();
    let mut players = scene.players(60);
    let by_worker = |scene: &Scene| {
        let sessions = scene.sessions();
        (0..2)
            .map(|worker| sessions.iter().filter(|session| session["worker"] == worker).count())
            .collect::<Vec<_>>()
    };
    assert!(
        by_worker(&scene).iter().all(|count| *count > 0),
        "both workers have players: {:?}",
        by_worker(&scene)
    );
    let leaving = empty(&mut scene, &mut players, "a", "b");
    assert_eq!(scene.handoffs("operator", "moved"), leaving);
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "drain a"), leaving);
}

#[test]
fn a_drained_backend_gets_nobody_until_it_is_undrained() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(20);
    empty(&mut scene, &mut players, "a", "b");
    players.add(20, None).unwrap();
    scene.wait_settled("b", 40);
    scene.undrain("a");
    assert_eq!(scene.backend("a")["draining"], json!([]));
    players.begin("undrain").unwrap();
    players.add(20, None).unwrap();
    // The new ones go where fewest are; nobody is moved back.
    scene.wait_settled("a", 20);
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "undrain"), 0);
}

#[test]
fn sessions_survive_being_drained_back_and_forth_three_times() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(40);
    empty(&mut scene, &mut players, "b", "a");
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
        scene.undrain(to);
        assert_eq!(empty(&mut scene, &mut players, from, to), 40);
    }
    let verdict = clean(players);
    assert_eq!(verdict.events.len(), 7);
    assert!(scene.handoffs("operator", "moved") >= 240);
}

#[test]
fn players_who_join_during_a_drain_play_on_like_the_others() {
    let mut scene = Script::new("drain").service(json!({"drain": {"per_second": 40}})).open();
    let mut players = scene.players(60);
    scene.drain("a");
    let mut joined = 60;
    scene.wait("the drain goes on", |scene| {
        players.add(4, None).unwrap();
        joined += 4;
        scene.sessions_on("a") == 0
    });
    assert!(joined > 64, "the drain was over before anybody joined");
    scene.wait_settled("b", joined);
    clean(players);
}

#[test]
fn a_drain_that_names_another_instance_does_nothing() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(20);
    let there = scene.sessions_on("a");
    players.begin("not this one").unwrap();
    scene.applied(|scene| {
        scene.drain_with("a", &json!({"instance": "00000000000000000000000000000001"}));
    });
    assert_eq!(scene.backend("a")["draining"], json!([]), "{}", scene.backend("a"));
    players.add(20, None).unwrap();
    scene.wait("new players come to a too", |scene| scene.sessions_on("a") > there);
    let verdict = clean(players);
    assert_eq!((moved(&verdict, "not this one"), scene.handoffs("operator", "moved")), (0, 0));
}

#[test]
fn a_drain_that_names_the_running_instance_moves_its_sessions() {
    let mut scene = Script::new("drain").open();
    let players = scene.players(20);
    let instance = scene.backend("a")["links"][0]["instance"].clone();
    assert!(instance.is_string(), "{}", scene.backend("a"));
    scene.drain_with("a", &json!({"instance": instance}));
    scene.wait_settled("b", 20);
    clean(players);
}
