//! How sessions end: by the player, by the game, by the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_protocol::Message;

use super::world::*;

fn closed(world: &World) -> usize {
    world.closed.load(Ordering::Relaxed)
}

#[test]
fn a_full_close_is_told_to_the_game_and_acked_and_ends_the_attachment() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "quiet"));
    let out = world.say(close(1, 1, 2, false));
    assert_eq!(brief(&out).last().unwrap(), "ack 2");
    assert_eq!((closed(&world), world.population.get()), (1, 0));
}

#[test]
fn a_half_close_lets_what_is_queued_be_processed_and_sent_and_then_closes() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "send 6 900"));
    assert_eq!(world.say_all(&[data(1, 1, 2, "b"), close(1, 1, 3, true)]), []);
    assert_eq!(closed(&world), 0, "frame 2 waits for room");
    let mut seen = Vec::new();
    for seq in 1..=9 {
        seen.extend(brief(&world.say(ack(1, 1, seq))));
    }
    assert_eq!(seen[5..], ["data 7: b", "data 8: closed", "close 9"]);
    assert_eq!((closed(&world), world.population.get()), (1, 0), "its CLOSE was acked");
}

#[test]
fn a_close_by_the_game_comes_after_all_it_sent() {
    let mut world = World::new();
    world.begin(1);
    let out = world.say(data(1, 1, 1, "close"));
    assert_eq!(brief(&out), ["data 1: bye", "data 2: closed", "close 3"]);
    assert_eq!(world.say(data(1, 1, 2, "too late")), []);
    assert_eq!(brief(&world.pass(Duration::from_millis(20))), ["ack 2"], "the player's window stays open");
    assert_eq!(world.say(ack(1, 1, 3)), []);
    assert_eq!((closed(&world), world.population.get()), (1, 0));
}

#[test]
fn a_close_from_both_sides_at_once_ends_once() {
    let mut world = World::new();
    world.begin(1);
    world.say(data(1, 1, 1, "close"));
    assert_eq!(brief(&world.say(close(1, 1, 2, false))), ["ack 2"]);
    assert_eq!((closed(&world), world.population.get()), (1, 0));
}

#[test]
fn a_player_who_leaves_during_a_move_is_closed_where_the_state_went() {
    let mut old = World::new();
    old.begin(1);
    old.say(data(1, 1, 1, "a"));
    let kept = old.freeze(1, 1);
    let mut new = World::new();
    new.say_all(&kept.attach(1, 2));
    let out = new.say_all(&[again(data(1, 2, 2, "b")), start(1, 2), close(1, 2, 3, false)]);
    assert_eq!(brief(&out).last().unwrap(), "ack 3");
    assert_eq!((closed(&old), closed(&new)), (0, 1));
}

#[test]
fn a_close_asked_for_before_start_moves_with_the_state() {
    let mut old = World::new();
    old.begin(1);
    let kept = old.freeze(1, 1);
    let mut middle = World::new();
    middle.say_all(&kept.attach(1, 2));
    assert_eq!(middle.say(again(data(1, 2, 1, "close"))), []);
    let kept = middle.freeze(1, 2);
    let mut new = World::new();
    new.say_all(&kept.attach(1, 3));
    assert_eq!(brief(&new.say(start(1, 3))), ["data 1: bye", "data 2: closed", "close 3"]);
}

#[test]
fn work_begun_by_a_session_that_is_closed_runs_to_its_end() {
    let mut world = World::new();
    world.begin(1);
    world.say_all(&[data(1, 1, 1, "work"), close(1, 1, 2, false)]);
    assert!(world.aborted.is_empty() && !world.peer.is_idle());
    world.peer.finished(world.jobs[0], Some(Vec::new()), world.now);
    assert!(world.peer.is_idle());
}

#[test]
fn a_drain_is_told_at_once_and_on_every_later_link() {
    let mut world = World::new();
    let out = world.drain(Duration::from_secs(30));
    let [Message::Drain(drain)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((drain.deadline_ms, drain.returns), (30_000, true));
    world.cut();
    world.pass(Duration::from_secs(10));
    let out = world.link_up(2);
    let [Message::Welcome(welcome), Message::Drain(drain)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((welcome.draining, drain.deadline_ms), (true, 20_000));
}
