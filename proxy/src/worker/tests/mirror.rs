//! A mirrored session's frames come to the shadow, too; whatever the shadow does, its player doesn't feel it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{Join, Message, Refused};
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId};
use serde_json::{Value, json};

use super::rig::{FakeBackend, FakeLink, PATIENCE, Rig, frame, until};
use crate::telemetry::counters::{CloseReason, Kept, Likeness, MirrorEnd};
use crate::worker::WorkerConfig;

/// One attachment, as its backend knows it.
struct Attached {
    link: FakeLink,
    session: SessionId,
    epoch: Epoch,
    sent: u64,
}

impl Attached {
    fn to(backend: &FakeBackend) -> Self {
        let mut link = backend.link();
        let (session, epoch) = link.attach();
        Self { link, session, epoch, sent: 0 }
    }

    /// Waits for that frame, and acks it.
    fn gets(&mut self, expected: &[u8]) -> Seq {
        let (seq, bytes) = self.link.frame();
        assert_eq!(bytes, expected);
        self.link.ack(self.session, self.epoch, seq);
        seq
    }

    fn is_told_of_the_end(&mut self) -> Seq {
        self.link.hear(|message| match message {
            Message::Close(close) => Some(close.seq),
            _ => None,
        })
    }

    fn says(&mut self, bytes: &[u8]) {
        self.sent += 1;
        self.link.send(self.session, self.epoch, self.sent, Seq::NONE, bytes);
    }
}

/// A player whose every frame comes to `arena/a`, and to `shadow/a`, too.
struct Stage {
    rig: Rig,
    player: TcpStream,
    real: Attached,
    shadow: Attached,
}

fn mirror(compare: bool) -> Value {
    json!({"mirror": {"service": "shadow", "percent": 100, "compare": compare}})
}

/// A worker with a mirrored service and its shadow, one backend each.
fn worker(
    mirrored: &Value,
    limits: &Value,
    adjust: impl FnOnce(&mut WorkerConfig),
) -> (Rig, [FakeBackend; 2]) {
    let rig = Rig::start(&["arena", "shadow"], &json!({}), adjust);
    rig.serve("shadow", &json!({"limits": limits}));
    rig.serve("arena", mirrored);
    let mut backends = [FakeBackend::new("arena", "a"), FakeBackend::new("shadow", "a")];
    for backend in &mut backends {
        backend.capabilities = capability::GROUPS;
        rig.list(backend);
    }
    (rig, backends)
}

impl Stage {
    fn set(mirrored: &Value, limits: &Value) -> Self {
        Self::set_in(mirrored, limits, |_| {})
    }

    fn set_in(mirrored: &Value, limits: &Value, adjust: impl FnOnce(&mut WorkerConfig)) -> Self {
        let (rig, [arena, shadow]) = worker(mirrored, limits, adjust);
        let player = rig.player("arena");
        Self { rig, player, real: Attached::to(&arena), shadow: Attached::to(&shadow) }
    }

    /// The player plays on, and is answered.
    fn plays(&mut self, bytes: &[u8]) {
        self.player.write_all(&frame(bytes)).unwrap();
        self.real.gets(bytes);
        self.real.says(b"ok");
        self.is_told(b"ok");
    }

    fn is_told(&mut self, bytes: &[u8]) {
        let mut answer = vec![0; 4 + bytes.len()];
        self.player.read_exact(&mut answer).unwrap();
        assert_eq!(answer, frame(bytes));
    }

    fn ended(&self, end: MirrorEnd) -> u64 {
        self.rig.counters.mirrors_ended[end as usize].get()
    }

    fn replies(&self) -> [u64; 3] {
        Likeness::ALL.map(|likeness| self.rig.counters.mirror_replies[likeness as usize].get())
    }

