//! The invariants of a session, by number, where only real processes can show them.

use std::io::Write;
use std::net::TcpStream;

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::json;

use crate::support::client::Client;
use crate::support::forwarder::Forwarder;
use crate::support::impostor::{Heard, Impostor};
use crate::support::scene::{SOON, Script, clean, moved};

#[test]
fn invariant_1_no_handoff_good_or_failed_ever_closes_a_connection() {
    let mut scene = Script::new("invariant").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(30);
    // Failed: the only other backend refuses.
    scene.join(ArenaSpec::new("b").flags(["--refuse-attach"]));
    scene.drain("a");
    scene.wait("everybody has been refused", |scene| scene.handoffs("operator", "thawed") >= 30);
    // Good: one that takes them.
    players.begin("move").unwrap();
    scene.join(ArenaSpec::new("c"));
    scene.wait_settled("c", 30);
    // In place: nobody may take them until it is back.
    let process = scene.arena("c").process();
    process.terminate().unwrap();
    assert!(process.wait(SOON).unwrap().success());
    scene.arena("c").start_again().unwrap();
    scene.wait_settled("c", 30);
    players.wait_until("all play on", SOON, |progress| progress.moved == 30).unwrap();
    let verdict = clean(players);
    assert_eq!((moved(&verdict, "move"), verdict.disconnects), (30, 0));
    // The players have hung up; the proxy hears of it a moment later.
    scene.wait("everybody's own end", |scene| scene.closed("client_close") == 30);
    assert_eq!(scene.metric("holdfast_sessions_closed_total", ""), 30, "only their own ends");
}

#[test]
fn invariant_2_every_frame_arrives_once_and_in_order_over_moves_and_cuts_at_full_speed() {
    let mut scene = Script::new("invariant").open();
    let wires =
        ["a", "b"].map(|name| Forwarder::start(scene.arena(name).address().parse().unwrap()).unwrap());
    scene.applied(|scene| {
        for (wire, key) in wires.iter().zip(["backends/arena/a", "backends/arena/b"]) {
            let document = json!({"address": wire.address(), "version": "1.4"});
            scene.documents.put(key, &document).unwrap();
        }
    });
    let spec = PlayersSpec::new([scene.proxy.address()], 24).closed_loop();
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    players.begin("everything at once").unwrap();
    for turn in 0..4 {
        let (from, to) = if turn % 2 == 0 { ("a", "b") } else { ("b", "a") };
        scene.drain(from);
        wires[turn % 2].blink();
        scene.wait_settled(to, 24);
        wires[(turn + 1) % 2].blink();
        scene.undrain(from);
    }
    let before = players.progress().unwrap();
    players.wait_until("they play on", SOON, |now| now.replied > before.replied + 500).unwrap();
    let verdict = clean(players);
    assert_eq!(moved(&verdict, "everything at once"), 24);
    assert_eq!(scene.metric("holdfast_frames_lost_total", ""), 0);
}

#[test]
fn invariant_3_an_attachment_that_was_left_cannot_speak_for_the_session() {
    let mut scene = Script::new("invariant").listener("odd").open().with_odd_service(&json!({}));
    let old = Impostor::start(|peer| {
        if peer.hello() {
            peer.welcome();
            peer.haunting = &[b"ghost", b"ghost again"];
            peer.play(&|_, _| ());
        }
    });
    scene.cast("old", &old);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    let new = Impostor::turning(|_, _| ());
    scene.cast("new", &new);
    scene.documents.put("drains/odd/old", &json!({})).unwrap();
    old.wait("FREEZE", |heard| *heard == Heard::Freeze);
    new.wait("START", |heard| *heard == Heard::Start);
    old.wait("RELEASE", |heard| *heard == Heard::Release);
    scene.wait("the ghost was heard and dropped", |scene| {
        scene.metric("holdfast_stale_messages_total", "") >= 2
    });
    client.send(b"after\n");
    client.expect(b"after\n");
    assert_eq!((scene.sessions().len(), &scene.sessions()[0]["backend"]), (1, &json!("odd/new")));
}

#[test]
fn invariant_4_a_handoff_that_fails_in_any_way_leaves_the_session_where_it_was() {
    // Every state comes out damaged, so that whoever is offered one refuses it for good.
    let damaged = ArenaSpec::new("a").flags(["--corrupt-state"]);
    let mut scene = Script::new("invariant").arenas([damaged]).open();
    let mut players = scene.players(20);
    scene.join(ArenaSpec::new("b"));
    scene.join(ArenaSpec::new("c").flags(["--refuse-attach"]));
    players.begin("failing").unwrap();
    scene.drain("a");
    scene.wait("each has failed to move", |scene| scene.handoffs("operator", "thawed") >= 20);
    scene.undrain("a");
    scene.wait_settled("a", 20);
    assert_eq!(scene.handoffs("operator", "moved"), 0);
    assert_eq!(moved(&clean(players), "failing"), 0);
}

