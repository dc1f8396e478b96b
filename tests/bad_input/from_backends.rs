//! Backends that break the link's rules in the middle of play.

use holdfast_protocol::message::{Attached, Hello, Join, Message, Record, RecordKind, Rule, State, Subject};
use holdfast_protocol::{Epoch, GroupId, InstanceId, Seq, SessionId, codec};

use super::{broken, faults, scene, unharmed};
use crate::support::impostor::{Heard, Impostor, Peer, Talk};

/// What a backend says that it may not.
type Nonsense = fn(&mut Peer, Talk);

struct Case {
    name: &'static str,
    misdeed: fn(&mut Peer, Talk),
    rule: Rule,
}

fn attached(talk: Talk) -> Message<'static> {
    let subject = Subject::Session(talk.session);
    Message::Attached(Attached { subject, epoch: talk.epoch, client_seq: talk.had, server_seq: talk.sent })
}

fn state(talk: Talk) -> State<'static> {
    State {
        subject: Subject::Session(talk.session),
        epoch: talk.epoch,
        is_final: true,
        total_bytes: 3,
        offset_bytes: 0,
        client_seq: talk.had,
        server_seq: talk.sent,
        record_seq: Seq::NONE,
        members: 0,
        chunk: b"abc",
    }
}

/// What no service without `replay` or `delta` has asked for.
fn record(talk: Talk, kind: RecordKind) -> Message<'static> {
    Message::Record(Record {
        subject: Subject::Session(talk.session),
        epoch: talk.epoch,
        seq: Seq(1),
        after_client_seq: talk.had,
        kind,
        member: None,
        again: false,
        bytes: b"",
    })
}

/// A frame that is wrong in one way.
fn wrong(peer: &mut Peer, talk: Talk, frame: &[u8], seqs: impl Fn(Seq, Seq) -> (Seq, Seq)) {
    let mut data = peer.data(talk, frame);
    (data.seq, data.ack) = seqs(data.seq, data.ack);
    peer.send(&Message::Data(data));
}

const OF_A_SESSION: [Case; 11] = [
    Case {
        name: "skips-a-seq",
        misdeed: |peer, talk| wrong(peer, talk, b"x", |seq, ack| (seq.next(), ack)),
        rule: Rule::OutOfSequence,
    },
    Case {
        name: "acks-the-future",
        misdeed: |peer, talk| wrong(peer, talk, b"x", |seq, ack| (seq, ack.next())),
        rule: Rule::AckBeyondSent,
    },
    Case {
        name: "attaches-twice",
        misdeed: |peer, talk| peer.send(&attached(talk)),
        rule: Rule::AttachedTwice,
    },
    Case {
        name: "sends-a-state-unasked",
        misdeed: |peer, talk| peer.send(&Message::State(state(talk))),
        rule: Rule::StateUnasked,
    },
    Case {
        name: "sends-a-checkpoint-unasked",
        misdeed: |peer, talk| peer.send(&Message::State(State { is_final: false, ..state(talk) })),
        rule: Rule::StateUnasked,
    },
    Case {
        name: "sends-too-large-a-frame",
        misdeed: |peer, talk| peer.say(talk, &[b'x'; 1001]),
        rule: Rule::FrameTooLarge,
    },
    Case {
        name: "breaks-the-framing",
        misdeed: |peer, talk| peer.say(talk, b"two\nlines"),
        rule: Rule::Malformed,
    },
    Case {
        name: "joins-a-group",
        misdeed: |peer, talk| {
            let (session, epoch) = (talk.session, talk.epoch);
            peer.send(&Message::Join(Join { session, epoch, group: GroupId([7; 16]) }));
        },
        rule: Rule::Group,
    },
    Case {
        name: "sends-a-delta",
        misdeed: |peer, talk| peer.send(&record(talk, RecordKind::Delta)),
        rule: Rule::Unexpected,
    },
    Case { name: "floods", misdeed: flood, rule: Rule::WindowExceeded },
    Case {
        name: "sends-a-record",
        misdeed: |peer, talk| peer.send(&record(talk, RecordKind::Input)),
        rule: Rule::Unexpected,
    },
];

/// Many windows' worth of frames, each good in itself, in one write.
fn flood(peer: &mut Peer, talk: Talk) {
    let mut bytes = Vec::new();
    for number in 1..=64 {
        let mut data = peer.data(talk, &[b'x'; 900]);
        data.seq = Seq(talk.sent.0 + number);
        codec::encode(&Message::Data(data), &mut bytes);
    }
    peer.raw(&bytes);
}

