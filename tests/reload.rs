//! What the operator writes comes into force while players play, or says why it doesn't.

use std::io::Read;
use std::net::TcpStream;

use holdfast_stage::{ArenaSpec, Signal};
use serde_json::json;

use crate::support::scene::{SOON, Scene, Script, clean, moved, route};

/// Connects, and waits until the proxy ends the connection.
fn is_turned_away(scene: &Scene) -> bool {
    let mut stream = TcpStream::connect(scene.proxy.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn hang_up(scene: &mut Scene) {
    scene.proxy.process().signal(Signal::HUP).unwrap();
}

#[test]
fn documents_change_under_live_traffic_and_no_player_notices() {
    let arenas = [ArenaSpec::new("a"), ArenaSpec::new("b").version("1.5")];
    let mut scene = Script::new("reload").arenas(arenas).open();
    let mut players = scene.players(60);
    players.begin("changes").unwrap();
    for turn in 1..=20 {
        scene.applied(|scene| {
            let versions = json!({"versions": {"1.4": turn, "1.5": 20 - turn}});
            scene.documents.put("routes/public", &route(&versions)).unwrap();
            let mut backend = scene.arenas[0].document();
            backend["weight"] = json!(turn);
            scene.documents.put("backends/arena/a", &backend).unwrap();
        });
    }
    let routes = scene.proxy.admin_json("/routes").unwrap();
    scene.wait("the last change is in force", |scene| {
        let routes = scene.proxy.admin_json("/routes").unwrap();
        routes["routes"][0]["versions"] == json!({"1.4": 20, "1.5": 0}) && scene.backend("a")["weight"] == 20
    });
    assert_eq!(routes["refused"], json!([]));
    // The new shares hold for new players, and for nobody else.
    let at_b = scene.sessions_on("b");
    players.add(20, None).unwrap();
    scene.wait_settled("a", 80 - at_b);
    assert_eq!(moved(&clean(players), "changes"), 0);
}

#[test]
fn a_bad_document_changes_nothing_and_says_why() {
    let mut scene = Script::new("reload").open();
    let mut players = scene.players(20);
    players.begin("typo").unwrap();
    scene.documents.put_text("routes/public", r#"{"listener": "game", "servise": "arena"}"#).unwrap();
    scene.documents.put_text("backends/arena/b", r#"{"address": "127.0.0.1:1", "#).unwrap();
    scene.wait("both are refused", |scene| scene.metric("holdfast_refused_documents", "") == 2);
    let routes = scene.proxy.admin_json("/routes").unwrap();
    let refused = routes["refused"].as_array().unwrap();
    let of = |key: &str| refused.iter().find(|it| it["key"].as_str().unwrap().ends_with(key)).unwrap();
    assert!(of("routes/public")["error"].as_str().unwrap().contains("servise"), "{refused:?}");
    assert_eq!(of("routes/public")["last_good"], true);
    assert!(of("backends/arena/b")["error"].is_string(), "{refused:?}");
    scene.wait_log("servise");
    // What was in force still is, for new players too.
    players.add(20, None).unwrap();
    scene.wait("new players come to both", |scene| {
        scene.sessions_on("a") == 20 && scene.sessions_on("b") == 20
    });
    assert_eq!(moved(&clean(players), "typo"), 0);
}

#[test]
fn the_good_documents_of_a_change_apply_beside_a_bad_one_and_a_mended_one_follows() {
    let mut scene = Script::new("reload").open();
    let mut players = scene.players(20);
    scene.applied(|scene| {
        scene.documents.put_text("services/arena", r#"{"protocol": "link"}"#).unwrap();
        let mut b = scene.arenas[1].document();
        b["weight"] = json!(0);
        scene.documents.put("backends/arena/b", &b).unwrap();
    });
    scene.wait("one is refused, the other in force", |scene| {
        scene.metric("holdfast_refused_documents", "") == 1 && scene.backend("b")["weight"] == 0
    });
    let before = scene.sessions_on("a");
    players.add(10, None).unwrap();
    scene.wait_settled("a", before + 10);
    let service = holdfast_stage::arena_service(&json!({"limits": {"max_sessions": 30}}));
    scene.applied(|scene| scene.documents.put("services/arena", &service).unwrap());
    assert_eq!(scene.metric("holdfast_refused_documents", ""), 0);
    assert!(is_turned_away(&scene), "the mended document isn't in force: one more than 30 got in");
    scene.wait("it is counted", |scene| scene.closed("limit") == 1);
    clean(players);
}

#[test]
fn a_deleted_route_turns_new_players_away_and_lets_live_ones_go_on() {
    let mut scene = Script::new("reload").open();
    let players = scene.players(20);
    scene.applied(|scene| scene.documents.delete("routes/public").unwrap());
    scene.accept("arena");
    assert!(is_turned_away(&scene));
    scene.wait("it is counted", |scene| scene.closed("no_route") == 1);
    assert_eq!(scene.metric("holdfast_sessions", ""), 20);
    // They are still looked after: a drain moves them.
    scene.drain("a");
    scene.wait_settled("b", 20);
    clean(players);
}

#[test]
fn a_backend_whose_key_vanished_keeps_its_live_sessions_and_gets_no_new_ones() {
    let mut scene = Script::new("reload").open();
    let mut players = scene.players(20);
    let there = scene.sessions_on("a");
    players.begin("vanished").unwrap();
    scene.applied(|scene| scene.documents.delete("backends/arena/a").unwrap());
    assert_eq!(scene.backend("a")["in_table"], false);
    players.add(20, None).unwrap();
    scene.wait_settled("b", 40 - there);
    assert_eq!(scene.sessions_on("a"), there);
    assert_eq!(moved(&clean(players), "vanished"), 0);
}

#[test]
fn an_emptied_folder_of_documents_ends_no_session() {
    let mut scene = Script::new("reload").open();
    let mut players = scene.players(20);
    players.begin("emptied").unwrap();
    for key in ["routes/public", "backends/arena/a", "backends/arena/b", "services/arena"] {
        scene.documents.delete(key).unwrap();
    }
    // The service's was the last to go.
    scene.wait("it is held", |scene| {
        scene.proxy.admin_json("/held").unwrap()["held"].to_string().contains("services/arena\"")
    });
    players.add(5, None).unwrap();
    scene.wait("whoever comes plays, too", |scene| scene.metric("holdfast_sessions", "") == 25);
    scene.accept("arena");
    scene.wait("nothing is listed", |scene| {
        ["a", "b"].iter().all(|arena| scene.backend(arena)["in_table"] == false)
    });
    let before = players.progress().unwrap().replied;
    players.wait_until("they play on", SOON, |progress| progress.replied > before + 200).unwrap();
    assert_eq!(scene.metric("holdfast_sessions", ""), 25);
    assert_eq!(moved(&clean(players), "emptied"), 0);
}

#[test]
fn sighup_with_a_bad_config_keeps_the_old_one_and_says_why() {
    let mut scene = Script::new("reload").open();
    let players = scene.players(20);
    let good = std::fs::read_to_string(scene.proxy.config_path()).unwrap();
    std::fs::write(scene.proxy.config_path(), good.replace("workers = 1", "workers = \"many\"")).unwrap();
    hang_up(&mut scene);
    scene.wait_log("config not reloaded, the last one stays in force");
    assert!(scene.log().contains("proxy.workers"), "the key isn't named");
    std::fs::write(scene.proxy.config_path(), good.replace("workers = 1", "workers = 2")).unwrap();
    hang_up(&mut scene);
    scene.wait_log("needs a restart");
    assert_eq!(scene.proxy.admin_json("/status").unwrap()["workers"], 1);
    scene.drain("a");
    scene.wait_settled("b", 20);
    clean(players);
}
