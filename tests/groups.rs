//! Players of a match share a world, and stay together: wherever one of them goes, all go, and nobody's frame is lost.

use std::collections::BTreeMap;

use holdfast_stage::{ArenaSpec, Players, PlayersSpec, Verdict};
use serde_json::{Value, json};

use crate::support::forwarder::Forwarder;
use crate::support::scene::{SOON, Scene, Script, clean, moved};

const LEVELS: [&str; 2] = ["replay", "delta"];

/// Two arenas that serve matches, at that level.
fn script(level: &str) -> Script {
    Script::new("groups")
        .arenas(["a", "b"].map(|name| arena(name, level)))
        .service(json!({"recovery": level}))
}

fn arena(name: &str, level: &str) -> ArenaSpec {
    let spec = ArenaSpec::new(name).flags(["--tick-ms", "200"]);
    if level == "delta" { spec.flags(["--deltas"]) } else { spec }
}

/// So many players, in matches of that size, who have all come into theirs.
fn matched(scene: &Scene, count: usize, size: usize, flags: &[&str]) -> Players {
    let spec = PlayersSpec::new([scene.proxy.address()], count).matches(size).flags(flags.iter().copied());
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    play_on(&mut players);
    players
}

/// Nothing was lost, and every match had one world.
fn one_world(players: Players) -> Verdict {
    let verdict = clean(players);
    assert_eq!((verdict.worlds_diverged, verdict.joins_refused), (0, 0), "{verdict:?}");
    verdict
}

/// The backends of each match's members.
fn places(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for session in scene.sessions() {
        if let Value::String(group) = &session["group"] {
            let backend = session["backend"].as_str().unwrap_or("-").to_owned();
            places.entry(group.clone()).or_default().push(backend);
        }
    }
    places
}

/// Every match has all its members, in one place.
fn assert_together(scene: &Scene, matches: usize, size: usize) {
    let places = places(scene);
    assert_eq!(places.len(), matches, "{places:?}");
    for (group, backends) in &places {
        assert_eq!(backends.len(), size, "{group}: {backends:?}");
        assert!(backends.iter().all(|backend| backend == &backends[0]), "{group}: {backends:?}");
    }
}

/// The players have played on since.
fn play_on(players: &mut Players) {
    let replied = players.progress().unwrap().replied;
    players.wait_until("they play on", SOON, |progress| progress.replied > replied + 200).unwrap();
}

#[test]
fn invariant_8_a_group_moves_whole_to_one_backend_with_its_shared_state_once() {
    for level in ["none", "replay", "delta"] {
        let mut scene = script(level).open();
        let mut players = matched(&scene, 40, 4, &[]);
        assert_together(&scene, 10, 4);
        assert_eq!(scene.metric("holdfast_groups", ""), 10);
        let there = scene.sessions_on("a");
        assert!(there > 0, "no match began at a");
        players.begin("drain").unwrap();
        scene.drain("a");
        scene.wait_settled("b", 40);
        players.wait_until("they play at b", SOON, |progress| progress.moved == there).unwrap();
        assert_together(&scene, 10, 4);
        // A match is one handoff, and not one a member.
        assert_eq!(scene.handoffs("operator", "moved"), there / 4, "{level}");
        scene.undrain("a");
        players.begin("back").unwrap();
        scene.drain("b");
        scene.wait_settled("a", 40);
        play_on(&mut players);
        let verdict = one_world(players);
        assert_eq!((verdict.in_match, moved(&verdict, "drain")), (40, there), "{level}");
    }
}

#[test]
fn a_match_survives_the_crash_of_its_backend_with_its_world() {
    for level in LEVELS {
        let mut scene = script(level).open();
        let mut players = matched(&scene, 40, 4, &[]);
        let there = scene.sessions_on("a");
        // From a state on, a replay says who serves: before, it repeats who served.
        scene.wait("each has a checkpoint", |scene| scene.metric("holdfast_checkpoints_total", "") >= 20);
        players.begin("crash").unwrap();
        scene.arena("a").process().kill().unwrap();
        scene.wait_settled("b", 40);
        players.wait_until("they play at b", SOON, |progress| progress.moved == there).unwrap();
        assert_together(&scene, 10, 4);
        scene.arena("a").start_again().unwrap();
        scene.arena("b").process().kill().unwrap();
        scene.wait_settled("a", 40);
        play_on(&mut players);
        let verdict = one_world(players);
        assert_eq!(verdict.in_match, 40, "{level}");
        assert_eq!(scene.metric("holdfast_diverged_total", ""), 0, "{level}");
    }
}

#[test]
fn a_match_that_has_only_begun_survives_a_crash_too() {
    for level in LEVELS {
        let service = json!({"recovery": level, "limits": {"checkpoint_interval_ms": 60000}});
        let mut scene = script(level).service(service).open();
        let mut players = matched(&scene, 20, 4, &[]);
        scene.arena("a").process().kill().unwrap();
        scene.wait_settled("b", 20);
        play_on(&mut players);
        assert_eq!(scene.metric("holdfast_checkpoints_total", ""), 0, "{level}");
        assert_together(&scene, 5, 4);
        assert_eq!(one_world(players).in_match, 20, "{level}");
    }
}

