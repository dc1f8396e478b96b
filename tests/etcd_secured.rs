//! An etcd that wants to know who asks, or proves who it is: tokens that run out aren't noticed, and a password or
//! certificate is renewed by replacing its file.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_stage::{Etcd, EtcdBinary, Players, PlayersSpec, Proxy, Stage, until};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, on_both_etcds, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, more_players, play};
use crate::support::program::holdfast;
use crate::support::tls::Identity;

on_both_etcds! {
    tokens_that_run_out_are_not_noticed_and_a_new_password_is_read,
    a_new_certificate_of_etcd_is_trusted_when_its_file_says_so,
}

const TOKEN_TTL: Duration = Duration::from_secs(1);

fn table(proxy: &Proxy) -> Result<Value> {
    Ok(proxy.admin_json("/status")?["table"].clone())
}

fn wait_until_connected(proxy: &Proxy, wanted: bool) -> Result<Value> {
    until(&format!("connected: {wanted}"), SOON, || {
        table(proxy).is_ok_and(|table| table["connected"] == wanted)
    })?;
    table(proxy)
}

/// When the proxy's status key was made.
fn status_made_at(fleet: &Fleet) -> Result<Value> {
    let found: Value =
        serde_json::from_str(&fleet.etcd.etcdctl(&["get", "/holdfast/status/proxies/p", "-w", "json"])?)?;
    Ok(found["kvs"][0]["create_revision"].clone())
}

fn give_proxies(etcd: &Etcd, password: &str) -> Result<()> {
    etcd.etcdctl(&["user", "add", &format!("proxies:{password}")])?;
    etcd.etcdctl(&["user", "grant-role", "proxies", "proxy"]).map(drop)
}

fn with_login(stage: &Stage, binary: EtcdBinary) -> Result<Fleet> {
    let flags = [format!("--auth-token-ttl={}", TOKEN_TTL.as_secs())];
    let mut etcd = Etcd::start_with(stage, binary, &flags)?;
    etcd.etcdctl(&["user", "add", "root:of-all"])?;
    etcd.etcdctl(&["role", "add", "root"])?;
    etcd.etcdctl(&["user", "grant-role", "root", "root"])?;
    etcd.etcdctl(&["role", "add", "proxy"])?;
    etcd.etcdctl(&["role", "grant-permission", "proxy", "--prefix=true", "readwrite", "/holdfast/"])?;
    give_proxies(&etcd, "first")?;
    etcd.etcdctl(&["auth", "enable"])?;
    etcd.log_in("root:of-all");
    let fleet = Fleet { etcd };
    fleet.seed()?;
    Ok(fleet)
}

fn tokens_that_run_out_are_not_noticed_and_a_new_password_is_read(binary: EtcdBinary) {
    play("login", |stage| {
        let mut fleet = with_login(stage, binary)?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let password = stage.write("password", "first\n")?;
        let login = format!("username = \"proxies\"\npassword_file = {password:?}");
        let proxy = Proxy::start(stage, &fleet.spec("p").etcd(&login))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 30)?;
        let made = status_made_at(&fleet)?;
        // Quiet for as long as a token lives, some times over.
        let quiet = Instant::now();
        until("tokens have run out", SOON, || quiet.elapsed() > TOKEN_TTL * 4)?;
        more_players(&mut players, 10, 40)?;
        fleet.status("p", "the sessions of now", |status| status["sessions"] == 40)?;
        ensure!(status_made_at(&fleet)? == made, "the status key was given up meanwhile");
        ensure!(table(&proxy)?["connected"] == true);
        let said = holdfast(&proxy.admin(), &["drain", "arena/a", "--wait"])?;
        ensure!(said.code == 0, "{said:?}");
        wait_for_sessions(&proxy, "arena/b", 40)?;
        // Another password, which the proxy isn't told for a while.
        fleet.etcd.etcdctl(&["user", "delete", "proxies"])?;
        give_proxies(&fleet.etcd, "second")?;
        fleet.etcd.kill()?;
        fleet.etcd.start_again()?;
        let away = wait_until_connected(&proxy, false)?;
        until("it says that it isn't let in", SOON, || {
            table(&proxy)
                .is_ok_and(|table| table["source_error"].to_string().contains("authentication failed"))
        })?;
        more_players(&mut players, 10, 50)?;
        stage.write("password", "second\n")?;
        let back = wait_until_connected(&proxy, true)?;
        ensure!(back["revision"].as_u64() >= away["revision"].as_u64(), "{away} -> {back}");
        fleet.status("p", "its sessions", |status| status["sessions"] == 50)?;
        four_zeros(players).map(drop)
    });
}

fn a_new_certificate_of_etcd_is_trusted_when_its_file_says_so(binary: EtcdBinary) {
    play("etcd-tls", |stage| {
        let (first, second) = (Identity::new(&["127.0.0.1"]), Identity::new(&["127.0.0.1"]));
        let certificate = stage.write("etcd.pem", &first.certificate)?;
        let key = stage.write("etcd.key", &first.key)?;
        let ca = stage.write("ca.pem", &first.certificate)?;
        let mut fleet = Fleet { etcd: Etcd::start_with_tls(stage, binary, &certificate, &key)? };
        fleet.seed()?;
        let (_a, _b) = (fleet.arena(stage, "a")?, fleet.arena(stage, "b")?);
        let proxy = Proxy::start(stage, &fleet.spec("p").etcd(&format!("[etcd.tls]\nca = {ca:?}")))?;
        let mut players = Players::start(stage, &PlayersSpec::new([proxy.address()], 30))?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 30)?;
        stage.write("etcd.pem", &second.certificate)?;
        stage.write("etcd.key", &second.key)?;
        fleet.etcd.kill()?;
        fleet.etcd.start_again()?;
        fleet.put("drains/arena/a", &json!({}))?;
        let away = wait_until_connected(&proxy, false)?;
        ensure!(away["source_error"].is_string(), "{away}");
        more_players(&mut players, 10, 40)?;
        ensure!(table(&proxy)?["connected"] == false, "a certificate that isn't trusted was taken");
        stage.write("ca.pem", &second.certificate)?;
        wait_until_connected(&proxy, true)?;
        wait_for_sessions(&proxy, "arena/b", 40)?;
        fleet.status("p", "its sessions", |status| status["sessions"] == 40)?;
        four_zeros(players).map(drop)
    });
}
