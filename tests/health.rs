//! A backend that fails its checks, treats its sessions badly, or is ejected by an operator gets no new sessions while
//! others can take them; its live ones stay or move, as the service says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_stage::{ArenaSpec, EtcdBinary, Players, PlayersSpec, until};
use serde_json::{Value, json};

use super::support::fleet::{Fleet, wait_for_sessions};
use super::support::play::{four_zeros, play};
use super::support::scene::{SOON, Scene, Script, clean};

/// Ejects soon, and for a short time.
fn outliers(more: &Value) -> Value {
    let mut outliers = json!({"min_volume": 5, "window_s": 3, "base_ejection_s": 2, "max_ejection_s": 60});
    outliers.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"health": {"outliers": outliers}})
}

/// Why an arena is unfit; null: it is fit.
fn cause(scene: &Scene, arena: &str) -> Value {
    scene.backend(arena)["unfit"][0]["cause"].clone()
}

fn wait_unfit(scene: &mut Scene, arena: &str, wanted: &Value) {
    scene.wait(&format!("{arena} unfit: {wanted}"), |scene| cause(scene, arena) == *wanted);
}

/// From where it is seen to be ejected until it isn't.
fn ejection(scene: &mut Scene, arena: &str) -> Duration {
    wait_unfit(scene, arena, &json!("outlier"));
    let begun = Instant::now();
    wait_unfit(scene, arena, &Value::Null);
    begun.elapsed()
}

/// Answers every GET on that address with 200, or with 500.
fn answering(address: &str) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind(address).unwrap();
    let (address, ill) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let is_ill = ill.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let status = if is_ill.load(Ordering::Relaxed) { "500 Ill" } else { "200 OK" };
            if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    (address, ill)
}

#[test]
fn a_backend_that_refuses_is_ejected_each_time_for_longer_and_taken_back_when_it_is_well() {
    let arenas = [ArenaSpec::new("a"), ArenaSpec::new("b").faults("refuse=1")];
    let mut scene = Script::new("outlier").arenas(arenas).service(outliers(&json!({}))).open();
    let mut players = scene.players(20);
    let first = ejection(&mut scene, "b");
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (20, 0));
    scene.wait_log("refused or didn't answer");
    players.add(20, None).unwrap();
    let second = ejection(&mut scene, "b");
    assert!(second > first, "{second:?} after {first:?}");
    assert_eq!(scene.metric("holdfast_outlier_ejections_total", ""), 2);
    scene.arena("b").set_faults("none").unwrap();
    scene.wait("it takes players again", |scene| {
        players.add(1, None).unwrap();
        scene.sessions_on("b") > 0
    });
    clean(players);
}

#[test]
fn however_many_refuse_no_more_than_the_share_are_ejected() {
    let bad = |name: &str| ArenaSpec::new(name).faults("refuse=1");
    let arenas = [ArenaSpec::new("a"), bad("b"), bad("c"), bad("d")];
    let service = outliers(&json!({"base_ejection_s": 60}));
    let mut scene = Script::new("outlier-share").arenas(arenas).service(service).open();
    let mut players = scene.players(20);
    let ejected = |scene: &Scene| scene.metric("holdfast_unfit_backends", "cause=\"outlier\"");
    scene.wait("two are ejected", |scene| ejected(scene) == 2);
    // The third refuses on, for longer than it takes to be judged.
    let begun = Instant::now();
    scene.wait("it has been judged again", |scene| {
        players.add(1, None).unwrap();
        begun.elapsed() > Duration::from_secs(3) || ejected(scene) != 2
    });
    assert_eq!((ejected(&scene), cause(&scene, "a")), (2, Value::Null));
    clean(players);
}

#[test]
fn players_move_off_a_backend_whose_check_turns_500_and_nothing_is_lost() {
    let (well, _) = answering("127.0.0.1:0");
    let (_, ill) = answering(&format!("127.0.0.2:{}", well.port()));
    // Where `b` is found, so that its check goes elsewhere than that of `a`.
    let place = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().to_string();
    let check = json!({"kind": "http", "port": well.port(), "interval_ms": 100});
    let health = json!({"health": {"check": check, "when_ejected": "move"}});
    let arenas = [ArenaSpec::new("a"), ArenaSpec::new("b").flags(["--listen", &place])];
    let mut scene = Script::new("http-check").arenas(arenas).service(health).open();
    scene.applied(|scene| {
        scene.documents.put("backends/arena/b", &json!({"address": place, "version": "1.4"})).unwrap();
    });
    scene.wait("checks of both", |scene| {
        scene.metric("holdfast_health_checks_total", "result=\"passed\"") >= 4
    });
    let mut players = scene.players(30);
    assert!(scene.sessions_on("b") > 0, "somebody is to move");
    ill.store(true, Ordering::Relaxed);
    wait_unfit(&mut scene, "b", &json!("check"));
    scene.wait_settled("a", 30);
    assert!(scene.handoffs("health", "moved") > 0);
    assert_eq!(scene.backend("b")["unfit"][0]["reason"], "GET /healthz: status 500, expected 200");
    assert!(scene.holdfast(&["status"]).out.contains("unfit (check): GET /healthz"));
    ill.store(false, Ordering::Relaxed);
    wait_unfit(&mut scene, "b", &Value::Null);
    assert_eq!(scene.backend("b")["draining"], json!([]));
    players.add(10, None).unwrap();
    scene.wait("it takes players again", |scene| scene.sessions_on("b") > 0);
    clean(players);
}

