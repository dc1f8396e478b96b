//! Groups over real sockets, with backends that do as the test says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Departure, parts};
use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{
    Ack, AttachMode, Data, Fault, FaultScope, Join, Message, Refused, Rule, Subject,
};
use holdfast_protocol::{Epoch, GroupId, InstanceId, Seq, SessionId, TraceContext};
use serde_json::{Value, json};

use super::rig::{FakeBackend, FakeLink, Rig, frame, until};
use crate::routing::table::Recovery;
use crate::worker::WorkerConfig;

const GROUP: GroupId = GroupId([7; 16]);

/// A group on a backend, as its backend knows it.
struct Table {
    rig: Rig,
    backend: FakeBackend,
    link: FakeLink,
    players: Vec<TcpStream>,
    members: Vec<SessionId>,
    epoch: Epoch,
    /// Last server seq.
    sent: u64,
    /// Last client seq that came.
    came: Seq,
}

fn start(recovery: Recovery, limits: &Value, adjust: impl FnOnce(&mut WorkerConfig)) -> (Rig, FakeBackend) {
    let rig = Rig::start_at(recovery, &["arena"], limits, adjust);
    let mut backend = FakeBackend::new("arena", "a");
    backend.capabilities =
        capability::GROUPS | capability::CHECKPOINTS | capability::REPLAY | capability::DELTA;
    rig.list(&backend);
    (rig, backend)
}

fn join(link: &mut FakeLink, session: SessionId, epoch: Epoch) {
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    link.say(&Message::Join(Join { session, epoch, group: GROUP }));
}

impl Table {
    /// So many players, all in the group.
    fn set(recovery: Recovery, limits: &Value, players: usize) -> Self {
        Self::set_in(start(recovery, limits, |_| {}), players)
    }

    fn set_in((rig, backend): (Rig, FakeBackend), players: usize) -> Self {
        let mut player = rig.player("arena");
        let mut link = backend.link();
        let (first, epoch) = link.attach();
        join(&mut link, first, epoch);
        link.freeze(b"state of the first");
        let attached = link.asked_to_attach();
        assert_eq!(attached.subject, Subject::Group(GROUP));
        let epoch = attached.epoch;
        link.say(&Message::Attached(attached));
        let mut table = Self {
            rig,
            backend,
            link,
            players: Vec::new(),
            members: vec![first],
            epoch,
            sent: 0,
            came: Seq::NONE,
        };
        table.comes(AddressedKind::Passage, first);
        player.write_all(&frame(b"first")).unwrap();
        table.players.push(player);
        table.comes(AddressedKind::Frame, first);
        for _ in 1..players {
            table.sit_down(b"state of another");
        }
        table
    }

    fn sit_down(&mut self, state: &[u8]) -> SessionId {
        self.players.push(self.rig.player("arena"));
        let (session, epoch) = self.link.attach();
        join(&mut self.link, session, epoch);
        self.link.freeze(state);
        self.comes(AddressedKind::Passage, session);
        self.members.push(session);
        session
    }

    /// Reads on until that comes for the group.
    fn comes(&mut self, kind: AddressedKind, member: SessionId) -> Vec<u8> {
        let (seq, payload) = self.link.hear(|message| match message {
            Message::Data(data) if data.subject == Subject::Group(GROUP) => {
                let one = Addressed::parse(data.frame).unwrap();
                (one.kind == kind && one.member == member).then(|| (data.seq, one.payload.to_vec()))
            }
            _ => None,
        });
        self.came = seq;
        payload
    }

    fn send(&mut self, kind: AddressedKind, member: SessionId, payload: &[u8]) {
        self.sent += 1;
        let framed = [&Addressed::head(kind, member), payload].concat();
        self.link.say(&Message::Data(Data {
            subject: Subject::Group(GROUP),
            epoch: self.epoch,
            seq: Seq(self.sent),
            ack: Seq::NONE,
            record: Seq::NONE,
            again: false,
            trace: TraceContext::default(),
            frame: &framed,
        }));
    }

    fn ack(&mut self, data: Seq) {
        let (subject, epoch) = (Subject::Group(GROUP), self.epoch);
        self.link.say(&Message::Ack(Ack { subject, epoch, data, record: Seq::NONE }));
    }

    /// Waits until the proxy has acked all that was sent.
    fn acked(&mut self) {
        let sent = Seq(self.sent);
        self.link.hear(|message| match message {
            Message::Ack(ack) if ack.subject == Subject::Group(GROUP) => (ack.data == sent).then_some(()),
            Message::Data(data) if data.subject == Subject::Group(GROUP) => (data.ack == sent).then_some(()),
            _ => None,
        });
    }
}

