//! The game: each player is a [`Hero`] that every frame advances; ticks are pushed on the side.

use std::sync::Arc;
use std::time::Duration;

use holdfast_backend::{Context, Game, Opening, Refusal, Session, Tag as Timer};

use crate::hero::{Core, Hero};
use crate::wire::{Input, Tag, Tick, encode_reply};

const TICK: Timer = Timer(1);

/// What an arena is told at its start.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Stands in every reply.
    pub tag: Tag,
    /// Size of a player's saved state.
    pub state_bytes: usize,
    /// Time between ticks; None: no ticks.
    pub tick: Option<Duration>,
    pub faults: Faults,
}

/// What goes wrong on purpose.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every player is refused, for now.
    pub refuse_attach: bool,
    /// Every saved state comes out damaged.
    pub corrupt_state: bool,
    /// Each frame takes this long.
    pub slow: Duration,
    /// The player is closed at this frame.
    pub close_at: Option<u64>,
}

pub struct Arena {
    rules: Arc<Rules>,
}

impl Arena {
    pub fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules) }
    }
}

impl Game for Arena {
    type Session = Player;

    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Player, Refusal> {
        if self.rules.faults.refuse_attach {
            return Err(Refusal::for_now("told to refuse players (--refuse-attach)"));
        }
        let hero = match opening {
            Opening::State(bytes) | Opening::Recovered(bytes) => {
                Hero::load(bytes).map_err(|bad| Refusal::for_good(bad.to_string()))?
            }
            Opening::Fresh | Opening::Lost => Hero::new(&format!("hero-{}", context.session())),
        };
        if let Some(period) = self.rules.tick {
            context.every(TICK, period);
        }
        Ok(Player { rules: self.rules.clone(), hero, out: Vec::new() })
    }
}

pub struct Player {
    rules: Arc<Rules>,
    hero: Hero,
    /// The frame being written; kept for its allocation.
    out: Vec<u8>,
}

impl Session for Player {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        let Rules { tag, faults, .. } = &*self.rules;
        if !faults.slow.is_zero() {
            std::thread::sleep(faults.slow);
        }
        let Ok(input) = Input::decode(frame) else {
            // Not one of our players: nothing it sends later can be understood either.
            context.close();
            return;
        };
        self.hero.core.advance(frame);
        self.out.clear();
        encode_reply(frame, input.seq, &self.hero.core, self.rules.tick_ms(), tag, &mut self.out);
        context.send(&self.out);
        let close = faults.close_at == Some(self.hero.core.count);
        (0..input.burst).for_each(|_| self.tick(context));
        if close {
            context.close();
        }
    }

    fn timer(&mut self, timer: Timer, context: &mut Context<'_>) {
        debug_assert_eq!(timer, TICK);
        self.tick(context);
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut saved = self.hero.save(self.rules.state_bytes);
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
        self.hero.ticks += 1;
        let Core { count, chain, .. } = self.hero.core;
        self.out.clear();
        Tick { number: self.hero.ticks, count, chain }.encode(&mut self.out);
        context.send(&self.out);
    }
}

impl Rules {
    fn tick_ms(&self) -> u32 {
        self.tick.map_or(0, |period| period.as_millis() as u32)
    }
}