    /// The mirror has ended for that reason alone, and its player plays on as if nothing had happened.
    fn goes_on_without(mut self, end: MirrorEnd) {
        until("the mirror's end", || self.rig.counters.mirrors.get() == 0);
        let ended = MirrorEnd::ALL.map(|end| (end, self.ended(end)));
        assert!(ended.iter().all(|(one, count)| *count == u64::from(*one == end)), "{ended:?}");
        let given = self.rig.counters.mirrored_frames.get();
        self.plays(b"on and on");
        assert_eq!(self.rig.counters.mirrored_frames.get(), given, "it is begun no second time");
        assert_eq!((self.rig.counters.sessions.get(), self.rig.counters.parked.get()), (1, 0));
        assert_eq!(self.closed(), 0, "nobody was closed");
        drop(self.player);
        self.rig.stop(Duration::ZERO);
    }

    fn closed(&self) -> u64 {
        CloseReason::ALL.iter().map(|reason| self.rig.counters.sessions_closed[*reason as usize].get()).sum()
    }
}

#[test]
fn the_shadow_gets_every_frame_and_its_answers_go_nowhere() {
    let mut stage = Stage::set(&mirror(false), &json!({}));
    assert_ne!(stage.real.session, stage.shadow.session);
    // In pieces, and several at once: the shadow gets them whole and in order.
    let bytes = [frame(b"one"), frame(b"two"), frame(b"three")].concat();
    for piece in bytes.chunks(5) {
        stage.player.write_all(piece).unwrap();
    }
    for expected in [&b"one"[..], b"two", b"three"] {
        stage.real.gets(expected);
        stage.shadow.gets(expected);
    }
    stage.shadow.says(b"the shadow's");
    let acked = stage.shadow.link.hear(|message| match message {
        Message::Ack(ack) => Some(ack.data),
        _ => None,
    });
    assert_eq!(acked, Seq(1), "what goes nowhere has arrived");
    stage.real.says(b"the game's");
    stage.is_told(b"the game's");
    assert_eq!(stage.rig.counters.mirrored_frames.get(), 3);
    assert_eq!((stage.rig.counters.sessions.get(), stage.rig.counters.mirrors.get()), (1, 1));
    assert_eq!(stage.rig.counters.frames_to_client.get(), 1);
    assert_eq!(stage.replies(), [0; 3]);
    stage.rig.stop(Duration::ZERO);
}