#[test]
fn a_rule_broken_for_a_session_ends_that_session_alone() {
    let mut scene = scene();
    let players = scene.players(20);
    for Case { name, misdeed, rule } in OF_A_SESSION {
        let (before, of_link) = (faults(&scene, "session"), faults(&scene, "link"));
        let of_rule = broken(&scene, "session", rule);
        let impostor = Impostor::turning(misdeed);
        scene.cast(name, &impostor);
        let (mut other, mut victim) = (scene.odd_client(), scene.odd_client());
        other.send(b"before\n");
        other.expect(b"before\n");
        victim.send(b"before\n");
        victim.expect(b"before\n");
        victim.send(b"misbehave\n");
        victim.until_closed();
        let told = impostor.wait("FAULT", |heard| matches!(heard, Heard::Fault { .. }));
        assert_eq!(told, Heard::Fault { rule, of_link: false }, "{name}");
        impostor.wait("RELEASE", |heard| *heard == Heard::Release);
        // The link lives on, and so does the other session on it.
        other.send(b"after\n");
        other.expect(b"after\n");
        assert_eq!((faults(&scene, "session"), faults(&scene, "link")), (before + 1, of_link), "{name}");
        assert_eq!(broken(&scene, "session", rule), of_rule + 1, "{name}");
        let backend = format!("backend=odd/{name} ");
        scene.wait(&format!("{name}: the log says whose fault it is"), |scene| {
            scene.log().lines().any(|line| {
                line.contains(&backend)
                    && line.contains("the backend broke")
                    && line.contains(&format!("{rule:?}"))
            })
        });
        drop(other);
        scene.wait(name, |scene| scene.metric("holdfast_sessions", "") == 20);
        scene.dismiss(name);
    }
    unharmed(&mut scene, players);
}

#[test]
fn what_is_not_of_a_current_attachment_is_dropped_and_counted() {
    let mut scene = scene();
    let players = scene.players(20);
    let cases: [(&str, Nonsense); 3] = [
        ("unknown-session", |peer, talk| {
            let stranger = SessionId([7; 16]);
            let data = peer.data(Talk { session: stranger, ..talk }, b"x");
            peer.send(&Message::Data(data));
        }),
        ("stale-epoch", |peer, talk| {
            let data = peer.data(Talk { epoch: Epoch(0), ..talk }, b"from the past");
            peer.send(&Message::Data(data));
        }),
        ("future-epoch", |peer, talk| {
            let data = peer.data(Talk { epoch: Epoch(99), ..talk }, b"from the future");
            peer.send(&Message::Data(data));
        }),
    ];
    for (name, misdeed) in cases {
        let stale = scene.metric("holdfast_stale_messages_total", "");
        let impostor = Impostor::turning(misdeed);
        scene.cast(name, &impostor);
        let mut client = scene.odd_client();
        client.send(b"before\nmisbehave\nafter\n");
        client.expect(b"before\nafter\n");
        assert_eq!(scene.metric("holdfast_stale_messages_total", ""), stale + 1, "{name}");
        drop(client);
        scene.wait(name, |scene| scene.metric("holdfast_sessions", "") == 20);
        scene.dismiss(name);
    }
    assert_eq!((faults(&scene, "session"), faults(&scene, "link")), (0, 0));
    unharmed(&mut scene, players);
}

