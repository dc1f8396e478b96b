//! Wrong streams of every kind, each of which must be counted as what it is.

use super::*;
use crate::wire::{FromArena, Tag, encode_reply};

/// A game in memory, whose outgoing frames a test drops, doubles or swaps before the checker sees them.
struct Game {
    checker: Checker,
    core: Core,
    ticks: u64,
}

const BYTES: usize = 96;

impl Game {
    fn new() -> Self {
        Self { checker: Checker::new(4, BYTES), core: Core::default(), ticks: 0 }
    }

    /// The next frame from the player.
    fn input(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.checker.next_input(10, Ask::Nothing).encode(BYTES, &mut frame);
        frame
    }

    /// What the game answers.
    fn process(&mut self, frame: &[u8]) -> Vec<u8> {
        self.core.advance(frame);
        let input = Input::decode(frame).unwrap();
        let mut out = Vec::new();
        encode_reply(frame, input.seq, &self.core, 0, &Tag { instance: 1, version: "1".into() }, &mut out);
        out
    }

    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        Tick { number: self.ticks, count: self.core.count, chain: self.core.chain }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let Ok(FromArena::Reply(reply)) = FromArena::decode(bytes) else { panic!("not a reply") };
        self.checker.reply(&reply);
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            let frame = self.input();
            let reply = self.process(&frame);
            self.receive(&reply);
            let tick = self.tick();
            self.checker.tick(&tick);
        }
    }

    /// Play goes on without a further fault, then the count is exactly this.
    fn ends_with(mut self, expected: Faults) {
        self.rounds(3);
        assert_eq!(self.checker.finish(), expected);
    }
}

const NONE: Faults = Faults { lost: 0, repeated: 0, reordered: 0, mismatched: 0, diverged: 0, refused: 0 };
const LOST: Faults = Faults { lost: 1, ..NONE };
const REPEATED: Faults = Faults { repeated: 1, ..NONE };
const REORDERED: Faults = Faults { reordered: 1, ..NONE };
const MISMATCHED: Faults = Faults { mismatched: 1, ..NONE };

fn playing() -> Game {
    let mut game = Game::new();
    game.rounds(3);
    game
}

#[test]
fn a_right_stream_has_no_fault() {
    playing().ends_with(NONE);
}

#[test]
fn a_pipelined_stream_has_no_fault() {
    let mut game = playing();
    let frames: Vec<_> = (0..5).map(|_| game.input()).collect();
    for frame in frames {
        let reply = game.process(&frame);
        game.receive(&reply);
    }
    game.ends_with(NONE);
}

#[test]
fn a_dropped_reply_is_lost() {
    let mut game = playing();
    let frame = game.input();
    game.process(&frame);
    game.ends_with(LOST);
}

#[test]
fn a_dropped_player_frame_is_lost() {
    let mut game = playing();
    game.input();
    game.ends_with(LOST);
}

#[test]
fn a_reply_still_owed_at_the_end_is_lost() {
    let mut game = playing();
    game.input();
    assert_eq!(game.checker.finish(), LOST);
}

#[test]
fn a_doubled_reply_is_repeated() {
    let mut game = playing();
    let frame = game.input();
    let reply = game.process(&frame);
    game.receive(&reply);
    game.receive(&reply);
    game.ends_with(REPEATED);
}

#[test]
fn a_player_frame_that_the_game_got_twice_is_repeated() {
    let mut game = playing();
    let frame = game.input();
    for _ in 0..2 {
        let reply = game.process(&frame);
        game.receive(&reply);
    }
    game.ends_with(REPEATED);
}

#[test]
fn a_player_frame_that_took_effect_twice_behind_one_reply_is_repeated() {
    let mut game = playing();
    let frame = game.input();
    game.process(&frame);
    let reply = game.process(&frame);
    game.receive(&reply);
    game.ends_with(REPEATED);
}

#[test]
fn swapped_replies_are_reordered() {
    let mut game = playing();
    let (one, two) = (game.input(), game.input());
    let (first, second) = (game.process(&one), game.process(&two));
    game.receive(&second);
    game.receive(&first);
    game.ends_with(REORDERED);
}

#[test]
fn swapped_player_frames_are_reordered() {
    let mut game = playing();
    let (one, two) = (game.input(), game.input());
    for frame in [two, one] {
        let reply = game.process(&frame);
        game.receive(&reply);
    }
    game.ends_with(REORDERED);
}

#[test]
fn a_wrong_chain_is_a_mismatch() {
    let mut game = playing();
    game.core.chain ^= 1;
    let frame = game.input();
    let reply = game.process(&frame);
    game.receive(&reply);
    game.ends_with(MISMATCHED);
}

#[test]
fn a_changed_byte_in_the_echo_is_a_mismatch() {
    let mut game = playing();
    let frame = game.input();
    let mut reply = game.process(&frame);
    *reply.last_mut().unwrap() ^= 1;
    game.receive(&reply);
    game.ends_with(MISMATCHED);
}

#[test]
fn a_player_frame_changed_on_the_way_is_a_mismatch() {
    let mut game = playing();
    let mut frame = game.input();
    frame[30] ^= 1;
    let reply = game.process(&frame);
    game.receive(&reply);
    game.ends_with(MISMATCHED);
}

#[test]
fn a_reply_to_a_frame_that_was_never_sent_is_a_mismatch() {
    let mut game = playing();
    let core = game.core;
    let frame = game.input();
    let mut reply = game.process(&frame);
    game.receive(&reply);
    reply[1..9].copy_from_slice(&900u64.to_be_bytes());
    assert_ne!(core, game.core);
    game.receive(&reply);
    game.ends_with(MISMATCHED);
}

#[test]
fn state_that_went_back_is_lost() {
    let mut game = playing();
    let before = game.core;
    for _ in 0..4 {
        let frame = game.input();
        let reply = game.process(&frame);
        game.receive(&reply);
    }
    game.core = before;
    let frame = game.input();
    let reply = game.process(&frame);
    game.receive(&reply);
    game.ends_with(Faults { lost: 4, ..NONE });
}

#[test]
fn a_skipped_tick_is_lost() {
    let mut game = playing();
    game.tick();
    game.ends_with(LOST);
}

#[test]
fn a_doubled_tick_is_repeated() {
    let mut game = playing();
    let tick = game.tick();
    game.checker.tick(&tick);
    game.checker.tick(&tick);
    game.ends_with(REPEATED);
}

#[test]
fn swapped_ticks_are_reordered() {
    let mut game = playing();
    let (one, two) = (game.tick(), game.tick());
    game.checker.tick(&two);
    game.checker.tick(&one);
    game.ends_with(REORDERED);
}

#[test]
fn a_tick_that_overtook_a_reply_is_reordered() {
    let mut game = playing();
    let frame = game.input();
    let reply = game.process(&frame);
    let tick = game.tick();
    game.checker.tick(&tick);
    game.receive(&reply);
    game.ends_with(REORDERED);
}

#[test]
fn a_reply_that_overtook_a_tick_is_reordered() {
    let mut game = playing();
    let tick = game.tick();
    let frame = game.input();
    let reply = game.process(&frame);
    game.receive(&reply);
    game.checker.tick(&tick);
    game.ends_with(REORDERED);
}

#[test]
fn a_tick_with_a_wrong_chain_is_a_mismatch() {
    let mut game = playing();
    let mut tick = game.tick();
    tick.chain ^= 1;
    game.checker.tick(&tick);
    game.ends_with(MISMATCHED);
}
