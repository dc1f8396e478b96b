//! Drains that meet: a second one, one of the first one's target, of all at once, one that is lifted or changed on its
//! way. Nobody loses a frame.

use std::time::Duration;

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::{Value, json};

use crate::support::scene::{SOON, Scene, Script, clean, moved};

/// Everybody starts on `a`; the others join then.
fn all_on_a(name: &str, service: &Value, others: &[&str], count: usize) -> (Scene, Players) {
    let mut scene = Script::new(name).arenas([ArenaSpec::new("a")]).service(service.clone()).open();
    // Many players at a leisurely rate.
    let rate_hz = if count > 100 { 4.0 } else { 20.0 };
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(rate_hz);
    let players = Players::start(&scene.stage, &spec).unwrap();
    for other in others {
        scene.join(ArenaSpec::new(other));
    }
    (scene, players)
}

/// Nothing is on its way any more.
fn wait_landed(scene: &mut Scene) {
    scene.wait("nobody is on the way", |scene| {
        scene.sessions().iter().all(|session| session["phase"] == "active")
    });
}

#[test]
fn undrain_in_the_middle_of_500_ends_what_has_begun_and_begins_nothing_new() {
    let pace = json!({"drain": {"per_second": 200}});
    let (mut scene, mut players) = all_on_a("overlap", &pace, &["b", "c"], 500);
    players.begin("half a drain").unwrap();
    scene.drain("a");
    scene.wait("some have moved", |scene| scene.handoffs("operator", "moved") >= 100);
    scene.undrain("a");
    wait_landed(&mut scene);
    let there = scene.handoffs("operator", "moved");
    let (on_a, on_b, on_c) = (scene.sessions_on("a"), scene.sessions_on("b"), scene.sessions_on("c"));
    assert_eq!((on_a + on_b + on_c, on_b + on_c), (500, there), "who has begun has gone through");
    assert!(on_a > 0, "the drain was over before it was lifted");
    assert_eq!(scene.handoffs("operator", "thawed"), 0);
    // Those who come find everything as usual; nobody who plays is moved for them.
    players.add(20, None).unwrap();
    let served =
        |now: &holdfast_stage::Progress| now.by_backend.iter().map(|share| share.sessions).sum::<u64>();
    players.wait_until("those who came are answered", SOON, |now| served(now) == 520).unwrap();
    assert_eq!((scene.handoffs("operator", ""), scene.sessions_on("a")), (there, on_a));
    scene.wait_log("drain lifted");
    assert_eq!(moved(&clean(players), "half a drain"), there);
}

#[test]
fn a_lifted_drain_that_is_ordered_again_moves_the_rest() {
    let pace = json!({"drain": {"per_second": 60}});
    let (mut scene, players) = all_on_a("overlap", &pace, &["b"], 60);
    for part in [10, 30] {
        scene.drain("a");
        scene.wait("some have moved", |scene| scene.handoffs("operator", "moved") >= part);
        scene.undrain("a");
    }
    scene.drain("a");
    scene.wait_settled("b", 60);
    assert_eq!(scene.handoffs("operator", "moved"), 60, "each has moved once");
    clean(players);
}

#[test]
fn a_second_drain_begins_while_the_first_one_runs() {
    let pace = json!({"drain": {"per_second": 60}});
    let arenas = ["a", "b", "c"].map(ArenaSpec::new);
    let mut scene = Script::new("overlap").arenas(arenas).service(pace).open();
    let mut players = scene.players(90);
    players.begin("two drains").unwrap();
    scene.drain("a");
    scene.wait("the first drain has begun", |scene| scene.handoffs("operator", "moved") > 0);
    scene.drain("b");
    scene.wait_settled("c", 90);
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (0, 0));
    let states = ["a", "b"].map(|arena| scene.backend(arena)["drain"]["state"].clone());
    assert_eq!(states, [json!("drained"), json!("drained")]);
    players
        .wait_until("all play at c", SOON, |now| now.by_backend.iter().any(|share| share.sessions == 90))
        .unwrap();
    clean(players);
}

#[test]
fn the_target_of_a_running_drain_is_drained_too() {
    let pace = json!({"drain": {"per_second": 60}});
    let (mut scene, players) = all_on_a("overlap", &pace, &["b"], 60);
    scene.drain("a");
    scene.wait("some are at b", |scene| scene.sessions_on("b") >= 10);
    scene.join(ArenaSpec::new("c"));
    scene.drain("b");
    scene.wait_settled("c", 60);
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (0, 0));
    assert!(scene.handoffs("operator", "moved") >= 70, "some have moved twice");
    clean(players);
}

