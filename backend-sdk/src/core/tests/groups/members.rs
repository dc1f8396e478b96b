//! Who comes, who goes, and in what order all of them are heard.

use holdfast_protocol::codec::addressed::AddressedKind;
use holdfast_protocol::message::{Ack, Attach, AttachMode, FaultScope, Refused, Rule};
use holdfast_protocol::{Epoch, Message, Seq};

use super::*;
use crate::population::Population;

#[test]
fn a_newcomer_hears_first_what_they_had_not_been_sent_then_the_group() {
    let mut world = GroupWorld::new();
    world.give("1 join hello");
    let frames = arrival(session(2), &lone(b"there", &[b"from before"]), "1");
    let out = world.give_frames(&frames, false);
    assert_eq!(out, ["data 2: 2 from before", "data 3: 1 2 in", "data 4: 2 2 in"]);
    let out = world.give("2 state");
    assert_eq!(out, ["data 5: 2 fresh 1:in 2:in\n\u{1}hello\n\u{2}there state\n"]);
}

#[test]
fn members_frames_are_inputs_in_the_one_order_of_the_group() {
    let mut world = GroupWorld::of(&[1, 2]);
    for text in ["2 b", "1 a", "2 c"] {
        world.give(text);
    }
    let out = world.give("1 state");
    assert!(out[0].contains("1:in 2:in 2:b 1:a 2:c"), "{out:?}");
    assert_eq!(world.give("1 all hear"), ["data 8: 1 hear", "data 9: 2 hear"]);
}

#[test]
fn who_leaves_departs_with_the_games_state_and_is_heard_no_more() {
    let mut world = GroupWorld::of(&[1, 2]);
    let out = world.give("1 leave");
    assert_eq!(out, ["data 4: 1 departs after 3 with \"state leave\""]);
    assert_eq!(world.give("1 later"), [""; 0], "processed as nothing");
    assert_eq!(world.give("2 leave 1"), [""; 0], "who isn't a member can't leave");
    assert!(world.give("2 state")[0].contains("1:leave 2:leave 1"), "and nothing of it is in the state");
}

#[test]
fn a_session_that_comes_and_leaves_goes_on_counting_and_drawing_where_it_was() {
    let mut world = GroupWorld::of(&[1]);
    world.client_seq += 1;
    let frame = addressed(AddressedKind::Frame, session(1), b"leave");
    let Message::Data(base) = data(1, 1, world.client_seq, "") else { unreachable!() };
    let out = world.world.say(of_group(Message::Data(Data { frame: &frame, ..base })));
    let keep = departed(&out[0]).keep;
    assert_eq!((keep.inputs, keep.random, keep.wish), (40, 41, None));
}

#[test]
fn who_is_closed_hears_what_was_sent_before_and_nothing_after() {
    let mut world = GroupWorld::of(&[1]);
    assert_eq!(world.give("1 close"), ["data 2: 1 bye", "data 3: 1 Close closed by the game"]);
    assert_eq!(world.give("1 a"), [""; 0]);
}

#[test]
fn a_player_who_ends_their_side_is_told_of_and_closed() {
    let mut world = GroupWorld::of(&[1, 2]);
    let out = world.give("1 half");
    assert_eq!(out, ["data 4: 1 1 left", "data 5: 2 1 left", "data 6: 1 Close closed by the game"]);
    assert_eq!(world.give("1 gone"), [""; 0], "they are no member any more");
    assert!(!world.give("2 state")[0].contains('\u{1}'));
}

#[test]
fn a_player_who_is_gone_is_sent_nothing() {
    let mut world = GroupWorld::of(&[1, 2]);
    assert_eq!(world.give("1 gone"), ["data 4: 2 1 left"]);
    assert_eq!(world.give("1 a"), [""; 0]);
}

#[test]
fn a_newcomer_whom_the_game_refuses_goes_back_as_they_came_and_hears_why() {
    let mut world = GroupWorld::of(&[1]);
    let frames = arrival(session(2), &lone(b"unwanted", &[b"from before"]), "1");
    world.client_seq += 1;
    let Message::Data(base) = data(1, 1, world.client_seq, "") else { unreachable!() };
    let out = world.world.say(of_group(Message::Data(Data { frame: &frames[0], ..base })));
    assert_eq!(told(&out), ["data 2: 2 departs after 2 with \"unwanted\""]);
    let envelope = departed(&out[0]);
    assert_eq!(envelope.unsent[0].1, b"from before");
    assert_eq!(envelope.keep.refused, Some((group(1), "unwanted".into())));
    assert_eq!((envelope.keep.wish, envelope.keep.inputs, envelope.keep.format), (None, 40, None));
    assert_eq!(world.give("2 a"), [""; 0]);
}

