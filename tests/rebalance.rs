//! With `rebalance` in the service's document live players move towards shares and weights, no more of them than must,
//! and at the pace that is asked for. Without it nobody who plays is moved for a weight.

use std::time::{Duration, Instant};

use holdfast_stage::{ArenaSpec, Players, PlayersSpec, arena_service};
use serde_json::{Value, json};

use crate::support::scene::{SOON, Scene, Script, clean, route};

fn rebalancing(per_second: u32) -> Value {
    json!({"rebalance": {"per_second": per_second}})
}

/// Players at a leisurely rate: where they are is what counts.
fn crowd(scene: &Scene, count: usize) -> Players {
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(5.0);
    Players::start(&scene.stage, &spec).unwrap()
}

fn on(scene: &Scene, arenas: &[&str]) -> Vec<u64> {
    arenas.iter().map(|arena| scene.sessions_on(arena)).collect()
}

/// Waits until the shares are within one session of these, and nobody is on the way.
fn wait_spread(scene: &mut Scene, wanted: &[(&str, u64)]) {
    scene.wait(&format!("about {wanted:?}"), |scene| {
        let near = |(arena, count): &(&str, u64)| scene.sessions_on(arena).abs_diff(*count) <= 1;
        wanted.iter().all(near)
    });
    wait_over(scene);
}

/// No service is being rebalanced any more.
fn wait_over(scene: &mut Scene) {
    scene.wait("the rebalancing is over", |scene| scene.metric("holdfast_rebalancing", "") == 0);
}

fn rebalanced(scene: &Scene) -> u64 {
    scene.handoffs("rebalance", "moved")
}

/// A change that gives everybody another look, and newcomers who show that some time has passed.
fn is_settled(scene: &mut Scene, players: &mut Players, all: u64) {
    let before = rebalanced(scene);
    // Another one each time, or nothing would change.
    let listener = format!("elsewhere-{}", players.progress().unwrap().sent);
    scene.applied(|scene| {
        let elsewhere = json!({"listener": listener, "service": "arena"});
        scene.documents.put("routes/elsewhere", &elsewhere).unwrap();
    });
    wait_over(scene);
    let now = players.progress().unwrap();
    players.wait_until("they play on", SOON, |later| later.replied >= now.replied + 10 * all).unwrap();
    assert_eq!(rebalanced(scene), before, "somebody was moved though nothing was to be gained");
}

#[test]
fn without_rebalance_nobody_moves_to_a_backend_that_joins() {
    let mut scene = Script::new("rebalance").open();
    let mut players = crowd(&scene, 60);
    scene.join(ArenaSpec::new("c"));
    players.add(10, None).unwrap();
    scene.wait_settled("c", 10);
    assert_eq!((on(&scene, &["a", "b"]), scene.handoffs("rebalance", "")), (vec![30, 30], 0));
    clean(players);
}

#[test]
fn a_backend_that_joins_gets_its_third_by_as_few_moves_as_that_takes() {
    let mut scene = Script::new("rebalance").service(rebalancing(200)).open();
    let mut players = crowd(&scene, 90);
    assert_eq!(on(&scene, &["a", "b"]), [45, 45]);
    scene.join(ArenaSpec::new("c"));
    wait_spread(&mut scene, &[("a", 30), ("b", 30), ("c", 30)]);
    let moves = rebalanced(&scene);
    assert!((29..=31).contains(&moves), "{moves} moves");
    assert_eq!((scene.handoffs("operator", ""), scene.handoffs("rebalance", "thawed")), (0, 0));
    is_settled(&mut scene, &mut players, 90);
    clean(players);
}

#[test]
fn two_workers_each_move_their_own_and_come_to_rest() {
    let mut scene = Script::new("rebalance").workers(2).service(rebalancing(200)).open();
    let mut players = crowd(&scene, 80);
    scene.join(ArenaSpec::new("c"));
    scene.wait("about a third", |scene| {
        let counts = on(scene, &["a", "b", "c"]);
        counts.iter().all(|count| count.abs_diff(27) <= 3)
    });
    wait_over(&mut scene);
    let moves = rebalanced(&scene);
    assert!(moves <= 32, "{moves} moves for 27");
    is_settled(&mut scene, &mut players, 80);
    clean(players);
}

#[test]
fn the_pace_is_kept() {
    let mut scene = Script::new("rebalance").arenas([ArenaSpec::new("a")]).service(rebalancing(10)).open();
    let players = crowd(&scene, 40);
    let begun = Instant::now();
    scene.join(ArenaSpec::new("b"));
    wait_spread(&mut scene, &[("a", 20), ("b", 20)]);
    let (took, moves) = (begun.elapsed(), rebalanced(&scene));
    let least = Duration::from_millis(100) * (moves as u32 - 1) - Duration::from_millis(100);
    assert!(took >= least, "{moves} moves in {took:?} at 10 a second");
    clean(players);
}

