//! New sessions follow the shares and weights that the operator writes; who is in stays.

use holdfast_stage::{ArenaSpec, Players, PlayersSpec, Verdict};
use serde_json::json;

use crate::support::scene::{Scene, Script, clean, moved, route};

fn two_versions(name: &str) -> Script {
    Script::new(name).arenas([ArenaSpec::new("a"), ArenaSpec::new("b").version("1.5")])
}

/// Many players who hardly play: what counts is where they land.
fn crowd(scene: &Scene, count: usize) -> Players {
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(2.0);
    Players::start(&scene.stage, &spec).unwrap()
}

fn at(verdict: &Verdict, version: &str) -> u64 {
    let of_version = verdict.by_backend.iter().filter(|share| share.version == version);
    of_version.map(|share| share.sessions).sum()
}

#[test]
fn new_sessions_follow_the_shares_of_versions() {
    let script = two_versions("weights").route(json!({"versions": {"1.4": 95, "1.5": 5}}));
    let scene = script.open();
    let verdict = clean(crowd(&scene, 400));
    assert_eq!(at(&verdict, "1.4") + at(&verdict, "1.5"), 400, "{:?}", verdict.by_backend);
    // 20 expected with a standard deviation of 4.4: outside of this once in a hundred thousand runs.
    let fresh = at(&verdict, "1.5");
    assert!((4..=42).contains(&fresh), "{fresh} of 400 at a share of 5 %");
}

#[test]
fn a_share_of_zero_excludes_a_version() {
    let script = two_versions("weights").route(json!({"versions": {"1.4": 1, "1.5": 0}}));
    let scene = script.open();
    let verdict = clean(crowd(&scene, 100));
    assert_eq!((at(&verdict, "1.4"), at(&verdict, "1.5")), (100, 0));
}

#[test]
fn a_version_with_share_zero_gets_nobody_even_by_a_drain() {
    let script = two_versions("weights").route(json!({"versions": {"1.4": 1, "1.5": 0}}));
    let mut scene = script.open();
    let mut players = scene.players(20);
    players.begin("drain").unwrap();
    scene.drain_with("a", &json!({"deadline_s": 1}));
    scene.wait_log("the drain's deadline is over");
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (20, 0));
    assert_eq!(moved(&clean(players), "drain"), 0);
}

#[test]
fn a_version_with_nobody_eligible_yields_to_the_next() {
    let script = two_versions("weights").route(json!({"versions": {"1.4": 95, "1.5": 5}}));
    let mut scene = script.open();
    scene.drain("a");
    scene.wait("a is draining", |scene| scene.backend("a")["draining"] == json!(["key"]));
    let verdict = clean(crowd(&scene, 40));
    assert_eq!((at(&verdict, "1.4"), at(&verdict, "1.5")), (0, 40));
}

#[test]
fn within_a_version_sessions_follow_the_backends_weights() {
    let mut scene = Script::new("weights").open();
    scene.applied(|scene| {
        let mut a = scene.arenas[0].document();
        a["weight"] = json!(300);
        scene.documents.put("backends/arena/a", &a).unwrap();
    });
    let players = crowd(&scene, 100);
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (75, 25));
    // Whoever comes fills up what is missing: the fewest sessions for the weight.
    scene.applied(|scene| {
        let mut b = scene.arenas[1].document();
        b["weight"] = json!(300);
        scene.documents.put("backends/arena/b", &b).unwrap();
    });
    let more = Players::start_as(
        &scene.stage,
        "more-players",
        &PlayersSpec::new([scene.proxy.address()], 50).rate_hz(2.0),
    );
    scene.wait_settled("b", 75);
    assert_eq!(scene.sessions_on("a"), 75);
    clean(more.unwrap());
    clean(players);
}

#[test]
fn a_change_of_weights_moves_nobody() {
    let script = two_versions("weights").route(json!({"versions": {"1.4": 100, "1.5": 1}}));
    let mut scene = script.open();
    let mut players = scene.players(60);
    let (at_a, at_b) = (scene.sessions_on("a"), scene.sessions_on("b"));
    players.begin("shift").unwrap();
    scene.applied(|scene| {
        let versions = json!({"versions": {"1.4": 0, "1.5": 100}});
        scene.documents.put("routes/public", &route(&versions)).unwrap();
        let mut a = scene.arenas[0].document();
        a["weight"] = json!(0);
        scene.documents.put("backends/arena/a", &a).unwrap();
    });
    players.add(40, None).unwrap();
    scene.wait_settled("b", at_b + 40);
    assert_eq!(scene.sessions_on("a"), at_a);
    assert_eq!((moved(&clean(players), "shift"), scene.handoffs("operator", "")), (0, 0));
}

/// All of them are on one backend that is drained: the others get them as their shares and weights say.
#[test]
fn those_who_leave_a_drained_backend_are_spread_by_weight() {
    let mut scene = Script::new("weights").arenas([ArenaSpec::new("a")]).open();
    let players = crowd(&scene, 200);
    for (name, weight) in [("b", 100), ("c", 300)] {
        scene.join(ArenaSpec::new(name));
        let mut document = scene.arena(name).document();
        document["weight"] = json!(weight);
        scene.applied(|scene| scene.documents.put(&format!("backends/arena/{name}"), &document).unwrap());
    }
    scene.drain("a");
    scene.wait("a is empty", |scene| {
        let there = scene.sessions_on("b") + scene.sessions_on("c");
        there == 200 && scene.in_phase("active") == 200
    });
    let (light, heavy) = (scene.sessions_on("b"), scene.sessions_on("c"));
    assert!((49..=51).contains(&light), "1 to 3: {light} and {heavy}");
    clean(players);
}

#[test]
fn those_who_leave_a_drained_backend_are_spread_by_the_shares_of_versions() {
    let script = Script::new("weights").arenas([ArenaSpec::new("a")]);
    let mut scene = script.route(json!({"versions": {"1.4": 100, "1.5": 75, "1.6": 25}})).open();
    let players = crowd(&scene, 200);
    scene.join(ArenaSpec::new("b").version("1.5"));
    scene.join(ArenaSpec::new("c").version("1.6"));
    scene.drain("a");
    scene.wait("a is empty", |scene| scene.sessions_on("a") == 0 && scene.in_phase("active") == 200);
    // 150 expected with a standard deviation of 6.1.
    let there = scene.sessions_on("b");
    assert!((120..=180).contains(&there), "{there} of 200 at a share of 75 %");
    clean(players);
}
