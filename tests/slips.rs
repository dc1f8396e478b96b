//! What is hardly meant is held until somebody says yes, by every proxy and over restarts; players play on.

use anyhow::{Context, Result, ensure};
use holdfast_stage::{Arena, EtcdBinary, Players, PlayersSpec, Proxy, Stage, until};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::{Said, holdfast};

on_both_etcds! {
    most_backends_that_go_are_held_by_every_proxy_until_one_says_yes,
    what_is_held_stays_so_over_a_restart_and_ends_when_it_is_taken_back,
    an_etcd_that_comes_back_empty_takes_nothing_away,
    a_write_that_would_be_held_needs_a_yes_of_its_own,
}

fn said(proxy: &Proxy, arguments: &[&str]) -> Result<Said> {
    holdfast(&proxy.admin(), &[&["table"], arguments].concat())
}

fn done(proxy: &Proxy, arguments: &[&str]) -> Result<String> {
    let said = said(proxy, arguments)?;
    ensure!(said.code == 0, "table {arguments:?}: {said:?}");
    Ok(said.stdout)
}

/// Three games that are listed.
fn three(stage: &Stage, fleet: &Fleet) -> Result<[Arena; 3]> {
    Ok([fleet.arena(stage, "a")?, fleet.arena(stage, "b")?, fleet.arena(stage, "c")?])
}

/// The backends in the table in force.
fn listed(proxy: &Proxy) -> Result<Vec<String>> {
    let view = proxy.admin_json("/documents")?;
    let documents = view["documents"].as_array().context("documents")?;
    let keys = documents.iter().filter_map(|document| document["key"].as_str());
    Ok(keys.filter_map(|key| key.strip_prefix("backends/arena/")).map(str::to_owned).collect())
}

fn wait_listed(proxy: &Proxy, wanted: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    let waited = until(&format!("{wanted:?} are in force"), SOON, || {
        found = listed(proxy).unwrap_or_default();
        found == wanted
    });
    waited.with_context(|| format!("there are {found:?}"))
}

fn held(proxy: &Proxy) -> f64 {
    proxy.metric("holdfast_held_changes", "").unwrap_or(-1.0)
}

fn wait_held(proxy: &Proxy) -> Result<()> {
    until("it is held", SOON, || held(proxy) == 1.0)
}

/// Tables reach the disk within a second or so; a restart that comes sooner starts from an older one.
fn wait_on_disk(proxy: &Proxy, backends: usize) -> Result<()> {
    until("the table is on disk", SOON, || {
        let newest = |view: &Value| view["tables"].as_array()?.last()?["number"].as_u64();
        let number = proxy.admin_json("/tables").ok().as_ref().and_then(newest).unwrap_or(0);
        let text = done(proxy, &["list", "backends/", "--table", &number.to_string()]).unwrap_or_default();
        text.lines().count() == backends + 1
    })
}

fn most_backends_that_go_are_held_by_every_proxy_until_one_says_yes(binary: EtcdBinary) {
    play("slips-held", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _arenas = three(stage, &fleet)?;
        let (mut p, q) = (fleet.proxy(stage, "p")?, fleet.proxy(stage, "q")?);
        wait_listed(&p, &["a", "b", "c"])?;
        wait_listed(&q, &["a", "b", "c"])?;
        let mut players = Players::start(stage, &PlayersSpec::new([p.address(), q.address()], 20))?;
        ensure!(done(&p, &["held"])? == "nothing is held\n");
        fleet.delete("backends/arena/a")?;
        // A proxy that hears of both at once would hold both.
        wait_listed(&p, &["b", "c"])?;
        wait_listed(&q, &["b", "c"])?;
        fleet.delete("backends/arena/b")?;
        wait_held(&p)?;
        wait_held(&q)?;
        ensure!(listed(&p)? == ["b", "c"] && listed(&q)? == ["b", "c"]);
        let text = done(&p, &["held"])?;
        let why = "arena: 2 of 3 backends would be gone within 60 s (since revision ";
        ensure!(text.starts_with(why) && text.contains("\n  backends/arena/b\n"), "{text}");
        let routes = p.admin_json("/routes")?;
        ensure!(routes["held"][0]["keys"] == json!(["backends/arena/b"]), "{routes}");
        ensure!(p.admin_json("/status")?["held"] == routes["held"]);
        fleet.status("p", "what is held", |status| {
            status["held"] == json!(["arena: 2 of 3 backends would be gone within 60 s"])
        })?;
        ensure!(p.process().log().contains("ERROR holdfast::source::published: a change is held"));
        until("each shows what the other holds", SOON, || {
            done(&p, &["held"]).is_ok_and(|text| text.contains("proxy q: arena: 2 of 3"))
        })?;
        // All else goes on.
        more_players(&mut players, 10, 30)?;
        let _d = fleet.arena(stage, "d")?;
        wait_listed(&p, &["b", "c", "d"])?;
        ensure!(held(&p) == 1.0);
        let text = done(&q, &["accept", "arena", "--reason", "the old hall is closed"])?;
        ensure!(text.contains("accepted: arena: 2 of 3"), "{text}");
        ensure!(listed(&q)? == ["c", "d"] && held(&q) == 0.0, "it acts by it when the command ends");
        wait_listed(&p, &["c", "d"])?;
        ensure!(held(&p) == 0.0 && p.process().log().contains("is accepted"));
        until("nobody says that it holds anything", SOON, || {
            done(&p, &["held"]).is_ok_and(|text| text == "nothing is held\n")
        })?;
        let nothing = said(&p, &["accept"])?;
        ensure!(nothing.code == 1 && nothing.stderr == "holdfast: nothing is held\n", "{nothing:?}");
        four_zeros(players).map(drop)
    });
}

