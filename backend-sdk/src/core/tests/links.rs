//! Broken links: nothing is lost, nothing is done twice.

use std::time::Duration;

use holdfast_protocol::message::{Attach, AttachMode, AttachmentPhase, Rule};
use holdfast_protocol::{Message, Seq};

use super::world::*;

fn resume(number: u8, epoch: u64, server_seq: u64) -> Message<'static> {
    let Message::Attach(attach) = attach(number, epoch, AttachMode::Resume) else { unreachable!() };
    Message::Attach(Attach { server_seq: Seq(server_seq), ..attach })
}

#[test]
fn after_a_cut_each_side_gets_what_it_lacks() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "b")]);
    world.cut();
    let out = world.link_up(2);
    let Message::Welcome(welcome) = &out[0] else { panic!("{out:?}") };
    let listed: Vec<_> = welcome.attachments.iter().collect();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].client_seq.0, listed[0].server_seq.0), (2, 2));
    assert_eq!(listed[0].phase, AttachmentPhase::Active);
    assert_eq!(out.len(), 1, "the rest waits for what the proxy says");
    let out = world.say(resume(1, 1, 1));
    assert_eq!(brief(&out), ["attached epoch 1 2/2", "again 2: b"]);
    let out = world.say_all(&[again(data(1, 1, 2, "b")), data(1, 1, 3, "c")]);
    assert_eq!(brief(&out), ["data 3: c"], "frame 2 is processed once");
}

#[test]
fn a_session_goes_on_while_its_link_is_down() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "tick 100"));
    world.cut();
    assert_eq!(world.pass(Duration::from_millis(250)), []);
    assert_eq!(world.link_up(2).len(), 1);
    let out = world.say(resume(1, 1, 0));
    assert_eq!(brief(&out), ["attached epoch 1 1/0", "data 1: tick", "data 2: tick"]);
}

#[test]
fn a_proxy_that_just_goes_on_gets_what_it_lacks_too() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "a"), data(1, 1, 2, "quiet")]);
    world.cut();
    world.link_up(2);
    assert_eq!(brief(&world.say(data(1, 1, 3, "quiet"))), ["again 1: a"]);
    assert_eq!(brief(&world.pass(Duration::from_millis(20))), ["ack 3"]);
}

#[test]
fn nothing_is_said_of_a_session_that_the_new_link_has_not_spoken_of() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "tick 100"), data(1, 1, 2, "a")]);
    world.cut();
    world.link_up(2);
    assert_eq!(world.pass(Duration::from_secs(1)), []);
}

#[test]
fn a_resumed_session_is_sent_no_more_than_the_window_that_is_left() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "send 4 400"));
    world.cut();
    world.link_up(2);
    let Message::Attach(attach) = resume(1, 1, 2) else { unreachable!() };
    let out = world.say(Message::Attach(Attach { server_window_bytes: 500, ..attach }));
    assert_eq!(brief(&out), ["attached epoch 1 1/2", "data 3: 400 x"]);
    assert_eq!(world.say(ack(1, 1, 2)), [], "what was had before doesn't count");
    assert_eq!(brief(&world.say(ack(1, 1, 3))), ["data 4: 400 x"]);
}

#[test]
fn a_frozen_session_stays_frozen_and_gives_its_state_again() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "a"));
    let first = world.freeze(1, 1);
    world.cut();
    let out = world.link_up(2);
    let Message::Welcome(welcome) = &out[0] else { panic!("{out:?}") };
    assert_eq!(welcome.attachments.iter().next().unwrap().phase, AttachmentPhase::Frozen);
    assert_eq!(brief(&world.say(resume(1, 1, 1))), ["attached epoch 1 1/1"]);
    assert_eq!(world.freeze(1, 1).bytes, first.bytes);
}

#[test]
fn a_session_whose_state_was_arriving_is_attached_anew() {
    let mut old = World::new();
    old.begin(1);
    let kept = old.freeze(1, 1);
    let mut new = World::new();
    let [attach, _] = kept.attach(1, 2);
    new.say(attach);
    new.cut();
    let out = new.link_up(2);
    let [Message::Welcome(welcome)] = &out[..] else { panic!("{out:?}") };
    assert!(welcome.attachments.is_empty());
    assert_eq!(brief(&new.say_all(&kept.attach(1, 2))), ["attached epoch 2 0/0"]);
}

#[test]
fn an_attach_whose_answer_was_lost_begins_anew_and_start_may_be_repeated() {
    let mut world = World::new();
    world.say(attach(1, 1, AttachMode::Fresh));
    assert_eq!(brief(&world.say(attach(1, 1, AttachMode::Fresh))), ["attached epoch 1 0/0"]);
    assert_eq!(world.say_all(&[start(1, 1), start(1, 1)]), []);
    assert_eq!(world.population.get(), 1);
    assert_eq!(fault_of(&world.say(attach(1, 1, AttachMode::Fresh)), 1), Rule::Unexpected);
}

#[test]
fn an_older_generation_is_refused_and_the_present_link_stays() {
    let mut world = World::new();
    world.link_up(5);
    assert_eq!(world.peer.link_up(&hello(5), world.now).unwrap_err().rule, Rule::Handshake);
    world.begin(1);
    assert_eq!(brief(&world.say(data(1, 1, 1, "a"))), ["data 1: a"]);
}

#[test]
fn orphans_are_given_up_at_the_deadline() {
    let mut world = World::new();
    world.begin(1);
    world.cut();
    world.pass(Duration::from_secs(149));
    assert_eq!(world.population.get(), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.population.get(), world.peer.counts().orphans), (0, 1));
}

#[test]
fn a_resume_of_what_it_has_not_is_refused() {
    let mut world = World::new();
    assert_eq!(brief(&world.say(resume(1, 1, 0))), ["refused no such attachment"]);
}
