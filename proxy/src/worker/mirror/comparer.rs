//! The frames of a player and those of its shadow, compared in their order: the first with the first, and so on.
//!
//! Of a frame whose counterpart isn't there yet a hash waits, on one of the two sides, and as many as have a bound.
//! Beyond it the two are too far from each other, and nothing more is compared. Pure.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64;

use crate::telemetry::counters::Likeness;

/// Frames that one side may be ahead of the other.
const MOST_AHEAD: usize = 512;

/// Whose frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Player,
    Shadow,
}

#[derive(Debug)]
pub struct Comparer {
    /// Hashes of the frames by which that side is ahead.
    ahead: Side,
    hashes: VecDeque<u64>,
    compared: u64,
    /// One side came too far ahead.
    is_lost: bool,
}

impl Default for Comparer {
    fn default() -> Self {
        Self { ahead: Side::Player, hashes: VecDeque::new(), compared: 0, is_lost: false }
    }
}

impl Comparer {
    /// One more frame of that side. What is known by it, and of how many frames: a pair counts once.
    pub fn takes(&mut self, side: Side, frame: &[u8]) -> Option<(Likeness, u64)> {
        if self.is_lost {
            return Some((Likeness::Uncompared, 1));
        }
        let hash = xxh3_64(frame);
        if side == self.ahead || self.hashes.is_empty() {
            self.ahead = side;
            if self.hashes.len() < MOST_AHEAD {
                self.hashes.push_back(hash);
                return None;
            }
            self.is_lost = true;
            let unmatched = std::mem::take(&mut self.hashes).len() as u64 + 1;
            return Some((Likeness::Uncompared, unmatched));
        }
        let is_equal = self.hashes.pop_front() == Some(hash);
        self.compared += 1;
        Some((if is_equal { Likeness::Equal } else { Likeness::Different }, 1))
    }

    /// Pairs so far.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Frames without a counterpart so far.
    pub fn waiting(&self) -> u64 {
        self.hashes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(comparer: &mut Comparer, side: Side, frames: &[u8]) -> [u64; 3] {
        let mut counts = [0; 3];
        for frame in frames {
            if let Some((likeness, frames)) = comparer.takes(side, &[*frame]) {
                counts[likeness as usize] += frames;
            }
        }
        counts
    }

    #[test]
    fn frames_are_compared_in_their_order_whoever_is_ahead() {
        let mut comparer = Comparer::default();
        assert_eq!(frames(&mut comparer, Side::Shadow, b"abc"), [0, 0, 0]);
        assert_eq!(frames(&mut comparer, Side::Player, b"abxy"), [2, 1, 0]);
        assert_eq!(comparer.waiting(), 1);
        assert_eq!(frames(&mut comparer, Side::Shadow, b"y"), [1, 0, 0]);
        assert_eq!((comparer.waiting(), comparer.compared()), (0, 4));
    }

    #[test]
    fn who_is_too_far_ahead_isnt_compared_any_more_and_holds_nothing() {
        let mut comparer = Comparer::default();
        let most = vec![b'a'; MOST_AHEAD];
        assert_eq!(frames(&mut comparer, Side::Player, &most), [0, 0, 0]);
        assert_eq!(frames(&mut comparer, Side::Player, b"a"), [0, 0, MOST_AHEAD as u64 + 1]);
        assert_eq!(comparer.hashes.capacity(), 0);
        assert_eq!(frames(&mut comparer, Side::Shadow, b"a"), [0, 0, 1]);
    }

    proptest! {
        /// However the two streams interleave, the counts are those of the streams.
        #[test]
        fn the_order_in_which_the_sides_come_makes_no_difference(
            player in proptest::collection::vec(0u8..3, 0..60),
            shadow in proptest::collection::vec(0u8..3, 0..60),
            turns in proptest::collection::vec(any::<bool>(), 120),
        ) {
            let mut comparer = Comparer::default();
            let mut counts = [0; 3];
            let (mut players, mut shadows) = (player.iter(), shadow.iter());
            for turn in turns {
                let next = if turn { players.next() } else { shadows.next() };
                let (side, frame) = match next {
                    Some(frame) => (if turn { Side::Player } else { Side::Shadow }, frame),
                    None if turn => match shadows.next() { Some(frame) => (Side::Shadow, frame), None => break },
                    None => match players.next() { Some(frame) => (Side::Player, frame), None => break },
                };
                if let Some((likeness, frames)) = comparer.takes(side, &[*frame]) {
                    counts[likeness as usize] += frames;
                }
            }
            let equal = player.iter().zip(&shadow).filter(|(a, b)| a == b).count() as u64;
            let pairs = player.len().min(shadow.len()) as u64;
            prop_assert_eq!(counts, [equal, pairs - equal, 0]);
            prop_assert_eq!(comparer.waiting(), player.len().abs_diff(shadow.len()) as u64);
        }
    }
}