fn what_is_held_stays_so_over_a_restart_and_ends_when_it_is_taken_back(binary: EtcdBinary) {
    play("slips-restart", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let _arenas = three(stage, &fleet)?;
        let mut proxy = fleet.proxy(stage, "p")?;
        wait_listed(&proxy, &["a", "b", "c"])?;
        fleet.delete("backends/arena/a")?;
        wait_listed(&proxy, &["b", "c"])?;
        fleet.delete("backends/arena/b")?;
        wait_held(&proxy)?;
        wait_on_disk(&proxy, 2)?;
        for with_etcd in [true, false] {
            if !with_etcd {
                fleet.etcd.kill()?;
            }
            proxy.process().kill()?;
            proxy.start_again()?;
            ensure!(listed(&proxy)? == ["b", "c"]);
            if !with_etcd {
                fleet.etcd.start_again()?;
            }
            wait_held(&proxy)?;
            ensure!(listed(&proxy)? == ["b", "c"]);
        }
        fleet.put("backends/arena/b", &json!({"address": "127.0.0.1:9", "version": "1.4"}))?;
        until("nothing is held", SOON, || held(&proxy) == 0.0)?;
        ensure!(listed(&proxy)? == ["b", "c"] && proxy.process().log().contains("is taken back"));
        Ok(())
    });
}

fn an_etcd_that_comes_back_empty_takes_nothing_away(binary: EtcdBinary) {
    play("slips-empty", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let _arenas = three(stage, &fleet)?;
        let mut proxy = fleet.proxy(stage, "p")?;
        wait_listed(&proxy, &["a", "b", "c"])?;
        wait_on_disk(&proxy, 3)?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 10))?;
        fleet.etcd.start_anew()?;
        wait_held(&proxy)?;
        ensure!(listed(&proxy)? == ["a", "b", "c"]);
        let text = done(&proxy, &["held"])?;
        ensure!(text.contains("3 of 3") && text.contains("services/arena") && text.contains("routes/public"));
        four_zeros(players)?;
        // Nor at a cold start.
        proxy.process().kill()?;
        proxy.start_again()?;
        wait_held(&proxy)?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 10))?;
        four_zeros(players).map(drop)
    });
}

fn a_write_that_would_be_held_needs_a_yes_of_its_own(binary: EtcdBinary) {
    play("slips-write", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _arenas = three(stage, &fleet)?;
        let proxy = fleet.proxy(stage, "p")?;
        wait_listed(&proxy, &["a", "b", "c"])?;
        let most = ["delete", "backends/arena/a", "backends/arena/b"];
        let before = fleet.etcd.revision()?;
        let dry = said(&proxy, &[&most[..], &["--dry-run"]].concat())?;
        let told = "held without --accept: arena: 2 of 3 backends would be gone within 60 s";
        ensure!(dry.code == 1 && dry.stdout.contains(told), "{dry:?}");
        let slip = said(&proxy, &most)?;
        ensure!(slip.code == 1 && slip.stderr.contains("If it is meant, say so with --accept"), "{slip:?}");
        ensure!(config_revision(&fleet)? <= before, "nothing is written");
        let text = done(&proxy, &[&most[..], &["--accept"]].concat())?;
        ensure!(text.contains("accepted: arena: 2 of 3"), "{text}");
        ensure!(listed(&proxy)? == ["c"] && held(&proxy) == 0.0);
        // What was drained may go without a yes.
        fleet.put("drains/arena/c", &json!({}))?;
        until("it is drained", SOON, || {
            done(&proxy, &["list", "drains/"]).is_ok_and(|text| text.contains("drains/arena/c"))
        })?;
        done(&proxy, &["delete", "backends/arena/c", "drains/arena/c"])?;
        ensure!(listed(&proxy)?.is_empty() && held(&proxy) == 0.0);
        Ok(())
    });
}

/// The newest revision of any document.
fn config_revision(fleet: &Fleet) -> Result<u64> {
    let answer = fleet.etcd.etcdctl(&["get", "/holdfast/config/", "--prefix", "-w", "json"])?;
    let answer: Value = serde_json::from_str(&answer)?;
    let revisions = answer["kvs"].as_array().into_iter().flatten();
    revisions.filter_map(|kv| kv["mod_revision"].as_u64()).max().context("a document")
}
