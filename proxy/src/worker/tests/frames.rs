//! A service's frames may grow while its links are up. Whom that doesn't concern doesn't notice.

use super::*;
use holdfast_protocol::SessionId;

const LONG: usize = 150_000;

fn grow(rig: &Rig) {
    let framing = json!({"kind": "length", "width": 4, "order": "big", "max_bytes": 200_000});
    rig.serve("arena", &json!({"framing": framing}));
}

fn entry(session: SessionId, epoch: Epoch) -> AttachmentEntry {
    AttachmentEntry {
        subject: Subject::Session(session),
        epoch,
        phase: AttachmentPhase::Active,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
    }
}

#[test]
fn a_backend_is_told_of_longer_frames_by_a_new_link_and_its_players_stay() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let mut player = rig.player("arena");
    let mut link = backend.link();
    let before = link.told_frame_bytes;
    let (session, epoch) = link.attach();
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    grow(&rig);
    link.closed();
    let mut link = backend.link_with(&[entry(session, epoch)]);
    assert!(before < 200_000 && link.told_frame_bytes >= 200_000);
    player.write_all(&frame(b"still here")).unwrap();
    assert_eq!(link.frame().1, b"still here");
    let mut newcomer = rig.player("arena");
    link.attach();
    newcomer.write_all(&frame(&[7; LONG])).unwrap();
    assert_eq!(link.frame().1.len(), LONG);
    // Once told is told.
    grow(&rig);
    assert!(link.hear_out(|message| matches!(message, Message::Fault(_)).then_some(())).is_empty());
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backend_that_takes_shorter_frames_gets_no_more_players_and_keeps_its_own() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let (mut a, b) = (FakeBackend::new("arena", "a"), FakeBackend::new("arena", "b"));
    a.max_frame_bytes = 100_000;
    rig.list(&a);
    let (mut player, mut other) = (rig.player("arena"), rig.player("arena"));
    let mut link = a.link();
    let (session, epoch) = link.attach();
    let (second, second_epoch) = link.attach();
    link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    grow(&rig);
    link.closed();
    let mut link = a.link_with(&[entry(session, epoch), entry(second, second_epoch)]);
    rig.list(&b);
    let mut newcomer = rig.player("arena");
    let mut elsewhere = b.link();
    elsewhere.attach();
    newcomer.write_all(&frame(&[7; LONG])).unwrap();
    assert_eq!(elsewhere.frame().1.len(), LONG);
    // Those from before go by the frames that they came with: too long a one ends its own session.
    player.write_all(&frame(&[7; LONG])).unwrap();
    let (over, epoch) = link.hear(|message| match message {
        Message::Close(close) => Some((close.session, close.epoch)),
        _ => None,
    });
    link.close(over, epoch, 1);
    until("end of the one", || rig.counters.sessions_closed[CloseReason::BadFrame as usize].get() == 1);
    other.write_all(&frame(b"still here")).unwrap();
    assert_eq!(link.frame().1, b"still here");
    assert_eq!(rig.counters.sessions.get(), 2);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_player_whose_only_backend_takes_shorter_frames_is_told_so_by_the_end() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let mut backend = FakeBackend::new("arena", "a");
    backend.max_frame_bytes = 10;
    rig.list(&backend);
    let mut player = rig.player("arena");
    let mut link = backend.link();
    assert_eq!(player.read(&mut [0; 1]).unwrap(), 0, "the end of the stream");
    assert_eq!(rig.counters.sessions_closed[CloseReason::NoBackend as usize].get(), 1);
    assert!(link.hear_out(|message| matches!(message, Message::Attach(_)).then_some(())).is_empty());
    rig.stop(Duration::ZERO);
}