#[test]
fn with_every_backend_drained_by_key_everybody_plays_on_where_they_are() {
    let mut scene = Script::new("overlap").open();
    let mut players = scene.players(40);
    scene.drain("a");
    scene.drain("b");
    scene.wait("both drains are stuck", |scene| {
        ["a", "b"].iter().all(|arena| {
            let drain = &scene.backend(arena)["drain"];
            drain["state"] == "stuck" || drain["state"] == "drained"
        })
    });
    wait_landed(&mut scene);
    let before = players.progress().unwrap();
    players.wait_until("they play on", SOON, |now| now.replied >= before.replied + 400).unwrap();
    assert_eq!(scene.sessions_on("a") + scene.sessions_on("b"), 40);
    scene.undrain("b");
    scene.wait_settled("b", 40);
    clean(players);
}

#[test]
fn with_every_backend_told_to_end_all_wait_and_whoever_returns_first_takes_them() {
    let mut scene = Script::new("overlap").open();
    let mut players = scene.players(40);
    players.begin("blackout").unwrap();
    for arena in ["a", "b"] {
        scene.arena(arena).process().terminate().unwrap();
    }
    for arena in ["a", "b"] {
        let status = scene.arena(arena).process().wait(SOON).unwrap();
        assert!(status.success(), "arena {arena} ended with {status}");
    }
    assert_eq!((scene.metric("holdfast_parked_sessions", ""), scene.in_phase("parked")), (40, 40));
    scene.arena("b").start_again().unwrap();
    scene.wait_settled("b", 40);
    players.wait_until("all play on", SOON, |progress| progress.moved == 40).unwrap();
    scene.arena("a").start_again().unwrap();
    assert_eq!(moved(&clean(players), "blackout"), 40);
}

#[test]
fn nothing_begins_after_the_deadline_until_the_deadline_is_moved_out() {
    let mut scene = Script::new("overlap").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    scene.drain_with("a", &json!({"deadline_s": 1}));
    scene.wait_log("the drain's deadline is over");
    assert_eq!(scene.backend("a")["drain"]["state"], "deadline");
    // Somebody could take them now, but their time is over; those who come go there.
    scene.join(ArenaSpec::new("b"));
    players.add(10, None).unwrap();
    scene.wait_settled("b", 10);
    assert_eq!((scene.sessions_on("a"), scene.handoffs("operator", "")), (20, 0));
    scene.drain_with("a", &json!({"deadline_s": 60}));
    scene.wait_settled("b", 30);
    assert_eq!(scene.handoffs("operator", "moved"), 20);
    clean(players);
}

#[test]
fn a_deadline_that_is_moved_in_holds_for_the_drain_that_runs() {
    let pace = json!({"drain": {"per_second": 5}});
    let (mut scene, players) = all_on_a("overlap", &pace, &["b"], 60);
    scene.drain_with("a", &json!({"deadline_s": 600}));
    scene.wait("it has begun", |scene| scene.handoffs("operator", "moved") >= 2);
    scene.drain_with("a", &json!({"deadline_s": 1}));
    scene.wait_log("the drain's deadline is over");
    wait_landed(&mut scene);
    let (on_a, on_b) = (scene.sessions_on("a"), scene.sessions_on("b"));
    assert!(on_a >= 30 && on_a + on_b == 60, "{on_a} on a, {on_b} on b");
    clean(players);
}

#[test]
fn a_change_of_pace_holds_for_the_drain_that_runs() {
    let slow = json!({"drain": {"per_second": 1}});
    let (mut scene, mut players) = all_on_a("overlap", &slow, &["b"], 60);
    scene.drain("a");
    scene.wait("it has begun", |scene| scene.handoffs("operator", "moved") >= 1);
    let begun = std::time::Instant::now();
    let fast = holdfast_stage::arena_service(&json!({"drain": {"per_second": 1000}}));
    scene.documents.put("services/arena", &fast).unwrap();
    scene.wait_settled("b", 60);
    assert!(begun.elapsed() < Duration::from_secs(15), "a minute's drain at its old pace");
    players.progress().unwrap();
    clean(players);
}
