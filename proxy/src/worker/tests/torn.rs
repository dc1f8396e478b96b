//! Connections that end in the middle of a state.

use std::time::Duration;

use holdfast_protocol::codec::STATE_CHUNK_BYTES;
use holdfast_protocol::message::{Ack, AttachmentEntry, Credit, Message, State, Subject};
use holdfast_protocol::{Epoch, Seq, SessionId};
use serde_json::json;
use socket2::SockRef;

use super::rig::{FakeBackend, FakeLink, Rig, until};

/// More than the kernel takes between two sockets of which one isn't read.
const STATE_BYTES: usize = 16 << 20;

fn give_large_state(link: &mut FakeLink, entry: &AttachmentEntry) {
    let chunk = [7; STATE_CHUNK_BYTES];
    for offset in (0..STATE_BYTES).step_by(STATE_CHUNK_BYTES) {
        link.say(&Message::State(State {
            subject: entry.subject,
            epoch: entry.epoch,
            is_final: true,
            total_bytes: STATE_BYTES as u64,
            offset_bytes: offset as u64,
            client_seq: entry.client_seq,
            server_seq: Seq::NONE,
            record_seq: Seq::NONE,
            members: 0,
            chunk: &chunk,
        }));
    }
}

/// What the socket refuses for good must not be tried again and again: the worker would do nothing else.
#[test]
fn a_link_that_is_reset_in_the_middle_of_a_state_stops_nobody() {
    let limits = json!({"state_size_bytes": STATE_BYTES, "attach_timeout_ms": 60_000});
    let rig = Rig::start(&["arena"], &limits, |config| config.transfer_pool_bytes = 64 << 20);
    let (a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    rig.list(&a);
    let _player = rig.player("arena");
    let mut link = a.link();
    link.attach();
    rig.list(&b);
    link.drain(60_000);
    let mut torn = b.link();
    let entry = link.asked_to_freeze();
    give_large_state(&mut link, &entry);
    let attach = torn.asked_to_attach();
    let Subject::Session(session) = attach.subject else { panic!("a group") };
    torn.say(&Message::Credit(Credit {
        subject: attach.subject,
        epoch: attach.epoch,
        bytes: STATE_BYTES as u64,
    }));
    // About nobody: when it is counted the credit is taken, and one turn later the socket is full.
    let nobody = Subject::Session(SessionId([1; 16]));
    torn.say(&Message::Ack(Ack { subject: nobody, epoch: Epoch(1), data: Seq::NONE, record: Seq::NONE }));
    until("credit", || rig.counters.stale_messages.get() == 1);
    rig.links();
    SockRef::from(&torn.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(torn);
    let again = b.link().asked_to_attach();
    assert_eq!(again.subject, Subject::Session(session), "it is attached after all");
    rig.stop(Duration::ZERO);
}
