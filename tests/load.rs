//! What backends tell of their capacity and load over the link bounds and steers where players go.

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::{Value, json};

use super::support::scene::{Scene, Script, clean};

/// Links are up before the first player comes: a check over the link keeps them.
fn service(more: &Value) -> Value {
    let mut service = json!({"health": {"check": {"kind": "link"}}});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn open<const N: usize>(arenas: [ArenaSpec; N], more: &Value) -> Scene {
    let mut scene = Script::new("load").arenas(arenas).service(service(more)).open();
    scene.wait("all links are up", |scene| scene.metric("holdfast_links", "") == N as u64);
    scene
}

fn by_load() -> Value {
    json!({"balance": {"by": "load"}})
}

fn crowd(scene: &Scene, count: usize) -> Players {
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(5.0);
    Players::start(&scene.stage, &spec).unwrap()
}

fn on(scene: &Scene, arenas: &[&str]) -> Vec<u64> {
    arenas.iter().map(|arena| scene.sessions_on(arena)).collect()
}

fn wait_shown(scene: &mut Scene, arena: &str, field: &str, value: &Value) {
    scene.wait(&format!("{arena}: {field} {value}"), |scene| scene.backend(arena)[field] == *value);
}

/// It tells something else from here on.
fn tell(scene: &mut Scene, arena: &str, fullness: &str, field: &str, value: &Value) {
    scene.arena(arena).tell(fullness).unwrap();
    wait_shown(scene, arena, field, value);
}

#[test]
fn a_capacity_that_is_told_bounds_newcomers_and_may_grow_while_the_game_runs() {
    let arenas = [ArenaSpec::new("a").tells("capacity=5"), ArenaSpec::new("b")];
    let mut scene = open(arenas, &json!({}));
    wait_shown(&mut scene, "a", "capacity", &json!(5));
    let mut players = crowd(&scene, 20);
    assert_eq!(on(&scene, &["a", "b"]), [5, 15]);
    wait_shown(&mut scene, "a", "at_bound", &json!(["capacity"]));
    tell(&mut scene, "a", "capacity=12", "capacity", &json!(12));
    players.add(10, None).unwrap();
    scene.wait("as many as it says now", |scene| on(scene, &["a", "b"]) == [12, 18]);
    clean(players);
}

#[test]
fn a_capacity_in_the_document_wins() {
    let arenas = [ArenaSpec::new("a").tells("capacity=5"), ArenaSpec::new("b")];
    let mut scene = open(arenas, &json!({}));
    wait_shown(&mut scene, "a", "capacity", &json!(5));
    let mut document = scene.arena("a").document();
    document["capacity"] = json!(3);
    scene.applied(|scene| scene.documents.put("backends/arena/a", &document).unwrap());
    let shown = scene.backend("a");
    assert_eq!((&shown["capacity"], &shown["capacity_told"]), (&json!(3), &json!(5)));
    let players = crowd(&scene, 20);
    assert_eq!(on(&scene, &["a", "b"]), [3, 17]);
    clean(players);
}

#[test]
fn a_drain_fills_no_backend_above_the_capacity_that_it_tells() {
    let arenas = [
        ArenaSpec::new("a"),
        ArenaSpec::new("b").tells("capacity=12"),
        ArenaSpec::new("c").tells("capacity=12"),
    ];
    let mut scene = open(arenas, &json!({}));
    ["b", "c"].into_iter().for_each(|name| wait_shown(&mut scene, name, "capacity", &json!(12)));
    let players = crowd(&scene, 30);
    assert_eq!(on(&scene, &["a", "b", "c"]), [10, 10, 10]);
    scene.drain("a");
    scene.wait("b and c are full", |scene| on(scene, &["b", "c"]) == [12, 12]);
    scene.wait("they say so", |scene| scene.metric("holdfast_breakers_open", "breaker=\"capacity\"") == 2);
    assert_eq!(on(&scene, &["a"]), [6]);
    // More room, and the drain goes on.
    tell(&mut scene, "b", "capacity=100", "capacity", &json!(100));
    scene.wait("a is empty", |scene| on(scene, &["a", "b", "c"]) == [0, 18, 12]);
    clean(players);
}

#[test]
fn newcomers_go_where_the_load_is_less_however_many_are_there() {
    let arenas = [
        ArenaSpec::new("a").tells("capacity=100,load=100"),
        ArenaSpec::new("b").tells("capacity=100,load=600"),
    ];
    let mut scene = open(arenas, &by_load());
    wait_shown(&mut scene, "a", "load_permille", &json!(100));
    wait_shown(&mut scene, "b", "load_permille", &json!(600));
    // Each weighs ten thousandths: not before the fiftieth would b be the better place.
    let mut players = crowd(&scene, 30);
    assert_eq!(on(&scene, &["a", "b"]), [30, 0]);
    assert!(scene.holdfast(&["status"]).out.contains("load 60.0 %"));
    tell(&mut scene, "a", "capacity=100,load=800", "load_permille", &json!(800));
    players.add(10, None).unwrap();
    scene.wait("the ten are at b", |scene| on(scene, &["a", "b"]) == [30, 10]);
    clean(players);
}

#[test]
fn an_overloaded_backend_gets_nobody_unless_all_are() {
    let arenas = [ArenaSpec::new("a").tells("load=1000"), ArenaSpec::new("b").tells("none")];
    let mut scene = open(arenas, &json!({"balance": {"policy": "round_robin"}}));
    wait_shown(&mut scene, "a", "at_bound", &json!(["load"]));
    let mut players = crowd(&scene, 10);
    assert_eq!(on(&scene, &["a", "b"]), [0, 10]);
    assert!(scene.holdfast(&["status"]).out.contains("full (load)"));
    assert_eq!(scene.metric("holdfast_breakers_open", "breaker=\"load\""), 1);
    tell(&mut scene, "b", "load=1500", "load_permille", &json!(1500));
    players.add(10, None).unwrap();
    scene.wait("all are in", |scene| scene.in_phase("active") == 20);
    assert!(scene.sessions_on("a") > 0, "in turn, as if nobody were overloaded");
    let before = scene.sessions_on("b");
    tell(&mut scene, "a", "load=999", "at_bound", &json!([]));
    players.add(5, None).unwrap();
    scene.wait("the five are at a", |scene| scene.sessions_on("a") == 25 - before);
    clean(players);
}

#[test]
fn backends_that_tell_nothing_are_filled_by_their_sessions() {
    let scene = open([ArenaSpec::new("a"), ArenaSpec::new("b")], &by_load());
    let players = crowd(&scene, 20);
    assert_eq!(on(&scene, &["a", "b"]), [10, 10]);
    let shown = scene.backend("a");
    assert_eq!((&shown["capacity"], &shown["load_permille"]), (&Value::Null, &Value::Null));
    clean(players);
}
