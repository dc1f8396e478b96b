//! What the bots of this process have seen of each world: members of one match must have seen the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Turns of a world that are kept to compare. One who reads later than that is compared when they have caught up: each
/// hash follows from the one before, so two who agree at one turn agree about all turns that both have checked.
const TURNS_KEPT: usize = 1024;

/// All worlds that some bot watches.
#[derive(Default)]
pub struct Worlds(RefCell<BTreeMap<u64, Weak<Seen>>>);

/// The hashes of one world, by turn.
#[derive(Default)]
pub struct Seen(RefCell<BTreeMap<u64, u64>>);

impl Worlds {
    /// It is kept as long as somebody holds it.
    pub fn watch(&self, name: u64) -> Rc<Seen> {
        let mut worlds = self.0.borrow_mut();
        if let Some(seen) = worlds.get(&name).and_then(Weak::upgrade) {
            return seen;
        }
        worlds.retain(|_, seen| seen.strong_count() > 0);
        let seen = Rc::<Seen>::default();
        worlds.insert(name, Rc::downgrade(&seen));
        seen
    }
}

impl Seen {
    /// The last that anybody was told of.
    pub fn last_turn(&self) -> u64 {
        self.0.borrow().last_key_value().map_or(0, |(turn, _)| *turn)
    }

    /// Whether this is the world's hash after that turn for everybody who has told it so far.
    pub fn agrees(&self, turn: u64, hash: u64) -> bool {
        let mut turns = self.0.borrow_mut();
        let agrees = *turns.entry(turn).or_insert(hash) == hash;
        if turns.len() > TURNS_KEPT {
            turns.pop_first();
        }
        agrees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_one_for_all_who_watch_it_and_forgotten_with_the_last() {
        let worlds = Worlds::default();
        let (ada, bob, other) = (worlds.watch(1), worlds.watch(1), worlds.watch(2));
        assert!(ada.agrees(5, 50) && bob.agrees(5, 50) && other.agrees(5, 51));
        assert!(!bob.agrees(5, 51));
        drop((ada, bob));
        assert!(worlds.watch(1).agrees(5, 51), "nobody remembers");
        assert_eq!(worlds.0.borrow().len(), 2);
    }

    #[test]
    fn only_the_last_turns_are_kept_and_one_who_lags_is_compared_there() {
        let seen = Seen::default();
        let turns = TURNS_KEPT as u64 * 3;
        assert!((1..=turns).all(|turn| seen.agrees(turn, turn)));
        assert_eq!(seen.0.borrow().len(), TURNS_KEPT);
        assert!(seen.agrees(1, 99), "too old to be told");
        assert!(!seen.agrees(turns, 99));
    }
}