#[test]
fn a_backend_that_is_gone_fails_its_check_and_passes_when_it_is_back() {
    let service = json!({"health": {"check": {"kind": "tcp", "interval_ms": 100}}});
    let mut scene = Script::new("tcp-check").service(service).open();
    scene.wait("checks", |scene| scene.metric("holdfast_health_checks_total", "result=\"passed\"") >= 2);
    scene.arena("b").process().kill().unwrap();
    wait_unfit(&mut scene, "b", &json!("check"));
    assert_eq!(scene.metric("holdfast_unfit_backends", "cause=\"check\""), 1);
    let players = scene.players(10);
    assert_eq!(scene.sessions_on("a"), 10);
    scene.arena("b").start_again().unwrap();
    wait_unfit(&mut scene, "b", &Value::Null);
    clean(players);
}

#[test]
fn an_ejected_backend_keeps_its_players_and_takes_others_only_if_nobody_else_can() {
    let mut scene = Script::new("ejection-key").open();
    let mut players = scene.players(20);
    let kept = scene.sessions_on("b");
    assert!(kept > 0);
    scene.applied(|scene| scene.documents.put("ejections/arena/b", &json!({"reason": "slow disk"})).unwrap());
    wait_unfit(&mut scene, "b", &json!("order"));
    players.add(10, None).unwrap();
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (30 - kept, kept));
    scene.drain("a");
    scene.wait_settled("b", 30);
    clean(players);
}

#[test]
fn eject_and_uneject_reach_every_proxy_and_an_ejection_for_a_time_ends_by_itself() {
    play("eject", |stage| {
        let fleet = Fleet::start(stage, EtcdBinary::Default)?;
        let _arenas = [fleet.arena(stage, "a")?, fleet.arena(stage, "b")?];
        let proxies = [fleet.proxy(stage, "host-a")?, fleet.proxy(stage, "host-b")?];
        let holdfast = |arguments: &[&str]| -> anyhow::Result<String> {
            let mut command = std::process::Command::new(holdfast_stage::holdfast_binary()?);
            let output = command.args(arguments).env("HOLDFAST_ADMIN", proxies[0].admin()).output()?;
            anyhow::ensure!(output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let wait_ejected = |wanted: bool| {
            until(&format!("ejected everywhere: {wanted}"), SOON, || {
                proxies.iter().all(|proxy| {
                    let unfit = proxy.metric("holdfast_unfit_backends", "cause=\"order\"");
                    unfit.is_ok_and(|unfit| unfit == f64::from(u8::from(wanted)))
                })
            })
        };
        until("both backends known", SOON, || {
            proxies.iter().all(|proxy| {
                let view = proxy.admin_json("/backends").unwrap_or_default();
                view["backends"].as_array().is_some_and(|backends| backends.len() == 2)
            })
        })?;
        let said = holdfast(&["eject", "arena/b", "--reason", "slow disk"])?;
        anyhow::ensure!(said.contains("ejections/arena/b"), "{said}");
        wait_ejected(true)?;
        let players = Players::start(stage, &PlayersSpec::new([proxies[1].address()], 10))?;
        wait_for_sessions(&proxies[1], "arena/a", 10)?;
        holdfast(&["uneject", "arena/b"])?;
        wait_ejected(false)?;
        let said = holdfast(&["eject", "arena/b", "--for", "3s"])?;
        anyhow::ensure!(said.contains(" until 20"), "{said}");
        wait_ejected(true)?;
        wait_ejected(false)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_backend_that_hangs_fails_its_check_over_the_link_and_passes_when_it_goes_on() {
    // Its silence alone wouldn't be the end of the link for long.
    let service = json!({
        "health": {"check": {"kind": "link", "interval_ms": 100}},
        "limits": {"liveness_ms": 60_000},
    });
    let mut scene = Script::new("link-check").service(service).open();
    scene.wait("links for the checks", |scene| scene.metric("holdfast_links", "") == 2);
    scene.wait("checks", |scene| scene.metric("holdfast_health_checks_total", "result=\"passed\"") >= 4);
    let mut players = scene.players(10);
    let kept = scene.sessions_on("b");
    scene.arena("b").process().freeze().unwrap();
    let address = scene.arena("b").address().to_owned();
    assert!(TcpStream::connect(address).is_ok(), "it would pass tcp");
    wait_unfit(&mut scene, "b", &json!("check"));
    assert_eq!(scene.backend("b")["unfit"][0]["reason"], "no PONG on the link within 100 ms");
    players.add(10, None).unwrap();
    assert_eq!((scene.sessions_on("a"), scene.sessions_on("b")), (20 - kept, kept));
    scene.arena("b").process().thaw().unwrap();
    wait_unfit(&mut scene, "b", &Value::Null);
    players.add(10, None).unwrap();
    scene.wait("it takes players again", |scene| scene.sessions_on("b") > kept);
    clean(players);
}
