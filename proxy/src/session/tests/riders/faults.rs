//! What a group's backend may not say.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Departure};
use holdfast_protocol::message::{Data, Message, Rule, Subject};
use holdfast_protocol::{Seq, SessionId, TraceContext};

use super::super::game::group;
use super::super::world::{A, World};
use super::{fresh, until};
use crate::telemetry::counters::CloseReason;

#[test]
fn frames_to_members_who_are_gone_use_up_no_window() {
    let mut world = World::party(fresh(), 2);
    let group = world.party_index();
    world.gone(1, CloseReason::ClientError);
    let epoch = world.sessions[group].epoch();
    let from = world.sessions[group].server_seq();
    let frame = [&Addressed::head(AddressedKind::Frame, world.sessions[1].id())[..], &[7; 500]].concat();
    let mut seq = from;
    for _ in 0..40 {
        seq = seq.next();
        let data = group_data(&world, seq, Seq::NONE, &frame);
        world.give(A, &Message::Data(data));
        assert_eq!(world.sessions[group].epoch(), epoch);
        assert_eq!(world.seats[group].faults, [], "a window's worth of them comes again and again");
    }
}

fn group_data<'a>(world: &World, seq: Seq, ack: Seq, frame: &'a [u8]) -> Data<'a> {
    Data {
        subject: Subject::Group(group(1)),
        epoch: world.sessions[world.party_index()].epoch(),
        seq,
        ack,
        record: Seq::NONE,
        again: false,
        trace: TraceContext::default(),
        frame,
    }
}

fn departure(member: SessionId, client_seq: Seq) -> Vec<u8> {
    let departure = Departure { client_seq, state: b"" }.to_bytes();
    [&Addressed::head(AddressedKind::Passage, member)[..], &departure].concat()
}

/// The fault that a frame of the group's backend is, after two frames of member 0 that were processed and one that
/// wasn't.
#[track_caller]
fn fault_of(frame: impl FnOnce(&World) -> Vec<u8>) -> (Vec<Rule>, usize) {
    let mut world = World::party(fresh(), 2);
    world.frames(0, 2);
    world.settle();
    world.advance(Duration::from_secs(1));
    world.frames(0, 1);
    let group = world.party_index();
    let before = world.seats[group].stale;
    let frame = frame(&world);
    let seq = world.sessions[group].server_seq().next();
    let data = group_data(&world, seq, Seq::NONE, &frame);
    world.give(A, &Message::Data(data));
    (world.seats[group].faults.clone(), world.seats[group].stale - before)
}

#[test]
fn a_departure_that_an_ack_has_passed_or_that_never_was_sent_breaks_a_rule() {
    let member = |world: &World| world.sessions[0].id();
    let sent = |world: &World| world.sessions[world.party_index()].client_seq();
    let leaves = |add: u64, less: u64| {
        fault_of(move |world| departure(member(world), Seq(sent(world).0 + add - less))).0
    };
    assert_eq!(leaves(0, 0), [], "after the last frame that was sent");
    assert_eq!(leaves(0, 1), [], "after the last that was processed");
    assert_eq!(leaves(0, 2), [Rule::OutOfSequence], "an ack has passed it");
    assert_eq!(leaves(1, 0), [Rule::AckBeyondSent]);
}

#[test]
fn a_departure_of_who_has_only_come_since_breaks_a_rule() {
    let mut world = World::party(fresh(), 1);
    let newcomer = world.open(Arc::new(fresh()));
    world.settle();
    world.frame(newcomer, b"join 1");
    until(&mut world, |world| world.sessions[newcomer].is_aboard());
    let group = world.party_index();
    let frame = departure(world.sessions[newcomer].id(), Seq(world.sessions[group].client_seq().0 - 1));
    let seq = world.sessions[group].server_seq().next();
    let data = group_data(&world, seq, Seq::NONE, &frame);
    world.give(A, &Message::Data(data));
    assert_eq!(world.seats[group].faults, [Rule::OutOfSequence]);
}

#[test]
fn frames_of_a_group_that_say_nothing_that_can_be_done_break_a_rule() {
    let to = |world: &World, kind| Addressed::head(kind, world.sessions[0].id()).to_vec();
    assert_eq!(fault_of(|_| b"no address".to_vec()).0, [Rule::Malformed]);
    assert_eq!(fault_of(|_| vec![9; 40]).0, [Rule::Malformed]);
    assert_eq!(fault_of(|world| to(world, AddressedKind::Half)).0, [Rule::Unexpected]);
    assert_eq!(fault_of(|world| to(world, AddressedKind::Passage)).0, [Rule::Malformed], "no departure");
    let endless = |world: &World| [to(world, AddressedKind::Part), vec![0; 400 * 1024]].concat();
    assert_eq!(fault_of(endless).0, [Rule::StateOverrun]);
}

#[test]
fn what_is_for_somebody_else_is_dropped_and_counted() {
    for kind in [AddressedKind::Frame, AddressedKind::Close, AddressedKind::Part, AddressedKind::Passage] {
        let stranger = |_: &World| Addressed::head(kind, SessionId([3; 16])).to_vec();
        assert_eq!(fault_of(stranger), (vec![], 1), "{kind:?}");
    }
}
