//! After a crash: who goes on when, and where.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use holdfast_protocol::codec::capability::{CHECKPOINTS, REPLAY};
use holdfast_protocol::message::{AttachMode, Attached, Message, Record, RecordKind, Refused, Subject};
use holdfast_protocol::{Epoch, Seq, SessionId};
use serde_json::{Value, json};

use super::rig::{FakeBackend, FakeLink, Rig, frame, until};
use crate::routing::table::Recovery;
use crate::telemetry::counters::{HandoffCause, Kept};

fn replaying(limits: &Value) -> Rig {
    Rig::start_at(Recovery::Replay, &["arena"], limits, |_| {})
}

fn able(name: &str) -> FakeBackend {
    let mut backend = FakeBackend::new("arena", name);
    backend.capabilities = REPLAY | CHECKPOINTS;
    backend
}

/// A player whom the backend on that link has, and their session there.
fn played(rig: &Rig, link: &mut FakeLink) -> (TcpStream, SessionId, Epoch) {
    let player = rig.player("arena");
    let (session, epoch) = link.attach();
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    (player, session, epoch)
}

/// The process is killed: its link ends, and nobody listens.
fn kill(backend: FakeBackend, link: FakeLink) {
    drop(backend);
    drop(link);
}

fn attaches(message: &Message<'_>) -> Option<Attached> {
    let Message::Attach(attach) = message else { return None };
    let (client_seq, server_seq) = (attach.client_seq, attach.server_seq);
    Some(Attached { subject: attach.subject, epoch: attach.epoch, client_seq, server_seq })
}

#[test]
fn so_many_sessions_recover_at_once_and_the_next_when_one_has() {
    let rig = replaying(&json!({"recoveries_in_flight": 3}));
    let (a, b) = (able("a"), able("b"));
    rig.list(&a);
    let first = rig.player("arena");
    let mut link = a.link();
    link.attach();
    let players: Vec<_> = (0..9).map(|_| played(&rig, &mut link)).collect();
    rig.list(&b);
    kill(a, link);
    let mut link = b.link();
    let mut waiting: Vec<_> = (0..3).map(|_| link.asked_to_attach()).collect();
    assert_eq!(rig.counters.recovering.get(), 10);
    for left in (0..7).rev() {
        assert!(link.hear_out(attaches).is_empty(), "more than three are on their way");
        link.say(&Message::Attached(waiting.remove(0)));
        waiting.push(link.asked_to_attach());
        until("place", || rig.counters.recovering.get() == left + 3);
    }
    for attached in waiting {
        link.say(&Message::Attached(attached));
    }
    until("all in play", || rig.counters.recovering.get() == 0);
    let moved = rig.counters.handoffs[HandoffCause::Crash as usize][0].get();
    assert_eq!((moved, rig.counters.parked.get()), (10, 0));
    drop((first, players));
    rig.stop(Duration::ZERO);
}

#[test]
fn who_had_input_that_was_not_processed_recovers_last() {
    let rig = replaying(&json!({"recoveries_in_flight": 1}));
    let (a, b) = (able("a"), able("b"));
    rig.list(&a);
    let mut player = rig.player("arena");
    let mut link = a.link();
    let (suspect, _) = link.attach();
    let others: Vec<_> = (0..3).map(|_| played(&rig, &mut link)).collect();
    player.write_all(&frame(b"deadly")).unwrap();
    link.frame();
    rig.list(&b);
    kill(a, link);
    let mut link = b.link();
    let order: Vec<_> = (0..4).map(|_| link.attach().0).collect();
    assert_eq!(order[3], suspect);
    assert!(others.iter().all(|(_, session, _)| order[..3].contains(session)));
    let (seq, bytes) = link.frame();
    assert_eq!((seq, &bytes[..]), (Seq(1), &b"deadly"[..]));
    assert_eq!(rig.counters.recovering.get(), 1, "until it has processed that, too");
    let epoch = Epoch(2);
    link.send(suspect, epoch, 1, seq, b"done");
    until("place", || rig.counters.recovering.get() == 0);
    let mut word = [0; 8];
    player.read_exact(&mut word).unwrap();
    assert_eq!(word.to_vec(), frame(b"done"));
    rig.stop(Duration::ZERO);
}

#[test]
fn poison_ends_its_own_session_and_no_other() {
    let rig = replaying(&json!({"max_recoveries": 2}));
    let mut backend = able("a");
    rig.list(&backend);
    let mut player = rig.player("arena");
    let mut link = backend.link();
    link.attach();
    let (mut other, innocent, _) = played(&rig, &mut link);
    player.write_all(&frame(b"deadly")).unwrap();
    for _ in 0..2 {
        link.frame();
        kill(backend, link);
        // The same backend, started again elsewhere.
        backend = able("a");
        rig.list(&backend);
        link = backend.link();
        for _ in 0..2 {
            link.attach();
        }
    }
    link.frame();
    kill(backend, link);
    assert_eq!(player.read(&mut [0]).unwrap(), 0, "its third backend was the last");
    assert_eq!((rig.counters.poisoned.get(), rig.counters.sessions.get()), (1, 1));
    let backend = able("a");
    rig.list(&backend);
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    assert_eq!(session, innocent);
    link.send(session, epoch, 1, Seq::NONE, b"on");
    let mut word = [0; 6];
    other.read_exact(&mut word).unwrap();
    assert_eq!(word.to_vec(), frame(b"on"));
    rig.stop(Duration::ZERO);
}