const OF_A_LINK: [Case; 6] = [
    Case {
        name: "unknown-type",
        misdeed: |peer, _| peer.raw(&[0, 0, 0, 0, 200, 0, 0, 0]),
        rule: Rule::Malformed,
    },
    Case {
        name: "over-long",
        misdeed: |peer, _| peer.raw(&[0xff, 0xff, 0xff, 0x7f, 7, 0, 0xff, 0]),
        rule: Rule::Malformed,
    },
    Case {
        name: "garbage",
        misdeed: |peer, _| peer.raw(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"),
        rule: Rule::Malformed,
    },
    Case { name: "second-welcome", misdeed: |peer, _| peer.welcome(), rule: Rule::Handshake },
    Case { name: "hello-to-a-proxy", misdeed: |peer, _| hello(peer), rule: Rule::Handshake },
    Case {
        name: "checkpoint-to-a-proxy",
        misdeed: |peer, talk| {
            use holdfast_protocol::message::Checkpoint;
            let subject = Subject::Session(talk.session);
            peer.send(&Message::Checkpoint(Checkpoint { subject, epoch: talk.epoch, credit_bytes: 1 }));
        },
        rule: Rule::Unexpected,
    },
];

fn hello(peer: &mut Peer) {
    peer.send(&Message::Hello(Hello {
        min_version: 1,
        max_version: 1,
        instance: InstanceId([1; 16]),
        worker: 0,
        generation: 1,
        max_frame_bytes: 1000,
        liveness_ms: 1000,
        capabilities: 0,
        proxy: "me",
        service: "odd",
        proof: b"",
    }));
}

#[test]
fn a_rule_broken_for_a_link_ends_that_link_alone() {
    let mut scene = scene();
    let players = scene.players(20);
    for Case { name, misdeed, rule } in OF_A_LINK {
        let (before, of_rule) = (faults(&scene, "link"), broken(&scene, "link", rule));
        let impostor = Impostor::turning(misdeed);
        scene.cast(name, &impostor);
        let mut client = scene.odd_client();
        client.send(b"before\n");
        client.expect(b"before\n");
        impostor.leave();
        client.send(b"misbehave\n");
        let told = impostor.wait("FAULT", |heard| matches!(heard, Heard::Fault { .. }));
        assert_eq!(told, Heard::Fault { rule, of_link: true }, "{name}");
        // Nobody answers any more, and this service closes after a crash.
        client.until_closed();
        assert_eq!(faults(&scene, "link"), before + 1, "{name}");
        assert_eq!(broken(&scene, "link", rule), of_rule + 1, "{name}");
        let backend = format!("backend=odd/{name} ");
        scene.wait(&format!("{name}: the log says whose fault it is"), |scene| {
            scene
                .log()
                .lines()
                .any(|line| line.contains(&backend) && line.contains("the backend broke the link's rule"))
        });
        scene.dismiss(name);
    }
    assert_eq!(scene.closed("crash"), OF_A_LINK.len() as u64);
    unharmed(&mut scene, players);
}

/// Frames of a backend that hasn't even said that it has the session.
#[test]
fn live_frames_before_the_start_are_the_fault_of_that_session_alone() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::start(|peer| {
        peer.hasty = Some(b"first");
        if peer.hello() {
            peer.welcome();
            peer.play(&|_, _| ());
        }
    });
    scene.cast("hasty", &impostor);
    let mut other = scene.odd_client();
    other.send(b"before\n");
    other.expect(b"before\n");
    let mut victim = scene.odd_client();
    victim.send(b"before\n");
    victim.until_closed();
    let told = impostor.wait("FAULT", |heard| matches!(heard, Heard::Fault { .. }));
    assert_eq!(told, Heard::Fault { rule: Rule::LiveBeforeStart, of_link: false });
    impostor.wait("RELEASE", |heard| *heard == Heard::Release);
    other.send(b"after\n");
    other.expect(b"after\n");
    assert_eq!(broken(&scene, "session", Rule::LiveBeforeStart), 1);
    assert_eq!((faults(&scene, "session"), faults(&scene, "link")), (1, 0));
    unharmed(&mut scene, players);
}

#[test]
fn a_link_cut_within_a_message_is_a_lost_link_and_no_fault() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::start(|peer| {
        if peer.hello() {
            peer.welcome();
            // Half a message, then the end.
            peer.raw(&[40, 0, 0, 0, 7, 0]);
        }
    });
    scene.cast("cut", &impostor);
    let lost = scene.metric("holdfast_links_lost_total", "");
    let mut client = scene.odd_client();
    client.send(b"hello\n");
    scene.wait("the link is lost", |scene| scene.metric("holdfast_links_lost_total", "") > lost);
    impostor.leave();
    client.until_closed();
    assert_eq!((faults(&scene, "session"), faults(&scene, "link")), (0, 0));
    unharmed(&mut scene, players);
}

#[test]
fn a_backend_that_falls_silent_is_gone_after_the_liveness_deadline() {
    let mut scene = scene();
    let players = scene.players(20);
    // Reads on, but never says another word, not even to PING.
    let impostor = Impostor::turning(|peer, _| peer.sulk());
    scene.cast("silent", &impostor);
    let mut client = scene.odd_client();
    client.send(b"before\n");
    client.expect(b"before\n");
    client.send(b"misbehave\n");
    client.until_closed();
    assert_eq!(scene.closed("crash"), 1);
    assert!(scene.log().contains("the backend is silent"), "the log doesn't say why");
    unharmed(&mut scene, players);
}
