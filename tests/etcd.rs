//! etcd is where an operator speaks: every key takes effect, at once and whole, and every proxy answers for itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_stage::{Arena, EtcdBinary, Players, PlayersSpec, Proxy, Stage, arena_service, until};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::logs::{self, JSON_LOGS};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::holdfast;

on_both_etcds! {
    routes_and_backends_are_keys_written_by_etcdctl,
    a_drain_key_moves_all_sessions_at_once,
    the_writes_of_one_transaction_are_one_swap,
    the_drain_command_is_obeyed_by_every_proxy,
    a_bad_document_changes_nothing_and_its_writer_sees_why,
    the_status_key_lives_as_long_as_its_proxy,
    a_second_live_proxy_with_the_same_id_does_not_start,
}

fn routes_and_backends_are_keys_written_by_etcdctl(binary: EtcdBinary) {
    play("etcd-keys", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let proxy = fleet.proxy(stage, "p")?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 20))?;
        wait_for_sessions(&proxy, "arena/a", 20)?;
        // A backend that comes takes its share of those who come after it.
        let _b = fleet.arena(stage, "b")?;
        until("backend b is in the table", SOON, || is_listed(&proxy, "arena/b"))?;
        more_players(&mut players, 20, 40)?;
        let on_b = sessions_on(&proxy, "arena/b")?;
        ensure!(on_b >= 15, "the emptier backend gets those who come: {on_b} of 20");
        // One whose key goes keeps its players and gets no more.
        let before = sessions_on(&proxy, "arena/a")?;
        fleet.delete("backends/arena/a")?;
        until("backend a is out of the table", SOON, || !is_listed(&proxy, "arena/a"))?;
        more_players(&mut players, 10, 50)?;
        wait_for_sessions(&proxy, "arena/b", 50 - before)?;
        ensure!(sessions_on(&proxy, "arena/a")? == before);
        four_zeros(players).map(drop)
    });
}

fn is_listed(proxy: &Proxy, backend: &str) -> bool {
    let view = proxy.admin_json("/backends").unwrap_or_default();
    let backends = view["backends"].as_array().cloned().unwrap_or_default();
    backends.iter().any(|found| found["backend"] == backend && found["in_table"] == true)
}

/// Measured from the moment a client sends the put to the proxy's log line "drain begins", which is written in the
/// same turn of the worker as the first FREEZE.
fn a_drain_key_moves_all_sessions_at_once(binary: EtcdBinary) {
    play("etcd-drain", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let mut proxy = Proxy::start(stage, &fleet.spec("p").more(JSON_LOGS))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 40))?;
        let (mut client, mut latencies) = (fleet.client()?, Vec::new());
        for (round, (from, to)) in [("a", "b"), ("b", "a")].into_iter().cycle().take(6).enumerate() {
            let staying = sessions_on(&proxy, &format!("arena/{from}"))?;
            ensure!(staying > 0, "nobody to move off {from}");
            players.begin(&format!("drain {round}"))?;
            let key = format!("drains/arena/{from}");
            let sent = client.put_all(&[(key.clone(), json!({"reason": "a test"}))])?;
            wait_for_sessions(&proxy, &format!("arena/{to}"), 40)?;
            players.wait_until("all are answered by the other", SOON, |now| now.moved == staying)?;
            players.end(&format!("drain {round}"))?;
            let begun = logs::lines(proxy.process(), "drain begins");
            ensure!(begun.len() == round + 1, "one drain a key: {begun:?}");
            latencies.push(logs::since(sent, &begun[round])?);
            fleet.delete(&key)?;
            until("the drain is over", SOON, || {
                logs::lines(proxy.process(), "drain lifted").len() == round + 1
            })?;
        }
        println!("from the put of a drain key to the first FREEZE ({binary:?} etcd): {latencies:?}");
        let longest = latencies.iter().max().context("six rounds")?;
        ensure!(*longest < Duration::from_secs(1), "a drain began only after {longest:?}");
        let verdict = four_zeros(players)?;
        ensure!(verdict.events.iter().skip(1).all(|event| event.moved == 40), "{verdict:?}");
        ensure!(proxy.metric("holdfast_handoffs_total", "result=\"moved\"")? >= 200.0);
        Ok(())
    });
}

