//! What a crash costs is what the service says; a cut wire costs nothing.

use std::time::Duration;

use holdfast_stage::{ArenaSpec, Players};
use serde_json::json;

use crate::support::forwarder::Forwarder;
use crate::support::impostor::{Heard, Impostor};
use crate::support::scene::{SOON, Scene, Script, clean, moved};

/// A wire to that arena.
fn wire(scene: &mut Scene, arena: &str) -> Forwarder {
    Forwarder::start(scene.arena(arena).address().parse().unwrap()).unwrap()
}

#[test]
fn after_a_crash_sessions_begin_anew_elsewhere_on_the_same_connection() {
    let mut scene = Script::new("crash").open();
    let mut players = scene.players(40);
    let there = scene.sessions_on("a");
    players.begin("crash").unwrap();
    scene.arena("a").process().kill().unwrap();
    scene.wait_settled("b", 40);
    players.wait_until("they play at b", SOON, |progress| progress.moved == there).unwrap();
    assert_eq!((scene.handoffs("crash", "moved"), scene.closed("crash")), (there, 0));
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.sessions, verdict.disconnects), (40, 0), "{verdict:?}");
}

#[test]
fn a_session_that_lost_its_state_is_attached_as_lost() {
    let mut scene =
        Script::new("crash").listener("odd").open().with_odd_service(&json!({"on_crash": "fresh"}));
    let first = Impostor::turning(|peer, _| peer.hang_up());
    scene.cast("first", &first);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    let second = Impostor::turning(|_, _| ());
    scene.cast("second", &second);
    first.leave();
    client.send(b"misbehave\n");
    let attach = second.wait("ATTACH", |heard| matches!(heard, Heard::Attach { .. }));
    assert_eq!(attach, Heard::Attach { fresh: true, lost: true });
    client.send(b"after\n");
    client.expect(b"after\n");
    // The frame that went down with the backend was not acked: counted, not repeated to a game that is not the same.
    scene.wait("it is counted", |scene| scene.metric("holdfast_frames_lost_total", "") == 1);
    assert_eq!(scene.closed("crash"), 0);
}

#[test]
fn with_on_crash_close_sessions_end_with_that_reason_and_others_play_on() {
    let mut scene = Script::new("crash").service(json!({"on_crash": "close"})).open();
    let mut players = scene.players(40);
    let there = scene.sessions_on("a");
    scene.arena("a").process().kill().unwrap();
    players.wait_until("they are closed", SOON, |progress| progress.disconnects == there).unwrap();
    assert_eq!((scene.closed("crash"), scene.sessions_on("b")), (there, 40 - there));
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.repeated, verdict.reordered, verdict.mismatched), (0, 0, 0), "{verdict:?}");
}

#[test]
fn a_cut_link_is_taken_up_again_and_nothing_is_lost() {
    let mut scene = Script::new("crash").arenas([ArenaSpec::new("a")]).open();
    let wire = wire(&mut scene, "a");
    scene.applied(|scene| {
        let document = json!({"address": wire.address(), "version": "1.4"});
        scene.documents.put("backends/arena/a", &document).unwrap();
    });
    let mut players = scene.players(40);
    players.begin("cuts").unwrap();
    for turn in 1..=5 {
        wire.blink();
        scene.wait("the link is lost", |scene| scene.metric("holdfast_links_lost_total", "") >= turn);
        scene.wait("the link is up again", |scene| scene.backend("a")["link"] == "up");
        let replied = players.progress().unwrap().replied;
        players.wait_until("they play on", SOON, |progress| progress.replied > replied + 100).unwrap();
    }
    assert_eq!(scene.handoffs("crash", "moved"), 0);
    assert_eq!(moved(&clean(players), "cuts"), 0);
    assert_eq!(scene.metric("holdfast_frames_lost_total", ""), 0);
}

#[test]
fn links_cut_in_the_middle_of_a_drain_cost_nothing() {
    let pace = json!({"drain": {"per_second": 50}});
    let mut scene = Script::new("crash").arenas([ArenaSpec::new("a")]).service(pace).open();
    let wire = wire(&mut scene, "a");
    let document = json!({"address": wire.address(), "version": "1.4"});
    scene.applied(|scene| scene.documents.put("backends/arena/a", &document).unwrap());
    let mut players = scene.players(60);
    scene.join(ArenaSpec::new("b"));
    players.begin("drain").unwrap();
    scene.drain("a");
    for gone in [10, 25, 40] {
        scene.wait("the drain goes on", |scene| scene.handoffs("operator", "moved") >= gone);
        wire.blink();
    }
    scene.wait_settled("b", 60);
    players.wait_until("all have moved", SOON, |progress| progress.moved == 60).unwrap();
    assert_eq!(moved(&clean(players), "drain"), 60);
    assert_eq!(scene.metric("holdfast_frames_lost_total", ""), 0);
}

