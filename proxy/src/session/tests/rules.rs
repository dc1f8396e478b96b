//! A backend that breaks a rule ends its own attachment; what is merely stale or repeated ends nothing.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::message::{
    Ack, AttachMode, Attached, Close, Credit, Data, Message, Refused, Rule, State, Subject,
};
use holdfast_protocol::{Epoch, Seq, TraceContext, decode};

use super::world::{A, B, WINDOW, World, service};
use crate::routing::table::OnCrash;
use crate::session::{LinkId, Otherwise, Phase};
use crate::telemetry::counters::CloseReason;

fn subject(world: &World) -> Subject {
    Subject::Session(world.sessions[0].id())
}

fn data<'a>(world: &World, seq: u64, ack: u64, frame: &'a [u8]) -> Data<'a> {
    Data {
        subject: Subject::Session(world.sessions[0].id()),
        epoch: world.sessions[0].epoch(),
        seq: Seq(seq),
        ack: Seq(ack),
        record: Seq::NONE,
        again: false,
        trace: TraceContext::default(),
        frame,
    }
}

fn state<'a>(world: &World, chunk: &'a [u8], total_bytes: u64) -> State<'a> {
    State {
        subject: subject(world),
        epoch: world.sessions[0].epoch(),
        is_final: true,
        total_bytes,
        offset_bytes: 0,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
        members: 0,
        chunk,
    }
}

fn attached(world: &World) -> Message<'static> {
    let (subject, epoch) = (subject(world), world.sessions[0].epoch());
    Message::Attached(Attached { subject, epoch, client_seq: Seq::NONE, server_seq: Seq::NONE })
}

/// What the proxy has put on the link and nobody has read.
fn said(world: &World, link: LinkId) -> Vec<String> {
    let messages = &world.hub.wires[link.0 as usize].to_backend;
    messages.iter().map(|bytes| decode(bytes, 1 << 20).unwrap().unwrap().0.type_name().to_owned()).collect()
}

/// A world of two sessions on A; B takes nobody.
fn two() -> World {
    let mut world = World::new(2);
    world.open(Arc::new(service(OnCrash::Close)));
    world.wire(B).draining = true;
    world.settle();
    world
}

#[track_caller]
fn assert_faulted(mut world: World, rule: Rule) {
    assert_eq!(world.seats[0].faults, [rule]);
    assert_ne!(said(&world, A), Vec::<String>::new());
    assert_eq!(said(&world, A)[..2], ["FAULT", "RELEASE"]);
    assert_eq!(world.seats[0].ended, None, "on_crash is fresh");
    world.frames(1, 2);
    world.advance(Duration::from_secs(1));
    world.assert_flawless(1);
    world.assert_all_answered(1);
}

#[test]
fn a_frame_beyond_the_next_ends_the_attachment() {
    let mut world = two();
    let message = data(&world, 2, 0, b"");
    world.give(A, &Message::Data(message));
    assert_faulted(world, Rule::OutOfSequence);
}

#[test]
fn a_frame_beyond_the_window_ends_the_attachment() {
    let mut world = two();
    world.seats[0].slow = true;
    let frame = vec![0; WINDOW as usize];
    let (first, second) = (data(&world, 1, 0, &frame), data(&world, 2, 0, b"x"));
    world.give(A, &Message::Data(first));
    world.give(A, &Message::Data(second));
    assert_faulted(world, Rule::WindowExceeded);
}

#[test]
fn an_ack_beyond_what_was_sent_ends_the_attachment() {
    let mut world = two();
    let (subject, epoch) = (subject(&world), world.sessions[0].epoch());
    world.give(A, &Message::Ack(Ack { subject, epoch, data: Seq(1), record: Seq::NONE }));
    assert_faulted(world, Rule::AckBeyondSent);
}

#[test]
fn a_second_attached_ends_the_attachment() {
    let mut world = two();
    let message = attached(&world);
    world.give(A, &message);
    assert_faulted(world, Rule::AttachedTwice);
}

#[test]
fn a_state_that_nobody_asked_for_ends_the_attachment() {
    let mut world = two();
    let message = state(&world, b"x", 1);
    world.give(A, &Message::State(message));
    assert_faulted(world, Rule::StateUnasked);
}

#[test]
fn a_frame_that_cant_be_written_to_the_client_ends_the_attachment() {
    let mut world = two();
    let message = data(&world, 1, 0, b"unframeable");
    world.give(A, &Message::Data(message));
    assert_faulted(world, Rule::Malformed);
}

#[test]
fn a_state_that_covers_what_the_proxy_doesnt_have_ends_the_attachment() {
    let mut world = two();
    world.leave(0, Otherwise::Park);
    world.wire(A).to_backend.clear();
    let message = State { server_seq: Seq(3), ..state(&world, b"x", 1) };
    world.give(A, &Message::State(message));
    assert_faulted(world, Rule::StateOverrun);
}

#[test]
fn a_live_frame_before_the_answer_to_attach_ends_that_attachment() {
    for closes in [false, true] {
        let mut world = World::empty(2);
        world.open(Arc::new(service(OnCrash::Fresh)));
        world.wire(A).to_backend.clear();
        let Data { epoch, seq, ack, record, .. } = data(&world, 1, 0, b"early");
        let session = world.sessions[0].id();
        let close = Close { session, epoch, seq, ack, record, half: false, again: false, reason: "" };
        let early = data(&world, 1, 0, b"early");
        world.give(A, &if closes { Message::Close(close) } else { Message::Data(early) });
        assert_eq!(world.seats[0].faults, [Rule::LiveBeforeStart]);
        world.settle();
        world.assert_active_on(0, B);
    }
}

