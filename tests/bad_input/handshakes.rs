//! Backends that don't get as far as a link.

use holdfast_protocol::codec;
use holdfast_protocol::message::{Fault, FaultScope, Message, Ping, Rule, Welcome};

use super::{faults, scene, unharmed};
use crate::support::impostor::{Impostor, Peer};

struct Case {
    name: &'static str,
    answer: fn(&mut Peer),
    /// Part of what the log says.
    says: &'static str,
    /// Nonsense is a fault; an end, a refusal or another limit isn't.
    is_fault: bool,
}

fn changed(peer: &mut Peer, change: impl Fn(Welcome<'static>) -> Welcome<'static>) {
    let welcome = change(peer.welcome_message());
    peer.send(&Message::Welcome(welcome));
}

/// A WELCOME with one byte of it replaced.
fn spoilt(peer: &mut Peer, at: usize, byte: u8) {
    let mut bytes = Vec::new();
    codec::encode(&Message::Welcome(peer.welcome_message()), &mut bytes);
    bytes[at] = byte;
    peer.raw(&bytes);
}

const CASES: [Case; 9] = [
    Case {
        name: "http",
        answer: |peer| peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        says: "not a Holdfast link",
        is_fault: true,
    },
    Case { name: "magic", answer: |peer| spoilt(peer, 8, b'X'), says: "its magic", is_fault: true },
    Case {
        name: "version",
        answer: |peer| changed(peer, |welcome| Welcome { version: 99, ..welcome }),
        says: "version 99",
        is_fault: true,
    },
    Case {
        name: "generation",
        answer: |peer| changed(peer, |welcome| Welcome { generation: 0, ..welcome }),
        says: "generation 0",
        is_fault: true,
    },
    Case {
        name: "small-frames",
        answer: |peer| changed(peer, |welcome| Welcome { max_frame_bytes: 10, ..welcome }),
        says: "takes frames up to 10 bytes",
        is_fault: false,
    },
    Case {
        name: "no-welcome",
        answer: |peer| peer.send(&Message::Ping(Ping { nonce: 1 })),
        says: "handshake",
        is_fault: true,
    },
    Case {
        name: "huge",
        answer: |peer| peer.raw(&[0xff, 0xff, 0xff, 0x7f, 2, 0, 0xff, 0]),
        says: "over the limit",
        is_fault: true,
    },
    Case {
        name: "refused",
        answer: |peer| {
            let scope = FaultScope::Link;
            peer.send(&Message::Fault(Fault { scope, rule: Rule::Secret, text: "wrong proof" }));
        },
        says: "wrong proof",
        is_fault: false,
    },
    Case {
        name: "closed",
        answer: Peer::hang_up,
        says: "closed by the backend before WELCOME",
        is_fault: false,
    },
];

#[test]
fn a_backend_that_is_no_backend_is_named_and_harms_nobody() {
    let mut scene = scene();
    let players = scene.players(20);
    for Case { name, answer, says, is_fault } in CASES {
        let before = faults(&scene, "link");
        let impostor = Impostor::start(move |peer| {
            if peer.hello() {
                answer(peer);
                peer.sulk();
            }
        });
        scene.cast(name, &impostor);
        let client = scene.odd_client();
        let backend = format!("backend=odd/{name} ");
        scene.wait(&format!("{name}: {says:?} in the log"), |scene| {
            scene.log().lines().any(|line| line.contains(&backend) && line.contains(says))
        });
        if is_fault {
            scene.wait(&format!("{name}: a fault is counted"), |scene| faults(scene, "link") > before);
        } else {
            assert_eq!(faults(&scene, "link"), before, "{name}");
        }
        drop(client);
        scene.wait(&format!("{name}: the client has left"), |scene| {
            scene.metric("holdfast_sessions", "") == 20
        });
        scene.dismiss(name);
    }
    unharmed(&mut scene, players);
}

#[test]
fn a_client_whose_only_backend_is_no_backend_is_let_go_after_the_park_deadline() {
    let mut scene = scene();
    let players = scene.players(20);
    let impostor = Impostor::start(|peer| peer.raw(b"220 mail ready\r\n"));
    scene.cast("mail", &impostor);
    let mut client = scene.odd_client();
    client.send(b"hello\n");
    assert!(client.until_closed().is_empty());
    scene.wait("it is counted", |scene| scene.closed("no_backend") == 1);
    unharmed(&mut scene, players);
}
