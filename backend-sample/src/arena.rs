//! The game: each player is a [`Hero`] that every frame advances; ticks are pushed on the side.
//!
//! It asks nothing but its context, so it can be replayed. Who serves the player stands in every reply and is another
//! process each time, so it comes in as the result of work: an input like any other, which is replayed as it was.
//!
//! A player who asks for a match goes on there with the same hero: see [`Battle`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_backend::{
    Context, Game, Group, GroupContext, GroupId, Opening, Refusal, Session, Tag as Timer,
};

use crate::battle::Battle;
use crate::hero::{Core, Hero};
use crate::mishaps::Mishaps;
use crate::wire::{Ask, Fields, Input, Refused, Tag, encode_reply};

pub(crate) const TICK: Timer = Timer(1);
/// Work: who serves the player from here on.
pub(crate) const SERVED: Timer = Timer(2);

/// What a change of a player's state begins with, at level `delta`.
const CHANGED_CORE: u8 = 1;
const CHANGED_TICKS: u8 = 2;
const CHANGED_SERVER: u8 = 3;

/// What an arena is told at its start.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Stands in every reply, as soon as the player's game knows it. The version has 64 bytes at most.
    pub tag: Tag,
    /// The tag isn't this process's own: the player's game knows it from the start, and nobody can tell its arenas
    /// apart by their answers.
    pub shares_tag: bool,
    /// Size of a player's saved state.
    pub state_bytes: usize,
    /// The same for the first player alone.
    pub first_state_bytes: Option<usize>,
    /// Time between ticks; None: no ticks.
    pub tick: Option<Duration>,
    pub faults: Faults,
    pub mishaps: Mishaps,
}

/// What goes wrong on purpose, each time.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every saved state comes out damaged.
    pub corrupt_state: bool,
    /// The player is closed at this frame.
    pub close_at: Option<u64>,
}

pub struct Arena {
    rules: Arc<Rules>,
    has_first: AtomicBool,
}

impl Arena {
    pub fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules), has_first: AtomicBool::new(false) }
    }
}

impl Game for Arena {
    type Session = Player;

    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Player, Refusal> {
        if self.rules.mishaps.refuses() {
            return Err(Refusal::for_now("told to refuse players (--refuse-attach, --fault)"));
        }
        let mut hero = match opening {
            Opening::State(bytes) | Opening::Recovered(bytes) => {
                Hero::load(bytes).map_err(|bad| Refusal::for_good(bad.to_string()))?
            }
            Opening::Fresh | Opening::Lost => Hero::new(&format!("hero-{}", context.session())),
        };
        if let Some(period) = self.rules.tick {
            context.every(TICK, period);
        }
        let is_first = !self.has_first.swap(true, Ordering::Relaxed);
        let first_bytes = self.rules.first_state_bytes.filter(|_| is_first);
        let state_bytes = first_bytes.unwrap_or(self.rules.state_bytes);
        if self.rules.shares_tag {
            hero.served_by = self.rules.tag.clone();
        } else {
            let served_by = self.rules.served_by();
            context.spawn(SERVED, async move { served_by });
        }
        Ok(Player { rules: self.rules.clone(), hero, state_bytes, out: Vec::new() })
    }

    fn open_group(
        &self,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Box<dyn Group>, Refusal> {
        Ok(Box::new(Battle::open(self.rules.clone(), opening, context)?))
    }
}

pub struct Player {
    rules: Arc<Rules>,
    hero: Hero,
    /// Size of the saved state.
    state_bytes: usize,
    /// The frame being written; kept for its allocation.
    out: Vec<u8>,
}

impl Session for Player {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        let close_at = self.rules.faults.close_at;
        let befallen = self.rules.mishaps.befall_frame();
        let Ok(input) = Input::decode(frame) else {
            // Not one of our players: nothing it sends later can be understood either.
            context.close();
            return;
        };
        self.hero.core.advance(frame);
        self.out.clear();
        let Hero { core, served_by, .. } = &self.hero;
        encode_reply(frame, input.seq, core, self.rules.tick_ms(), served_by, &mut self.out);
        context.send(&self.out);
        self.tell(CHANGED_CORE, context, |hero, out| hero.core.encode(out));
        let close = befallen || close_at == Some(self.hero.core.count);
        match input.ask {
            Ask::Burst(ticks) => {
                (0..ticks).for_each(|_| self.tick(context));
                self.tell(CHANGED_TICKS, context, |hero, out| out.extend(hero.ticks.to_be_bytes()));
            }
            Ask::Match(game) => context.join(game),
            Ask::Nothing | Ask::Leave => {}
        }
        if close {
            context.close();
        }
    }

    fn timer(&mut self, timer: Timer, context: &mut Context<'_>) {
        debug_assert_eq!(timer, TICK);
        self.tick(context);
        self.tell(CHANGED_TICKS, context, |hero, out| out.extend(hero.ticks.to_be_bytes()));
    }

    fn finished(&mut self, work: Timer, result: &[u8], context: &mut Context<'_>) {
        debug_assert_eq!(work, SERVED);
        if let Some(served_by) = Tag::load(result) {
            self.hero.served_by = served_by;
            self.tell(CHANGED_SERVER, context, |hero, out| hero.served_by.save(out));
        }
    }

    fn join_refused(&mut self, game: GroupId, reason: &str, context: &mut Context<'_>) {
        self.out.clear();
        Refused { game, reason }.encode(&mut self.out);
        context.send(&self.out);
    }

    fn apply(&mut self, change: &[u8], _: &mut Context<'_>) {
        let mut fields = Fields(change);
        let mut applied = !change.is_empty();
        // An input may have told several.
        while applied && !fields.0.is_empty() {
            applied = match fields.u8() {
                Ok(CHANGED_CORE) => Core::decode(&mut fields).map(|core| self.hero.core = core).is_ok(),
                Ok(CHANGED_TICKS) => fields.u64().map(|ticks| self.hero.ticks = ticks).is_ok(),
                Ok(CHANGED_SERVER) => {
                    Tag::load(std::mem::take(&mut fields.0)).map(|tag| self.hero.served_by = tag).is_some()
                }
                Ok(_) | Err(_) => false,
            };
        }
        // Going on with less than was kept would be worse: the proxy takes the player elsewhere.
        assert!(applied, "a change of {} bytes that no arena writes", change.len());
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut saved = self.hero.save(self.state_bytes);
        if self.rules.faults.corrupt_state
            && let Some(last) = saved.last_mut()
        {
            *last ^= 1;
        }
        saved
    }
}

impl Player {
    fn tick(&mut self, context: &mut Context<'_>) {
        self.out.clear();
        self.hero.tick().encode(&mut self.out);
        context.send(&self.out);
    }

    /// Tells a change of the hero, if somebody keeps it.
    fn tell(&mut self, kind: u8, context: &mut Context<'_>, write: impl FnOnce(&Hero, &mut Vec<u8>)) {
        if context.wants_change() {
            self.out.clear();
            self.out.push(kind);
            write(&self.hero, &mut self.out);
            context.change(&self.out);
        }
    }
}

impl Rules {
    pub(crate) fn tick_ms(&self) -> u32 {
        self.tick.map_or(0, |period| period.as_millis() as u32)
    }

    /// The result of [`SERVED`].
    pub(crate) fn served_by(&self) -> Vec<u8> {
        let mut served_by = Vec::new();
        self.tag.save(&mut served_by);
        served_by
    }
}

#[cfg(test)]
mod tests;