#[test]
fn a_refused_newcomers_session_alone_is_told_at_start_and_asks_no_more() {
    let mut world = GroupWorld::of(&[1]);
    let frames = arrival(session(2), &lone(b"unwanted", &[]), "1");
    let Message::Data(base) = data(1, 1, 2, "") else { unreachable!() };
    let out = world.world.say(of_group(Message::Data(Data { frame: &frames[0], ..base })));
    let Message::Data(departure) = &out[0] else { unreachable!() };
    let payload = Addressed::parse(departure.frame).unwrap().payload;
    let bytes = Departure::parse(payload).unwrap().state.to_vec();
    let kept = Kept { bytes, client_seq: Seq::NONE, server_seq: Seq::NONE };
    world.world.say_all(&kept.attach(2, 7));
    let out = world.world.say(start(2, 7));
    assert_eq!(brief(&out), ["data 1: no group 1: unwanted"]);
    assert_eq!(
        brief(&world.world.say_all(&[freeze(2, 7, 0), thaw(2, 7, 8, 0, 1)])),
        ["attached epoch 8 0/1"]
    );
}

#[test]
fn a_newcomer_in_an_unread_format_goes_back_in_that_format() {
    let mut world = GroupWorld::new();
    let frames = arrival(session(1), &lone(b"x", &[]), "old");
    let Message::Data(base) = data(1, 1, 1, "") else { unreachable!() };
    let out = world.world.say(of_group(Message::Data(Data { frame: &frames[0], ..base })));
    let keep = departed(&out[0]).keep;
    assert_eq!(keep.format.as_deref(), Some("old"));
    assert_eq!(keep.refused.unwrap().1, "state format \"old\" isn't one of \"1\"");
}

#[test]
fn a_newcomer_whose_session_is_ending_goes_back_to_end() {
    let mut world = GroupWorld::new();
    let keep = Keep { close: true, ..Keep::at(std::time::SystemTime::UNIX_EPOCH) };
    let state = envelope::write(&keep, std::iter::empty(), b"x");
    let Message::Data(base) = data(1, 1, 1, "") else { unreachable!() };
    let frame = &arrival(session(1), &state, "1")[0];
    let out = world.world.say(of_group(Message::Data(Data { frame, ..base })));
    assert_eq!(departed(&out[0]).keep, keep);
}

#[test]
fn a_state_that_no_envelope_holds_goes_back_byte_by_byte() {
    let mut world = GroupWorld::new();
    let out = world.give_frames(&arrival(session(1), b"not ours", "1"), false);
    assert_eq!(out, ["data 1: 1 departs after 1 with \"not ours\""]);
}

#[test]
fn a_frame_without_an_address_is_a_fault_of_the_group_alone() {
    let long = "state ".repeat(4000);
    let joined = frames_of(&format!("1 join {long}"));
    let nonsense = [
        vec![b"x".to_vec()],
        vec![addressed(AddressedKind::Passage, session(1), b"too short")],
        vec![addressed(AddressedKind::Part, session(1), b"")],
        [joined.clone(), joined.clone()].concat(),
    ];
    for frames in nonsense {
        let mut world = GroupWorld::new();
        world.world.begin(9);
        let out = world.give_frames(&frames, false);
        assert_eq!(out.last().unwrap(), "fault Malformed", "{out:?}");
        assert_eq!(brief(&world.world.say(data(9, 1, 1, "a"))), ["data 1: a"]);
    }
}

#[test]
fn arrivals_over_the_bound_are_a_fault() {
    let settings = Settings { max_state_bytes: 1000, ..group_settings() };
    let mut world = GroupWorld { world: World::with(settings, Puppets::default()), epoch: 1, client_seq: 0 };
    world.say(attach(1, 1, AttachMode::Fresh));
    world.say(start(1, 1));
    let long = "x".repeat(300_000);
    let out = world.give(&format!("1 join {long}"));
    assert!(out.contains(&"fault WindowExceeded".into()), "{out:?}");
}

#[test]
fn a_panic_ends_the_group_and_no_other() {
    let mut world = GroupWorld::of(&[1]);
    world.world.begin(9);
    assert_eq!(world.give("1 panic"), ["fault Handler"]);
    assert_eq!(brief(&world.world.say(data(9, 1, 1, "a"))), ["data 1: a"]);
    assert_eq!(world.counts().faults, 1);
}

#[test]
fn a_session_and_a_group_of_the_same_number_are_two() {
    let mut world = GroupWorld::of(&[2]);
    world.world.begin(1);
    assert_eq!(brief(&world.world.say(data(1, 1, 1, "a"))), ["data 1: a"]);
    assert_eq!(world.give("2 b"), ["data 2: 2 b"]);
    assert_eq!(world.world.population.get(), 2);
}