#[test]
fn who_finds_no_backend_keeps_its_place_until_there_is_one() {
    let rig = replaying(&json!({"recoveries_in_flight": 1}));
    let a = able("a");
    rig.list(&a);
    let mut player = rig.player("arena");
    let mut link = a.link();
    let (suspect, _) = link.attach();
    let others: Vec<_> = (0..3).map(|_| played(&rig, &mut link)).collect();
    player.write_all(&frame(b"deadly")).unwrap();
    link.frame();
    kill(a, link);
    until("all without a backend", || (rig.counters.parked.get(), rig.counters.recovering.get()) == (4, 4));
    let back = able("a");
    rig.list(&back);
    let mut link = back.link();
    let first = link.asked_to_attach();
    assert!(link.hear_out(attaches).is_empty(), "one at a time");
    link.say(&Message::Attached(first));
    let order: Vec<_> = (0..3).map(|_| link.attach().0).collect();
    assert_eq!(order[2], suspect);
    drop(others);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_session_that_is_refused_gives_its_place_to_the_next() {
    let rig = replaying(&json!({"recoveries_in_flight": 1}));
    let (a, b) = (able("a"), able("b"));
    rig.list(&a);
    let _first = rig.player("arena");
    let mut link = a.link();
    link.attach();
    let _second = played(&rig, &mut link);
    rig.list(&b);
    kill(a, link);
    let mut link = b.link();
    let Attached { subject, epoch, .. } = link.asked_to_attach();
    link.say(&Message::Refused(Refused { subject, epoch, retry: false, reason: "full" }));
    let (next, _) = link.attach();
    assert_ne!(Subject::Session(next), subject);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_cannot_replay_is_not_asked_to() {
    let rig = replaying(&json!({}));
    let (a, b, c) = (able("a"), FakeBackend::new("arena", "b"), able("c"));
    rig.list(&a);
    let mut player = rig.player("arena");
    let mut link = a.link();
    let (session, epoch) = link.attach();
    player.write_all(&frame(b"move")).unwrap();
    let (seq, _) = link.frame();
    link.send(session, epoch, 1, seq, b"done");
    let mut word = [0; 8];
    player.read_exact(&mut word).unwrap();
    rig.list(&b);
    kill(a, link);
    // Its link comes up, and with it what it can't do.
    let mut unable = b.link();
    until("all without a backend", || rig.counters.parked.get() == 1);
    assert!(unable.hear_out(attaches).is_empty());
    rig.list(&c);
    let mut link = c.link();
    let mode = link.hear(|message| match message {
        Message::Attach(attach) => Some((attach.subject, attach.mode, attach.recovery)),
        _ => None,
    });
    assert_eq!(mode, (Subject::Session(session), AttachMode::Fresh, Recovery::Replay));
    assert!(unable.hear_out(attaches).is_empty());
    rig.stop(Duration::ZERO);
}

#[test]
fn a_session_on_a_backend_that_cannot_replay_counts_as_unprotected() {
    let rig = replaying(&json!({}));
    let a = FakeBackend::new("arena", "a");
    rig.list(&a);
    let player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    until("unprotected session", || rig.counters.unprotected.get() == 1);
    drop((player, link));
    rig.stop(Duration::ZERO);
}

#[test]
fn records_are_acked_within_the_delay_though_nothing_else_is_said() {
    let rig = replaying(&json!({}));
    let a = able("a");
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    let (session, epoch) = link.attach();
    let subject = Subject::Session(session);
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    link.say(&Message::Record(Record {
        subject,
        epoch,
        seq: Seq(1),
        after_client_seq: Seq::NONE,
        kind: RecordKind::Input,
        member: None,
        again: false,
        bytes: b"tick",
    }));
    let acked = link.hear(|message| match message {
        Message::Ack(ack) => Some((ack.subject, ack.record)),
        _ => None,
    });
    assert_eq!(acked, (subject, Seq(1)));
    assert_eq!(rig.counters.records.get(), 1);
    assert!(rig.counters.kept_by_kind[Kept::Journal as usize].get() > 0);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_record_out_of_sequence_is_the_fault_of_its_session_alone() {
    let rig = replaying(&json!({}));
    let a = able("a");
    rig.list(&a);
    let _first = rig.player("arena");
    let mut link = a.link();
    let (session, epoch) = link.attach();
    let (mut other, unharmed, its_epoch) = played(&rig, &mut link);
    link.say(&Message::Record(Record {
        subject: Subject::Session(session),
        epoch,
        seq: Seq(2),
        after_client_seq: Seq::NONE,
        kind: RecordKind::Input,
        member: None,
        again: false,
        bytes: b"tick",
    }));
    link.hear(|message| matches!(message, Message::Fault(_)).then_some(()));
    let faults = rig.counters.session_faults.cells();
    let broken: Vec<_> =
        faults.filter(|(_, cell)| cell.get() > 0).map(|(rule, cell)| (rule, cell.get())).collect();
    assert_eq!(broken, [("out_of_sequence", 1)]);
    link.send(unharmed, its_epoch, 1, Seq::NONE, b"on");
    let mut word = [0; 6];
    other.read_exact(&mut word).unwrap();
    assert_eq!(word.to_vec(), frame(b"on"));
    rig.stop(Duration::ZERO);
}
