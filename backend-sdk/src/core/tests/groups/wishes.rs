//! JOIN: when it is said, for how long, and what its refusal does.

use holdfast_protocol::message::{Attach, AttachMode, Hello, Refused};
use holdfast_protocol::{Epoch, Message};

use super::*;
use crate::core::LinkEnd;

fn refused(number: u8, epoch: u64) -> Message<'static> {
    let (subject, epoch) = (subject(number), Epoch(epoch));
    Message::Refused(Refused { subject, epoch, retry: false, reason: "full" })
}

fn world() -> World {
    let mut world = World::with(group_settings(), Puppets::default());
    world.begin(1);
    world
}

#[test]
fn a_wish_is_said_when_its_handler_has_run() {
    let mut world = world();
    assert_eq!(brief(&world.say(data(1, 1, 1, "join 5"))), ["join 5 epoch 1"]);
    assert_eq!(brief(&world.say(data(1, 1, 2, "join 6"))), ["join 6 epoch 1"], "the last one wins");
    assert_eq!(brief(&world.say(data(1, 1, 3, "a"))), ["data 1: a"], "and isn't said with every input");
}

#[test]
fn a_wish_is_said_again_after_thaw_resume_and_elsewhere_at_start() {
    let mut world = world();
    world.say(data(1, 1, 1, "join 5"));
    let kept = world.freeze(1, 1);
    assert_eq!(brief(&world.say(thaw(1, 1, 2, 1, 0))), ["attached epoch 2 1/0", "join 5 epoch 2"]);
    world.cut();
    world.link_up(2);
    let Message::Attach(base) = attach(1, 2, AttachMode::Resume) else { unreachable!() };
    let resume = Message::Attach(Attach { client_seq: holdfast_protocol::Seq(1), ..base });
    assert_eq!(brief(&world.say(resume)), ["attached epoch 2 1/0", "join 5 epoch 2"]);
    let mut other = World::with(group_settings(), Puppets::default());
    assert_eq!(brief(&other.say_all(&kept.attach(1, 3))), ["attached epoch 3 1/0"], "not before START");
    assert_eq!(brief(&other.say(start(1, 3))), ["join 5 epoch 3"]);
}

#[test]
fn a_wish_from_before_start_is_said_at_start() {
    let mut world = World::with(group_settings(), Puppets::default());
    world.say(attach(1, 1, AttachMode::Fresh));
    assert_eq!(world.say(again(data(1, 1, 1, "join 5"))), []);
    assert_eq!(brief(&world.say(start(1, 1)))[0], "join 5 epoch 1");
}

#[test]
fn a_refusal_ends_the_wish_and_the_game_is_told_once() {
    let mut world = world();
    world.say(data(1, 1, 1, "join 5"));
    assert_eq!(brief(&world.say(refused(1, 1))), ["data 1: no group 5: full"]);
    assert_eq!(world.say(refused(1, 1)), []);
    assert_eq!(world.peer.counts().stale, 1, "nothing is wished for any more");
    world.freeze(1, 1);
    assert_eq!(brief(&world.say(thaw(1, 1, 2, 1, 1))), ["attached epoch 2 1/1"]);
}

#[test]
fn a_refusal_of_another_epoch_or_of_nobody_is_stale() {
    let mut world = world();
    world.say(data(1, 1, 1, "join 5"));
    assert_eq!(world.say_all(&[refused(1, 7), refused(8, 1)]), []);
    assert_eq!(world.peer.counts().stale, 2);
}

#[test]
fn a_refusal_of_a_group_is_a_fault_of_the_link() {
    let mut world = world();
    let Message::Refused(base) = refused(1, 1) else { unreachable!() };
    let message = Message::Refused(Refused { subject: Subject::Group(group(1)), ..base });
    assert!(matches!(world.peer.receive(&message, world.now).unwrap_err(), LinkEnd::Fault(_)));
}

#[test]
fn a_refusal_that_comes_while_frozen_is_told_after_the_thaw() {
    let mut world = world();
    world.say(data(1, 1, 1, "join 5"));
    world.freeze(1, 1);
    assert_eq!(world.say(refused(1, 1)), []);
    let out = world.say(thaw(1, 1, 2, 1, 0));
    assert_eq!(brief(&out), ["attached epoch 2 1/0", "data 1: no group 5: full"]);
}

#[test]
fn without_groups_the_game_is_told_at_once() {
    let mut world = World::new();
    world.begin(1);
    let out = world.say(data(1, 1, 1, "join 5"));
    assert_eq!(brief(&out), ["data 1: no group 5: the game has no groups (Builder::groups)"]);
    let mut world = World::with(group_settings(), Puppets::default());
    world.peer.link_up(&Hello { capabilities: 0, ..hello(2) }, world.now).unwrap();
    world.out();
    world.begin(1);
    let out = world.say(data(1, 1, 1, "join 5"));
    assert_eq!(brief(&out), ["data 1: no group 5: the proxy has no groups"]);
}