#[test]
fn a_frozen_backend_is_left_behind_and_does_no_harm_when_it_thaws() {
    let limits = json!({"limits": {"liveness_ms": 600, "resume_timeout_ms": 500}});
    let mut scene = Script::new("crash").service(limits).open();
    let mut players = scene.players(40);
    let there = scene.sessions_on("a");
    players.begin("frozen").unwrap();
    scene.arena("a").process().freeze().unwrap();
    scene.wait_settled("b", 40);
    players.wait_until("they play at b", SOON, |progress| progress.moved == there).unwrap();
    assert!(scene.log().contains("the backend is silent"), "the log doesn't say why");
    let before = players.progress().unwrap();
    assert_eq!(before.disconnects, 0);
    scene.arena("a").process().thaw().unwrap();
    scene.wait("a is back", |scene| scene.backend("a")["link"] == "up");
    // It takes new players, and none of the old ones hears of it again.
    players.add(20, None).unwrap();
    scene.wait_settled("a", 20);
    players.wait_until("they play on", SOON, |now| now.replied > before.replied + 1000).unwrap();
    let after = players.progress().unwrap();
    let faults = |progress: &holdfast_stage::Progress| {
        (progress.lost, progress.repeated, progress.reordered, progress.mismatched, progress.disconnects)
    };
    assert_eq!(faults(&after), faults(&before));
    assert_eq!(scene.sessions_on("b"), 40);
}

#[test]
fn a_backend_killed_and_started_again_serves_the_same_connections() {
    let mut scene = Script::new("crash").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    players.begin("crash").unwrap();
    scene.arena("a").process().kill().unwrap();
    scene.wait("all are parked", |scene| scene.metric("holdfast_parked_sessions", "") == 20);
    scene.arena("a").start_again().unwrap();
    scene.wait_settled("a", 20);
    players
        .wait_until("they play at the new process", Duration::from_secs(20), |progress| progress.moved == 20)
        .unwrap();
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.sessions, verdict.disconnects), (20, 0), "{verdict:?}");
}

/// Crash recovery with everything on. What a replayed game says doesn't tell where it runs: the proxy knows.
fn replaying(limits: serde_json::Value) -> Script {
    Script::new("crash").service(json!({"recovery": "replay", "limits": limits}))
}

/// Every player is answered many times more, and none has seen anything amiss.
fn unharmed(scene: &mut Scene, mut players: Players, recovered: u64) {
    let replied = players.progress().unwrap().replied;
    players.wait_until("they play on", SOON, |now| now.replied > replied + 1000).unwrap();
    assert_eq!((scene.handoffs("crash", "moved"), scene.closed("crash")), (recovered, 0));
    assert_eq!(scene.closed("poison"), 0);
    for metric in ["holdfast_diverged_total", "holdfast_frames_lost_total", "holdfast_unprotected_sessions"] {
        assert_eq!(scene.metric(metric, ""), 0, "{metric}");
    }
    clean(players);
}

#[test]
fn with_replay_a_killed_backend_costs_nothing() {
    let mut scene = replaying(json!({"checkpoint_interval_ms": 200})).open();
    let players = scene.players(40);
    let there = scene.sessions_on("a");
    scene.wait("there are checkpoints", |scene| scene.metric("holdfast_checkpoints_total", "") > 40);
    scene.arena("a").process().kill().unwrap();
    scene.wait_settled("b", 40);
    unharmed(&mut scene, players, there);
}

#[test]
fn with_replay_a_frozen_backend_costs_nothing_nor_does_its_thaw() {
    let limits = json!({"liveness_ms": 600, "resume_timeout_ms": 500, "checkpoint_interval_ms": 200});
    let mut scene = replaying(limits).open();
    let players = scene.players(40);
    let there = scene.sessions_on("a");
    scene.arena("a").process().freeze().unwrap();
    scene.wait_settled("b", 40);
    scene.arena("a").process().thaw().unwrap();
    scene.wait_log("the backend is back, too late for its sessions");
    assert_eq!(scene.sessions_on("b"), 40);
    unharmed(&mut scene, players, there);
}

#[test]
fn with_replay_a_backend_killed_and_started_again_costs_nothing() {
    let mut scene = replaying(json!({"checkpoint_interval_ms": 200})).arenas([ArenaSpec::new("a")]).open();
    let players = scene.players(20);
    scene.arena("a").process().kill().unwrap();
    scene.wait("all wait for it", |scene| scene.metric("holdfast_recovering_sessions", "") == 20);
    scene.arena("a").start_again().unwrap();
    scene.wait_settled("a", 20);
    unharmed(&mut scene, players, 20);
}
