//! A whole worker over real sockets, against backends that do as the test says.

mod bounds;
mod frames;
mod groups;
mod mirror;
mod recovery;
mod rig;
mod torn;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{
    AttachMode, Attached, AttachmentEntry, AttachmentPhase, FaultScope, Message, Ping, Rule, Subject,
};
use holdfast_protocol::{Epoch, GroupId, InstanceId, Seq};
use serde_json::json;

use super::command::Command;
use super::with_worker;
use crate::routing::{DrainOrder, Route, Table};
use crate::telemetry::counters::CloseReason;
use rig::{FakeBackend, FakeLink, PATIENCE, Rig, frame, until};

#[test]
fn a_frame_goes_to_the_backend_and_its_answer_to_the_player() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let mut player = rig.player("arena");
    player.write_all(&frame(b"move")).unwrap();
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let (seq, bytes) = link.frame();
    assert_eq!(bytes, b"move");
    link.send(session, epoch, 1, seq, b"done");
    let mut answer = [0; 8];
    player.read_exact(&mut answer).unwrap();
    assert_eq!(answer.to_vec(), frame(b"done"));
    drop(player);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_names_no_deadline_is_drained_within_the_services() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    link.drain(0);
    let _other = b.link();
    link.hear(|message| matches!(message, Message::Freeze(_)).then_some(()));
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_talks_nonsense_three_times_counts_as_gone() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    let (session, epoch) = link.attach();
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    rig.list(&b);
    let entry = AttachmentEntry {
        subject: Subject::Session(session),
        epoch,
        phase: AttachmentPhase::Active,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
    };
    for fault in 0..3 {
        link.stream.write_all(b"this is no message").unwrap();
        link.closed();
        link = if fault < 2 { a.link_with(&[entry]) } else { break };
        link.hear(|message| matches!(message, Message::Attach(_)).then_some(()));
    }
    let (moved, later) = b.link().attach();
    assert!(moved == session && later > epoch);
    // It is told that its attachment isn't the current one any more.
    let mut link = a.link_with(&[entry]);
    link.hear(|message| matches!(message, Message::Release(release) if release.epoch == epoch).then_some(()));
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_drops_every_link_at_once_is_not_dialled_in_a_tight_loop() {
    let backend = FakeBackend::new("arena", "a");
    let local = (backend.id.clone(), backend.address());
    let rig = Rig::start(&["arena"], &json!({}), |config| config.local = Some(local));
    rig.list(&backend);
    let begun = Instant::now();
    for _ in 0..6 {
        drop(backend.link());
    }
    // Some 20, 40, 80 and 160 ms, after one that the call for the local backend cuts short.
    assert!(begun.elapsed() >= Duration::from_millis(100), "six links in {:?}", begun.elapsed());
    rig.stop(Duration::ZERO);
}

#[test]
fn the_local_backend_is_reached_the_way_the_config_says() {
    let (here, mut listed) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "a"));
    listed.instance = here.instance;
    let local = (here.id.clone(), here.address());
    let rig = Rig::start(&["arena"], &json!({}), |config| config.local = Some(local));
    rig.list(&listed);
    here.link();
    assert!(!listed.is_dialled());
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_comes_back_to_the_list_is_called_with_a_newer_generation() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let first = link.generation;
    link.close(session, epoch, 1);
    until("end of the session", || rig.counters.sessions.get() == 0);
    drop(player);
    rig.change(|table| table.backends.clear());
    drop(link);
    until("no link", || rig.links().is_empty());
    rig.list(&backend);
    let _player = rig.player("arena");
    assert!(backend.link().generation > first);
    rig.stop(Duration::ZERO);
}

#[test]
fn the_players_of_one_service_do_not_count_against_another() {
    let rig = Rig::start(&["arena", "lobby"], &json!({"max_sessions": 1}), |_| {});
    let _first = rig.player("arena");
    until("first session", || rig.counters.sessions.get() == 1);
    let mut second = rig.player("arena");
    assert_eq!(second.read(&mut [0]).unwrap(), 0, "one too many of its service");
    let _other = rig.player("lobby");
    until("other session", || rig.counters.sessions.get() == 2);
    assert_eq!(rig.counters.sessions_closed[CloseReason::Limit as usize].get(), 1);
    rig.stop(Duration::ZERO);
}

