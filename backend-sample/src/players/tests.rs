//! The bots against a small server that keeps the rules, or breaks one.

use std::future::{pending, ready};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::control::{Order, Output};
use super::mischief::{Kind, Mischief};
use super::report::Verdict;
use super::{Settings, run};
use crate::hero::Core;
use crate::wire::{Input, Tag, Tick, encode_reply, split, with_prefix};

mod matches;

/// What the server does wrong, once a session, at its tenth frame.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    DropReply,
    DoubleReply,
    Close,
    /// From the tenth frame on another instance answers.
    Move,
    NoMoreTicks,
}

const TICK_MS: u32 = 50;

fn serve(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || session(stream.unwrap(), wrong));
        }
    });
    address
}

fn session(mut stream: TcpStream, wrong: Wrong) {
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (mut core, mut ticks, mut next_tick) = (Core::default(), 0, Instant::now());
    let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(bytes) => input.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        let mut out = Vec::new();
        let used = split(&input, |frame| answer(frame, &mut core, wrong, &mut out)).unwrap();
        input.drain(..used);
        if wrong == Wrong::Close && core.count >= 10 {
            return;
        }
        if next_tick <= Instant::now() && !(wrong == Wrong::NoMoreTicks && core.count >= 10) {
            ticks += 1;
            next_tick += Duration::from_millis(u64::from(TICK_MS));
            let tick = Tick { number: ticks, count: core.count, chain: core.chain };
            with_prefix(&mut out, |out| tick.encode(out));
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn answer(frame: &[u8], core: &mut Core, wrong: Wrong, out: &mut Vec<u8>) {
    core.advance(frame);
    let seq = Input::decode(frame).unwrap().seq;
    let times = match wrong {
        Wrong::DropReply if seq == 10 => 0,
        Wrong::DoubleReply if seq == 10 => 2,
        _ => 1,
    };
    let instance = if wrong == Wrong::Move && seq >= 10 { 2 } else { 1 };
    let tag = Tag { instance, version: "1.4".into() };
    for _ in 0..times {
        with_prefix(out, |out| encode_reply(frame, seq, core, TICK_MS, &tag, out));
    }
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        targets: vec![address.into()],
        connect_deadline: Instant::now(),
        count: 10,
        rate_hz: 200.0,
        frame_bytes: 128,
        closed_loop: false,
        rejoin: false,
        sources: 2,
        play: Some(Duration::from_millis(600)),
        grace: Duration::from_secs(2),
        matches: None,
    }
}

/// Ten players, an event over the whole run, and two more who join; ends when every one has had 30 replies.
fn play(wrong: Wrong, closed_loop: bool) -> Verdict {
    let settings = Settings { closed_loop, ..settings(serve(wrong)) };
    let (sender, orders) = tokio::sync::mpsc::channel(4);
    sender.try_send(Ok(Order::Begin("all".into()))).unwrap();
    sender.try_send(Ok(Order::Add { count: 2, address: None })).unwrap();
    let output = Output { json: false, period: Duration::from_secs(60) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict =
        tokio::task::LocalSet::new().block_on(&runtime, run(settings, Some(orders), output, pending()));
    drop(sender);
    assert_eq!(verdict.sessions, 12);
    assert!(verdict.frames >= 120, "{verdict:?}");
    verdict
}

#[test]
fn an_honest_server_passes_at_a_rate_and_in_a_closed_loop() {
    for closed_loop in [false, true] {
        let verdict = play(Wrong::Nothing, closed_loop);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert!(verdict.received > verdict.frames, "replies and ticks: {verdict:?}");
        assert_eq!(verdict.by_backend.iter().map(|share| share.sessions).sum::<u64>(), 12);
    }
}

#[test]
fn each_dropped_reply_is_found() {
    let verdict = play(Wrong::DropReply, false);
    assert_eq!((verdict.lost, verdict.repeated, verdict.reordered), (12, 0, 0), "{verdict:?}");
}

#[test]
fn each_doubled_reply_is_found() {
    let verdict = play(Wrong::DoubleReply, false);
    assert_eq!((verdict.lost, verdict.repeated, verdict.reordered), (0, 12, 0), "{verdict:?}");
}

#[test]
fn each_disconnect_is_found() {
    let verdict = play(Wrong::Close, false);
    assert_eq!(verdict.disconnects, 12, "{verdict:?}");
    assert!(!verdict.is_clean());
}

#[test]
fn who_comes_back_after_a_disconnect_plays_on_as_a_new_player_and_has_felt_the_wait() {
    let mut settings = settings(serve(Wrong::Close));
    (settings.rejoin, settings.count) = (true, 4);
    let output = Output { json: false, period: Duration::from_secs(60) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict = tokio::task::LocalSet::new().block_on(&runtime, run(settings, None, output, pending()));
    // Each connection is closed at its tenth frame; several are used up in the time there is.
    assert_eq!((verdict.sessions, verdict.repeated, verdict.reordered), (4, 0, 0), "{verdict:?}");
    assert!(verdict.disconnects > 4 && verdict.received > 40, "{verdict:?}");
    assert_eq!(verdict.mismatched, 0, "a new player's hero is new: {verdict:?}");
}

#[test]
fn ticks_that_stop_are_found() {
    let verdict = play(Wrong::NoMoreTicks, false);
    assert_eq!((verdict.lost, verdict.repeated, verdict.reordered), (12, 0, 0), "{verdict:?}");
}

#[test]
fn a_session_answered_by_another_instance_has_moved() {
    let verdict = play(Wrong::Move, false);
    assert!(verdict.is_clean(), "{verdict:?}");
    let event = &verdict.events[0];
    assert_eq!((event.name.as_str(), event.moved), ("all", 12));
    assert!(event.took_ms > 0.0 && event.pause_max_ms > 0.0, "{event:?}");
    assert_eq!(verdict.by_backend.len(), 1);
}

/// They stop reading, flood, and leave, and no honest answer is missed for it.
#[test]
fn mischief_is_no_fault_of_an_honest_server() {
    let settings = settings(serve(Wrong::Nothing));
    let (sender, orders) = tokio::sync::mpsc::channel(4);
    let some = Duration::from_millis(200);
    for kind in [Kind::Slow(some), Kind::Flood(some), Kind::Leave] {
        sender.try_send(Ok(Order::Mischief(Mischief { kind, players: 3, seed: 1 }))).unwrap();
    }
    let output = Output { json: false, period: Duration::from_secs(60) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict =
        tokio::task::LocalSet::new().block_on(&runtime, run(settings, Some(orders), output, pending()));
    drop(sender);
    assert!(verdict.is_clean(), "{verdict:?}");
    // Ten at 200 Hz for 0.6 s send 1,200.
    assert!(verdict.frames > 2_000, "nobody has flooded: {verdict:?}");
    assert_eq!(verdict.by_backend.iter().map(|share| share.sessions).sum::<u64>(), 7);
}

/// With a whole hour left to play, and an hour to wait for a server.
#[test]
fn a_run_that_is_told_to_stop_ends_with_its_verdict() {
    let hour = Duration::from_secs(3600);
    let output = Output { json: false, period: hour };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict_of = |settings, stop: Pin<Box<dyn Future<Output = ()>>>| {
        tokio::task::LocalSet::new().block_on(&runtime, run(settings, None, output, stop))
    };

    let playing = Settings { play: Some(hour), ..settings(serve(Wrong::Nothing)) };
    let a_while = async { tokio::time::sleep(Duration::from_millis(500)).await };
    let verdict = verdict_of(playing, Box::pin(a_while));
    assert!(verdict.sessions == 10 && verdict.is_clean(), "{verdict:?}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let waiting = Settings { connect_deadline: Instant::now() + hour, ..settings(nobody) };
    assert_eq!(verdict_of(waiting, Box::pin(ready(()))).sessions, 0);
}
