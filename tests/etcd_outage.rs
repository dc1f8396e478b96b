//! Players don't notice when etcd is away: sessions and new clients go on from the last table, also over a restart of
//! the proxy; what changed applies when etcd is back; and the operator sees all of it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_stage::{EtcdBinary, Players, PlayersSpec, Proxy, http, until, usage};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::holdfast;

on_both_etcds! {
    a_killed_etcd_is_not_noticed_by_players_and_its_changes_apply_when_it_is_back,
    a_hung_etcd_is_noticed_and_told,
    a_proxy_starts_from_the_table_on_disk_while_etcd_is_away,
    a_first_start_waits_for_etcd,
}

fn a_killed_etcd_is_not_noticed_by_players_and_its_changes_apply_when_it_is_back(binary: EtcdBinary) {
    play("outage-killed", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let mut proxy = fleet.proxy(stage, "p")?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        let first = fleet.status("p", "its instance", |status| status["sessions"] == 30)?;
        fleet.etcd.kill()?;
        let detail = wait_until_away(&proxy)?;
        ensure!(detail["ready"] == true, "readiness doesn't depend on etcd: {detail}");
        ensure!(
            detail["table"]["source_error"].as_str().is_some_and(|error| error.contains("etcd")),
            "{detail}"
        );
        more_players(&mut players, 10, 40)?;
        does_not_run_hot(&mut proxy, fleet.etcd_address()?)?;
        more_players(&mut players, 10, 50)?;
        an_operator_can_still_drain(&proxy)?;
        fleet.etcd.start_again()?;
        fleet.put("drains/arena/a", &json!({}))?;
        wait_for_sessions(&proxy, "arena/b", 50)?;
        ensure!(proxy.metric("holdfast_table_age_seconds", "")? == 0.0);
        // The status is kept again, by the same run.
        let again = fleet.status("p", "all sessions", |status| status["sessions"] == 50)?;
        ensure!(again["instance"] == first["instance"], "{first} -> {again}");
        four_zeros(players).map(drop)
    });
}

fn readyz(proxy: &Proxy) -> Result<Value> {
    http::get(&proxy.health(), "/readyz")?.json()
}

/// Returns `/readyz` when the proxy knows that etcd is away.
fn wait_until_away(proxy: &Proxy) -> Result<Value> {
    until("the proxy notices that etcd is away", SOON, || {
        readyz(proxy).is_ok_and(|detail| detail["table"]["connected"] == false)
    })?;
    readyz(proxy)
}

/// Over some seconds of an outage: few tries, fewer log lines, hardly any processor time beside what players need.
fn does_not_run_hot(proxy: &mut Proxy, etcd: SocketAddr) -> Result<()> {
    let door = TcpListener::bind(etcd).context("in etcd's place")?;
    door.set_nonblocking(true)?;
    let age = |proxy: &Proxy| proxy.metric("holdfast_table_age_seconds", "");
    let begun = age(proxy)?;
    let before = (usage(proxy.process().pid()?)?.cpu, proxy.process().log().lines().count());
    let mut knocks = 0;
    until("some seconds of an outage", SOON, || {
        knocks += std::iter::from_fn(|| door.accept().ok()).count();
        age(proxy).is_ok_and(|age| age > begun + 3.0)
    })?;
    let after = (usage(proxy.process().pid()?)?.cpu, proxy.process().log().lines().count());
    let (busy, lines) = (after.0 - before.0, after.1 - before.1);
    println!("etcd away for 3 s: {knocks} tries, {lines} log lines, {busy:?} of processor time");
    ensure!((1..=30).contains(&knocks), "{knocks} tries to connect in 3 s");
    ensure!(busy < Duration::from_secs(1), "{busy:?} of processor time in 3 s");
    ensure!(lines <= 3, "{lines} log lines in 3 s:\n{}", proxy.process().log());
    Ok(())
}

/// Not all proxies at once, but each by itself.
fn an_operator_can_still_drain(proxy: &Proxy) -> Result<()> {
    let run = |arguments: &[&str]| holdfast(&proxy.admin(), arguments);
    let said = run(&["drain", "arena/b"])?;
    ensure!(said.code == 1 && said.stderr.contains("\"local\": true orders this proxy alone"), "{said:?}");
    let said = run(&["drain", "arena/b", "--local", "--wait"])?;
    ensure!(said.code == 0, "{said:?}");
    wait_for_sessions(proxy, "arena/a", 50)?;
    let said = run(&["undrain", "arena/b", "--local"])?;
    ensure!(said.code == 0, "{said:?}");
    let said = run(&["status"])?;
    ensure!(
        said.stdout.contains("NOT CONNECTED for") && said.stdout.contains("serving on from this table"),
        "{said:?}"
    );
    Ok(())
}