/// Each transaction gives both backends the same new weight: whoever looks never sees two different ones.
fn the_writes_of_one_transaction_are_one_swap(binary: EtcdBinary) {
    const TRANSACTIONS: u64 = 200;
    play("etcd-transactions", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (a, b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let proxy = fleet.proxy(stage, "p")?;
        let mut client = fleet.client()?;
        let mut seen = Vec::new();
        for weight in 1..=TRANSACTIONS {
            client.put_all(&[weighted(&a, weight), weighted(&b, weight)])?;
            let found = weights(&proxy)?;
            ensure!(found[0] == found[1], "half a transaction is in force: {found:?}");
            seen.push(found[0]);
        }
        until("the last weights", SOON, || weights(&proxy).is_ok_and(|found| found == [TRANSACTIONS; 2]))?;
        seen.dedup();
        ensure!(seen.len() > 10, "the table was looked at while it changed: {seen:?}");
        Ok(())
    });
}

fn weighted(arena: &Arena, weight: u64) -> (String, Value) {
    let mut document = arena.document();
    document["weight"] = json!(weight);
    (arena.key(), document)
}

fn weights(proxy: &Proxy) -> Result<[u64; 2]> {
    let view = proxy.admin_json("/backends")?;
    let weight = |index: usize| view["backends"][index]["weight"].as_u64();
    Ok([weight(0).context("backend a")?, weight(1).context("backend b")?])
}

fn the_drain_command_is_obeyed_by_every_proxy(binary: EtcdBinary) {
    play("etcd-command", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let (p, q) = (fleet.proxy(stage, "p")?, fleet.proxy(stage, "q")?);
        let players = Players::start(stage, &PlayersSpec::new([p.address(), q.address()], 40))?;
        let first = sessions_on(&p, "arena/a")?;
        ensure!(first > 0 && sessions_on(&q, "arena/a")? > 0, "both proxies have players on a");
        let said = holdfast(&p.admin(), &["drain", "arena/a", "--reason", "deploy", "--wait"])?;
        ensure!(said.code == 0 && said.stdout.contains("no proxy has a session there"), "{said:?}");
        let key = "/holdfast/config/drains/arena/a";
        ensure!(fleet.etcd.etcdctl(&["get", "--print-value-only", key])?.contains("\"deploy\""));
        ensure!(sessions_on(&q, "arena/a")? == 0, "`--wait` is about every proxy");
        wait_for_sessions(&q, "arena/b", 20)?;
        wait_for_sessions(&p, "arena/b", 20)?;
        let said = holdfast(&q.admin(), &["undrain", "arena/a"])?;
        ensure!(said.code == 0 && said.stdout == "arena/a is no longer drained by key\n", "{said:?}");
        ensure!(fleet.etcd.etcdctl(&["get", key])?.is_empty(), "the key is gone");
        for proxy in [&p, &q] {
            until("the drain is lifted", SOON, || {
                draining(proxy, "arena/a").is_ok_and(|causes| causes.is_empty())
            })?;
        }
        let said = holdfast(&p.admin(), &["undrain", "arena/a"])?;
        ensure!(said.code == 0 && said.stdout.contains("arena/a had no drain key"), "{said:?}");
        four_zeros(players).map(drop)
    });
}

fn draining(proxy: &Proxy, backend: &str) -> Result<Vec<Value>> {
    let view = proxy.admin_json("/backends")?;
    let mut backends = view["backends"].as_array().context("a list")?.iter();
    let found = backends.find(|found| found["backend"] == backend).context("the backend")?;
    found["draining"].as_array().cloned().context("its causes")
}

