//! A sidecar makes its backend known by itself: as a key that lives as long as the sidecar does, that comes back
//! whatever becomes of etcd, and that never stands where an operator or another proxy has written.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_stage::{
    Arena, ArenaSpec, EtcdBinary, Forwarder, Players, PlayersSpec, Proxy, ProxySpec, Source, Stage, until,
};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::holdfast;

on_both_etcds! {
    a_sidecar_registers_its_backend_and_withdraws_it_before_its_sessions_end,
    a_backend_whose_host_dies_leaves_the_list_and_keeps_its_players,
    a_registration_comes_back_after_restarts_partitions_and_lost_leases,
    a_key_that_somebody_else_wrote_is_never_overwritten,
    an_operator_can_withdraw_register_and_drain_at_will,
}

const KEY: &str = "/holdfast/config/backends/arena/a";

/// Short enough for a test to see it end.
const TTL: Duration = Duration::from_secs(2);

/// A game that no document names.
fn unlisted(stage: &Stage, version: &str) -> Result<Arena> {
    Arena::start(stage, ArenaSpec::new("a").version(version).unix())
}

fn sidecar(id: &str, endpoint: String, arena: &Arena) -> ProxySpec {
    let register =
        format!("[register]\nadvertise = {:?}\ncapacity = 15\nttl_s = {}\n", arena.address(), TTL.as_secs());
    ProxySpec::new(id, Source::Etcd { endpoint }).beside("arena/a", arena.address()).more(&register)
}

/// The document and the lease it is under; `None`: there is no key.
fn registered(fleet: &Fleet) -> Result<Option<(Value, i64)>> {
    let answer: Value = serde_json::from_str(&fleet.etcd.etcdctl(&["get", KEY, "-w", "json"])?)?;
    let Some(kv) = answer["kvs"].get(0) else { return Ok(None) };
    // As it was then: it may have been written again meanwhile.
    let revision = answer["header"]["revision"].to_string();
    let value = fleet.etcd.etcdctl(&["get", "--rev", &revision, "--print-value-only", KEY])?;
    let document = serde_json::from_str(&value).context("JSON in the key")?;
    Ok(Some((document, kv["lease"].as_i64().unwrap_or(0))))
}

fn wait_for_key(fleet: &Fleet, what: &str, wanted: impl Fn(&Value, i64) -> bool) -> Result<(Value, i64)> {
    let mut found = None;
    let looked = until(what, SOON, || {
        found = registered(fleet).ok().flatten();
        found.as_ref().is_some_and(|(document, lease)| wanted(document, *lease))
    });
    looked.with_context(|| format!("the key: {found:?}"))?;
    found.context("a key")
}

fn wait_for_no_key(fleet: &Fleet) -> Result<()> {
    until("the key is gone", SOON, || registered(fleet).is_ok_and(|found| found.is_none()))
}

fn registration(proxy: &Proxy) -> Result<Value> {
    Ok(proxy.admin_json("/status")?["registration"].clone())
}

fn wait_for_state(proxy: &Proxy, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    until(&format!("the registration is {state}"), SOON, || {
        last = registration(proxy).unwrap_or_default();
        last["state"] == state
    })
    .with_context(|| format!("it is {last}"))?;
    Ok(last)
}

fn a_sidecar_registers_its_backend_and_withdraws_it_before_its_sessions_end(binary: EtcdBinary) {
    play("register", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let mut arena = unlisted(stage, "1.4")?;
        let mut p = Proxy::start(stage, &sidecar("p", fleet.etcd.endpoint(), &arena))?;
        let (document, lease) = wait_for_key(&fleet, "the backend is registered", |_, lease| lease != 0)?;
        let expected = json!({"address": arena.address(), "version": "1.4", "weight": 100, "capacity": 15});
        ensure!(document == expected, "as the backend says it is: {document}");
        ensure!(wait_for_state(&p, "registered")?["backend"] == "arena/a");
        // A proxy elsewhere needs nothing but the key.
        let q = fleet.proxy(stage, "q")?;
        let players = Players::start(stage, &PlayersSpec::new([p.address(), q.address()], 20))?;
        wait_for_sessions(&p, "arena/a", 10)?;
        wait_for_sessions(&q, "arena/a", 10)?;
        // Another version comes up in its place: the key says so.
        arena.process().terminate()?;
        arena.process().wait(SOON)?;
        let _next = unlisted(stage, "1.5")?;
        let (_, next_lease) =
            wait_for_key(&fleet, "the new version", |document, _| document["version"] == "1.5")?;
        ensure!(next_lease != lease, "written anew");
        wait_for_sessions(&p, "arena/a", 10)?;
        // At its end the key goes first, while those who are here play on.
        p.process().terminate()?;
        wait_for_no_key(&fleet)?;
        ensure!(p.process().is_running() && sessions_on(&p, "arena/a")? == 10, "they were ended first");
        ensure!(registration(&p)?["state"] == "withdrawn");
        four_zeros(players)?;
        let ended = p.process().wait(SOON)?;
        ensure!(ended.success(), "{ended}");
        ensure!(fleet.etcd.etcdctl(&["get", "--prefix", "/holdfast/status/backends/"])?.is_empty());
        Ok(())
    });
}

