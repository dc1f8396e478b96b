//! Whatever anybody writes, a proxy applies it or says why not, and the players never notice.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use holdfast::routing::document::{Document, Key};
use holdfast_stage::{
    Arena, ArenaSpec, EtcdBinary, Mutation, Mutations, Players, PlayersSpec, Proxy, Stage, arena_service,
    until,
};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, KeyClient};
use crate::support::play::{SOON, four_zeros, more_players, play};

/// Another one makes other mutations.
const SEED: u64 = 20_261_124;
const COUNT: usize = 1_000;
/// The status key and the metric are written once a second at most, so not every mutation is looked up there.
const LOOK_EVERY: usize = 100;

#[derive(Debug, Default)]
struct Outcomes {
    in_force: usize,
    refused: usize,
    held: usize,
}

struct Scene {
    fleet: Fleet,
    arenas: Vec<Arena>,
    proxy: Proxy,
    client: KeyClient,
}

impl Scene {
    fn open(stage: &Stage) -> Result<Self> {
        let fleet = Fleet::start(stage, EtcdBinary::Default)?;
        let specs = [ArenaSpec::new("a"), ArenaSpec::new("b"), ArenaSpec::new("c").version("1.5")];
        let arenas = specs.into_iter().map(|spec| Arena::start(stage, spec)).collect::<Result<Vec<_>>>()?;
        let proxy = fleet.proxy(stage, "p")?;
        let client = fleet.client()?;
        Ok(Self { fleet, arenas, proxy, client })
    }

    /// What players need.
    fn needed(&self) -> Vec<(String, Value)> {
        let service = arena_service(&json!({"rebalance": {"per_second": 50}, "balance": {"slow_start_s": 5},
            "health": {"check": {"kind": "tcp", "interval_ms": 500}, "outliers": {}, "when_ejected": "move"}}));
        let route = json!({"listener": "game", "service": "arena", "versions": {"1.4": 90, "1.5": 10}, "prefer": "none"});
        let backends = self.arenas.iter().map(|arena| (arena.key(), arena.document()));
        let rest = [("services/arena", service), ("routes/public", route)];
        backends.chain(rest.map(|(key, document)| (key.to_owned(), document))).collect()
    }

    /// What is there besides.
    fn others() -> Vec<(String, Value)> {
        let service = json!({"protocol": "link", "framing": {"kind": "lines"}, "limits": {"max_sessions": 10},
            "drain": {"on_deadline": "close"}, "breakers": {"max_sessions": 5}, "recovery": "delta"});
        let rollout =
            json!({"from": "1.4", "to": "1.5", "steps": [5, 50], "abort": {"for_s": 5}, "order": "pause"});
        [
            ("services/lobby", service),
            ("backends/lobby/x", json!({"address": "127.0.0.1:9", "version": "7", "zone": "eu-1", "capacity": 5})),
            ("routes/lobby", json!({"listener": "elsewhere", "service": "lobby", "sni": "*.example", "source": "10.0.0.0/8"})),
            ("drains/arena/b", json!({"deadline_s": 30, "reason": "a test"})),
            ("ejections/arena/a", json!({"reason": "a test", "until": "2037-01-01T00:00:00Z"})),
            ("rollouts/arena", rollout),
            ("accepts/lobby", json!({"changes": {"backends/lobby/x": {"from": 7}}, "reason": "a test"})),
        ]
        .map(|(key, document)| (key.to_owned(), document))
        .into()
    }

    fn wait_applied(&self, revision: u64) -> Result<()> {
        until(&format!("every worker acts by revision {revision}"), SOON, || {
            self.proxy.admin_json("/applied").is_ok_and(|view| view["applied"].as_u64() >= Some(revision))
        })
    }

    /// What became of it, once every worker has it.
    fn judge(&self, mutation: &Mutation, revision: u64, outcomes: &mut Outcomes) -> Result<()> {
        self.wait_applied(revision)?;
        let routes = self.proxy.admin_json("/routes")?;
        let documents = self.proxy.admin_json("/documents")?;
        let of = |view: &Value, name: &str| view[name].as_array().cloned().unwrap_or_default();
        let is_ours = |found: &Value, since: &str| found["key"] == *mutation.key && found[since] == revision;
        let in_force = of(&documents, "documents")
            .iter()
            .any(|found| is_ours(found, "revision") && found["text"] == *mutation.text);
        let refused = of(&routes, "refused").into_iter().find(|found| is_ours(found, "since"));
        let held = of(&routes, "held")
            .into_iter()
            .find(|held| of(held, "keys").iter().any(|key| *key == *mutation.key));
        if in_force {
            outcomes.in_force += 1;
        } else if let Some(refused) = refused {
            let error = refused["error"].as_str().context("its error")?;
            let (field, rest) = error.split_once(": got ").context("a field")?;
            let (value, expected) = rest.split_once(", expected ").context("what was expected")?;
            ensure!(!field.is_empty() && !value.is_empty() && !expected.is_empty(), "{mutation:?}: {error}");
            outcomes.refused += 1;
        } else {
            let held =
                held.with_context(|| format!("{mutation:?} is neither in force nor explained: {routes}"))?;
            ensure!(held["why"][0].as_str().is_some_and(|why| !why.is_empty()), "{held}");
            outcomes.held += 1;
        }
        Ok(())
    }