#[test]
fn weights_are_followed_and_a_weight_of_zero_empties_a_backend() {
    let mut scene = Script::new("rebalance").service(rebalancing(500)).open();
    let mut players = crowd(&scene, 80);
    let weigh = |scene: &mut Scene, name: &str, weight: u32| {
        let mut document = scene.arena(name).document();
        document["weight"] = json!(weight);
        scene.applied(|scene| scene.documents.put(&format!("backends/arena/{name}"), &document).unwrap());
    };
    weigh(&mut scene, "b", 300);
    wait_spread(&mut scene, &[("a", 20), ("b", 60)]);
    assert!((19..=21).contains(&rebalanced(&scene)), "{} moves for 20", rebalanced(&scene));
    weigh(&mut scene, "a", 0);
    scene.wait_settled("b", 80);
    // With nobody left who takes sessions, all stay where they are.
    weigh(&mut scene, "b", 0);
    is_settled(&mut scene, &mut players, 80);
    assert_eq!(scene.sessions_on("b"), 80);
    clean(players);
}

#[test]
fn shares_of_versions_are_followed_and_only_those_move_who_must() {
    let arenas = [ArenaSpec::new("a"), ArenaSpec::new("b").version("1.5")];
    let shares = |old: u32, new: u32| json!({"versions": {"1.4": old, "1.5": new}});
    let script = Script::new("rebalance").arenas(arenas).service(rebalancing(500)).route(shares(100, 0));
    let mut scene = script.open();
    let mut players = crowd(&scene, 100);
    assert_eq!(scene.sessions_on("a"), 100);
    let mut last = 0;
    for (old, new) in [(90, 10), (50, 50), (0, 100)] {
        scene.applied(|scene| scene.documents.put("routes/public", &route(&shares(old, new))).unwrap());
        // 10, 50, 100 expected; five standard deviations around them.
        let (least, most) = match new {
            10 => (1, 25),
            50 => (25, 75),
            _ => (100, 100),
        };
        scene.wait(&format!("{new} % at 1.5"), |scene| {
            let there = scene.sessions_on("b");
            (least..=most).contains(&there) && there > last
        });
        wait_over(&mut scene);
        assert_eq!(scene.sessions_on("b"), rebalanced(&scene), "each that has moved is there");
        is_settled(&mut scene, &mut players, 100);
        last = scene.sessions_on("b");
        assert_eq!(rebalanced(&scene), last, "nobody has moved twice, or back");
    }
    clean(players);
}

#[test]
fn it_stops_when_the_document_says_so() {
    let mut scene = Script::new("rebalance").arenas([ArenaSpec::new("a")]).service(rebalancing(10)).open();
    let mut players = crowd(&scene, 60);
    scene.join(ArenaSpec::new("b"));
    scene.wait("some have moved", |scene| rebalanced(scene) >= 3);
    scene.applied(|scene| scene.documents.put("services/arena", &arena_service(&json!({}))).unwrap());
    wait_over(&mut scene);
    scene.wait("nobody is on the way", |scene| scene.in_phase("active") == 60);
    assert!(rebalanced(&scene) < 25, "it was over before it was stopped");
    is_settled(&mut scene, &mut players, 60);
    clean(players);
}

#[test]
fn what_drains_is_left_to_its_drain_and_filled_again_when_that_is_lifted() {
    let mut scene = Script::new("rebalance").service(rebalancing(500)).open();
    let mut players = crowd(&scene, 60);
    scene.drain("a");
    scene.wait_settled("b", 60);
    is_settled(&mut scene, &mut players, 60);
    assert_eq!((scene.handoffs("rebalance", ""), scene.handoffs("operator", "moved")), (0, 30));
    scene.undrain("a");
    wait_spread(&mut scene, &[("a", 30), ("b", 30)]);
    clean(players);
}

#[test]
fn a_backend_whose_key_is_gone_keeps_its_players() {
    let mut scene = Script::new("rebalance").service(rebalancing(500)).open();
    let mut players = crowd(&scene, 40);
    scene.applied(|scene| scene.documents.delete("backends/arena/a").unwrap());
    is_settled(&mut scene, &mut players, 40);
    assert_eq!((on(&scene, &["a", "b"]), scene.handoffs("rebalance", "")), (vec![20, 20], 0));
    clean(players);
}