#[test]
fn the_proxys_largest_frame_is_a_players_and_the_address_stands_on_top() {
    let mut world = GroupWorld::of(&[1]);
    assert_eq!(world.give("1 send 1 100000"), ["data 2: 1 100000 x"]);
    world.say(ack(1, 1, 2));
    assert_eq!(world.give("1 send 1 100001"), ["fault FrameTooLarge"]);
}

#[test]
fn a_group_is_attached_through_one_peer_at_a_time() {
    let mut world = GroupWorld::new();
    let population: Population = world.world.population.clone();
    let mut other = World::sharing(group_settings(), population);
    let attach = of_group(attach(1, 5, AttachMode::Fresh));
    let out = other.say(attach.clone());
    let Message::Refused(refused) = &out[0] else { panic!("{out:?}") };
    assert!(refused.retry);
    let by = "is attached through worker 0 of proxy host-a";
    assert_eq!(refused.reason, format!("group {} {by}", group(1)));
    world.say(release(1, 1));
    assert_eq!(brief(&other.say(attach)), ["attached epoch 5 0/0"]);
}

#[test]
fn a_group_that_another_proxy_has_is_a_fault_to_form_and_not_to_bring() {
    let mut world = GroupWorld::new();
    let population: Population = world.world.population.clone();
    let mut other = World::sharing(group_settings(), population);
    let hello = holdfast_protocol::message::Hello { proxy: "host-b", ..hello(2) };
    other.peer.link_up(&hello, other.now).unwrap();
    other.out();
    let Message::Attach(base) = of_group(attach(1, 5, AttachMode::Fresh)) else { unreachable!() };
    let out = other.say(Message::Attach(Attach { lost: true, ..base.clone() }));
    assert!(matches!(out[..], [Message::Refused(Refused { retry: true, .. })]), "{out:?}");
    let out = other.say(Message::Attach(base.clone()));
    let [Message::Fault(fault)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((fault.scope, fault.rule), (FaultScope::Attachment(base.subject, Epoch(5)), Rule::Group));
    assert_eq!(fault.text, format!("group {} is attached through worker 0 of proxy host-a", group(1)));
    world.say(release(1, 1));
    assert_eq!(brief(&other.say(Message::Attach(base))), ["attached epoch 5 0/0"]);
}

#[test]
fn a_group_of_an_earlier_run_of_the_proxy_is_in_nobodys_way() {
    let mut world = GroupWorld::new();
    let population: Population = world.world.population.clone();
    let mut other = World::sharing(group_settings(), population.clone());
    let instance = holdfast_protocol::InstanceId([8; 16]);
    let hello = holdfast_protocol::message::Hello { instance, ..hello(2) };
    other.peer.link_up(&hello, other.now).unwrap();
    other.out();
    let attach = of_group(attach(1, 5, AttachMode::Fresh));
    assert_eq!(brief(&other.say(attach.clone())), ["attached epoch 5 0/0"]);
    // The orphan goes, and the group is still taken.
    world.say(release(1, 1));
    assert_eq!(population.get(), 1);
    let mut third = World::sharing(group_settings(), population);
    let hello = holdfast_protocol::message::Hello { worker: 1, ..hello };
    third.peer.link_up(&hello, third.now).unwrap();
    third.out();
    let out = third.say(attach);
    assert!(matches!(out[..], [Message::Refused(Refused { retry: true, .. })]), "{out:?}");
}

#[test]
fn a_group_is_refused_where_none_was_agreed_on() {
    let mut world = World::with(group_settings(), Puppets::default());
    let hello = holdfast_protocol::message::Hello { capabilities: 0, ..hello(2) };
    world.peer.link_up(&hello, world.now).unwrap();
    world.out();
    let out = world.say(of_group(attach(1, 1, AttachMode::Fresh)));
    assert_eq!(brief(&out), ["refused groups aren't served: the link's capabilities lack them"]);
}

#[test]
fn a_lost_group_is_opened_as_lost() {
    let mut world = World::with(group_settings(), Puppets::default());
    let Message::Attach(base) = of_group(attach(1, 3, AttachMode::Fresh)) else { unreachable!() };
    world.say(Message::Attach(Attach { lost: true, ..base }));
    let mut world = GroupWorld { world, epoch: 3, client_seq: 0 };
    world.say(start(1, 3));
    world.give("1 join s");
    assert!(world.give("1 state")[0].contains("1 lost"));
}

#[test]
fn a_groups_acks_are_its_own() {
    let mut world = GroupWorld::of(&[1]);
    world.give("1 quiet");
    let out = world.world.pass(Duration::from_millis(20));
    let [Message::Ack(Ack { subject, data, .. })] = out[..] else { panic!("{out:?}") };
    assert_eq!((subject, data), (Subject::Group(group(1)), Seq(2)));
}