#[test]
fn at_the_bound_of_kept_bytes_clients_are_turned_away_until_there_is_room() {
    let rig = Rig::start(&["arena"], &json!({}), |config| config.kept_bytes = 1000);
    let backend = FakeBackend::new("arena", "a");
    let mut first = rig.player("arena");
    first.write_all(&frame(&[7; 2000])).unwrap();
    until("kept bytes", || rig.counters.kept_bytes.get() > 1000);
    assert_eq!(rig.player("arena").read(&mut [0]).unwrap(), 0, "no room");
    assert_eq!(rig.counters.sessions_closed[CloseReason::Limit as usize].get(), 1);
    first.write_all(&frame(b"waits in the socket")).unwrap();
    rig.list(&backend);
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let (seq, _) = link.frame();
    link.send(session, epoch, 1, seq, b"done");
    assert_eq!(link.frame().1, b"waits in the socket");
    link.send(session, epoch, 2, seq.next(), b"done");
    until("room", || rig.counters.kept_bytes.get() == 0);
    let _second = rig.player("arena");
    until("second session", || rig.counters.sessions.get() == 2);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_does_not_read_holds_up_its_players_and_loses_nothing() {
    const FRAMES: u64 = 4096;
    let limits = json!({"client_window_bytes": 64 << 20, "liveness_ms": 60_000});
    let rig = Rig::start(&["arena"], &limits, |config| config.link_outbox_bytes = 256 << 10);
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let writer = std::thread::spawn(move || {
        let mut player = player;
        for number in 0..FRAMES {
            let mut bytes = vec![0; 8 << 10];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            player.write_all(&frame(&bytes)).unwrap();
        }
        player
    });
    let kept = || rig.counters.kept_bytes.get();
    let mut before = 0;
    until("standstill", || {
        std::thread::sleep(Duration::from_millis(100));
        let still = kept() == before && before > 0;
        before = kept();
        still
    });
    // The bound, one read, and what the two sockets of the link hold.
    assert!(kept() < 16 << 20, "{} bytes are kept", kept());
    assert!(!writer.is_finished(), "the player waits");
    for number in 0..FRAMES {
        let (seq, bytes) = link.frame();
        assert_eq!((seq.0, &bytes[..8]), (number + 1, &number.to_le_bytes()[..]));
    }
    link.send(session, epoch, 1, Seq(FRAMES), b"done");
    until("ack", || kept() == 0);
    drop(writer.join().unwrap());
    rig.stop(Duration::ZERO);
}

#[test]
fn a_route_that_goes_elsewhere_by_now_does_not_keep_sessions_from_moving() {
    let rig = Rig::start(&["arena", "lobby"], &json!({}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    rig.change(|table: &mut Table| {
        let route = Route {
            service: "lobby".into(),
            versions: [("lobby-7".into(), 100)].into(),
            ..Route::clone(&table.routes["arena"])
        };
        table.routes.insert("arena".to_owned(), Arc::new(route));
    });
    link.drain(60_000);
    let _other = b.link();
    link.hear(|message| matches!(message, Message::Freeze(_)).then_some(()));
    rig.stop(Duration::ZERO);
}

#[test]
fn nobody_is_frozen_for_a_backend_that_cannot_be_reached() {
    let rig = Rig::start(&["arena"], &json!({"liveness_ms": 300}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let mut player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    rig.change(|table| {
        let order =
            DrainOrder { backend: a.id.clone(), deadline: None, reason: String::new(), instance: None };
        table.drains.insert(a.id.clone(), Arc::new(order));
    });
    let _silent = b.dialled();
    until("failed dial", || rig.links().iter().any(|view| view.backend == "arena/b" && view.link == "down"));
    player.write_all(&frame(b"move")).unwrap();
    link.hear(|message| match message {
        Message::Freeze(_) => panic!("frozen"),
        Message::Ping(_) => None,
        Message::Data(data) => {
            assert_eq!(data.frame, b"move");
            Some(())
        }
        _ => None,
    });
    rig.stop(Duration::ZERO);
}

fn drain_key(table: &mut Table, backend: &FakeBackend) {
    let order =
        DrainOrder { backend: backend.id.clone(), deadline: None, reason: String::new(), instance: None };
    table.drains.insert(backend.id.clone(), Arc::new(order));
}

/// Whether this link hears FREEZE before the answer to a frame that the player says now.
fn is_frozen(link: &mut FakeLink, player: &mut std::net::TcpStream) -> bool {
    player.write_all(&frame(b"move")).unwrap();
    link.hear(|message| match message {
        Message::Freeze(_) => Some(true),
        Message::Data(_) => Some(false),
        _ => None,
    })
}

#[test]
fn backends_drained_by_one_change_are_no_targets_for_each_other() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let mut player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    let _other = rig.player("arena");
    let mut to_b = b.link();
    to_b.attach();
    rig.change(|table| {
        drain_key(table, &a);
        drain_key(table, &b);
    });
    until("both drains are stuck", || {
        let stuck = rig.links().into_iter().filter_map(|link| link.drain);
        stuck.filter(|drain| drain.state == crate::drain::progress::State::Stuck).count() == 2
    });
    assert!(!is_frozen(&mut link, &mut player), "frozen for a backend that drains itself");
    rig.stop(Duration::ZERO);
}

#[test]
fn a_draining_backend_is_asked_again_and_again_how_many_attachments_it_has() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let a = FakeBackend::new("arena", "a");
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.change(|table| drain_key(table, &a));
    for attachments in [3, 1] {
        let nonce = link.hear(|message| match message {
            Message::Ping(ping) => Some(ping.nonce),
            _ => None,
        });
        link.say(&Message::Pong(holdfast_protocol::message::Pong {
            nonce,
            attachments,
            capacity: None,
            load_permille: None,
        }));
        until("its count", || rig.links()[0].attachments == Some(u64::from(attachments)));
    }
    drop(link);
    until("no count without a link", || rig.links()[0].attachments.is_none());
    rig.stop(Duration::ZERO);
}

#[test]
fn whose_state_would_go_nowhere_is_not_frozen_for_a_rebalancing() {
    let rig = Rig::start(&["arena"], &json!({"liveness_ms": 300}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    // Placement is by chance: of so many, some would be at b.
    let mut players: Vec<_> = (0..16).map(|_| rig.player("arena")).collect();
    let mut link = a.link();
    for _ in &players {
        link.attach();
    }
    rig.change(|table| {
        let mut service = crate::routing::Service::clone(&table.services["arena"]);
        service.rebalance = Some(crate::routing::table::RebalancePolicy { per_second: 100 });
        table.services.insert("arena".to_owned(), Arc::new(service));
    });
    rig.list(&b);
    let _silent = b.dialled();
    until("failed dial", || {
        // Meanwhile a shows that it lives.
        link.say(&Message::Ping(Ping { nonce: 1 }));
        rig.links().iter().any(|view| view.backend == "arena/b" && view.link == "down")
    });
    assert!(!players.iter_mut().any(|player| is_frozen(&mut link, player)));
    rig.stop(Duration::ZERO);
}

/// A rig with one session that is parked, its state in the proxy; and the backend that it had.
fn parked() -> (Rig, FakeBackend, std::net::TcpStream) {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let player = rig.player("arena");
    let mut link = backend.link();
    link.attach();
    link.drain(60_000);
    link.freeze(b"state");
    until("parked session", || rig.counters.parked.get() == 1);
    (rig, backend, player)
}

#[test]
fn a_parked_session_is_attached_once_more_at_shutdown_so_that_its_game_can_save() {
    let (rig, mut backend, mut player) = parked();
    backend.instance = InstanceId([2; 16]);
    rig.tell(Command::Shutdown { deadline: Duration::ZERO });
    assert_eq!(player.read(&mut [0]).unwrap(), 0, "the player is told at once");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let seq = link.hear(|message| match message {
        Message::Close(close) => Some(close.seq),
        _ => None,
    });
    link.ack(session, epoch, seq);
    let counters = Arc::clone(&rig.counters);
    rig.end();
    assert_eq!(counters.states_dropped.get(), 0);
}

#[test]
fn state_that_nobody_takes_at_shutdown_is_counted() {
    let (rig, backend, _player) = parked();
    drop(backend);
    let counters = Arc::clone(&rig.counters);
    rig.stop(Duration::ZERO);
    assert_eq!(counters.states_dropped.get(), 1);
}

#[test]
fn a_frozen_attachment_whose_link_is_cut_is_asked_for_while_the_next_backend_is_still_being_called() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    link.drain(60_000);
    let other = b.link();
    let entry = link.asked_to_freeze();
    drop(other);
    until("cut", || rig.links().iter().any(|view| view.backend == "arena/b" && view.link == "idle"));
    link.give_state(&entry, b"state");
    let _silent = b.dialled();
    drop(link);
    let mut link = a.link_with(&[entry]);
    link.hear(|message| match message {
        Message::Attach(attach) => {
            assert_eq!((attach.mode, attach.epoch), (AttachMode::Resume, entry.epoch));
            Some(())
        }
        _ => None,
    });
    rig.stop(Duration::ZERO);
}

#[test]
fn who_pings_without_reading_fills_no_memory() {
    let rig =
        Rig::start(&["arena"], &json!({"liveness_ms": 500}), |config| config.link_outbox_bytes = 1 << 16);
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let _player = rig.player("arena");
    let mut link = backend.link();
    link.attach();
    let mut pings = Vec::new();
    for nonce in 0..10_000 {
        holdfast_protocol::encode(&Message::Ping(Ping { nonce }), &mut pings);
    }
    // It answers until nobody takes its answers, and gives the link up then.
    let begun = Instant::now();
    while link.stream.write_all(&pings).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the link is still up");
    }
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_is_offered_all_that_the_proxy_can_do() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let _player = rig.player("arena");
    let mut link = FakeLink::over(backend.dialled());
    let offered = link.hear(|message| match message {
        Message::Hello(hello) => Some(hello.capabilities),
        _ => None,
    });
    let all = capability::REPLAY | capability::DELTA | capability::CHECKPOINTS | capability::GROUPS;
    assert_eq!(offered, all);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_was_frozen_is_told_to_forget_whom_it_had() {
    let rig = Rig::start(&["arena"], &json!({"liveness_ms": 1000}), |_| {});
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let mut players: Vec<_> = (0..3).map(|_| rig.player("arena")).collect();
    let mut frozen = a.link();
    let had: Vec<_> = (0..3).map(|_| frozen.attach()).collect();
    rig.list(&b);
    // It says nothing more; the others take its sessions over.
    let mut link = b.link();
    let taken: Vec<_> = (0..3).map(|_| link.attach()).collect();
    // It thaws: what it sends on the old link reaches nobody, and on the new one it hears why.
    let entries = had.iter().map(|(session, epoch)| AttachmentEntry {
        subject: Subject::Session(*session),
        epoch: *epoch,
        phase: AttachmentPhase::Active,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
    });
    frozen.closed();
    let mut thawed = a.link_with(&entries.collect::<Vec<_>>());
    let mut released: Vec<_> = (0..3)
        .map(|_| {
            thawed.hear(|message| match message {
                Message::Release(release) => Some((release.subject, release.epoch)),
                _ => None,
            })
        })
        .collect();
    let mut expected: Vec<_> =
        had.iter().map(|(session, epoch)| (Subject::Session(*session), *epoch)).collect();
    released.sort_by_key(|(_, epoch)| *epoch);
    expected.sort_by_key(|(_, epoch)| *epoch);
    assert!(expected.iter().all(|entry| released.contains(entry)), "{released:?}");
    for (session, epoch) in taken {
        assert!(had.iter().any(|(known, before)| *known == session && *before < epoch));
        link.send(session, epoch, 1, Seq::NONE, b"on");
    }
    for player in &mut players {
        let mut word = [0; 6];
        player.read_exact(&mut word).unwrap();
        assert_eq!(word.to_vec(), frame(b"on"));
    }
    rig.stop(Duration::ZERO);
}

/// Its sessions had nowhere to go, and come back to it: what it has of them is of the past all the same.
#[test]
fn a_session_that_comes_back_to_a_thawed_backend_begins_a_new_attachment_there() {
    let rig = Rig::start(&["arena"], &json!({"liveness_ms": 1000}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let _player = rig.player("arena");
    let mut frozen = backend.link();
    let (session, epoch) = frozen.attach();
    until("parked session", || rig.counters.parked.get() == 1);
    let entry = AttachmentEntry {
        subject: Subject::Session(session),
        epoch,
        phase: AttachmentPhase::Active,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
    };
    let mut thawed = backend.link_with(&[entry]);
    let mut released = false;
    let later = thawed.hear(|message| match message {
        Message::Release(release) => {
            released |= release.epoch == epoch;
            None
        }
        Message::Attach(attach) => Some(attach.epoch),
        _ => None,
    });
    assert!(released && later > epoch);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_group_that_a_backend_does_not_have_is_a_fault_that_nobody_else_feels() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let mut player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let group = Subject::Group(GroupId([5; 16]));
    link.say(&Message::Attached(Attached {
        subject: group,
        epoch: Epoch(3),
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
    }));
    let told = link.hear(|message| match message {
        Message::Fault(fault) => Some((fault.scope, fault.rule)),
        _ => None,
    });
    assert_eq!(told, (FaultScope::Attachment(group, Epoch(3)), Rule::Group));
    link.send(session, epoch, 1, Seq::NONE, b"on");
    let mut word = [0; 6];
    player.read_exact(&mut word).unwrap();
    let broken =
        |rule: &str| rig.counters.session_faults.cells().find(|(name, _)| *name == rule).unwrap().1.get();
    assert_eq!((broken("group"), broken("unexpected")), (1, 0));
    rig.stop(Duration::ZERO);
}

#[test]
fn a_panic_in_a_task_is_not_kept_quiet() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // There is no worker on this thread.
        let task = tokio::spawn(async { with_worker(|_| ()) });
        assert!(task.await.is_err());
        assert!(super::BROKEN.with(|broken| broken.is_cancelled()));
    });
}