fn a_backend_whose_host_dies_leaves_the_list_and_keeps_its_players(binary: EtcdBinary) {
    play("register-dies", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let arena = unlisted(stage, "1.4")?;
        let mut p = Proxy::start(stage, &sidecar("p", fleet.etcd.endpoint(), &arena))?;
        wait_for_key(&fleet, "the backend is registered", |_, lease| lease != 0)?;
        // Somebody else stays listed, else the loss would be held; nobody is sent there.
        fleet.put("backends/arena/b", &json!({"address": "127.0.0.1:9", "version": "1.4"}))?;
        fleet.put("ejections/arena/b", &json!({}))?;
        let q = fleet.proxy(stage, "q")?;
        let players = Players::start(stage, &PlayersSpec::new([q.address()], 10))?;
        p.process().kill()?;
        wait_for_no_key(&fleet)?;
        until("it is off the list", SOON, || in_table(&q).is_ok_and(|listed| !listed))?;
        ensure!(sessions_on(&q, "arena/a")? == 10, "players of another proxy stay while the link lives");
        // The host comes back: at once, since it is the same proxy, and the backend is known again.
        p.start_again()?;
        wait_for_key(&fleet, "the backend is registered again", |_, lease| lease != 0)?;
        until("it is on the list", SOON, || in_table(&q).is_ok_and(|listed| listed))?;
        // So quickly back that the old lease is still there: nothing is waited for, and the key never goes.
        let (_, before) = wait_for_key(&fleet, "its lease", |_, lease| lease != 0)?;
        p.process().kill()?;
        p.start_again()?;
        wait_for_key(&fleet, "a new lease", |_, lease| lease != 0 && lease != before)?;
        four_zeros(players).map(drop)
    });
}

fn in_table(proxy: &Proxy) -> Result<bool> {
    let view = proxy.admin_json("/backends")?;
    let backends = view["backends"].as_array().context("a list")?;
    Ok(backends.iter().any(|found| found["backend"] == "arena/a" && found["in_table"] == true))
}

fn a_registration_comes_back_after_restarts_partitions_and_lost_leases(binary: EtcdBinary) {
    play("register-again", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let arena = unlisted(stage, "1.4")?;
        let way = Forwarder::start(fleet.etcd_address()?)?;
        let p = Proxy::start(stage, &sidecar("p", way.endpoint(), &arena))?;
        let (_, first) = wait_for_key(&fleet, "the backend is registered", |_, lease| lease != 0)?;
        let players = Players::start(stage, &PlayersSpec::new([p.address()], 10))?;
        // Its lease is taken away.
        fleet.etcd.etcdctl(&["lease", "revoke", &format!("{first:x}")])?;
        let (_, second) = wait_for_key(&fleet, "another lease", |_, lease| lease != 0 && lease != first)?;
        // etcd restarts.
        fleet.etcd.kill()?;
        ensure!(wait_for_state(&p, "away")?["reason"].is_string());
        fleet.etcd.start_again()?;
        let (_, third) =
            wait_for_key(&fleet, "a lease after the restart", |_, lease| lease != 0 && lease != second)?;
        wait_for_state(&p, "registered")?;
        // Cut off for longer than the lease lives.
        way.cut();
        wait_for_no_key(&fleet)?;
        way.mend();
        wait_for_key(&fleet, "a lease after the partition", |_, lease| lease != 0 && lease != third)?;
        // A slip of an operator's: deleted, it is written again.
        fleet.delete("backends/arena/a")?;
        wait_for_key(&fleet, "the key again", |_, lease| lease != 0)?;
        wait_for_state(&p, "registered")?;
        four_zeros(players)?;
        until("no lease is left over", SOON, || {
            // The status key's, and the registration's.
            fleet.etcd.etcdctl(&["lease", "list"]).is_ok_and(|said| said.contains("found 2 leases"))
        })
    });
}

