//! Two players of a match in memory, whose frames from the game a test drops, doubles, swaps or forges.

use super::*;
use crate::hero::Core;
use crate::players::checker::Checker;
use crate::players::worlds::Worlds;
use crate::wire::{FromArena, Refused, Tag, encode_reply};
use crate::world::frame_hash;

const BYTES: usize = 96;
const GAME: GroupId = GroupId([9; 16]);
const OTHER_GAME: GroupId = GroupId([8; 16]);
const ADA: usize = 0;
const BOB: usize = 1;

struct Player {
    checker: Checker,
    core: Core,
}

struct Match {
    worlds: Worlds,
    world: World,
    players: [Player; 2],
}

fn id(player: usize) -> SessionId {
    SessionId([player as u8 + 1; 16])
}

impl Match {
    /// Both have played alone and then joined.
    fn new() -> Self {
        let player = |seed| Player { checker: Checker::new(seed, BYTES), core: Core::default() };
        let mut game =
            Self { worlds: Worlds::default(), world: World::new(5), players: [player(1), player(2)] };
        for player in [ADA, BOB] {
            game.alone(player, Ask::Nothing);
            game.alone(player, Ask::Match(GAME));
            game.alone(player, Ask::Nothing);
            game.join(player, GAME);
            game.plays(player, Ask::Nothing);
        }
        game
    }

    fn send(&mut self, player: usize, ask: Ask) -> (u64, Vec<u8>) {
        let mut frame = Vec::new();
        let input = self.players[player].checker.next_input(10, ask);
        input.encode(BYTES, &mut frame);
        (input.seq, frame)
    }

    /// The frame is processed, and the player hears so.
    fn reply(&mut self, player: usize, (seq, frame): &(u64, Vec<u8>)) {
        let Player { checker, core } = &mut self.players[player];
        core.advance(frame);
        let mut out = Vec::new();
        encode_reply(frame, *seq, core, 0, &Tag { instance: 1, version: "1".into() }, &mut out);
        let Ok(FromArena::Reply(reply)) = FromArena::decode(&out) else { panic!("a reply") };
        checker.reply(&reply);
    }

    fn alone(&mut self, player: usize, ask: Ask) {
        let sent = self.send(player, ask);
        self.reply(player, &sent);
    }

    fn join(&mut self, player: usize, game: GroupId) {
        let joined = Joined { game, you: id(player), world: self.world, members: vec![id(ADA), id(BOB)] };
        let seen = self.worlds.watch(self.world.name);
        self.players[player].checker.joined(joined, seen);
    }

    /// The frame becomes a turn, of which nobody is told yet.
    fn turn(&mut self, player: usize, (seq, frame): &(u64, Vec<u8>)) -> Turn {
        let (member, frame_hash) = (id(player), frame_hash(frame));
        self.world.advance(member, frame_hash);
        let World { turn: number, hash, .. } = self.world;
        Turn { number, member, seq: *seq, frame_hash, hash }
    }

    fn tell(&mut self, player: usize, turn: &Turn) {
        self.players[player].checker.turn(turn);
    }

    fn tell_all(&mut self, turn: &Turn) {
        self.players.iter_mut().for_each(|player| player.checker.turn(turn));
    }

    /// As it should be.
    fn plays(&mut self, player: usize, ask: Ask) {
        let sent = self.send(player, ask);
        let turn = self.turn(player, &sent);
        for member in [ADA, BOB] {
            if self.is_in(member) {
                self.tell(member, &turn);
            }
        }
        self.reply(player, &sent);
    }

    fn is_in(&self, player: usize) -> bool {
        self.players[player].checker.watch.is_in_match()
    }

    /// Play goes on without a further fault.
    fn ends(mut self) -> [Faults; 2] {
        for player in [BOB, ADA, ADA, BOB] {
            self.plays(player, Ask::Nothing);
        }
        self.players.map(|mut player| player.checker.finish())
    }
}

const NONE: Faults = Faults { lost: 0, repeated: 0, reordered: 0, mismatched: 0, diverged: 0, refused: 0 };
const LOST: Faults = Faults { lost: 1, ..NONE };
const REPEATED: Faults = Faults { repeated: 1, ..NONE };
const REORDERED: Faults = Faults { reordered: 1, ..NONE };
const MISMATCHED: Faults = Faults { mismatched: 1, ..NONE };
const DIVERGED: Faults = Faults { diverged: 1, ..NONE };

