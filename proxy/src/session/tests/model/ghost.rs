//! What only the checker knows: everything at once. No part of the world acts on it.

use crate::session::LinkId;

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// Invariant 1: the session ended, and neither the client, the game nor a deadline ended it.
    Ended,
    /// Invariant 2, towards the game.
    ClientFrames,
    /// Invariant 2, towards the player.
    ServerFrames,
    /// Invariant 3.
    TwoActive,
    /// Invariant 8: a member is played elsewhere than in its group, or the group's state isn't one.
    Torn,
    /// Invariant 4: a session whose backend is well took the crash path.
    Lost(LinkId),
    /// The backend found a rule broken.
    ProxyBrokeARule,
    /// The proxy found a rule broken, or was told of one.
    BackendBrokeARule,
    /// Timers, reservations or places that don't fit the phase.
    Bookkeeping,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ghost {
    pub wrong: Option<Wrong>,
    /// The most that a game had when it was told of the player's end.
    pub saved: Option<Vec<u8>>,
    pub processed: u8,
    pub lost: u8,
    /// A history has ended with its backend, and another has begun.
    pub anew: bool,
    /// A deadline of the session's end or stay has passed.
    pub deadline_passed: bool,
    pub refused_for_good: bool,
    pub game_closed: bool,
    /// The client is gone: the game may forget the session before the proxy does.
    pub departed: bool,
}

impl Ghost {
    /// The game is told of the player's end.
    pub fn save(&mut self, frames: &[u8]) {
        if self.saved.as_ref().is_none_or(|saved| saved.len() < frames.len()) {
            self.saved = Some(frames.to_vec());
        }
    }

    /// The first one counts: what follows may be its consequence.
    pub fn wrong(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }

    pub fn note(&mut self, outcome: Result<(), Wrong>) {
        if let Err(wrong) = outcome {
            self.wrong(wrong);
        }
    }
}
