//! What is hardly meant is held until somebody says yes, and what an operator writes is judged before it is written.

use anyhow::{Result, ensure};
use holdfast_stage::{EtcdBinary, Proxy, Stage, until};
use serde_json::Value;

use crate::support::fleet::{Fleet, on_both_etcds};
use crate::support::play::{SOON, play};
use crate::support::program::{Said, holdfast};

on_both_etcds! {
    most_backends_gone_are_held_over_a_restart_until_accepted,
    a_write_is_judged_before_and_can_be_rolled_back,
}

fn said(proxy: &Proxy, arguments: &[&str]) -> Result<Said> {
    holdfast(&proxy.admin(), &[&["table"], arguments].concat())
}

fn done(proxy: &Proxy, arguments: &[&str]) -> Result<String> {
    let said = said(proxy, arguments)?;
    ensure!(said.code == 0, "table {arguments:?}: {said:?}");
    Ok(said.stdout)
}

fn three(stage: &Stage, binary: EtcdBinary) -> Result<Fleet> {
    let fleet = Fleet::start(stage, binary)?;
    for name in ["a", "b", "c"] {
        put(&fleet, name)?;
    }
    Ok(fleet)
}

fn put(fleet: &Fleet, name: &str) -> Result<()> {
    let key = format!("backends/arena/{name}");
    let document = serde_json::json!({"address": "127.0.0.1:9", "version": "1.4"});
    fleet.client()?.put_all(&[(key, document)])?;
    Ok(())
}

fn backends(proxy: &Proxy) -> Result<usize> {
    Ok(done(proxy, &["list", "backends/"])?.lines().count().saturating_sub(1))
}

fn most_backends_gone_are_held_over_a_restart_until_accepted(binary: EtcdBinary) {
    play("slips-held", |stage| {
        let fleet = three(stage, binary)?;
        let mut proxy = fleet.proxy(stage, "p")?;
        until("three are in force", SOON, || backends(&proxy).is_ok_and(|count| count == 3))?;
        ensure!(done(&proxy, &["held"])? == "nothing is held\n");
        fleet.delete("backends/arena/a")?;
        until("one may go", SOON, || backends(&proxy).is_ok_and(|count| count == 2))?;
        fleet.delete("backends/arena/b")?;
        let is_held = |proxy: &Proxy| proxy.metric("holdfast_held_changes", "").is_ok_and(|held| held == 1.0);
        until("the second is held", SOON, || is_held(&proxy))?;
        ensure!(backends(&proxy)? == 2);
        let held = done(&proxy, &["held"])?;
        ensure!(
            held.starts_with("arena: 2 of 3 backends would be gone") && held.contains("backends/arena/b"),
            "{held}"
        );
        ensure!(proxy.admin_json("/routes")?["held"].as_array().is_some_and(|held| held.len() == 1));
        proxy.process().kill()?;
        proxy.start_again()?;
        until("it is held after a restart", SOON, || is_held(&proxy))?;
        ensure!(backends(&proxy)? == 2);
        // All else goes on.
        put(&fleet, "d")?;
        until("another comes", SOON, || backends(&proxy).is_ok_and(|count| count == 3))?;
        done(&proxy, &["accept", "arena", "--reason", "the old hall is closed"])?;
        ensure!(backends(&proxy)? == 2 && done(&proxy, &["held"])? == "nothing is held\n");
        Ok(())
    });
}

fn a_write_is_judged_before_and_can_be_rolled_back(binary: EtcdBinary) {
    play("table-writes", |stage| {
        let fleet = three(stage, binary)?;
        let proxy = fleet.proxy(stage, "p")?;
        until("three are in force", SOON, || backends(&proxy).is_ok_and(|count| count == 3))?;
        let folder = stage.path().join("routing");
        let folder = folder.to_str().unwrap_or_default();
        done(&proxy, &["export", folder])?;
        until("the history has the table", SOON, || {
            done(&proxy, &["history"]).is_ok_and(|history| history.lines().count() > 1)
                && done(&proxy, &["history", "--json"]).is_ok_and(|text| text.contains("number"))
        })?;
        let file = format!("{folder}/backends/arena/d.json");
        let revision = fleet.etcd.revision()?;
        std::fs::write(&file, r#"{"address": "127.0.0.1:9", "version": "1.4", "weight": -1}"#)?;
        let bad = said(&proxy, &["apply", folder])?;
        ensure!(
            bad.code == 1 && bad.stderr.contains("backends/arena/d") && bad.stderr.contains("weight"),
            "{bad:?}"
        );
        ensure!(fleet.etcd.revision()? == revision, "nothing is written");
        std::fs::write(&file, r#"{"address": "127.0.0.1:9", "version": "1.4"}"#)?;
        let dry = done(&proxy, &["apply", folder, "--dry-run"])?;
        ensure!(dry.contains("added backends/arena/d") && dry.contains("nothing is written"), "{dry}");
        ensure!(fleet.etcd.revision()? == revision, "a dry run writes nothing");
        done(&proxy, &["apply", folder])?;
        ensure!(backends(&proxy)? == 4, "it is in force when the command ends");
        ensure!(done(&proxy, &["apply", folder])?.contains("nothing to write"));
        let most = ["delete", "backends/arena/a", "backends/arena/b", "backends/arena/c"];
        let slip = said(&proxy, &most)?;
        ensure!(slip.code == 1 && slip.stderr.contains("would be held"), "{slip:?}");
        done(&proxy, &[&most[..], &["--accept"]].concat())?;
        ensure!(backends(&proxy)? == 1);
        let tables: Value = proxy.admin_json("/tables")?;
        let first = tables["tables"].as_array().and_then(|all| all.iter().rev().nth(1).cloned());
        let first = first.unwrap_or_default()["number"].as_u64();
        if let Some(number) = first {
            done(&proxy, &["rollback", &number.to_string()])?;
            let back = done(&proxy, &["diff", &number.to_string()])?;
            ensure!(!back.contains("removed backends"), "{back}");
        }
        Ok(())
    });
}
