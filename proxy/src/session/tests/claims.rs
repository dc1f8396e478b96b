//! A group is one proxy's: who can't come into it goes on as it was, and nothing that its client said meanwhile is lost.

use std::sync::Arc;

use holdfast_protocol::codec::addressed::Arrival;
use holdfast_protocol::codec::capability::GROUPS;
use holdfast_protocol::message::{Fault, FaultScope, Message, Rule, State};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext};

use super::seat::{Ask, Fx, Seat};
use super::world::{A, B, World, order, service};
use crate::routing::table::OnCrash;
use crate::session::outbound::Kind;
use crate::session::riders::Boarding;
use crate::session::{Client, Otherwise, Phase, Session};
use crate::telemetry::counters::CloseReason;

const MEMBER: SessionId = SessionId([7; 16]);
const HELD: &str = "group 01 is attached through worker 0 of proxy host-b";

/// What is asked for isn't done: it stands in the hub.
fn drive<T>(world: &mut World, act: impl FnOnce(&mut Session, &mut Fx<'_>) -> T) -> T {
    act(&mut world.sessions[0], &mut Fx { index: 0, hub: &mut world.hub, seat: &mut world.seats[0] })
}

/// A group whose first member has come, on its way to backend A.
fn forming() -> World {
    let mut world = World::empty(2);
    for link in [A, B] {
        world.wire(link).capabilities |= GROUPS;
    }
    world.sessions.push(Session::new_group(GroupId([1; 16]), Arc::new(service(OnCrash::Fresh)), 1));
    world.seats.push(Seat::default());
    let arrival = Arrival { opened_us: 1, client: "203.0.113.9:1", format: "chain", state: b"as it was" };
    let boarding = Boarding { arrival: arrival.to_bytes(), frames: Vec::new(), client: Client::Open };
    drive(&mut world, |group, fx| {
        group.admit(MEMBER, &boarding, fx);
        group.open_beside(None, fx);
    });
    assert!(matches!(world.sessions[0].phase(), Phase::Attaching { link: A, asked: true, .. }));
    world
}

fn fault(world: &mut World, rule: Rule) {
    let group = &world.sessions[0];
    let scope = FaultScope::Attachment(group.subject(), group.epoch());
    let fault = Message::Fault(Fault { scope, rule, text: HELD });
    drive(world, |group, fx| group.message(A, &fault, fx));
}

#[test]
fn a_group_that_a_backend_has_from_another_proxy_is_formed_nowhere_else() {
    let mut world = forming();
    let told = world.wire(B).to_backend.len();
    fault(&mut world, Rule::Group);
    assert_eq!(world.seats[0].ended, Some(CloseReason::NoBackend));
    assert_eq!(world.wire(B).to_backend.len(), told, "B isn't asked");
    let Some((_, Ask::Departs(MEMBER, departed))) = world.hub.asks.pop_front() else { panic!("it goes on") };
    assert!(world.hub.asks.is_empty());
    assert_eq!(departed.state, Some((b"as it was".to_vec(), "chain".to_owned())));
    assert_eq!(departed.came_back, Some("a backend has the group through another proxy"));
}

#[test]
fn a_group_that_a_backend_fails_for_another_reason_is_formed_elsewhere() {
    let mut world = forming();
    fault(&mut world, Rule::Malformed);
    assert!(matches!(world.sessions[0].phase(), Phase::Attaching { link: B, .. }), "{:?}", world.sessions[0]);
    assert!(world.hub.asks.is_empty());
}

/// A session whose state is here, and that is to be in a group.
fn boarding() -> World {
    let mut world = World::new(1);
    drive(&mut world, |session, fx| session.leave(order(Otherwise::Board), fx));
    let session = &world.sessions[0];
    let state = State {
        subject: session.subject(),
        epoch: session.epoch(),
        is_final: true,
        total_bytes: 5,
        offset_bytes: 0,
        client_seq: session.client_seq(),
        server_seq: session.server_seq(),
        record_seq: Seq::NONE,
        members: 0,
        chunk: b"state",
    };
    drive(&mut world, |session, fx| session.message(A, &Message::State(state), fx));
    assert_eq!(*world.sessions[0].phase(), Phase::Aboard);
    assert!(matches!(world.hub.asks.pop_front(), Some((0, Ask::Boards))));
    world
}

#[test]
fn what_a_client_says_before_its_session_is_in_the_group_goes_with_it() {
    let mut world = boarding();
    let boarding = drive(&mut world, |session, fx| {
        session.frame(b"meanwhile", TraceContext::NONE, 0, fx);
        session.client_finished(fx);
        session.client_gone(CloseReason::ClientClose, fx);
        session.take_luggage(fx)
    });
    let said: Vec<_> = boarding.frames.iter().map(|queued| (queued.kind, &queued.frame[..])).collect();
    let expected = [(Kind::Frame, &b"meanwhile"[..]), (Kind::CloseHalf, b""), (Kind::Close, b"")];
    assert_eq!((said, boarding.client), (expected.to_vec(), Client::Gone));
}

#[test]
fn a_state_that_is_on_its_way_into_a_group_is_counted_when_it_is_dropped() {
    let mut world = boarding();
    drive(&mut world, |session, fx| session.end(CloseReason::Shutdown, fx));
    assert_eq!((world.seats[0].ended, world.seats[0].states_dropped), (Some(CloseReason::Shutdown), 1));
}
