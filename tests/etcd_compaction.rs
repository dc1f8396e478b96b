//! A proxy that missed changes of which etcd has forgotten the history catches up: nothing is lost, and drains that
//! were ordered meanwhile take effect.

use anyhow::{Result, ensure};
use holdfast_stage::{EtcdBinary, Players, PlayersSpec, Proxy, ProxySpec, Source, until};
use serde_json::json;

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::forwarder::Forwarder;
use crate::support::play::{SOON, four_zeros, more_players, play};

on_both_etcds! {
    changes_before_a_compaction_apply_when_the_proxy_is_back,
    a_proxy_that_slept_through_a_compaction_catches_up,
}

fn changes_before_a_compaction_apply_when_the_proxy_is_back(binary: EtcdBinary) {
    play("compaction-cut", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let way = Forwarder::start(fleet.etcd_address()?)?;
        let proxy = Proxy::start(stage, &ProxySpec::new("p", Source::Etcd { endpoint: way.endpoint() }))?;
        knows_what_will_go(&fleet, &proxy)?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        way.cut();
        until("the proxy notices", SOON, || connected(&proxy).is_ok_and(|connected| !connected))?;
        change_and_compact(&fleet)?;
        // New players are still let in by the old table, which knows of no drain.
        more_players(&mut players, 10, 40)?;
        ensure!(sessions_on(&proxy, "arena/a")? > 0);
        way.mend();
        has_caught_up(&proxy, 40)?;
        ensure!(connected(&proxy)?);
        four_zeros(players).map(drop)
    });
}

fn a_proxy_that_slept_through_a_compaction_catches_up(binary: EtcdBinary) {
    play("compaction-sleep", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let mut proxy = fleet.proxy(stage, "p")?;
        knows_what_will_go(&fleet, &proxy)?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        ensure!(sessions_on(&proxy, "arena/a")? > 0);
        proxy.process().freeze()?;
        change_and_compact(&fleet)?;
        proxy.process().thaw()?;
        has_caught_up(&proxy, 30)?;
        four_zeros(players).map(drop)
    });
}

fn connected(proxy: &Proxy) -> Result<bool> {
    Ok(proxy.admin_json("/status")?["table"]["connected"] == true)
}

fn route_names(proxy: &Proxy) -> Result<Vec<String>> {
    let view = proxy.admin_json("/routes")?;
    let routes = view["routes"].as_array().cloned().unwrap_or_default();
    Ok(routes.iter().filter_map(|route| route["name"].as_str().map(str::to_owned)).collect())
}

fn knows_what_will_go(fleet: &Fleet, proxy: &Proxy) -> Result<()> {
    fleet.put("routes/old", &json!({"listener": "elsewhere", "service": "arena"}))?;
    until("the route is in force", SOON, || route_names(proxy).is_ok_and(|names| names == ["old", "public"]))
}

/// A key that goes, one that comes, one that changes, one that comes and goes, and a drain; then no history of it.
fn change_and_compact(fleet: &Fleet) -> Result<()> {
    fleet.delete("routes/old")?;
    fleet.put("routes/other", &json!({"listener": "elsewhere", "service": "arena"}))?;
    fleet.put("routes/public", &json!({"listener": "game", "service": "arena", "versions": {"1.4": 7}}))?;
    fleet.put("routes/brief", &json!({"listener": "elsewhere", "service": "arena"}))?;
    fleet.delete("routes/brief")?;
    fleet.put("drains/arena/a", &json!({"reason": "ordered meanwhile"}))?;
    fleet.etcd.compact().map(drop)
}

fn has_caught_up(proxy: &Proxy, sessions: u64) -> Result<()> {
    wait_for_sessions(proxy, "arena/b", sessions)?;
    let names = route_names(proxy)?;
    ensure!(names == ["other", "public"], "{names:?}");
    let view = proxy.admin_json("/routes")?;
    ensure!(view["routes"][1]["versions"] == json!({"1.4": 7}), "{view}");
    ensure!(view["drains"][0]["reason"] == "ordered meanwhile", "{view}");
    ensure!(proxy.metric("holdfast_handoffs_total", "result=\"moved\"")? > 0.0);
    Ok(())
}