#[test]
fn what_is_for_nobody_in_particular_is_acked_too() {
    let mut table = Table::set(Recovery::None, &json!({}), 2);
    let (first, second) = (table.members[0], table.members[1]);
    let state = vec![5; 20_000];
    let departure = Departure { client_seq: table.came, state: &state }.to_bytes();
    for (kind, part) in parts(&departure) {
        table.send(kind, first, part);
        // Its sender has a window, and waits.
        table.acked();
    }
    table.send(AddressedKind::Frame, first, b"too late");
    table.acked();
    table.send(AddressedKind::Frame, second, b"on");
    let mut word = [0; 6];
    table.players[1].read_exact(&mut word).unwrap();
    assert_eq!(word.to_vec(), frame(b"on"));
    table.rig.stop(Duration::ZERO);
}

#[test]
fn a_member_whose_end_only_a_state_covers_is_gone_all_the_same() {
    let mut table = Table::set(Recovery::Replay, &json!({}), 2);
    let first = table.members[0];
    // No frame is that long.
    table.players[0].write_all(&[0xff; 4]).unwrap();
    table.comes(AddressedKind::Close, first);
    let mut other = FakeBackend::new("arena", "b");
    other.capabilities = table.backend.capabilities;
    table.rig.list(&other);
    table.link.drain(60_000);
    let mut to_other = other.link();
    // No ack comes before it.
    let entry = table.link.asked_to_freeze();
    assert_eq!(entry.subject, Subject::Group(GROUP));
    table.link.give_state(&entry, b"state of the group");
    let attached = to_other.asked_to_attach();
    to_other.say(&Message::Attached(attached));
    until("end of who is gone", || table.rig.counters.group_members.get() == 1);
    assert_eq!(table.rig.counters.sessions.get(), 1);
    table.rig.stop(Duration::ZERO);
}

#[test]
fn as_many_groups_as_are_allowed_can_be_formed() {
    let (rig, backend) = start(Recovery::None, &json!({}), |config| config.max_groups = 1);
    let _player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    join(&mut link, session, epoch);
    link.freeze(b"state");
    assert_eq!(link.asked_to_attach().subject, Subject::Group(GROUP));
    let _second = rig.player("arena");
    rig.stop(Duration::ZERO);
}

/// The next ATTACH, unanswered: of whom, under which epoch, how, and whether something is lost.
fn asked(link: &mut FakeLink) -> (Subject, Epoch, AttachMode, bool) {
    link.hear(|message| match message {
        Message::Attach(attach) => Some((attach.subject, attach.epoch, attach.mode, attach.lost)),
        _ => None,
    })
}

#[test]
fn half_an_arrival_is_no_state() {
    let mut table = Table::set(Recovery::None, &json!({}), 1);
    table.players.push(table.rig.player("arena"));
    let (second, epoch) = table.link.attach();
    join(&mut table.link, second, epoch);
    // More than fits the window: the rest is never sent.
    table.link.freeze(&vec![0; 600 << 10]);
    table.comes(AddressedKind::Part, second);
    table.backend.instance = InstanceId([2; 16]);
    drop(table.link);
    let mut link = table.backend.link();
    for _ in 0..2 {
        let (_, _, mode, lost) = asked(&mut link);
        assert_eq!((mode, lost), (AttachMode::Fresh, true));
    }
    table.rig.stop(Duration::ZERO);
}

#[test]
fn who_was_suspect_and_comes_into_a_group_recovers_no_more() {
    let (rig, mut backend) = start(Recovery::Replay, &json!({}), |_| {});
    let mut player = rig.player("arena");
    player.write_all(&frame(b"move")).unwrap();
    let mut link = backend.link();
    link.attach();
    link.frame();
    backend.instance = InstanceId([2; 16]);
    drop(link);
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    assert_eq!(rig.counters.recovering.get(), 1);
    join(&mut link, session, epoch);
    link.freeze(b"state");
    assert_eq!(link.asked_to_attach().subject, Subject::Group(GROUP));
    until("end of its recovery", || rig.counters.recovering.get() == 0);
    rig.stop(Duration::ZERO);
}

#[test]
fn who_came_into_a_group_that_no_backend_takes_goes_on_alone() {
    let (rig, backend) = start(Recovery::None, &json!({"park_deadline_s": 1}), |_| {});
    let _player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    join(&mut link, session, epoch);
    link.freeze(b"state");
    let (mode, epoch) = loop {
        let (subject, epoch, mode, _) = asked(&mut link);
        if subject == Subject::Session(session) {
            break (mode, epoch);
        }
        link.say(&Message::Refused(Refused { subject, epoch, retry: true, reason: "not now" }));
    };
    assert_eq!(mode, AttachMode::State);
    link.ack(session, epoch, Seq::NONE);
    assert_eq!(rig.counters.states_dropped.get(), 0);
    rig.stop(Duration::ZERO);
}