#[test]
fn what_is_stale_is_dropped_and_counted() {
    let mut world = World::new(2);
    world.frames(0, 1);
    world.settle();
    let stale = [data(&world, 9, 9, b"stale"), Data { epoch: Epoch(99), ..data(&world, 9, 9, b"unborn") }];
    world.leave(0, Otherwise::Thaw);
    world.settle();
    world.assert_active_on(0, B);
    for message in stale {
        world.give(A, &Message::Data(message));
        world.give(B, &Message::Data(message));
    }
    assert_eq!(world.seats[0].stale, 4);
    world.assert_active_on(0, B);
    world.assert_flawless(0);
}

#[test]
fn what_comes_again_is_dropped_and_acked_again() {
    let mut world = World::new(1);
    world.frames(0, 1);
    world.advance(Duration::from_secs(1));
    let again = Data { again: true, ..data(&world, 1, 1, b"x") };
    world.give(A, &Message::Data(again));
    assert!(world.seats[0].ack_due.is_some());
    world.assert_flawless(0);
    assert_eq!(world.shown(0).len(), 1);
}

#[test]
fn credit_that_crosses_with_attached_is_ignored() {
    let mut world = World::new(1);
    let (subject, epoch) = (subject(&world), world.sessions[0].epoch());
    world.give(A, &Message::Credit(Credit { subject, epoch, bytes: 1 }));
    world.assert_active_on(0, A);
    assert_eq!(world.seats[0].faults, []);
}

#[test]
fn what_a_closed_backend_repeats_is_ignored() {
    let mut world = World::new(1);
    world.seats[0].slow = true;
    world.frame(0, b"quit");
    world.settle();
    let repeated = Data { again: true, ..data(&world, 1, 1, b"x") };
    let Data { epoch, ack, record, .. } = repeated;
    let session = world.sessions[0].id();
    let close = Close { session, epoch, seq: Seq(2), ack, record, half: false, again: true, reason: "" };
    world.give(A, &Message::Data(repeated));
    world.give(A, &Message::Close(close));
    let message = attached(&world);
    world.give(A, &message);
    assert_eq!(world.seats[0].faults, []);
    world.seats[0].slow = false;
    world.settle();
    world.assert_ended(0, CloseReason::BackendClose);
}

#[test]
fn a_resumed_attachment_that_the_backend_doesnt_know_takes_the_crash_path_once() {
    let mut world = World::new(2);
    world.frames(0, 1);
    world.settle();
    world.cut(A);
    world.connect(A);
    world.wire(A).to_backend.clear();
    let (subject, epoch) = (subject(&world), world.sessions[0].epoch());
    world.wire(A).draining = true;
    world.give(A, &Message::Refused(Refused { subject, epoch, retry: false, reason: "forgotten" }));
    assert_eq!(world.seats[0].faults, []);
    world.settle();
    world.assert_active_on(0, B);
}

/// Another language's backend may have nothing to remember, or give no credit beforehand.
#[test]
fn a_state_of_no_bytes_and_one_without_credit_are_told_by_an_empty_chunk() {
    for (total, credit) in [(0_u64, 1000), (5, 0)] {
        let mut world = World::new(2);
        world.leave(0, Otherwise::Thaw);
        world.wire(A).to_backend.clear();
        world.wire(B).to_backend.clear();
        world.wire(B).state_credit_bytes = credit;
        let message = state(&world, &b"state"[..usize::try_from(total).unwrap()], total);
        world.give(A, &Message::State(message));
        assert_eq!(said(&world, B), ["ATTACH", "STATE"]);
        assert!(!world.send_chunks() || said(&world, B).len() == 2);
        let (subject, epoch) = (subject(&world), world.sessions[0].epoch());
        world.give(B, &Message::Credit(Credit { subject, epoch, bytes: 100 }));
        world.send_chunks();
        let chunks = said(&world, B).iter().filter(|name| *name == "STATE").count();
        assert_eq!(chunks, if total == 0 { 1 } else { 2 });
        let message = attached(&world);
        world.give(B, &message);
        world.assert_active_on(0, B);
    }
}

#[test]
fn a_session_that_is_asked_for_on_a_new_link_is_resumed_before_anything_else() {
    let mut world = World::new(2);
    world.frames(0, 1);
    world.settle();
    world.refuse(B, 2);
    world.leave(0, Otherwise::Thaw);
    while !matches!(world.sessions[0].phase(), Phase::Thawing { .. }) {
        world.send_chunks();
        let _ = [A, B].iter().any(|link| world.step(*link, true) || world.step(*link, false));
    }
    world.cut(A);
    world.connect(A);
    assert_eq!(said(&world, A), ["ATTACH", "THAW"]);
    let first = world.hub.wires[0].to_backend[0].clone();
    let (Message::Attach(attach), _) = decode(&first, 1 << 20).unwrap().unwrap() else { panic!() };
    assert_eq!(attach.mode, AttachMode::Resume);
    world.settle();
    world.assert_active_on(0, A);
}