fn a_hung_etcd_is_noticed_and_told(binary: EtcdBinary) {
    play("outage-hung", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let proxy = fleet.proxy(stage, "p")?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        ensure!(readyz(&proxy)?["table"]["connected"] == true);
        fleet.etcd.process().freeze()?;
        let detail = wait_until_away(&proxy)?;
        ensure!(detail["ready"] == true && detail["table"]["source_error"].is_string(), "{detail}");
        until("the table's age grows", SOON, || {
            proxy.metric("holdfast_table_age_seconds", "").is_ok_and(|age| age > 1.0)
        })?;
        more_players(&mut players, 10, 40)?;
        fleet.etcd.process().thaw()?;
        until("the proxy hears etcd again", SOON, || {
            readyz(&proxy).is_ok_and(|detail| detail["table"]["connected"] == true)
        })?;
        ensure!(proxy.metric("holdfast_table_age_seconds", "")? == 0.0);
        fleet.put("drains/arena/a", &json!({}))?;
        wait_for_sessions(&proxy, "arena/b", 40)?;
        four_zeros(players).map(drop)
    });
}

fn a_proxy_starts_from_the_table_on_disk_while_etcd_is_away(binary: EtcdBinary) {
    play("outage-restart", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let mut proxy = fleet.proxy(stage, "p")?;
        let revision = proxy.admin_json("/status")?["table"]["revision"].clone();
        // What is on disk is at most a second behind.
        let on_disk = stage.path().join("proxy-p-data/tables");
        until("the table is on disk", SOON, || {
            newest_table(&on_disk).is_some_and(|found| revision == found)
        })?;
        // Hung is worse than gone: nothing tells the proxy that it waits in vain.
        fleet.etcd.process().freeze()?;
        proxy.process().kill()?;
        let begun = Instant::now();
        proxy.start_again()?;
        let took = begun.elapsed();
        println!("started in {took:?} while etcd was hung");
        ensure!(took < Duration::from_secs(4), "a start waited for a hung etcd: {took:?}");
        proxy.process().kill()?;
        fleet.etcd.kill()?;
        proxy.start_again()?;
        let detail = readyz(&proxy)?;
        ensure!(detail["table"]["origin"] == "disk" && detail["table"]["revision"] == revision, "{detail}");
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        let on_a = sessions_on(&proxy, "arena/a")?;
        ensure!(on_a > 0 && on_a + sessions_on(&proxy, "arena/b")? == 30, "both serve: {on_a} on a");
        fleet.etcd.start_again()?;
        fleet.put("drains/arena/a", &json!({}))?;
        wait_for_sessions(&proxy, "arena/b", 30)?;
        ensure!(readyz(&proxy)?["table"]["origin"] == "source");
        fleet.status("p", "its sessions", |status| status["sessions"] == 30)?;
        four_zeros(players).map(drop)
    });
}

/// The revision of the newest table below the folder, by the names of the files.
fn newest_table(tables: &Path) -> Option<u64> {
    let origins = std::fs::read_dir(tables).ok()?.flatten();
    let files = origins.flat_map(|origin| std::fs::read_dir(origin.path()).into_iter().flatten().flatten());
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    // One that is still being written has another name.
    let newest = names.filter(|name| name.ends_with(".json")).max()?;
    newest.split('.').nth(1)?.parse().ok()
}

fn a_first_start_waits_for_etcd(binary: EtcdBinary) {
    play("outage-first", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        fleet.etcd.stop()?;
        let mut proxy = Proxy::prepare(stage, &fleet.spec("p"))?;
        proxy.process().start()?;
        until("alive", SOON, || {
            http::get(&proxy.health(), "/livez").is_ok_and(|answer| answer.status == 200)
        })?;
        until("the proxy has tried to reach etcd", SOON, || {
            readyz(&proxy).is_ok_and(|detail| detail["table"]["source_error"].is_string())
        })?;
        let answer = http::get(&proxy.health(), "/readyz")?;
        let detail = answer.json()?;
        ensure!(answer.status == 503 && detail["table"]["origin"] == "none", "{answer:?}");
        let waiting = detail["waiting_for"].as_array().context("what it waits for")?;
        ensure!(waiting.contains(&json!("a first routing table")), "{detail}");
        let said = holdfast(&proxy.admin(), &["status"])?;
        let told = ["proxy p starting", "none yet from etcd, NOT CONNECTED"];
        ensure!(said.code == 0 && told.iter().all(|told| said.stdout.contains(told)), "{said:?}");
        let said = holdfast(&proxy.admin(), &["sessions"])?;
        ensure!(said.code == 0 && said.stdout == "no sessions\n", "{said:?}");
        fleet.etcd.start_again()?;
        until("ready", SOON, || {
            http::get(&proxy.health(), "/readyz").is_ok_and(|answer| answer.status == 200)
        })?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 20))?;
        wait_for_sessions(&proxy, "arena/a", 20)?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 20)?;
        four_zeros(players).map(drop)
    });
}
