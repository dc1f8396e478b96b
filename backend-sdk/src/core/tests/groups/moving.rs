//! A group moves whole: its members, its shared state, and what has come of an arrival.

use super::*;

fn elsewhere(kept: &Kept, epoch: u64, client_seq: u64) -> GroupWorld {
    let mut world = World::with(group_settings(), Puppets::default());
    let out = world.say_all(&kept.attach(1, epoch).map(of_group));
    let (client, server) = (kept.client_seq, kept.server_seq);
    assert_eq!(brief(&out), [format!("attached epoch {epoch} {client}/{server}")]);
    GroupWorld { world, epoch, client_seq }
}

#[test]
fn a_group_goes_on_elsewhere_with_its_members_and_its_order() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.give("2 a");
    let kept = world.freeze();
    let mut other = elsewhere(&kept, 2, 3);
    other.give_again("1 b");
    let out = other.say(start(1, 2));
    assert_eq!(out, ["data 5: 1 b"]);
    assert!(other.give("2 state")[0].contains("1:in 2:in 2:a 1:b"));
    assert_eq!(other.give("1 leave"), ["data 7: 1 departs after 6 with \"state b leave\""]);
}

#[test]
fn an_arrival_that_has_come_half_way_moves_with_the_group() {
    let long = "s".repeat(40_000);
    let frames = frames_of(&format!("2 join {long}"));
    for cut in 0..frames.len() {
        let mut world = GroupWorld::of(&[1]);
        world.give_frames(&frames[..cut], false);
        let kept = world.freeze();
        let mut other = elsewhere(&kept, 2, 1 + cut as u64);
        other.say(start(1, 2));
        let out = other.give_frames(&frames[cut..], false);
        assert_eq!(out, ["data 2: 1 2 in", "data 3: 2 2 in"], "cut after {cut} parts");
        other.say(ack(1, 2, 3));
        assert!(other.give("1 state")[0].contains(&format!("{long}\n")), "with all of its state");
    }
}

#[test]
fn a_group_that_was_frozen_and_thawed_has_its_members() {
    let mut world = GroupWorld::of(&[1, 2]);
    world.freeze();
    assert_eq!(world.say(thaw(1, 1, 2, 2, 3)), ["attached epoch 2 2/3"]);
    world.epoch = 2;
    assert_eq!(world.give("1 all hear"), ["data 4: 1 hear", "data 5: 2 hear"]);
}

#[test]
fn a_groups_state_that_holds_no_members_list_is_refused() {
    let mut world = World::with(group_settings(), Puppets::default());
    let bytes = lone(b"\x07what a session would write", &[]);
    let (client_seq, server_seq) = (holdfast_protocol::Seq(1), holdfast_protocol::Seq(1));
    let kept = Kept { bytes, client_seq, server_seq };
    let out = world.say_all(&kept.attach(1, 2).map(of_group));
    assert_eq!(brief(&out), ["refused version of the members should be 1, is 7"]);
}

#[test]
fn welcome_lists_a_group_as_one() {
    let mut world = GroupWorld::of(&[1]);
    world.world.cut();
    let out = world.world.link_up(2);
    let Message::Welcome(welcome) = &out[0] else { panic!("{out:?}") };
    let entry = welcome.attachments.iter().next().unwrap();
    assert_eq!((entry.subject, entry.client_seq.0, entry.server_seq.0), (Subject::Group(group(1)), 1, 1));
}