#[test]
fn the_wish_of_a_game_that_is_no_more_is_forgotten() {
    let (rig, backend) = start(Recovery::None, &json!({}), |_| {});
    let _first = rig.player("arena");
    let mut link = backend.link();
    let (first, epoch) = link.attach();
    join(&mut link, first, epoch);
    link.freeze(b"state");
    // The group isn't there yet: they wait.
    let group = link.asked_to_attach();
    let mut waits = || {
        let player = rig.player("arena");
        let (session, epoch) = link.attach();
        join(&mut link, session, epoch);
        (player, session, epoch)
    };
    let (_second, second, epoch) = waits();
    let (_third, third, _) = waits();
    let scope = FaultScope::Attachment(Subject::Session(second), epoch);
    link.say(&Message::Fault(Fault { scope, rule: Rule::Handler, text: "" }));
    assert_eq!(link.attach().0, second);
    link.say(&Message::Attached(group));
    let frozen = link.hear(|message| match message {
        Message::Freeze(freeze) => Some(freeze.subject),
        _ => None,
    });
    assert_eq!(frozen, Subject::Session(third));
    rig.stop(Duration::ZERO);
}

#[test]
fn departures_without_an_end_fill_no_memory() {
    let mut table = Table::set(Recovery::None, &json!({"max_state_bytes": 20_000}), 2);
    // Half of what is too much from each.
    for member in table.members.clone() {
        for _ in 0..5 {
            table.send(AddressedKind::Part, member, &[0; 16 << 10]);
        }
    }
    let rule = table.link.hear(|message| match message {
        Message::Fault(fault) => Some(fault.rule),
        _ => None,
    });
    assert_eq!(rule, Rule::StateOverrun);
    until("nothing of them", || table.rig.counters.group_members.get() == 0);
    table.rig.stop(Duration::ZERO);
}

#[test]
fn who_is_gone_is_not_begun_anew_when_the_group_is_lost() {
    let mut table = Table::set(Recovery::None, &json!({}), 2);
    let (first, second) = (table.members[0], table.members[1]);
    table.players[0].write_all(&[0xff; 4]).unwrap();
    table.comes(AddressedKind::Close, first);
    table.backend.instance = InstanceId([2; 16]);
    drop(table.link);
    let mut link = table.backend.link();
    assert_eq!(link.attach().0, second);
    assert_eq!(table.rig.counters.sessions.get(), 1);
    table.rig.stop(Duration::ZERO);
}

#[test]
fn members_are_not_read_beyond_the_bound_of_all() {
    const BOUND: u64 = 400_000;
    const FRAMES: u64 = 200;
    let limits = json!({"client_window_bytes": 64 << 20, "liveness_ms": 60_000});
    let mut table = Table::set_in(start(Recovery::None, &limits, |config| config.kept_bytes = BOUND), 1);
    let member = table.members[0];
    let mut player = table.players.pop().unwrap();
    let writer = std::thread::spawn(move || {
        (0..FRAMES).for_each(|_| player.write_all(&frame(&[0; 60_000])).unwrap());
        player
    });
    let counters = std::sync::Arc::clone(&table.rig.counters);
    until("the bound", || counters.unread_by_worker.get() == 1);
    assert!(counters.kept_bytes.get() < 2 * BOUND, "{} bytes are kept", counters.kept_bytes.get());
    for _ in 0..FRAMES {
        table.comes(AddressedKind::Frame, member);
        table.ack(table.came);
    }
    let _player = writer.join().unwrap();
    until("nothing kept", || counters.kept_bytes.get() == 0);
    table.rig.stop(Duration::ZERO);
}

#[test]
fn whose_state_fits_no_record_comes_into_no_group_at_delta() {
    let (rig, backend) = start(Recovery::Delta, &json!({}), |config| config.transfer_pool_bytes = 8 << 20);
    let _player = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    join(&mut link, session, epoch);
    link.freeze(&vec![1; 2 << 20]);
    let (subject, _, mode, _) = asked(&mut link);
    assert_eq!((subject, mode), (Subject::Session(session), AttachMode::State));
    rig.stop(Duration::ZERO);
}

#[test]
fn a_group_whose_members_have_all_gone_is_not_waited_for_for_ever() {
    let mut table = Table::set(Recovery::None, &json!({"close_deadline_ms": 300}), 2);
    for (member, player) in table.members.clone().into_iter().zip(0..) {
        table.players[player].write_all(&[0xff; 4]).unwrap();
        table.comes(AddressedKind::Close, member);
    }
    table.link.hear(|message| match message {
        Message::Release(release) => (release.subject == Subject::Group(GROUP)).then_some(()),
        _ => None,
    });
    until("end of all", || table.rig.counters.sessions.get() == 0);
    assert_eq!(table.rig.counters.group_members.get(), 0);
    table.rig.stop(Duration::ZERO);
}