fn a_key_that_somebody_else_wrote_is_never_overwritten(binary: EtcdBinary) {
    play("register-held", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let arena = unlisted(stage, "1.4")?;
        let own = json!({"address": arena.address(), "version": "1.4", "weight": 7});
        fleet.put("backends/arena/a", &own)?;
        let mut p = Proxy::start(stage, &sidecar("p", fleet.etcd.endpoint(), &arena))?;
        let held = wait_for_state(&p, "held")?;
        let reason = held["reason"].as_str().unwrap_or_default();
        ensure!(
            reason == format!("{KEY} has no lease: an operator wrote it, and it stays as it is"),
            "{held}"
        );
        ensure!(p.process().log().contains("the backend isn't registered for now"));
        let said = holdfast(&p.admin(), &["status"])?;
        ensure!(said.stdout.contains("arena/a NOT registered: the key is somebody else's"), "{said:?}");
        ensure!(registered(&fleet)? == Some((own.clone(), 0)));
        // It goes: the registration takes its place.
        fleet.delete("backends/arena/a")?;
        wait_for_key(&fleet, "the registration", |document, lease| lease != 0 && document["weight"] == 100)?;
        // Written over by an operator, and that stands.
        fleet.put("backends/arena/a", &own)?;
        wait_for_state(&p, "held")?;
        ensure!(registered(&fleet)? == Some((own, 0)));
        fleet.delete("backends/arena/a")?;
        wait_for_state(&p, "registered")?;
        // Another sidecar with the same name waits until the first is gone.
        let q = Proxy::start(stage, &sidecar("q", fleet.etcd.endpoint(), &arena))?;
        let held = wait_for_state(&q, "held")?;
        ensure!(
            held["reason"].as_str().is_some_and(|reason| reason.contains("is registered by proxy p (")),
            "{held}"
        );
        let (_, first) = wait_for_key(&fleet, "that of p", |_, lease| lease != 0)?;
        p.process().kill()?;
        wait_for_state(&q, "registered")?;
        wait_for_key(&fleet, "that of q", |_, lease| lease != 0 && lease != first).map(drop)
    });
}

fn an_operator_can_withdraw_register_and_drain_at_will(binary: EtcdBinary) {
    play("register-orders", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let arena = unlisted(stage, "1.4")?;
        let p = Proxy::start(stage, &sidecar("p", fleet.etcd.endpoint(), &arena))?;
        wait_for_key(&fleet, "the backend is registered", |_, lease| lease != 0)?;
        let _b = fleet.arena(stage, "b")?;
        let mut players = Players::start(stage, &PlayersSpec::new([p.address()], 10))?;
        let on_a = sessions_on(&p, "arena/a")?;
        let run = |arguments: &[&str]| holdfast(&p.admin(), arguments);
        let begun = Instant::now();
        let said = run(&["withdraw"])?;
        ensure!(said.code == 0 && said.stdout == "arena/a withdrawn\n", "{said:?}");
        ensure!(registered(&fleet)?.is_none(), "withdrawn means gone");
        println!("withdrawn in {:?}", begun.elapsed());
        until("it is off the list", SOON, || in_table(&p).is_ok_and(|listed| !listed))?;
        more_players(&mut players, 10, 20)?;
        ensure!(sessions_on(&p, "arena/a")? == on_a, "those who are there stay, nobody comes");
        let said = run(&["register"])?;
        ensure!(said.code == 0 && said.stdout == "arena/a registered\n", "{said:?}");
        ensure!(registered(&fleet)?.is_some_and(|(_, lease)| lease != 0));
        // A drain is a key of its own: it holds whatever becomes of the registration.
        let said = run(&["drain", "arena/a", "--wait"])?;
        ensure!(said.code == 0, "{said:?}");
        ensure!(run(&["withdraw"])?.code == 0 && run(&["register"])?.code == 0);
        wait_for_sessions(&p, "arena/b", 20)?;
        more_players(&mut players, 10, 30)?;
        ensure!(sessions_on(&p, "arena/a")? == 0, "a drained backend that registers again takes nobody");
        let said = run(&["undrain", "arena/a"])?;
        ensure!(said.code == 0, "{said:?}");
        until("nothing is drained", SOON, || {
            p.admin_json("/routes").is_ok_and(|view| view["drains"] == json!([]))
        })?;
        // It is preferred until it is full.
        more_players(&mut players, 20, 50)?;
        ensure!(sessions_on(&p, "arena/a")? == 15, "its capacity is 15");
        // A proxy that registers nothing says so.
        let q = fleet.proxy(stage, "q")?;
        let said = holdfast(&q.admin(), &["withdraw"])?;
        ensure!(said.code == 1 && said.stderr.contains("its config has no [register]"), "{said:?}");
        four_zeros(players).map(drop)
    });
}