fn a_bad_document_changes_nothing_and_its_writer_sees_why(binary: EtcdBinary) {
    play("etcd-bad", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let a = fleet.arena(stage, "a")?;
        let proxy = fleet.proxy(stage, "p")?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 20))?;
        let mut document = a.document();
        document["adress"] = json!("127.0.0.1:1");
        fleet.put("backends/arena/a", &document)?;
        fleet.put("services/arena", &json!({"protocol": "stream", "framing": {"kind": "length"}}))?;
        let status = fleet.status("p", "both refusals", |status| {
            status["refused"].as_array().is_some_and(|refused| refused.len() == 2)
        })?;
        let refusal = |key: &str| {
            let mut refused = status["refused"].as_array().into_iter().flatten();
            refused
                .find(|refusal| refusal["key"] == key)
                .cloned()
                .with_context(|| format!("{key} in {status}"))
        };
        let (backend, service) = (refusal("backends/arena/a")?, refusal("services/arena")?);
        ensure!(backend["field"] == "adress" && backend["last_good"] == true, "{backend}");
        ensure!(service["field"] == "protocol" && service["value"] == "stream", "{service}");
        ensure!(proxy.metric("holdfast_refused_documents", "")? == 2.0);
        // What was in force stays, and other documents still apply.
        more_players(&mut players, 10, 30)?;
        wait_for_sessions(&proxy, "arena/a", 30)?;
        let _b = fleet.arena(stage, "b")?;
        until("backend b is in the table", SOON, || is_listed(&proxy, "arena/b"))?;
        fleet.put("backends/arena/a", &a.document())?;
        fleet.put("services/arena", &arena_service(&json!({})))?;
        fleet.status("p", "no refusal", |status| status["refused"] == json!([]))?;
        four_zeros(players).map(drop)
    });
}

fn the_status_key_lives_as_long_as_its_proxy(binary: EtcdBinary) {
    play("etcd-status", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let mut proxy = fleet.proxy(stage, "p")?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 20))?;
        let written = fleet.etcd.revision()?;
        fleet.put("routes/other", &json!({"listener": "elsewhere", "service": "arena"}))?;
        let status =
            fleet.status("p", "the last revision", |status| status["revision"].as_u64() > Some(written))?;
        ensure!(status["id"] == "p" && status["schema"] == 2, "{status}");
        fleet.status("p", "its sessions", |status| status["sessions"] == 20)?;
        let leases = fleet.etcd.etcdctl(&["lease", "list"])?;
        ensure!(leases.contains("found 1 leases"), "the key is under a lease: {leases}");
        four_zeros(players)?;
        // The same proxy, back at once, needs no lease to end.
        proxy.process().kill()?;
        let (killed, begun) = (status["instance"].clone(), Instant::now());
        proxy.start_again()?;
        let back = fleet.status("p", "another instance", |status| status["instance"] != killed)?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(8), "a restart took as long as a lease: {took:?}, {back}");
        proxy.process().kill()?;
        let key = "/holdfast/status/proxies/p";
        until("the status key of a dead proxy vanishes", SOON, || {
            fleet.etcd.etcdctl(&["get", key]).is_ok_and(|found| found.is_empty())
        })
    });
}

fn a_second_live_proxy_with_the_same_id_does_not_start(binary: EtcdBinary) {
    play("etcd-same-id", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let first = fleet.proxy(stage, "p")?;
        let players = Players::start(stage, &PlayersSpec::new([first.address()], 20))?;
        let holder = fleet.status("p", "its instance", |status| status["instance"].is_string())?;
        let holder = holder["instance"].as_str().context("an instance")?.to_owned();
        let elsewhere = Stage::new("etcd-same-id-elsewhere")?;
        let mut second = Proxy::prepare(&elsewhere, &fleet.spec("p"))?;
        second.process().start()?;
        let ended = second.process().wait(SOON)?;
        let log = second.process().log();
        ensure!(ended.code() == Some(1), "{ended}: {log}");
        let told = format!(
            "proxy.id: p is held by another live proxy (instance {holder}, key /holdfast/status/proxies/p)"
        );
        ensure!(log.contains(&told), "{log}");
        // While it waits, it still ends when told to.
        let nowhere = Stage::new("etcd-same-id-nowhere")?;
        let mut third = Proxy::prepare(&nowhere, &fleet.spec("p"))?;
        third.process().start()?;
        until("it waits for the holder", SOON, || {
            third.process().log().contains("waiting for its lease to end")
        })?;
        third.process().terminate()?;
        let ended = third.process().wait(Duration::from_secs(5))?;
        ensure!(ended.success(), "{ended}: {}", third.process().log());
        four_zeros(players).map(drop)
    });
}