#[test]
fn when_the_player_leaves_the_shadow_is_told_behind_all_frames() {
    let Stage { rig, mut player, mut shadow, real } = Stage::set(&mirror(false), &json!({}));
    player.write_all(&frame(b"last")).unwrap();
    drop(player);
    let (seq, _) = shadow.link.frame();
    assert_eq!(shadow.is_told_of_the_end(), seq.next());
    shadow.link.close(shadow.session, shadow.epoch, 1);
    until("the mirror's end", || rig.counters.mirrors.get() == 0);
    assert_eq!(rig.counters.mirrors_ended[MirrorEnd::Finished as usize].get(), 1);
    drop(real);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_shadow_that_falls_behind_by_a_window_is_given_up() {
    let mut stage = Stage::set(&mirror(false), &json!({"client_window_bytes": 65_536}));
    // One window is on its way, another may wait: the third is too much.
    let large = vec![b'x'; 32_768];
    for _ in 0..6 {
        if stage.rig.counters.mirrors.get() == 1 {
            stage.player.write_all(&frame(&large)).unwrap();
            stage.real.gets(&large);
        }
    }
    stage.goes_on_without(MirrorEnd::Overflow);
}

#[test]
fn a_shadow_that_floods_is_given_up() {
    let mut stage = Stage::set(&mirror(false), &json!({}));
    stage.plays(b"one");
    stage.shadow.gets(b"one");
    let large = vec![b'x'; 32_768];
    let is_heard = |shadow: &mut Attached| {
        // More than a quarter of the window: it is acked at once.
        (0..3).for_each(|_| shadow.says(&large));
        shadow.link.hear(|message| match message {
            Message::Ack(_) => Some(true),
            Message::Close(_) | Message::Release(_) => Some(false),
            _ => None,
        })
    };
    let heard = (0..100).take_while(|_| is_heard(&mut stage.shadow)).count();
    assert!((40..50).contains(&heard), "{heard} times 96 KiB for nobody");
    stage.goes_on_without(MirrorEnd::Overflow);
}

#[test]
fn a_shadow_with_no_backend_is_given_up_at_once() {
    let (rig, [arena, shadow]) = worker(&mirror(false), &json!({}), |_| {});
    rig.change(|table| {
        table.backends.remove(&shadow.id);
    });
    let mut player = rig.player("arena");
    let mut real = Attached::to(&arena);
    until("the end", || rig.counters.mirrors_ended[MirrorEnd::NoBackend as usize].get() == 1);
    player.write_all(&frame(b"on")).unwrap();
    real.gets(b"on");
    assert_eq!((rig.counters.sessions.get(), rig.counters.parked.get()), (1, 0));
    assert_eq!((rig.counters.mirrors.get(), rig.counters.mirrored_frames.get()), (0, 0));
    rig.stop(Duration::ZERO);
}

#[test]
fn a_shadow_that_refuses_it_is_given_up() {
    let (rig, [arena, shadow]) = worker(&mirror(false), &json!({}), |_| {});
    let player = rig.player("arena");
    let real = Attached::to(&arena);
    let mut link = shadow.link();
    let asked = link.asked_to_attach();
    let (subject, epoch) = (asked.subject, asked.epoch);
    link.say(&Message::Refused(Refused { subject, epoch, retry: true, reason: "test" }));
    let shadow = Attached { link, session: real.session, epoch, sent: 0 };
    Stage { rig, player, real, shadow }.goes_on_without(MirrorEnd::NoBackend);
}

#[test]
fn a_shadow_that_closes_it_closes_nobody() {
    let mut stage = Stage::set(&mirror(false), &json!({}));
    stage.plays(b"hello");
    stage.shadow.link.close(stage.shadow.session, stage.shadow.epoch, 1);
    stage.goes_on_without(MirrorEnd::Closed);
}

#[test]
fn a_shadow_that_dies_takes_nobody_along() {
    let mut stage = Stage::set(&mirror(false), &json!({"resume_timeout_ms": 100}));
    stage.plays(b"hello");
    stage.shadow.link.stream.shutdown(std::net::Shutdown::Both).unwrap();
    stage.goes_on_without(MirrorEnd::NoBackend);
}

#[test]
fn a_group_on_either_side_ends_the_mirror() {
    let mut stage = Stage::set(&mirror(false), &json!({}));
    let (session, epoch) = (stage.shadow.session, stage.shadow.epoch);
    stage.shadow.link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    stage.shadow.link.say(&Message::Join(Join { session, epoch, group: GroupId([7; 16]) }));
    stage.goes_on_without(MirrorEnd::Group);

    let mut stage = Stage::set(&mirror(false), &json!({}));
    let (session, epoch) = (stage.real.session, stage.real.epoch);
    stage.real.link.hear(|message| matches!(message, Message::Start(_)).then_some(()));
    stage.real.link.say(&Message::Join(Join { session, epoch, group: GroupId([8; 16]) }));
    until("the mirror's end", || stage.ended(MirrorEnd::Group) == 1);
    stage.real.link.hear(|message| matches!(message, Message::Freeze(_)).then_some(()));
    stage.rig.stop(Duration::ZERO);
}

#[test]
fn a_document_that_wants_no_mirror_any_more_ends_them_and_begins_none() {
    for change in [json!({}), json!({"mirror": {"service": "shadow", "percent": 0}})] {
        let stage = Stage::set(&mirror(false), &json!({}));
        stage.rig.serve("arena", &change);
        stage.goes_on_without(MirrorEnd::Withdrawn);
    }
}

#[test]
fn answers_are_compared_in_their_order_and_counted() {
    let mut stage = Stage::set(&mirror(true), &json!({}));
    for (real, shadow) in [(b"a", b"a"), (b"b", b"x"), (b"c", b"c")] {
        stage.real.says(real);
        stage.is_told(real);
        stage.shadow.says(shadow);
    }
    stage.shadow.says(b"of its own");
    until("three pairs", || stage.replies() == [2, 1, 0]);
    stage.plays(b"hello");
    until("the next pair", || stage.replies() == [2, 2, 0]);
    stage.real.says(b"alone");
    stage.is_told(b"alone");
    stage.shadow.link.close(stage.shadow.session, stage.shadow.epoch, 5);
    until("the rest is told of", || stage.replies() == [2, 2, 1]);
    stage.goes_on_without(MirrorEnd::Closed);
}

#[test]
fn mirrors_take_no_players_place() {
    let (rig, [arena, shadow]) =
        worker(&mirror(false), &json!({}), |config: &mut WorkerConfig| config.max_sessions = 2);
    let _players = [rig.player("arena"), rig.player("arena")];
    let (mut real, mut shadows) = (arena.link(), shadow.link());
    for link in [&mut real, &mut shadows] {
        link.attach();
        link.attach();
    }
    assert_eq!((rig.counters.sessions.get(), rig.counters.mirrors.get()), (2, 2));
    let mut third = rig.player("arena");
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "the bound is the players' own");
    assert_eq!(rig.counters.sessions_closed[CloseReason::Limit as usize].get(), 1);
    rig.stop(Duration::ZERO);
}

