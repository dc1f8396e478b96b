//! Pace, deadlines, and the sizes of states.

use std::time::{Duration, Instant};

use holdfast_stage::ArenaSpec;
use serde_json::json;

use super::empty;
use crate::support::scene::{Script, clean, moved};

#[test]
fn a_drain_keeps_its_pace_and_still_moves_everybody() {
    let pace = json!({"drain": {"per_second": 20}});
    let mut scene = Script::new("drain").service(pace).open();
    let mut players = scene.players(60);
    let begun = Instant::now();
    let leaving = empty(&mut scene, &mut players, "a", "b");
    // The first begins at once, and a late worker may catch up by a tenth of a second.
    let least = Duration::from_millis(50) * (leaving as u32 - 1) - Duration::from_millis(100);
    assert!(begun.elapsed() >= least, "{leaving} sessions moved in {:?}", begun.elapsed());
    clean(players);
}

#[test]
fn at_the_deadline_who_has_not_moved_stays_and_the_drain_says_so() {
    let pace = json!({"drain": {"per_second": 10}});
    let mut scene = Script::new("drain").service(pace).open();
    let mut players = scene.players(60);
    let there = scene.sessions_on("a");
    players.begin("deadline").unwrap();
    let said = scene.holdfast(&["drain", "arena/a", "--local", "--wait", "--deadline", "1s"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.out.contains("at the deadline") && said.out.contains("They stay there"), "{said:?}");
    scene.wait_log("the drain's deadline is over");
    let left = scene.sessions_on("a");
    assert!(left > 0 && left < there, "{left} of {there} left");
    scene.wait_settled("b", 60 - left);
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "deadline"), there - left);
    assert_eq!(scene.closed("drain_deadline"), 0);
}

#[test]
fn on_deadline_close_ends_who_has_not_moved_and_counts_them() {
    let pace = json!({"drain": {"per_second": 10, "deadline_s": 1, "on_deadline": "close"}});
    let mut scene = Script::new("drain").service(pace).open();
    let players = scene.players(60);
    scene.drain("a");
    scene.wait("a is empty", |scene| scene.sessions_on("a") == 0 && scene.closed("drain_deadline") > 0);
    let closed = scene.closed("drain_deadline");
    scene.wait_settled("b", 60 - closed);
    assert_eq!(scene.metric("holdfast_sessions", ""), 60 - closed);
    let verdict = players.finish().unwrap();
    assert_eq!(verdict.disconnects, closed, "{verdict:?}");
    assert_eq!((verdict.repeated, verdict.reordered, verdict.mismatched), (0, 0, 0), "{verdict:?}");
}

#[test]
fn on_deadline_close_spares_who_is_on_the_way() {
    let pace = json!({"drain": {"in_flight": 10, "deadline_s": 1, "on_deadline": "close"}});
    // b is dialled from the start, and takes nobody before the drain.
    let script = Script::new("drain").service(pace).beside("b").route(json!({"prefer": "none"}));
    let mut scene = script.open();
    scene.wait("the link to b is up", |scene| scene.backend("b")["link"] == "up");
    scene.drain("b");
    scene.wait("b is draining", |scene| scene.backend("b")["draining"] == json!(["key"]));
    let players = scene.players(30);
    scene.arena("b").process().freeze().unwrap();
    scene.undrain("b");
    scene.drain("a");
    scene.wait("ten are on their way to b", |scene| scene.sessions_on("b") == 10);
    scene.wait("who stayed is closed", |scene| scene.closed("drain_deadline") >= 20);
    scene.arena("b").process().thaw().unwrap();
    scene.wait_settled("b", 10);
    assert_eq!(scene.closed("drain_deadline"), 20);
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.disconnects, verdict.mismatched, verdict.repeated), (20, 0, 0), "{verdict:?}");
}

#[test]
fn states_larger_than_expected_move_too() {
    let big = |name| ArenaSpec::new(name).flags(["--state-bytes", "262144"]);
    let limits = json!({"limits": {"state_size_bytes": 4096}});
    let mut scene = Script::new("drain").arenas([big("a"), big("b")]).service(limits).open();
    let mut players = scene.players(40);
    let leaving = empty(&mut scene, &mut players, "a", "b");
    assert_eq!(moved(&clean(players), "drain a"), leaving);
}

#[test]
fn states_move_through_a_pool_that_holds_few_of_them() {
    let big = |name| ArenaSpec::new(name).flags(["--state-bytes", "262144"]);
    let limits = json!({"limits": {"max_state_bytes": 524_288}});
    let script = Script::new("drain").arenas([big("a"), big("b")]).service(limits);
    let mut scene = script.config("[limits]\ntransfer_pool_bytes = 524288\n").open();
    let mut players = scene.players(40);
    empty(&mut scene, &mut players, "a", "b");
    clean(players);
}

#[test]
fn a_state_over_the_maximum_is_refused_and_the_session_stays() {
    let limits = json!({"limits": {"max_state_bytes": 2048, "state_size_bytes": 1024}});
    let mut scene = Script::new("drain").service(limits).open();
    let mut players = scene.players(10);
    let there = scene.sessions_on("a");
    players.begin("too big").unwrap();
    scene.drain("a");
    scene.wait_log("limits.max_state_bytes=2048");
    scene.wait("every session of a was thawed", |scene| scene.handoffs("operator", "thawed") >= there);
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "too big"), 0);
    assert_eq!(scene.handoffs("operator", "moved"), 0);
}

#[test]
fn backends_on_unix_sockets_are_drained_as_well() {
    let arenas = [ArenaSpec::new("a").unix(), ArenaSpec::new("b").unix()];
    let mut scene = Script::new("drain").arenas(arenas).open();
    let mut players = scene.players(40);
    let leaving = empty(&mut scene, &mut players, "a", "b");
    assert_eq!(moved(&clean(players), "drain a"), leaving);
}