#[test]
fn a_right_match_has_no_fault() {
    assert_eq!(Match::new().ends(), [NONE, NONE]);
}

/// With a frame on its way that the match sees no more, and the next match asked for at once.
#[test]
fn a_player_may_leave_and_come_back_while_play_goes_on() {
    let mut game = Match::new();
    let leave = game.send(ADA, Ask::Leave);
    let next = game.send(ADA, Ask::Match(OTHER_GAME));
    let turn = game.turn(ADA, &leave);
    game.tell_all(&turn);
    assert_eq!(game.players[ADA].checker.watch.whereabouts(), Whereabouts::Between);
    game.reply(ADA, &leave);
    assert!(!game.is_in(ADA));
    game.plays(BOB, Ask::Nothing);
    game.reply(ADA, &next);
    assert!(!game.players[ADA].checker.is_settled());
    game.join(ADA, OTHER_GAME);
    assert_eq!(game.players[ADA].checker.watch.whereabouts(), Whereabouts::InMatch);
    assert_eq!(game.players[ADA].checker.watch.joins, 2);
    assert_eq!(game.ends(), [NONE, NONE]);
}

#[test]
fn a_turn_that_one_player_never_hears_of_is_lost() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    let turn = game.turn(ADA, &sent);
    game.tell(ADA, &turn);
    game.reply(ADA, &sent);
    assert_eq!(game.ends(), [NONE, LOST]);
}

/// Nothing comes later that would show it.
#[test]
fn the_last_turn_is_missed_too() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    let turn = game.turn(ADA, &sent);
    game.tell(ADA, &turn);
    game.reply(ADA, &sent);
    assert!(game.players[ADA].checker.is_settled() && !game.players[BOB].checker.is_settled());
    assert_eq!(game.players.map(|mut player| player.checker.finish()), [NONE, LOST]);
}

#[test]
fn a_turn_that_is_told_twice_is_repeated() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    let turn = game.turn(ADA, &sent);
    game.tell_all(&turn);
    game.tell(BOB, &turn);
    game.reply(ADA, &sent);
    assert_eq!(game.ends(), [NONE, REPEATED]);
}

#[test]
fn two_turns_that_swap_their_places_are_out_of_order() {
    let mut game = Match::new();
    let sent = [game.send(ADA, Ask::Nothing), game.send(ADA, Ask::Nothing)];
    let turns = [0, 1].map(|frame| game.turn(ADA, &sent[frame]));
    turns.iter().for_each(|turn| game.tell(ADA, turn));
    turns.iter().rev().for_each(|turn| game.tell(BOB, turn));
    sent.iter().for_each(|sent| game.reply(ADA, sent));
    assert_eq!(game.ends(), [NONE, REORDERED]);
}

#[test]
fn a_hash_that_does_not_follow_is_a_world_that_diverged() {
    let mut game = Match::new();
    game.world.hash ^= 1;
    game.plays(ADA, Ask::Nothing);
    assert_eq!(game.ends(), [DIVERGED, DIVERGED]);
}

/// Each of the two is a right world by itself.
#[test]
fn two_players_who_see_different_worlds_find_it_out() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    let before = game.world;
    let turn = game.turn(ADA, &sent);
    game.tell(ADA, &turn);
    game.world = before;
    let forged = Turn { seq: 1, ..game.turn(ADA, &(1, b"another".to_vec())) };
    game.tell(BOB, &forged);
    game.reply(ADA, &sent);
    let faults = game.players.map(|mut player| player.checker.finish());
    assert_eq!(faults, [NONE, DIVERGED]);
}

#[test]
fn a_player_who_joins_another_world_than_the_others_see_finds_it_out() {
    let mut game = Match::new();
    game.plays(BOB, Ask::Leave);
    game.alone(BOB, Ask::Match(GAME));
    game.world.hash ^= 1;
    game.join(BOB, GAME);
    game.world.hash ^= 1;
    assert_eq!(game.players[BOB].checker.faults(), DIVERGED);
}

#[test]
fn an_own_frame_that_is_answered_and_no_turn_is_lost() {
    let mut game = Match::new();
    game.alone(ADA, Ask::Nothing);
    assert_eq!(game.ends(), [LOST, NONE]);
}

