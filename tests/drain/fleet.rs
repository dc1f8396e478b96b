//! With etcd a drain is everybody's, and `drain --wait` ends when everybody is done.

use anyhow::{Result, ensure};
use holdfast_stage::{EtcdBinary, Players, PlayersSpec, Proxy, Stage, arena_service, until};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, sessions_on, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, play};
use crate::support::program::holdfast;

on_both_etcds! {
    waiting_at_one_proxy_is_waiting_for_all_of_them,
    two_keys_of_one_transaction_move_nobody_between_the_two,
}

/// A fleet whose drains take a while.
fn slow_fleet(stage: &Stage, binary: EtcdBinary) -> Result<Fleet> {
    let fleet = Fleet::start(stage, binary)?;
    fleet.put("services/arena", &arena_service(&json!({"drain": {"per_second": 10}})))?;
    Ok(fleet)
}

fn waiting_at_one_proxy_is_waiting_for_all_of_them(binary: EtcdBinary) {
    play("drain-fleet", |stage| {
        let fleet = slow_fleet(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let (p, q) = (fleet.proxy(stage, "p")?, fleet.proxy(stage, "q")?);
        let few = Players::start_as(stage, "few", &PlayersSpec::new([p.address()], 2))?;
        let many = Players::start_as(stage, "many", &PlayersSpec::new([q.address()], 30))?;
        let _b = fleet.arena(stage, "b")?;
        for proxy in [&p, &q] {
            until("b is known", SOON, || is_listed(proxy, "arena/b"))?;
        }
        // p is done in a tenth of a second, q in three.
        let said = holdfast(&p.admin(), &["drain", "arena/a", "--wait", "--reason", "deploy 1.5"])?;
        let left = sessions_on(&q, "arena/a")?;
        ensure!(said.code == 0 && left == 0, "{left} left at q: {said:?}");
        ensure!(said.stdout.contains("no proxy has a session there"), "{said:?}");
        ensure!(said.stderr.contains(" at q"), "it says where the others are: {said:?}");
        let status = fleet.status("q", "its drain", |status| status["drains"][0]["sessions"] == 0)?;
        ensure!(status["drains"][0]["backend"] == "arena/a", "{status}");
        ensure!(status["applied"].as_u64() >= status["revision"].as_u64(), "{status}");
        // Asked again, nothing is new.
        let said = holdfast(&q.admin(), &["drain", "arena/a", "--wait", "--json"])?;
        let answer: Value = serde_json::from_str(&said.stdout)?;
        ensure!(
            said.code == 0 && answer["result"] == "done" && answer["proxies"][0]["proxy"] == "p",
            "{answer}"
        );
        wait_for_sessions(&p, "arena/b", 2)?;
        wait_for_sessions(&q, "arena/b", 30)?;
        four_zeros(few)?;
        four_zeros(many).map(drop)
    });
}

fn is_listed(proxy: &Proxy, backend: &str) -> bool {
    let view = proxy.admin_json("/backends").unwrap_or_default();
    view["backends"].as_array().is_some_and(|all| all.iter().any(|found| found["backend"] == backend))
}

fn two_keys_of_one_transaction_move_nobody_between_the_two(binary: EtcdBinary) {
    play("drain-both", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let proxy = fleet.proxy(stage, "p")?;
        until("both are known", SOON, || is_listed(&proxy, "arena/a") && is_listed(&proxy, "arena/b"))?;
        let players = Players::start(stage, &PlayersSpec::new([proxy.address()], 40))?;
        let keys = ["a", "b"].map(|arena| (format!("drains/arena/{arena}"), json!({"reason": "both"})));
        fleet.client()?.put_all(&keys)?;
        until("both drains are stuck", SOON, || {
            proxy.metric("holdfast_drains", "state=\"stuck\"").is_ok_and(|stuck| stuck == 2.0)
        })?;
        ensure!(proxy.metric("holdfast_handoffs_total", "")? == 0.0, "somebody was moved");
        four_zeros(players).map(drop)
    });
}

/// Its players are lost with it; those of others are not to wait for it for ever.
#[test]
fn a_dead_proxy_is_waited_for_until_its_lease_ends_and_no_longer() {
    play("drain-dead", |stage| {
        let fleet = Fleet::start(stage, EtcdBinary::Default)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let (p, mut q) = (fleet.proxy(stage, "p")?, fleet.proxy(stage, "q")?);
        let players = Players::start(stage, &PlayersSpec::new([p.address()], 20))?;
        fleet.status("q", "its status", |status| status["applied"].as_u64() > Some(0))?;
        q.process().kill()?;
        let said = holdfast(&p.admin(), &["drain", "arena/a", "--wait", "--deadline", "60s"])?;
        ensure!(said.code == 0, "{said:?}");
        ensure!(said.stderr.contains("waits for q to act on the order"), "{said:?}");
        ensure!(sessions_on(&p, "arena/a")? == 0);
        four_zeros(players).map(drop)
    });
}