#[test]
fn a_match_outlives_a_cut_link_and_a_restart_in_place() {
    for level in ["none", "replay", "delta"] {
        let mut scene = script(level).arenas([arena("a", level)]).open();
        let wire = Forwarder::start(scene.arena("a").address().parse().unwrap()).unwrap();
        scene.applied(|scene| {
            let document = json!({"address": wire.address(), "version": "1.4"});
            scene.documents.put("backends/arena/a", &document).unwrap();
        });
        let mut players = matched(&scene, 20, 5, &[]);
        for turn in 1..=3 {
            wire.blink();
            scene.wait("the link is lost", |scene| scene.metric("holdfast_links_lost_total", "") >= turn);
            scene.wait("the link is up again", |scene| scene.backend("a")["link"] == "up");
            play_on(&mut players);
        }
        let process = scene.arena("a").process();
        process.terminate().unwrap();
        assert!(process.wait(SOON).unwrap().success());
        scene.arena("a").start_again().unwrap();
        scene.wait_settled("a", 20);
        play_on(&mut players);
        assert_together(&scene, 4, 5);
        one_world(players);
    }
}

#[test]
fn players_come_into_matches_and_leave_them_while_everything_moves() {
    for level in LEVELS {
        let mut scene = script(level).open();
        let mut players = matched(&scene, 48, 4, &["--rematch", "0.3"]);
        for turn in 0..4 {
            let (from, to) = if turn % 2 == 0 { ("a", "b") } else { ("b", "a") };
            scene.drain(from);
            scene.wait("all have left", |scene| scene.sessions_on(from) == 0 && scene.sessions_on(to) > 0);
            play_on(&mut players);
            scene.undrain(from);
            scene.arena(to).process().kill().unwrap();
            play_on(&mut players);
            scene.arena(to).start_again().unwrap();
            scene.wait("the link is up again", |scene| scene.backend(to)["link"] == "up");
        }
        let joins = players.progress().unwrap().joins;
        assert!(joins > 96, "{joins} joins of 48 players");
        one_world(players);
    }
}

#[test]
fn players_on_different_workers_meet_in_one_match() {
    let mut scene = script("replay").workers(3).open();
    let mut players = matched(&scene, 60, 6, &["--rematch", "0.5"]);
    let members = scene.metric("holdfast_group_members", "");
    assert!(members > 0);
    // Nobody may be on `a` at all: then there is nothing to wait for, and the drain must be in force before it ends.
    scene.applied(|scene| scene.drain("a"));
    scene.wait("all have left", |scene| scene.sessions_on("a") == 0);
    scene.arena("b").process().kill().unwrap();
    scene.undrain("a");
    play_on(&mut players);
    let by_worker: BTreeMap<_, Vec<_>> = scene
        .sessions()
        .into_iter()
        .filter(|session| session["group"].is_string())
        .map(|session| (session["group"].to_string(), session["worker"].as_u64()))
        .fold(BTreeMap::new(), |mut all, (group, worker)| {
            all.entry(group).or_insert_with(Vec::new).push(worker);
            all
        });
    for (group, workers) in &by_worker {
        assert!(workers.iter().all(|worker| *worker == workers[0]), "{group}: {workers:?}");
    }
    one_world(players);
}

#[test]
fn when_all_players_of_a_match_have_gone_nothing_of_it_is_left() {
    let mut scene = script("replay").open();
    let players = matched(&scene, 20, 4, &[]);
    assert_eq!(scene.metric("holdfast_group_members", ""), 20);
    one_world(players);
    scene.wait("nothing is left", |scene| {
        let groups = scene.metric("holdfast_groups", "") + scene.metric("holdfast_group_members", "");
        groups + scene.metric("holdfast_sessions", "") == 0
            && scene.sessions_on("a") + scene.sessions_on("b") == 0
    });
}

#[test]
fn a_full_match_takes_nobody_in_and_who_asks_plays_on_alone() {
    let limits = json!({"recovery": "replay", "limits": {"max_group_members": 3}});
    let mut scene = script("replay").service(limits).open();
    let spec = PlayersSpec::new([scene.proxy.address()], 4).flags(["--matches", "4"]);
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    players.wait_until("one is refused", SOON, |progress| progress.joins == 3).unwrap();
    scene.wait("it is counted", |scene| scene.metric("holdfast_joins_refused_total", "") == 1);
    assert_eq!((scene.metric("holdfast_groups", ""), scene.metric("holdfast_group_members", "")), (1, 3));
    play_on(&mut players);
    let verdict = clean(players);
    assert_eq!((verdict.joins, verdict.joins_refused, verdict.worlds_diverged), (3, 1, 0), "{verdict:?}");
}

#[test]
fn a_crash_without_a_journal_ends_the_match_and_its_players_begin_anew() {
    let mut scene = script("none").open();
    let players = matched(&scene, 20, 4, &[]);
    let there = scene.sessions_on("a");
    assert!(there > 0, "no match began at a");
    scene.arena("a").process().kill().unwrap();
    scene.wait_settled("b", 20);
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.disconnects, scene.closed("crash")), (0, 0), "{verdict:?}");
}