#[test]
fn invariant_5_a_client_that_never_reads_is_pushed_back_on_and_stops_nobody() {
    let mut scene = Script::new("invariant").listener("odd").open().with_odd_service(&json!({
        "limits": {"client_window_bytes": 16384, "server_window_bytes": 16384},
    }));
    let players = scene.players(20);
    let echo = Impostor::turning(|_, _| ());
    scene.cast("echo", &echo);
    let mut other = scene.odd_client();
    // It floods, and doesn't read a byte of the echo, until nothing more goes in.
    let mut greedy = TcpStream::connect(scene.proxy.listener("odd").unwrap()).unwrap();
    greedy.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let lines = b"all work and no play makes jack a dull boy\n".repeat(1500);
    let mut sent = 0;
    while let Ok(count) = greedy.write(&lines)
        && sent < 256 << 20
    {
        sent += count;
        other.send(b"still there?\n");
        other.expect(b"still there?\n");
    }
    assert!(sent < 256 << 20, "{sent} bytes went in without a reader");
    let kept = scene.metric("holdfast_kept_bytes", "");
    assert!(kept < 1 << 20, "{kept} bytes are kept for one client");
    other.send(b"and now?\n");
    other.expect(b"and now?\n");
    drop(greedy);
    scene.wait("its end is seen though it isn't read", |scene| scene.metric("holdfast_sessions", "") == 21);
    clean(players);
}

#[test]
fn invariant_6_every_session_ends_for_one_reason_that_is_counted() {
    let service = json!({"limits": {"max_sessions": 12}});
    let mut scene = Script::new("invariant").service(service).open();
    let players = scene.players(10);
    let mut bad = Client::connect(scene.proxy.address());
    bad.send(&[0xff; 16]);
    bad.until_closed();
    // No frame of the game: the arena closes it.
    let mut stranger = Client::connect(scene.proxy.address());
    stranger.send(&[0, 0, 0, 1, 9]);
    stranger.until_closed();
    scene.wait("only the players are left", |scene| scene.metric("holdfast_sessions", "") == 10);
    let _eleven = Client::connect(scene.proxy.address());
    let _twelve = Client::connect(scene.proxy.address());
    scene.wait("the house is full", |scene| scene.metric("holdfast_sessions", "") == 12);
    Client::connect(scene.proxy.address()).until_closed();
    clean(players);
    scene.wait("the players have left", |scene| scene.metric("holdfast_sessions", "") == 2);
    let counts = ["bad_frame", "backend_close", "limit", "client_close"].map(|reason| scene.closed(reason));
    assert_eq!(counts, [1, 1, 1, 10]);
    let opened = scene.metric("holdfast_sessions_opened_total", "");
    // Who was turned away was never a session.
    assert_eq!(opened, 2 + scene.metric("holdfast_sessions_closed_total", "") - 1);
}

#[test]
fn invariant_7_a_document_that_does_not_hold_changes_nothing() {
    let mut scene = Script::new("invariant").open();
    let mut players = scene.players(20);
    let before = scene.proxy.admin_json("/routes").unwrap();
    let bad = [
        ("services/arena", r#"{"protocol": "stream", "framing": {"kind": "length"}}"#, "protocol"),
        ("backends/arena/a", r#"{"address": "nowhere", "version": "1.4"}"#, "address"),
        ("routes/public", r#"{"listener": "game", "service": "arena", "versions": {"1.4": -1}}"#, "versions"),
        ("drains/arena/a", r#"{"deadline_s": "soon"}"#, "deadline_s"),
        (
            "services/arena",
            r#"{"protocol": "link", "framing": {"kind": "length"}, "protocol": "link"}"#,
            "protocol",
        ),
    ];
    players.begin("mistakes").unwrap();
    for (key, text, field) in bad {
        scene.documents.put_text(key, text).unwrap();
        scene.wait(&format!("{key} is refused for its {field}"), |scene| {
            let routes = scene.proxy.admin_json("/routes").unwrap();
            let refused = routes["refused"].as_array().unwrap();
            refused.iter().any(|it| {
                it["key"].as_str().unwrap().ends_with(key) && it["error"].as_str().unwrap().contains(field)
            })
        });
    }
    let after = scene.proxy.admin_json("/routes").unwrap();
    for part in ["routes", "services", "drains"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    players.add(10, None).unwrap();
    scene.wait("new players still come in", |scene| scene.metric("holdfast_sessions", "") == 30);
    assert_eq!(moved(&clean(players), "mistakes"), 0);
}
