//! The rule of departures: nothing that the proxy still needs for who has left may be acked, and no state may cover it.

use holdfast_protocol::Message;
use holdfast_protocol::message::{Attach, AttachMode, Recovery};

use super::*;

/// The acks that the messages carry.
fn acks(out: &[Message<'_>]) -> Vec<u64> {
    let ack = |message: &Message<'_>| match message {
        Message::Data(data) => Some(data.ack.0),
        Message::Ack(ack) => Some(ack.data.0),
        Message::Attached(attached) => Some(attached.client_seq.0),
        _ => None,
    };
    out.iter().filter_map(ack).collect()
}

fn resume(epoch: u64, client_seq: u64, server_seq: u64) -> Message<'static> {
    let Message::Attach(base) = attach(1, epoch, AttachMode::Resume) else { unreachable!() };
    let (client_seq, server_seq) = (holdfast_protocol::Seq(client_seq), holdfast_protocol::Seq(server_seq));
    of_group(Message::Attach(Attach { client_seq, server_seq, ..base }))
}

/// Client frame `seq` of the group, from that member.
fn give(world: &mut GroupWorld, text: &str) -> Vec<Message<'static>> {
    world.client_seq += 1;
    let frame = &frames_of(text)[0];
    let Message::Data(base) = data(1, world.epoch, world.client_seq, "") else { unreachable!() };
    world.world.say(of_group(Message::Data(Data { frame, ..base })))
}

/// The SPEC's scenario: a player leaves at frame 7 and sends 8; the link is cut with the departure on it; the backend
/// processes 8 as nothing, and must not ack it with its answer to ATTACH (resume).
#[test]
fn no_ack_passes_a_departure_that_a_cut_has_lost() {
    let mut world = GroupWorld::of(&[1, 2]);
    while world.client_seq < 6 {
        give(&mut world, "2 quiet");
    }
    let lost = give(&mut world, "1 leave");
    assert_eq!(told(&lost), ["data 4: 1 departs after 7 with \"state leave\""]);
    assert_eq!(give(&mut world, "1 for who it is now"), []);
    world.world.cut();
    world.world.link_up(2);
    let out = world.world.say(resume(1, 8, 3));
    assert_eq!(told(&out), ["attached epoch 1 7/4", "again 4: 1 departs after 7 with \"state leave\""]);
    assert_eq!(acks(&out), [7, 7]);
    // Until the proxy has the departure, no ack passes it; then what was held back follows at once.
    let out = give(&mut world, "2 all hear");
    assert_eq!(acks(&out), [7]);
    assert_eq!(acks(&world.world.pass(Duration::from_millis(100))), [0; 0]);
    let out = world.world.say(of_group(ack(1, 1, 4)));
    assert_eq!(acks(&out), [9]);
}

#[test]
fn an_input_after_a_departure_waits_until_the_departure_is_on_the_link() {
    let mut world = GroupWorld::of(&[1, 2]);
    // 1000 bytes of window: the second frame fits no more, and the departure stands behind it.
    assert_eq!(world.give("2 send 2 900"), ["data 4: 2 900 x"]);
    assert_eq!(world.give("1 leave"), [""; 0]);
    assert_eq!(world.give("1 for who it is now"), [""; 0]);
    let kept = world.freeze();
    assert_eq!((kept.client_seq.0, kept.server_seq.0), (4, 4), "frame 5 isn't covered");
}

#[test]
fn inputs_go_on_when_the_departure_has_room() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("2 send 2 900");
    world.give("1 leave");
    world.give("2 tick 5");
    world.give("2 b");
    assert_eq!(world.world.pass(Duration::from_millis(50)).len(), 1, "an ack, and no timer");
    let out = world.say(ack(1, 1, 4));
    assert_eq!(out[0], "data 5: 2 900 x");
    let out = world.say(ack(1, 1, 5));
    assert_eq!(out, ["data 6: 1 departs after 4 with \"state leave\"", "data 7: 2 b"]);
}

#[test]
fn timers_wait_for_a_departure_too() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("2 tick 5");
    world.give("2 send 2 900");
    world.give("1 leave");
    assert!(world.world.pass(Duration::from_millis(50)).iter().all(|it| !matches!(it, Message::Data(_))));
    world.say(ack(1, 1, 4));
    assert_eq!(world.say(ack(1, 1, 5))[0], "data 6: 1 departs after 5 with \"state leave\"");
    let out = world.world.pass(Duration::from_millis(50));
    assert!(told(&out).contains(&"data 7: 2 tick".into()), "{out:?}");
}

#[test]
fn a_departure_before_start_leaves_before_start_and_start_comes_behind_it() {
    let mut world = GroupWorld::inert();
    for text in ["1 join state", "2 join state", "2 all hear"] {
        assert_eq!(world.give_again(text), [""; 0], "nothing leaves before START");
    }
    let out = world.give_again("1 leave");
    let departs = "data 6: 1 departs after 4 with \"state leave\"";
    assert_eq!(out.last().unwrap(), departs, "but who departs, with what was sent before");
    assert_eq!(world.give_again("2 all later"), [""; 0]);
    let out = world.say(start(1, 1));
    assert_eq!(out, ["data 7: 2 later"]);
}

