//! A rollout brings live players to the new version step by step, and back by itself when that version fails them,
//! with their state and every frame. Which proxy controls it, and whether that one lives, makes no difference.

mod words;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_stage::{
    Arena, ArenaSpec, EtcdBinary, Players, PlayersSpec, Proxy, Stage, arena_service, until,
};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, sessions_on};
use crate::support::play::{SOON, four_zeros, play};

const KEY: &str = "rollouts/arena";

/// An old and a new version of the game, and some proxies before both.
struct Theatre {
    proxies: Vec<Proxy>,
    old: Arena,
    new: Arena,
    fleet: Fleet,
}

impl Theatre {
    fn open(stage: &Stage, proxies: usize, new: ArenaSpec) -> Result<Self> {
        let fleet = Fleet::start(stage, EtcdBinary::Current)?;
        fleet.put("services/arena", &arena_service(&json!({"recovery": "replay"})))?;
        // Whoever comes while the new version is starting belongs to the old one.
        fleet.put(
            "routes/public",
            &json!({"listener": "game", "service": "arena", "versions": {"1.4": 100}}),
        )?;
        let old = fleet.arena(stage, "old")?;
        let new = Arena::start(stage, new)?;
        fleet.put(&new.key(), &new.document())?;
        let start = |n: usize| fleet.proxy(stage, &format!("host-{n}"));
        let proxies = (0..proxies).map(start).collect::<Result<Vec<_>>>()?;
        Ok(Self { proxies, old, new, fleet })
    }

    fn players(&self, stage: &Stage, count: usize) -> Result<Players> {
        let spec = PlayersSpec::new(self.proxies.iter().map(Proxy::address), count).rate_hz(10.0);
        Players::start(stage, &spec)
    }

    /// From 1.4 to 1.5; `more` are fields of the document.
    fn roll_out(&self, more: Value) -> Result<()> {
        let mut document = json!({"from": "1.4", "to": "1.5", "interval_s": 1,
            "abort": {"window_s": 2, "for_s": 1}, "pause": {"for_s": 1}});
        for (field, value) in more.as_object().context("an object")? {
            document[field] = value.clone();
        }
        self.fleet.put(KEY, &document)
    }

    fn on(&self, arena: &Arena) -> Result<u64> {
        let backend = format!("arena/{}", arena.name());
        self.proxies.iter().map(|proxy| sessions_on(proxy, &backend)).sum()
    }

    fn wait_on(&self, arena: &Arena, wanted: u64) -> Result<()> {
        let mut last = 0;
        let waited = until(&format!("{wanted} on {}", arena.name()), SOON, || {
            last = self.on(arena).unwrap_or(u64::MAX);
            last == wanted
        });
        waited.with_context(|| format!("there are {last}"))
    }

    /// Waits for the rollout's status key.
    fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let key = "/holdfast/status/rollouts/arena";
        let found = self.fleet.etcd.wait_for(key, 2 * SOON, |text| wanted(&parse(text)));
        Ok(parse(&found.with_context(|| format!("a rollout that is {what}"))?))
    }

    fn wait_state(&self, state: &str) -> Result<Value> {
        self.wait_for(state, |progress| progress["state"] == state)
    }
}

fn new_version() -> ArenaSpec {
    ArenaSpec::new("new").version("1.5")
}