    /// The status key and the metric tell the same.
    fn look_elsewhere(&self, revision: u64) -> Result<()> {
        let routes = self.proxy.admin_json("/routes")?;
        let refused = routes["refused"].as_array().context("a list")?;
        let status = self.fleet.status("p", "the last revision", |status| {
            status["applied"].as_u64() >= Some(revision)
                && status["refused"].as_array().is_some_and(|told| told.len() == refused.len())
        })?;
        for (told, shown) in status["refused"].as_array().into_iter().flatten().zip(refused) {
            let words =
                ["key", "field", "value", "expected"].map(|part| told[part].as_str().unwrap_or_default());
            ensure!(words.iter().all(|word| !word.is_empty()) && told["key"] == shown["key"], "{told}");
        }
        ensure!(self.proxy.metric("holdfast_refused_documents", "")? == refused.len() as f64);
        ensure!(
            status["held"].as_array().map_or(0, Vec::len) == routes["held"].as_array().map_or(0, Vec::len)
        );
        Ok(())
    }
}

/// Whether the players' service stays as it must be for them: nobody may order their game elsewhere or their end.
fn spares_the_players(mutation: &Mutation, needed: &[(String, Value)]) -> bool {
    let parse = |text: &str| Document::parse(&Key::parse(&mutation.key).ok()?, text.as_bytes()).ok();
    let Some((_, right)) = needed.iter().find(|(key, _)| *key == mutation.key) else { return true };
    match (parse(&mutation.text), parse(&right.to_string())) {
        (Some(Document::Service(new)), Some(Document::Service(right))) => {
            (&new.framing, new.limits, new.recovery, new.on_crash, new.drain)
                == (&right.framing, right.limits, right.recovery, right.on_crash, right.drain)
        }
        (Some(Document::Backend(new)), Some(Document::Backend(right))) => new.address == right.address,
        _ => true,
    }
}

#[test]
fn a_thousand_random_mutations_are_applied_or_refused_with_a_reason_and_traffic_never_stops() {
    play("mutations", |stage| {
        println!("seed {SEED}");
        let mut scene = Scene::open(stage)?;
        let needed = scene.needed();
        let revision = scene.client.put_texts(&texts(&needed))?;
        scene.wait_applied(revision)?;
        let spec = PlayersSpec::new([scene.proxy.address()], 20).rate_hz(10.0);
        let mut players = Players::start(stage, &spec)?;
        let all: Vec<_> = needed.iter().cloned().chain(Scene::others()).collect();
        scene.client.put_texts(&texts(&all))?;
        let (mut mutations, mut outcomes, begun) =
            (Mutations::new(SEED), Outcomes::default(), Instant::now());
        for count in 1..=COUNT {
            let mutation = std::iter::repeat_with(|| mutations.of(&all))
                .find(|mutation| spares_the_players(mutation, &needed))
                .context("a mutation")?;
            let revision = scene.client.put_texts(&[(mutation.key.clone(), mutation.text.clone())])?;
            scene.judge(&mutation, revision, &mut outcomes)?;
            if count % LOOK_EVERY == 0 {
                scene.look_elsewhere(revision)?;
                let before = players.progress()?.received;
                players.wait_until("replies still come", SOON, |now| now.received > before)?;
            }
            // Wrong ones pile up, but each begins with some that are right.
            if count % 7 == 0 {
                scene.client.put_texts(&texts(&all))?;
            }
        }
        println!("{outcomes:?} in {:?}", begun.elapsed());
        ensure!(outcomes.in_force > COUNT / 10 && outcomes.refused > COUNT / 3, "{outcomes:?}");
        // What it was before is there again: those who come are taken.
        for (key, _) in Scene::others() {
            scene.fleet.delete(&key)?;
        }
        let revision = scene.client.put_texts(&texts(&needed))?;
        scene.wait_applied(revision)?;
        more_players(&mut players, 10, 30)?;
        four_zeros(players).map(drop)
    });
}

fn texts(documents: &[(String, Value)]) -> Vec<(String, String)> {
    documents.iter().map(|(key, document)| (key.clone(), document.to_string())).collect()
}
