//! A drain whose targets fail: the next one, or back where it was.

use holdfast_stage::ArenaSpec;
use serde_json::json;

use super::until_moved;
use crate::support::scene::{Script, clean, moved};

#[test]
fn with_nobody_else_sessions_stay_where_they_are_and_the_drain_says_so() {
    let mut scene = Script::new("drain").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    players.begin("nowhere to go").unwrap();
    scene.drain_with("a", &json!({"deadline_s": 1}));
    scene.wait_log("the drain's deadline is over");
    let backend = scene.backend("a");
    assert_eq!((&backend["sessions"], &backend["left"]), (&json!(20), &json!(20)), "{backend}");
    assert_eq!(backend["draining"], json!(["key"]));
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "nowhere to go"), 0);
}

#[test]
fn sessions_that_could_not_leave_do_so_when_another_backend_comes() {
    let mut scene = Script::new("drain").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    players.begin("late target").unwrap();
    scene.drain("a");
    scene.wait("a is draining", |scene| scene.backend("a")["draining"] == json!(["key"]));
    assert_eq!(scene.sessions_on("a"), 20);
    scene.join(ArenaSpec::new("b"));
    scene.wait_settled("b", 20);
    until_moved(&mut players, 20);
    clean(players);
}

#[test]
fn a_target_that_refuses_is_passed_over_for_the_next() {
    let mut scene = Script::new("drain").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(40);
    scene.join(ArenaSpec::new("b").flags(["--refuse-attach"]));
    scene.join(ArenaSpec::new("c"));
    players.begin("drain").unwrap();
    scene.drain("a");
    scene.wait_settled("c", 40);
    until_moved(&mut players, 40);
    assert!(scene.log().contains("--refuse-attach"), "the refusal isn't in the log");
    assert_eq!(moved(&clean(players), "drain"), 40);
}

#[test]
fn sessions_that_every_target_refuses_are_thawed_where_they_were() {
    let mut scene = Script::new("drain").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    scene.join(ArenaSpec::new("b").flags(["--refuse-attach"]));
    players.begin("refused").unwrap();
    scene.drain("a");
    scene.wait("each has been thawed", |scene| scene.handoffs("operator", "thawed") >= 20);
    scene.undrain("a");
    scene.wait_settled("a", 20);
    assert_eq!(scene.handoffs("operator", "moved"), 0);
    assert_eq!(moved(&clean(players), "refused"), 0);
}

#[test]
fn a_target_killed_in_the_middle_of_a_drain_costs_nobody_anything() {
    let arenas = ["a", "b", "c"].map(ArenaSpec::new);
    // b is dialled from the start, and takes nobody before the drain.
    let script = Script::new("drain").arenas(arenas).beside("b").route(json!({"prefer": "none"}));
    let mut scene = script.open();
    scene.wait("the link to b is up", |scene| scene.backend("b")["link"] == "up");
    scene.drain("b");
    scene.drain("c");
    scene.wait("b and c are draining", |scene| {
        ["b", "c"].iter().all(|arena| scene.backend(arena)["draining"] == json!(["key"]))
    });
    let mut players = scene.players(40);
    assert_eq!(scene.sessions_on("a"), 40);
    scene.arena("b").process().freeze().unwrap();
    scene.undrain("b");
    scene.undrain("c");
    players.begin("killed").unwrap();
    scene.drain("a");
    scene.wait("some are on their way to b", |scene| scene.sessions_on("b") > 0);
    scene.arena("b").process().kill().unwrap();
    scene.wait_settled("c", 40);
    until_moved(&mut players, 40);
    assert_eq!(moved(&clean(players), "killed"), 40);
    assert_eq!(scene.metric("holdfast_frames_lost_total", ""), 0);
}