#[test]
fn more_mirrors_than_the_shadow_takes_sessions_are_not_begun() {
    let (rig, [arena, shadow]) = worker(&mirror(false), &json!({"max_sessions": 1}), |_| {});
    let _players = [rig.player("arena"), rig.player("arena")];
    let (mut real, mut shadows) = (arena.link(), shadow.link());
    real.attach();
    real.attach();
    shadows.attach();
    until("the second isn't begun", || rig.counters.mirrors_ended[MirrorEnd::Limit as usize].get() == 1);
    assert_eq!((rig.counters.sessions.get(), rig.counters.mirrors.get()), (2, 1));
    rig.stop(Duration::ZERO);
}

#[test]
fn mirrors_go_first_when_memory_is_short() {
    let limits = json!({"client_window_bytes": 4 << 20, "max_journal_bytes": 8 << 20});
    let mut stage =
        Stage::set_in(&mirror(false), &limits, |config: &mut WorkerConfig| config.kept_bytes = 1 << 20);
    let large = vec![b'x'; 32_768];
    for _ in 0..40 {
        if stage.rig.counters.mirrors.get() == 1 {
            stage.player.write_all(&frame(&large)).unwrap();
            stage.real.gets(&large);
        }
    }
    until("the mirror's end", || stage.ended(MirrorEnd::Pressure) == 1);
    until("its bytes are given back", || stage.rig.counters.kept_by_kind[Kept::Queue as usize].get() == 0);
    stage.goes_on_without(MirrorEnd::Pressure);
}

#[test]
fn a_worker_that_ends_waits_for_no_mirror() {
    let Stage { rig, player, mut real, shadow } =
        Stage::set(&mirror(false), &json!({"close_deadline_ms": 600_000}));
    drop(player);
    real.is_told_of_the_end();
    real.link.close(real.session, real.epoch, 1);
    until("the player's end", || rig.counters.sessions.get() == 0);
    // The shadow hasn't answered, and won't.
    assert_eq!(rig.counters.mirrors.get(), 1);
    let begun = Instant::now();
    rig.stop(Duration::from_secs(600));
    assert!(begun.elapsed() < PATIENCE);
    drop(shadow);
}

#[test]
fn a_share_of_the_sessions_is_mirrored_and_a_larger_one_contains_it() {
    use crate::routing::table::MirrorPolicy;
    let policy = |percent| MirrorPolicy { service: "shadow".into(), percent, compare: false };
    let ids: Vec<_> = (0..10_000u128).map(|n| SessionId((n * n).to_be_bytes())).collect();
    let taken = |percent| ids.iter().filter(|id| policy(percent).takes(**id)).count();
    assert_eq!((taken(0), taken(100)), (0, 10_000));
    // A standard deviation is 50 at most.
    assert!((2_700..3_300).contains(&taken(30)), "{}", taken(30));
    assert!(ids.iter().all(|id| !policy(30).takes(*id) || policy(31).takes(*id)));
}