#[test]
fn an_own_frame_that_takes_effect_twice_is_repeated() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    for _ in 0..2 {
        let turn = game.turn(ADA, &sent);
        game.tell_all(&turn);
    }
    game.reply(ADA, &sent);
    assert_eq!(game.ends(), [REPEATED, NONE]);
}

#[test]
fn an_own_turn_behind_its_reply_is_out_of_order() {
    let mut game = Match::new();
    let sent = game.send(ADA, Ask::Nothing);
    let turn = game.turn(ADA, &sent);
    game.reply(ADA, &sent);
    game.tell_all(&turn);
    assert_eq!(game.ends(), [REORDERED, NONE]);
}

#[test]
fn own_frames_that_take_effect_in_another_order_are_out_of_order() {
    let mut game = Match::new();
    let sent = [game.send(ADA, Ask::Nothing), game.send(ADA, Ask::Nothing)];
    for frame in [1, 0] {
        let turn = game.turn(ADA, &sent[frame]);
        game.tell_all(&turn);
    }
    sent.iter().for_each(|sent| game.reply(ADA, sent));
    assert_eq!(game.ends(), [REORDERED, NONE]);
}

#[test]
fn an_own_frame_of_other_bytes_or_never_sent_is_a_mismatch() {
    for forged_seq in [0, 1, 100] {
        let mut game = Match::new();
        let (seq, _) = game.send(ADA, Ask::Nothing);
        let forged = (if forged_seq == 1 { seq } else { forged_seq }, b"forged".to_vec());
        let turn = game.turn(ADA, &forged);
        game.tell_all(&turn);
        assert_eq!(game.players[ADA].checker.faults(), MISMATCHED, "{forged_seq}");
        assert_eq!(game.players[BOB].checker.faults(), NONE);
    }
}

#[test]
fn turns_of_a_match_that_was_left_are_a_mismatch() {
    let mut game = Match::new();
    game.plays(ADA, Ask::Leave);
    let sent = game.send(BOB, Ask::Nothing);
    let turn = game.turn(BOB, &sent);
    game.tell_all(&turn);
    assert_eq!(game.players.map(|player| player.checker.faults()), [MISMATCHED, NONE]);
}

#[test]
fn who_leaves_misses_what_they_were_not_told_before() {
    let mut game = Match::new();
    let sent = game.send(BOB, Ask::Nothing);
    let turn = game.turn(BOB, &sent);
    game.tell(BOB, &turn);
    game.reply(BOB, &sent);
    game.plays(ADA, Ask::Leave);
    assert_eq!(game.players.map(|player| player.checker.faults()), [LOST, NONE]);
}

#[test]
fn a_match_that_was_not_asked_for_or_is_told_wrong_is_a_mismatch() {
    let mut unasked = Match::new();
    unasked.plays(ADA, Ask::Leave);
    unasked.join(ADA, GAME);
    assert_eq!(unasked.players[ADA].checker.faults(), MISMATCHED);

    let mut not_left = Match::new();
    not_left.plays(ADA, Ask::Match(OTHER_GAME));
    not_left.join(ADA, OTHER_GAME);
    assert_eq!(not_left.players[ADA].checker.faults(), MISMATCHED);

    for members in [vec![], vec![id(BOB)], vec![id(ADA), id(ADA)]] {
        let mut game = Match::new();
        game.plays(ADA, Ask::Leave);
        game.alone(ADA, Ask::Match(GAME));
        let joined = Joined { game: GAME, you: id(ADA), world: game.world, members };
        let seen = game.worlds.watch(game.world.name);
        game.players[ADA].checker.joined(joined, seen);
        assert_eq!(game.players[ADA].checker.faults(), MISMATCHED);
    }
}

#[test]
fn a_wish_that_is_refused_or_never_met_is_a_fault() {
    let mut game = Match::new();
    for player in [ADA, BOB] {
        game.plays(player, Ask::Leave);
        game.alone(player, Ask::Match(GAME));
    }
    game.players[ADA].checker.refused(&Refused { game: GAME, reason: "full" });
    assert!(game.players[ADA].checker.is_settled() && !game.players[BOB].checker.is_settled());
    let refused = Faults { refused: 1, ..NONE };
    assert_eq!(game.players.map(|mut player| player.checker.finish()), [refused, LOST]);
}