#[test]
fn start_behind_frames_that_wait_for_a_departure_is_reached() {
    let mut world = GroupWorld::inert();
    world.give_again("1 join state");
    world.give_again("2 join state");
    world.give_again("2 send 2 900");
    let out = world.give_again("1 leave");
    assert_eq!(out.len(), 4, "no room for the departure: {out:?}");
    assert_eq!(world.give_again("2 b"), [""; 0]);
    assert_eq!(world.say(start(1, 1)), [""; 0]);
    assert_eq!(world.say(ack(1, 1, 4)), ["data 5: 2 900 x"]);
    let out = world.say(ack(1, 1, 5));
    assert_eq!(out, ["data 6: 1 departs after 4 with \"state leave\"", "data 7: 2 b"]);
    assert_eq!(world.give("2 c"), ["data 8: 2 c"], "it is active");
}

#[test]
fn a_departure_that_was_frozen_before_it_left_leaves_elsewhere_before_start() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("2 send 2 900");
    world.give("1 leave");
    let kept = world.freeze();
    let mut other = World::with(group_settings(), Puppets::default());
    let out = other.say_all(&kept.attach(1, 2).map(of_group));
    assert_eq!(brief(&out), ["attached epoch 2 4/4"]);
    let mut other = GroupWorld { world: other, epoch: 2, client_seq: 4 };
    let out = other.give_again("1 for who it is now");
    assert_eq!(out, ["data 5: 2 900 x"], "no room: it waits");
    assert_eq!(other.say(start(1, 2)), [""; 0]);
    let out = other.world.say(of_group(ack(1, 2, 5)));
    assert_eq!(told(&out)[0], "data 6: 1 departs after 4 with \"state leave\"");
    assert!(acks(&out).iter().all(|&ack| ack <= 4), "{out:?}");
    assert_eq!(acks(&other.world.say(of_group(ack(1, 2, 6)))), [5]);
    assert_eq!(other.give("2 b"), ["data 7: 2 b"]);
}

#[test]
fn a_thaw_with_a_departure_unwritten_goes_on() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("2 send 2 900");
    world.give("1 leave");
    world.freeze();
    let out = world.say(thaw(1, 1, 2, 4, 4));
    assert_eq!(out, ["attached epoch 2 4/4", "data 5: 2 900 x"]);
    world.epoch = 2;
    world.give("2 b");
    let out = world.say(ack(1, 2, 5));
    assert_eq!(out, ["data 6: 1 departs after 4 with \"state leave\"", "data 7: 2 b"]);
}

#[test]
fn a_departure_made_without_a_link_leaves_on_the_next_one() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("1 once 5");
    world.give("2 tick 7");
    world.world.cut();
    assert_eq!(world.world.pass(Duration::from_millis(200)), []);
    world.world.link_up(2);
    let out = world.world.say(resume(1, 4, 3));
    assert_eq!(told(&out), ["attached epoch 1 4/3", "data 4: 1 departs after 4 with \"state once 5\""]);
    let out = world.world.pass(Duration::from_millis(50));
    assert!(told(&out).contains(&"data 5: 2 tick".into()), "{out:?}");
}

#[test]
fn a_group_that_ends_with_a_departure_unacked_leaves_nothing_behind() {
    let mut world = GroupWorld::of(&[1]);
    world.give("1 leave");
    assert_eq!(world.say(release(1, 1)), [""; 0]);
    assert_eq!(world.world.population.get(), 0);
    assert_eq!(world.world.pass(Duration::from_secs(1)), []);
}

#[test]
fn two_who_leave_with_one_input_hold_the_ack_until_both_are_acked() {
    let mut world = GroupWorld::of(&[1, 2, 3]);
    give(&mut world, "3 once 5");
    world.world.pass(Duration::from_millis(5));
    give(&mut world, "2 leave");
    give(&mut world, "3 quiet");
    assert_eq!(acks(&world.world.say(of_group(ack(1, 1, 7)))), [5]);
    assert_eq!(acks(&world.world.say(of_group(ack(1, 1, 8)))), [6]);
}

#[test]
fn a_large_state_departs_in_parts_and_the_last_one_counts() {
    let mut world = GroupWorld::new();
    let long = "s".repeat(40_000);
    world.give(&format!("1 join {long}"));
    world.give("2 join state");
    let sent = 3;
    world.say(ack(1, 1, sent));
    let mut kinds = Vec::new();
    let mut out = give(&mut world, "1 leave");
    let mut seq = sent;
    while !out.is_empty() {
        for message in &out {
            if let Message::Data(data) = message {
                seq = data.seq.0;
                kinds.push(Addressed::parse(data.frame).unwrap().kind);
                assert!(data.ack.0 <= world.client_seq);
            }
        }
        out = world.world.say(of_group(ack(1, 1, seq)));
        out.retain(|message| matches!(message, Message::Data(_)));
    }
    assert_eq!(kinds, [AddressedKind::Part, AddressedKind::Part, AddressedKind::Passage]);
}

#[test]
fn at_delta_a_departure_is_in_its_record_and_holds_the_ack_back() {
    let mut world = World::with(group_settings(), Puppets::default());
    let Message::Attach(base) = of_group(attach(1, 1, AttachMode::Fresh)) else { unreachable!() };
    world.say(Message::Attach(Attach { recovery: Recovery::Delta, ..base }));
    let mut world = GroupWorld { world, epoch: 1, client_seq: 0 };
    world.say(start(1, 1));
    world.give("1 join state");
    world.give("2 join state");
    world.say(ack(1, 1, 3));
    let out = give(&mut world, "1 leave");
    assert_eq!(brief(&out), ["record 3 Delta 3"]);
    give(&mut world, "2 a");
    world.world.cut();
    world.world.link_up(2);
    let out = world.world.say(resume(1, 4, 3));
    assert_eq!(acks(&out), [3]);
    assert_eq!(acks(&world.world.say(of_group(ack(1, 1, 4)))), [4]);
}
