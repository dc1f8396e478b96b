//! A match comes through one proxy of the cluster: who asks for it at another one is told whose it is, and plays on. An
//! etcd that is away, or forgets, keeps nobody from a match.

use anyhow::{Context, Result, ensure};
use holdfast_stage::{EtcdBinary, Players, PlayersSpec, Proxy, Stage};

use crate::support::fleet::{Fleet, on_both_etcds};
use crate::support::play::{SOON, play};
use crate::support::scene::clean;

on_both_etcds! {
    a_match_comes_through_one_proxy_and_another_may_have_it_when_it_is_over,
    a_match_is_formed_while_etcd_is_hung_or_gone_and_claimed_when_it_is_back,
    the_claim_of_a_match_is_put_again_when_the_lease_is_lost,
    a_proxy_that_comes_back_takes_its_matches_over,
}

/// The first match of players who name their matches so.
const NAMED: [&str; 2] = ["--match-id", "7"];
const KEY: &str = "/holdfast/status/groups/00000000000000070000000000000001";
const SIZE: usize = 4;

/// Players who are all in one match, the same for each who calls this.
fn in_the_match(stage: &Stage, name: &str, proxy: &Proxy) -> Result<Players> {
    Players::start_as(stage, name, &PlayersSpec::new([proxy.address()], SIZE).matches(SIZE).flags(NAMED))
}

fn wait_for_claim(fleet: &Fleet, proxy: &str) -> Result<()> {
    let value = format!("{{\"proxy\":{proxy:?}}}");
    fleet.etcd.wait_for(KEY, SOON, |found| found.trim() == value).map(drop)
}

fn claims(proxy: &Proxy, result: &str) -> Result<f64> {
    proxy.metric("holdfast_group_claims_total", &format!("result={result:?}"))
}

fn play_on(players: &mut Players) -> Result<()> {
    let replied = players.progress()?.replied;
    players.wait_until("they play on", SOON, |progress| progress.replied > replied + 100).map(drop)
}

fn one_world(players: Players) -> Result<()> {
    let verdict = clean(players);
    ensure!(verdict.worlds_diverged == 0, "{verdict:?}");
    Ok(())
}

fn a_match_comes_through_one_proxy_and_another_may_have_it_when_it_is_over(binary: EtcdBinary) {
    play("claims-two", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let (p, mut q) = (fleet.proxy(stage, "p")?, fleet.proxy(stage, "q")?);
        let mut first = in_the_match(stage, "first", &p)?;
        wait_for_claim(&fleet, "p")?;
        // They ask again and again.
        let spec = PlayersSpec::new([q.address()], SIZE).flags(NAMED);
        let spec = spec.flags(["--matches", "4", "--rematch", "0.5"]);
        let mut second = Players::start_as(stage, "second", &spec)?;
        let refused = |progress: &holdfast_stage::Progress| progress.joins_refused >= 2 * SIZE as u64;
        let progress = second.wait_until("they are refused, and again", SOON, refused)?;
        ensure!(progress.joins == 0, "somebody came into a second match of that id: {progress:?}");
        let told = "the group comes through another proxy: p";
        ensure!(q.process().log().contains(told), "the operator isn't told whose it is");
        ensure!(claims(&q, "foreign")? >= 1.0 && claims(&q, "mine")? + claims(&q, "unanswered")? == 0.0);
        ensure!(claims(&p, "mine")? == 1.0 && p.metric("holdfast_group_members", "")? == SIZE as f64);
        play_on(&mut first)?;
        play_on(&mut second)?;
        one_world(first)?;
        let all_in = |progress: &holdfast_stage::Progress| progress.joins >= SIZE as u64;
        second.wait_until("the match is over, and they are in", SOON, all_in)?;
        ensure!(claims(&q, "mine")? >= 1.0);
        wait_for_claim(&fleet, "q")?;
        one_world(second)?;
        fleet.etcd.wait_for(KEY, SOON, str::is_empty).map(drop)
    });
}

fn a_match_is_formed_while_etcd_is_hung_or_gone_and_claimed_when_it_is_back(binary: EtcdBinary) {
    play("claims-outage", |stage| {
        let mut fleet = Fleet::start(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let mut proxy = fleet.proxy(stage, "p")?;
        fleet.etcd.process().freeze()?;
        let spec = PlayersSpec::new([proxy.address()], 2 * SIZE).matches(SIZE);
        let mut hung = Players::start_as(stage, "hung", &spec)?;
        ensure!(claims(&proxy, "unanswered")? == 2.0 && claims(&proxy, "mine")? == 0.0);
        let told = "group formed without a claim";
        ensure!(proxy.process().log().contains(told), "the operator isn't told");
        fleet.etcd.process().thaw()?;
        fleet.etcd.kill()?;
        let mut gone = in_the_match(stage, "gone", &proxy)?;
        ensure!(claims(&proxy, "unanswered")? == 3.0);
        fleet.etcd.start_again()?;
        wait_for_claim(&fleet, "p")?;
        play_on(&mut hung)?;
        play_on(&mut gone)?;
        one_world(hung)?;
        one_world(gone)?;
        fleet.etcd.wait_for(KEY, SOON, str::is_empty).map(drop)
    });
}

fn the_claim_of_a_match_is_put_again_when_the_lease_is_lost(binary: EtcdBinary) {
    play("claims-lease", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let proxy = fleet.proxy(stage, "p")?;
        let mut players = in_the_match(stage, "players", &proxy)?;
        wait_for_claim(&fleet, "p")?;
        let leases = fleet.etcd.etcdctl(&["lease", "list"])?;
        let lease = leases.lines().last().context("a lease")?.trim().to_owned();
        fleet.etcd.etcdctl(&["lease", "revoke", &lease])?;
        ensure!(fleet.etcd.etcdctl(&["get", KEY])?.is_empty(), "the claim is under the proxy's lease");
        wait_for_claim(&fleet, "p")?;
        play_on(&mut players)?;
        one_world(players)
    });
}

fn a_proxy_that_comes_back_takes_its_matches_over(binary: EtcdBinary) {
    play("claims-restart", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let _a = fleet.arena(stage, "a")?;
        let mut proxy = fleet.proxy(stage, "p")?;
        let lost = in_the_match(stage, "lost", &proxy)?;
        wait_for_claim(&fleet, "p")?;
        proxy.process().kill()?;
        drop(lost);
        proxy.start_again()?;
        let players = in_the_match(stage, "players", &proxy)?;
        ensure!(claims(&proxy, "mine")? == 1.0, "the key of the run before is its own");
        one_world(players)
    });
}