#[test]
fn players_are_brought_to_the_new_version_step_by_step() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 3, new_version())?;
        let players = theatre.players(stage, 90)?;
        theatre.roll_out(json!({"steps": [30, 100]}))?;
        theatre.wait_for("at its first step", |progress| progress["percent"] == 30)?;
        let done = theatre.wait_state("done")?;
        theatre.wait_on(&theatre.new, 90)?;
        let told: Vec<_> =
            done["events"].as_array().context("events")?.iter().map(|e| e["what"].clone()).collect();
        ensure!(told.contains(&json!("step 1 of 2: 30 % to 1.5")), "{told:?}");
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_step_is_a_share_of_the_live_players() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 1, new_version())?;
        let players = theatre.players(stage, 200)?;
        theatre.roll_out(json!({"steps": [25], "interval_s": 1}))?;
        theatre.wait_state("done")?;
        let (old, new) = (theatre.on(&theatre.old)?, theatre.on(&theatre.new)?);
        // 50 expected with a standard deviation of 6.1: outside of this once in a hundred thousand runs.
        ensure!(old + new == 200 && (23..=77).contains(&new), "{old} and {new} of 200 at 25 %");
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_version_that_refuses_players_is_given_up_and_those_on_it_come_back() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 3, new_version().faults("none"))?;
        let mut players = theatre.players(stage, 90)?;
        theatre.roll_out(json!({"steps": [40, 60, 80, 100]}))?;
        until("some are on the new version", SOON, || theatre.on(&theatre.new).is_ok_and(|on| on > 10))?;
        theatre.new.set_faults("refuse=0.7")?;
        players.begin("abort")?;
        let aborted = theatre.wait_state("aborted")?;
        theatre.wait_on(&theatre.old, 90)?;
        let reason = aborted["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("1.5 failed") && reason.contains("more than 5 %"), "{reason}");
        ensure!(aborted["to_move_back"].as_u64() > Some(10), "{aborted}");
        // It stays so: neither time nor a fixed server begins it anew.
        theatre.new.set_faults("none")?;
        players.add(10, None)?;
        theatre.wait_on(&theatre.old, 100)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_version_that_crashes_is_given_up() {
    play("rollout", |stage| {
        let mut theatre = Theatre::open(stage, 1, new_version().faults("none"))?;
        let players = theatre.players(stage, 60)?;
        theatre
            .roll_out(json!({"steps": [30, 100], "interval_s": 60, "abort": {"window_s": 20, "for_s": 0}}))?;
        until("some are on the new version", SOON, || theatre.on(&theatre.new).is_ok_and(|on| on > 5))?;
        theatre.new.process().kill()?;
        theatre.wait_state("aborted")?;
        theatre.wait_on(&theatre.old, 60)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_slow_version_is_paused_and_goes_on_when_the_document_is_written_again() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 1, new_version().faults("slow=300ms@0.3"))?;
        let spec = PlayersSpec::new([theatre.proxies[0].address()], 12).rate_hz(1.0);
        let players = Players::start(stage, &spec)?;
        theatre
            .roll_out(json!({"steps": [50, 100], "interval_s": 60, "pause": {"p99_ms": 250, "for_s": 1}}))?;
        let paused = theatre.wait_state("paused")?;
        let why = paused["reason"].as_str().context("a reason")?;
        ensure!(paused["percent"] == 50 && why.starts_with("1.5 is slow: p99 of "), "{paused}");
        theatre.new.set_faults("none")?;
        theatre.wait_for("fast again", |progress| {
            let seen = &progress["seen"];
            seen["frames"].as_u64() > Some(0) && seen["p99_ms"].as_u64() < Some(250)
        })?;
        let still = theatre.wait_for("told of", |progress| progress["seen"]["frames"].as_u64() > Some(0))?;
        ensure!(still["state"] == "paused", "it went on by itself: {still}");
        theatre.roll_out(json!({"steps": [50, 100]}))?;
        theatre.wait_state("done")?;
        theatre.wait_on(&theatre.new, 12)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn an_order_pauses_goes_on_and_aborts() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 1, new_version())?;
        let players = theatre.players(stage, 40)?;
        theatre.roll_out(json!({"steps": [50, 100], "order": "pause", "reason": "lunch"}))?;
        theatre.wait_for("held before it begins", |progress| progress["reason"] == "ordered: lunch")?;
        ensure!(theatre.on(&theatre.new)? == 0, "somebody was moved");
        theatre.roll_out(json!({"steps": [100], "interval_s": 60}))?;
        theatre.wait_on(&theatre.new, 40)?;
        theatre.roll_out(json!({"steps": [100], "interval_s": 60, "order": "abort", "reason": "no"}))?;
        theatre.wait_state("aborted")?;
        theatre.wait_on(&theatre.old, 40)?;
        // Without its document there is no rollout, and the routes alone hold.
        theatre.fleet.delete(KEY)?;
        let gone = || {
            theatre
                .fleet
                .etcd
                .etcdctl(&["get", "/holdfast/status/rollouts/arena"])
                .is_ok_and(|text| text.is_empty())
        };
        until("its status is gone, too", SOON, gone)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn another_proxy_takes_over_when_the_controller_dies() {
    play("rollout", |stage| {
        let mut theatre = Theatre::open(stage, 3, new_version())?;
        theatre.roll_out(json!({"steps": [30, 100], "interval_s": 4}))?;
        let running = theatre.wait_for("at its first step", |progress| progress["percent"] == 30)?;
        let first = running["controller"].as_str().context("a controller")?.to_owned();
        let index: usize = first.trim_start_matches("host-").parse()?;
        theatre.proxies.remove(index).process().kill()?;
        let players = theatre.players(stage, 60)?;
        let done = theatre.wait_state("done")?;
        ensure!(done["controller"] != first.as_str(), "{done}");
        theatre.wait_on(&theatre.new, 60)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_rollout_without_a_way_back_is_refused_unless_forced() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 1, new_version().flags(["--writes-format", "arena-next"]))?;
        let players = theatre.players(stage, 20)?;
        theatre.roll_out(json!({"steps": [100]}))?;
        let refused = theatre.wait_state("refused")?;
        let reason = refused["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("version 1.4 doesn't read the state format arena-next"), "{reason}");
        ensure!(theatre.on(&theatre.old)? == 20, "somebody was moved");
        theatre.roll_out(json!({"steps": [100], "force": true}))?;
        theatre.wait_state("done")?;
        // Who is in can't be moved there; who comes is.
        ensure!(theatre.on(&theatre.old)? == 20, "a state was given to a server that can't read it");
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_rollout_needs_no_share_in_the_route() {
    play("rollout", |stage| {
        let theatre = Theatre::open(stage, 1, new_version())?;
        theatre.roll_out(json!({"steps": [100], "order": "pause"}))?;
        theatre.wait_for("there", |progress| progress["state"] == "checking")?;
        theatre.fleet.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
        let proxy = &theatre.proxies[0];
        until("the route has no shares", Duration::from_secs(20), || {
            proxy
                .admin_json("/routes")
                .is_ok_and(|routes| routes["routes"][0]["versions"].as_object().is_some_and(|v| v.is_empty()))
        })?;
        let players = theatre.players(stage, 20)?;
        ensure!(theatre.on(&theatre.new)? == 0, "nobody goes to a version before its rollout begins");
        theatre.roll_out(json!({"steps": [100]}))?;
        theatre.wait_on(&theatre.new, 20)?;
        four_zeros(players).map(drop)
    });
}
