//! Whatever becomes of etcd, what is in force is a state that it once had, whole: late from a slow one, unchanged by a
//! list that breaks off, an older one's after a restore, and a cluster's while most of it lives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_stage::{Etcd, EtcdBinary, Forwarder, Players, PlayersSpec, Proxy, ProxySpec, Source, until};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::holdfast;

on_both_etcds! {
    an_etcd_restored_from_an_older_backup_is_followed,
    a_slow_etcd_is_followed_without_an_outage,
    a_list_that_breaks_off_changes_nothing,
    a_cluster_is_followed_with_one_node_dead_and_missed_with_two,
}

fn through(way: &Forwarder) -> ProxySpec {
    ProxySpec::new("p", Source::Etcd { endpoint: way.endpoint() })
}

fn table(proxy: &Proxy) -> Result<Value> {
    Ok(proxy.admin_json("/status")?["table"].clone())
}

fn wait_for_table(proxy: &Proxy, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    until(what, SOON, || {
        last = table(proxy).unwrap_or_default();
        wanted(&last)
    })
    .with_context(|| format!("the table: {last}"))?;
    Ok(last)
}

fn wait_until_away(proxy: &Proxy) -> Result<()> {
    wait_for_table(proxy, "the proxy notices", |table| table["connected"] == false).map(drop)
}

fn wait_until_back(proxy: &Proxy) -> Result<()> {
    wait_for_table(proxy, "etcd is heard again", |table| table["connected"] == true).map(drop)
}

/// The revisions of the tables on disk, in the order in which they came into force.
fn history(proxy: &Proxy) -> Result<Vec<u64>> {
    let view = proxy.admin_json("/tables")?;
    let tables = view["tables"].as_array().context("a list of tables")?;
    Ok(tables.iter().filter_map(|table| table["revision"].as_u64()).collect())
}

fn an_etcd_restored_from_an_older_backup_is_followed(binary: EtcdBinary) {
    play("restored", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let (a, b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        for share in 1..=10 {
            fleet.put(
                "routes/gone",
                &json!({"listener": "elsewhere", "service": "arena", "versions": {"1.4": share}}),
            )?;
        }
        let way = Forwarder::start(fleet.etcd_address()?)?;
        let mut proxy = Proxy::start(stage, &through(&way))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        let before = table(&proxy)?["revision"].as_u64().context("a revision")?;
        until("its table is on disk", SOON, || {
            history(&proxy).is_ok_and(|found| found.last() == Some(&before))
        })?;
        way.cut();
        wait_until_away(&proxy)?;
        fleet.etcd.start_anew()?;
        fleet.seed()?;
        let drained_then = json!({"reason": "as it was then"});
        for (key, document) in
            [(a.key(), a.document()), (b.key(), b.document()), ("drains/arena/a".to_owned(), drained_then)]
        {
            fleet.put(&key, &document)?;
        }
        let restored = fleet.etcd.revision()?;
        ensure!(restored < before, "{restored} < {before}");
        more_players(&mut players, 10, 40)?;
        way.mend();
        wait_for_sessions(&proxy, "arena/b", 40)?;
        let now = wait_for_table(&proxy, "the older revision", |table| {
            table["revision"].as_u64().is_some_and(|now| (restored..before).contains(&now))
        })?;
        ensure!(now["connected"] == true && now["origin"] == "source", "{now}");
        let routes = proxy.admin_json("/routes")?["routes"].as_array().map(Vec::len);
        ensure!(routes == Some(1), "what the backup doesn't have is gone: {routes:?}");
        fleet.status("p", "its sessions, in the etcd of now", |status| status["sessions"] == 40)?;
        // Orders go on, and are waited for by the revisions of now.
        let run = |arguments: &[&str]| holdfast(&proxy.admin(), arguments);
        let said = run(&["undrain", "arena/a"])?;
        ensure!(said.code == 0, "{said:?}");
        let said = run(&["drain", "arena/b", "--wait"])?;
        ensure!(said.code == 0 && sessions_on(&proxy, "arena/a")? == 40, "{said:?}");
        four_zeros(players)?;
        // What came last is the newest, however low its number.
        let last = table(&proxy)?["revision"].as_u64().context("a revision")?;
        until("the tables of now are on disk", SOON, || {
            history(&proxy).is_ok_and(|found| found.last() == Some(&last))
        })?;
        ensure!(history(&proxy)?.contains(&before), "the history from before the restore stays");
        fleet.etcd.kill()?;
        proxy.process().kill()?;
        proxy.start_again()?;
        let now = table(&proxy)?;
        ensure!(now["origin"] == "disk" && now["revision"] == last, "{now}");
        Ok(())
    });
}

