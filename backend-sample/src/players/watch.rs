//! One bot's judgement of the match it is in: the world's turns come one by one, each hash follows from the one before
//! and is what other players of the match saw, and the bot's own frames are among them once, in order, before their
//! replies.
//!
//! Which frames belong to the match follows from the order on the connection: those that are answered behind `joined`,
//! up to the one that asks to leave.

use std::collections::BTreeSet;
use std::rc::Rc;

use holdfast_backend::{GroupId, SessionId};

use crate::players::checker::Faults;
use crate::players::sequence::Sequence;
use crate::players::worlds::Seen;
use crate::wire::{Ask, Joined, Turn};
use crate::world::World;

#[derive(Default)]
pub struct Watch {
    /// A match that the bot has asked for and isn't in yet.
    asked: Option<GroupId>,
    seat: Option<Seat>,
    /// How often it came into a match.
    pub joins: u64,
}

/// In a match.
struct Seat {
    you: SessionId,
    /// After the last turn that was seen.
    world: World,
    turns: Sequence,
    /// Own frames in the world, by seq.
    own: Sequence,
    /// The frame that asks to leave.
    leave: Option<u64>,
    /// What the others saw; None when that was something else, which is said once, or is no matter any more.
    seen: Option<Rc<Seen>>,
}

/// Where a bot is, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    Alone,
    /// Has asked to come or to go.
    Between,
    InMatch,
}

impl Watch {
    pub fn whereabouts(&self) -> Whereabouts {
        match &self.seat {
            _ if self.asked.is_some() => Whereabouts::Between,
            Some(seat) if seat.leave.is_some() => Whereabouts::Between,
            Some(_) => Whereabouts::InMatch,
            None => Whereabouts::Alone,
        }
    }

    pub fn is_in_match(&self) -> bool {
        self.seat.is_some()
    }

    /// Whether the bot waits to be let into a match.
    pub fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// The bot sends a frame that asks for this.
    pub fn asks(&mut self, ask: Ask, seq: u64) {
        match ask {
            Ask::Nothing | Ask::Burst(_) => {}
            Ask::Match(game) => self.asked = Some(game),
            Ask::Leave => {
                if let Some(seat) = &mut self.seat {
                    seat.leave = Some(seq);
                }
            }
        }
    }

    /// `answered`: the last seq that has its reply.
    pub fn joined(&mut self, joined: Joined, answered: u64, seen: Rc<Seen>, faults: &mut Faults) {
        let Joined { game, you, world, members } = joined;
        self.leave(faults).inspect(|_| faults.mismatched += 1);
        let different: BTreeSet<_> = members.iter().collect();
        let is_told_well = different.len() == members.len() && different.contains(&you);
        if self.asked.take() != Some(game) || !is_told_well {
            faults.mismatched += 1;
        }
        let mut seat = Seat {
            you,
            world,
            turns: Sequence::after(world.turn),
            own: Sequence::after(answered),
            leave: None,
            seen: Some(seen),
        };
        seat.compare(faults);
        self.seat = Some(seat);
        self.joins += 1;
    }

    pub fn refused(&mut self, game: GroupId, faults: &mut Faults) {
        if self.asked.take() != Some(game) {
            faults.mismatched += 1;
        }
        faults.refused += 1;
    }

    pub fn is_own(&self, turn: &Turn) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.you == turn.member)
    }

    /// `sent`: the bot's last seq; `own_hash`: of the frame with the turn's seq, if that is an own one and not answered.
    pub fn turn(&mut self, turn: &Turn, sent: u64, own_hash: Option<u64>, faults: &mut Faults) {
        let Some(seat) = &mut self.seat else {
            faults.mismatched += 1;
            return;
        };
        if seat.turns.take(turn.number, faults) {
            seat.advance(turn, faults);
        }
        if seat.you != turn.member {
            return;
        }
        let was_sent = (1..=sent).contains(&turn.seq);
        if !was_sent || seat.own.take(turn.seq, faults) && own_hash != Some(turn.frame_hash) {
            faults.mismatched += 1;
        }
    }

    /// This frame has its reply.
    pub fn answered(&mut self, seq: u64, faults: &mut Faults) {
        let Some(seat) = &mut self.seat else { return };
        seat.own.skip_to(seat.leave.map_or(seq, |leave| leave.min(seq)));
        if seat.leave.is_some_and(|leave| leave <= seq) {
            self.leave(faults);
        }
    }

    /// Turns that others have seen and this one hasn't yet.
    pub fn behind(&self) -> u64 {
        self.seat.as_ref().map_or(0, Seat::behind)
    }

    /// The connection has ended: what others see from now on isn't for this one.
    pub fn cut_off(&mut self) {
        if let Some(seat) = &mut self.seat {
            seat.seen = None;
        }
    }

    /// Of a match that is left nothing comes any more.
    fn leave(&mut self, faults: &mut Faults) -> Option<Seat> {
        let mut seat = self.seat.take()?;
        seat.finish(faults);
        Some(seat)
    }

    /// What hasn't come by now is lost, a wish too.
    pub fn finish(&mut self, faults: &mut Faults) {
        faults.lost += u64::from(self.asked.take().is_some());
        if let Some(seat) = &mut self.seat {
            seat.finish(faults);
            faults.lost += seat.behind();
            seat.seen = None;
        }
    }
}

impl Seat {
    fn advance(&mut self, turn: &Turn, faults: &mut Faults) {
        let mut expected = self.world;
        expected.advance(turn.member, turn.frame_hash);
        self.world = World { turn: turn.number, hash: turn.hash, ..self.world };
        if expected.turn == turn.number && expected.hash != turn.hash {
            faults.diverged += 1;
        } else {
            self.compare(faults);
        }
    }

    fn compare(&mut self, faults: &mut Faults) {
        let World { turn, hash, .. } = self.world;
        if self.seen.take_if(|seen| !seen.agrees(turn, hash)).is_some() {
            faults.diverged += 1;
        }
    }

    fn behind(&self) -> u64 {
        self.seen.as_ref().map_or(0, |seen| seen.last_turn().saturating_sub(self.world.turn))
    }

    fn finish(&mut self, faults: &mut Faults) {
        self.turns.finish(faults);
        self.own.finish(faults);
    }
}

#[cfg(test)]
mod tests;
