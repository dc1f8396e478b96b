//! SIGTERM: nobody new, the live ones go on until the deadline, their games are told, and the process ends.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use holdfast_stage::{ArenaSpec, http};
use serde_json::json;

use crate::support::impostor::{Heard, Impostor};
use crate::support::scene::{SOON, Scene, Script, clean};

fn deadline(seconds: u64) -> String {
    format!("[limits]\nshutdown_deadline_s = {seconds}\n")
}

fn terminate(scene: &mut Scene) -> Instant {
    scene.proxy.process().terminate().unwrap();
    Instant::now()
}

fn exit_code(scene: &mut Scene) -> Option<i32> {
    scene.proxy.process().wait(SOON).unwrap().code()
}

#[test]
fn at_sigterm_nobody_new_comes_in_and_the_live_ones_go_on_until_the_deadline() {
    let mut scene = Script::new("shutdown").config(&deadline(2)).open();
    let mut players = scene.players(20);
    let health = scene.proxy.health();
    let begun = terminate(&mut scene);
    scene.wait("not ready any more", |_| {
        http::get(&health, "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    assert!(begun.elapsed() < Duration::from_millis(1000), "not ready after {:?}", begun.elapsed());
    assert_eq!(http::get(&health, "/livez").unwrap().status, 200);
    scene.wait("connections are refused", |scene| TcpStream::connect(scene.proxy.address()).is_err());
    let now = players.progress().unwrap();
    assert_eq!((now.disconnects, now.connected), (0, 20));
    players.wait_until("they play on", SOON, |progress| progress.replied >= now.replied + 100).unwrap();
    players.wait_until("all are dismissed", SOON, |progress| progress.disconnects == 20).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "dismissed after {:?}", begun.elapsed());
    assert_eq!(exit_code(&mut scene), Some(0));
    let verdict = players.finish().unwrap();
    assert_eq!((verdict.repeated, verdict.reordered, verdict.mismatched), (0, 0, 0), "{verdict:?}");
}

#[test]
fn at_the_deadline_games_are_told_so_that_they_can_save() {
    let script = Script::new("shutdown").listener("odd").config(&deadline(1));
    let mut scene = script.open().with_odd_service(&json!({}));
    let impostor = Impostor::turning(|_, _| ());
    scene.cast("echo", &impostor);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    terminate(&mut scene);
    client.send(b"last words\n");
    client.expect(b"last words\n");
    impostor.wait("CLOSE", |heard| matches!(heard, Heard::Close { half: false }));
    assert!(client.until_closed().is_empty());
    assert_eq!(exit_code(&mut scene), Some(0));
}

#[test]
fn with_no_sessions_the_proxy_ends_at_once() {
    let mut scene = Script::new("shutdown").config(&deadline(60)).open();
    let begun = terminate(&mut scene);
    assert_eq!(exit_code(&mut scene), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "ended after {:?}", begun.elapsed());
}

#[test]
fn when_the_last_player_leaves_the_proxy_ends_before_its_deadline() {
    let mut scene = Script::new("shutdown").config(&deadline(60)).open();
    let players = scene.players(20);
    terminate(&mut scene);
    scene.wait("connections are refused", |scene| TcpStream::connect(scene.proxy.address()).is_err());
    clean(players);
    assert_eq!(exit_code(&mut scene), Some(0));
}

#[test]
fn a_second_sigterm_ends_the_proxy_at_once() {
    let mut scene = Script::new("shutdown").config(&deadline(60)).open();
    let mut players = scene.players(20);
    terminate(&mut scene);
    scene.wait_log("worker stops");
    terminate(&mut scene);
    assert_eq!(exit_code(&mut scene), Some(0));
    assert!(scene.log().contains("told to stop again"));
    players.wait_until("all are dismissed", SOON, |progress| progress.disconnects == 20).unwrap();
}

#[test]
fn a_drain_still_moves_players_while_the_proxy_waits_for_its_deadline() {
    let mut scene = Script::new("shutdown").config(&deadline(60)).open();
    let mut players = scene.players(20);
    let leaving = scene.sessions_on("a");
    terminate(&mut scene);
    scene.wait_log("worker stops");
    players.begin("drain").unwrap();
    scene.arena("a").process().terminate().unwrap();
    players.wait_until("they play at b", SOON, |progress| progress.moved == leaving).unwrap();
    assert!(scene.arena("a").process().wait(SOON).unwrap().success());
    clean(players);
    assert_eq!(exit_code(&mut scene), Some(0));
}

#[test]
fn states_that_nobody_took_show_in_the_log_and_in_the_exit_code() {
    let mut scene = Script::new("shutdown").arenas([ArenaSpec::new("a")]).config(&deadline(0)).open();
    let players = scene.players(5);
    scene.arena("a").process().terminate().unwrap();
    assert!(scene.arena("a").process().wait(SOON).unwrap().success());
    assert_eq!(scene.metric("holdfast_parked_sessions", ""), 5);
    terminate(&mut scene);
    assert_eq!(exit_code(&mut scene), Some(1));
    assert!(scene.log().contains("state dropped"), "the loss isn't in the log");
    drop(players);
}
