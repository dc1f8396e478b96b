//! [`Random`]: a session's random numbers. Its state is part of the session's, so that a replay draws the same ones.

use holdfast_protocol::SessionId;

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). It stands here rather
/// than in a crate because its numbers may never change: sessions are replayed by other builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The generator of a session that begins. Ids are random, so no two begin alike.
    pub fn of(session: SessionId) -> Self {
        let id = u128::from_be_bytes(session.0);
        let (high, low) = ((id >> 64) as u64, id as u64);
        Self { state: mix(high) ^ low }
    }

    pub fn with_state(state: u64) -> Self {
        Self { state }
    }

    pub fn state(self) -> u64 {
        self.state
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random::with_state(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| random.next()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_generator_goes_on_from_its_state() {
        let mut random = Random::of(SessionId([7; 16]));
        random.next();
        let mut other = Random::with_state(random.state());
        assert_eq!(other.next(), random.next());
    }
}
