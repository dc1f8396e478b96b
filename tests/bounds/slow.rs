//! Players who don't read, and backends that don't.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::json;

use super::{MIB, kept, play_on};
use crate::support::arena_client::ArenaClient;
use crate::support::impostor::Impostor;
use crate::support::scene::{SOON, Scene, Script, clean};

/// What one turn of the worker may add before the account is looked at, buffers' growth included.
const TURN: u64 = MIB;

/// Ends the floods with the scene, however it ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With a mebibyte for everything.
fn script() -> Script {
    Script::new("bounds").config("[limits]\nkept_bytes = 1048576\n")
}

#[test]
fn players_who_never_read_are_closed_when_memory_is_short_and_nobody_else_is() {
    // A frame of each is more than the bound, so that holding them back isn't enough.
    const GREEDY: u64 = 40;
    let mut scene = script().open();
    let mut players = scene.players(20);
    let (address, over) = (scene.proxy.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _end = End(&over);
        for _ in 0..GREEDY {
            let over = &over;
            scope.spawn(move || {
                ArenaClient::connect_narrow(address).flood(30_000, || over.load(Ordering::Relaxed));
            });
        }
        let mut most = 0;
        scene.wait("the slowest are closed", |scene| {
            most = most.max(kept(scene));
            scene.closed("slow_player") > 0
        });
        for _ in 0..10 {
            play_on(&mut players, 40);
            most = most.max(kept(&scene));
        }
        assert!(most <= MIB + TURN, "{most} bytes were held");
    });
    let closed = scene.closed("slow_player") + scene.closed("slow_backend");
    assert!(closed < GREEDY, "as few as will do");
    scene.wait_log("reason=\"slow_player\"");
    clean(players);
}

/// Arena `a` for those who wait for it, and an echo on listener `odd` for who doesn't.
fn with_a_bystander(script: Script) -> (Scene, Impostor) {
    let limits = json!({"limits": {"liveness_ms": 60_000}});
    let script = script.arenas([ArenaSpec::new("a")]).listener("odd").service(limits);
    let scene = script.open().with_odd_service(&json!({}));
    let echo = Impostor::turning(|_, _| ());
    scene.cast("echo", &echo);
    (scene, echo)
}

#[test]
fn a_backend_that_stops_for_a_moment_costs_nobody_anything() {
    // One frame of each in flight: more than three quarters of the bound, less than nine tenths.
    let (mut scene, _echo) = with_a_bystander(script());
    let spec = PlayersSpec::new([scene.proxy.address()], 40).closed_loop();
    let spec = PlayersSpec { frame_bytes: 20_500, ..spec };
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    let mut other = scene.odd_client();
    scene.arena("a").process().freeze().unwrap();
    scene.wait("memory is short enough to hold players back", |scene| {
        scene.metric("holdfast_unread_clients", "bound=\"worker\"") > 0
    });
    for _ in 0..100 {
        other.send(b"still there?\n");
        other.expect(b"still there?\n");
    }
    scene.arena("a").process().thaw().unwrap();
    play_on(&mut players, 400);
    assert_eq!(scene.closed("slow_backend") + scene.closed("slow_player"), 0);
    clean(players);
    scene.wait("nobody is held back", |scene| {
        scene.metric("holdfast_unread_clients", "bound=\"worker\"") == 0
    });
}

#[test]
fn when_a_backend_takes_nothing_for_long_as_few_of_its_players_are_closed_as_will_do() {
    const SENDERS: usize = 40;
    const FRAMES: u64 = 20;
    let (mut scene, _echo) = with_a_bystander(script());
    let mut other = scene.odd_client();
    let mut senders: Vec<_> = (0..SENDERS).map(|_| ArenaClient::connect(scene.proxy.address())).collect();
    for sender in &mut senders {
        sender.send(100);
        assert!(sender.read_replies(1));
    }
    scene.arena("a").process().freeze().unwrap();
    for sender in &mut senders {
        // The kernel has room for all that the proxy doesn't take.
        (0..FRAMES).for_each(|_| sender.send(5000));
    }
    let mut most = 0;
    scene.wait("the slowest are closed", |scene| {
        other.send(b"still there?\n");
        other.expect(b"still there?\n");
        most = most.max(kept(scene));
        scene.closed("slow_backend") > 0 || scene.log().contains("reason=\"slow_backend\"")
    });
    scene.arena("a").process().thaw().unwrap();
    let survivors = senders.iter_mut().map(|sender| sender.read_replies(1 + FRAMES)).filter(|whole| *whole);
    let survivors = survivors.count() as u64;
    scene.wait("each who was closed is counted", |scene| {
        // They are read here one after another: some may be slow themselves when all answers come at once.
        scene.closed("slow_backend") + scene.closed("slow_player") == SENDERS as u64 - survivors
    });
    assert!(survivors > SENDERS as u64 / 2, "{survivors} of {SENDERS} are left");
    assert!(most <= MIB + TURN, "{most} bytes were held");
}

#[test]
fn in_matches_too_only_as_few_are_closed_as_will_do_when_a_backend_takes_nothing_for_long() {
    // A frame of each is half as much again as the bound.
    const PLAYERS: usize = 24;
    let (mut scene, _echo) = with_a_bystander(script());
    let mut other = scene.odd_client();
    let spec = PlayersSpec { frame_bytes: 60_000, ..PlayersSpec::new([scene.proxy.address()], PLAYERS) };
    let mut players = Players::start(&scene.stage, &spec.matches(4)).unwrap();
    players.wait_until("all are in their matches", SOON, |now| now.in_match == PLAYERS as u64).unwrap();
    scene.arena("a").process().freeze().unwrap();
    let mut most = 0;
    scene.wait("memory is short enough to hold players back", |scene| {
        most = most.max(kept(scene));
        scene.metric("holdfast_unread_clients", "bound=\"worker\"") > 0
    });
    for _ in 0..1000 {
        other.send(b"still there?\n");
        other.expect(b"still there?\n");
        most = most.max(kept(&scene));
    }
    scene.arena("a").process().thaw().unwrap();
    let replied = players.progress().unwrap().replied;
    players.wait_until("the others play on", SOON, |now| now.replied > replied + 400).unwrap();
    let closed = scene.closed("slow_backend") + scene.closed("slow_player");
    assert!(closed < PLAYERS as u64, "nobody is left");
    assert!(most <= MIB + TURN, "{most} bytes were held");
}