fn a_slow_etcd_is_followed_without_an_outage(binary: EtcdBinary) {
    play("slow", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let way = Forwarder::start(fleet.etcd_address()?)?;
        way.delay(Duration::from_millis(200));
        let proxy = Proxy::start(stage, &through(&way))?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 30)?;
        let (knocks, weighted) = (way.knocks(), |weight: u64| {
            let mut document = b.document();
            document["weight"] = weight.into();
            document
        });
        let weight_of_b =
            || Ok::<_, anyhow::Error>(proxy.admin_json("/backends")?["backends"][1]["weight"].clone());
        for weight in 1..=8 {
            fleet.put(&b.key(), &weighted(weight))?;
            until("the change is in force", SOON, || weight_of_b().is_ok_and(|found| found == weight))?;
            let now = table(&proxy)?;
            ensure!(now["connected"] == true && now["source_error"].is_null(), "{now}");
        }
        ensure!(way.knocks() == knocks, "slow is not away: {} connections, then {}", knocks, way.knocks());
        fleet.put("drains/arena/a", &json!({}))?;
        wait_for_sessions(&proxy, "arena/b", 30)?;
        four_zeros(players).map(drop)
    });
}

/// More than a connection that breaks off lets through.
const MANY: usize = 400;

fn a_list_that_breaks_off_changes_nothing(binary: EtcdBinary) {
    play("broken-list", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let way = Forwarder::start(fleet.etcd_address()?)?;
        let proxy = Proxy::start(stage, &through(&way))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        let before = table(&proxy)?["revision"].clone();
        way.cut();
        wait_until_away(&proxy)?;
        let listed = |number| {
            let document = json!({"address": "127.0.0.1:1", "version": "9", "weight": 0});
            (format!("backends/arena/0-{number}"), document)
        };
        let mut client = fleet.client()?;
        let all: Vec<_> = (0..MANY).map(listed).collect();
        for some in all.chunks(100) {
            client.put_all(some)?;
        }
        fleet.put("drains/arena/a", &json!({}))?;
        let knocks = way.knocks();
        way.break_after(8 * 1024);
        let age = |proxy: &Proxy| proxy.metric("holdfast_table_age_seconds", "");
        let begun = age(&proxy)?;
        until("some seconds of lists that break off", SOON, || {
            age(&proxy).is_ok_and(|age| age > begun + 4.0)
        })?;
        let tries = way.knocks() - knocks;
        println!("{tries} tries to connect in 4 s");
        ensure!((2..=40).contains(&tries), "{tries} tries to connect in 4 s");
        let now = table(&proxy)?;
        ensure!(now["revision"] == before && now["connected"] == false, "{now}");
        let backends = || {
            Ok::<_, anyhow::Error>(proxy.admin_json("/backends")?["backends"].as_array().map_or(0, Vec::len))
        };
        ensure!(backends()? == 2, "nothing of half a list is in force: {} backends", backends()?);
        more_players(&mut players, 10, 40)?;
        way.mend();
        wait_for_sessions(&proxy, "arena/b", 40)?;
        ensure!(backends()? == MANY + 2, "{} backends", backends()?);
        four_zeros(players).map(drop)
    });
}

fn a_cluster_is_followed_with_one_node_dead_and_missed_with_two(binary: EtcdBinary) {
    play("cluster", |stage| {
        let mut nodes = Etcd::cluster(stage, binary)?;
        let endpoint = nodes.iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",");
        let (mut second, mut first) = (nodes.remove(1), nodes.remove(0));
        let fleet = Fleet { etcd: nodes.remove(0) };
        fleet.seed()?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let proxy = Proxy::start(stage, &ProxySpec::new("p", Source::Etcd { endpoint }))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        first.kill()?;
        // It may have been the leader.
        until("those who live take a write", SOON, || fleet.put("drains/arena/a", &json!({})).is_ok())?;
        wait_for_sessions(&proxy, "arena/b", 30)?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 30)?;
        second.kill()?;
        wait_until_away(&proxy)?;
        let before = table(&proxy)?;
        more_players(&mut players, 10, 40)?;
        let now = table(&proxy)?;
        ensure!(now["revision"] == before["revision"] && sessions_on(&proxy, "arena/b")? == 40, "{now}");
        second.start_again()?;
        wait_until_back(&proxy)?;
        first.start_again()?;
        fleet.delete("drains/arena/a")?;
        fleet.put("drains/arena/b", &json!({"reason": "all are back"}))?;
        wait_for_sessions(&proxy, "arena/a", 40)?;
        four_zeros(players).map(drop)
    });
}
