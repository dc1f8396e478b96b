//! A match: the players in it keep their heroes, and share a [`World`] that each of their frames advances.
//!
//! A hero comes as the player's saved state and leaves as one, so the player's own chain goes on through both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use holdfast_backend::{Group, GroupContext, Newcomer, Opening, Refusal, SessionId, Tag as Timer};
use xxhash_rust::xxh3::xxh3_64;

use crate::arena::{Rules, SERVED, TICK};
use crate::hero::Hero;
use crate::wire::{Ask, Input, Joined, Tag, Turn, encode_reply};
use crate::world::{World, frame_hash};

mod saved;

/// Each frame is told to all of them.
const MAX_MEMBERS: usize = 250;

pub struct Battle {
    rules: Arc<Rules>,
    world: World,
    members: BTreeMap<SessionId, Member>,
    served_by: Tag,
    /// The frame being written; kept for its allocation.
    out: Vec<u8>,
}

struct Member {
    hero: Hero,
    /// Size of the hero's saved state: what it was when the player came.
    state_bytes: usize,
}

impl Battle {
    /// # Errors
    /// When the saved state isn't one.
    pub fn open(
        rules: Arc<Rules>,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Self, Refusal> {
        if rules.mishaps.refuses() {
            return Err(Refusal::for_now("told to refuse matches (--refuse-attach, --fault)"));
        }
        let served_by = Tag { instance: 0, version: String::new() };
        let world = World::default();
        let mut battle = Self { rules, world, members: BTreeMap::new(), served_by, out: Vec::new() };
        match opening {
            Opening::State(bytes) | Opening::Recovered(bytes) => {
                battle.load(bytes).map_err(|bad| Refusal::for_good(bad.to_string()))?;
            }
            Opening::Fresh | Opening::Lost => {
                // The id alone isn't enough: a match may be formed under it again.
                let since = context.now().duration_since(UNIX_EPOCH).unwrap_or_default();
                battle.world = World::new(context.random() ^ xxh3_64(&since.as_micros().to_be_bytes()));
            }
        }
        if let Some(period) = battle.rules.tick {
            context.every(TICK, period);
        }
        let served_by = battle.rules.served_by();
        context.spawn(SERVED, async move { served_by });
        Ok(battle)
    }
}

impl Group for Battle {
    fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(Refusal::for_good(format!("{MAX_MEMBERS} players are in the match already")));
        }
        let hero = Hero::load(newcomer.state).map_err(|bad| Refusal::for_good(bad.to_string()))?;
        let you = newcomer.session;
        self.members.insert(you, Member { hero, state_bytes: newcomer.state.len() });
        let members = self.members.keys().copied().collect();
        let joined = Joined { game: context.group(), you, world: self.world, members };
        context.send(you, written(&mut self.out, |out| joined.encode(out)));
        self.tell(context, |battle, out| battle.write_member(you, 0, out));
        Ok(())
    }

    fn frame(&mut self, member: SessionId, frame: &[u8], context: &mut GroupContext<'_>) {
        let befallen = self.rules.mishaps.befall_frame();
        let Some(Member { hero, state_bytes }) = self.members.get_mut(&member) else { return };
        let Ok(input) = Input::decode(frame) else {
            // Not one of our players: nothing it sends later can be understood either.
            self.remove(member, context);
            context.close(member);
            return;
        };
        let frame_hash = frame_hash(frame);
        self.world.advance(member, frame_hash);
        let World { turn: number, hash, .. } = self.world;
        let turn = Turn { number, member, seq: input.seq, frame_hash, hash };
        context.broadcast(written(&mut self.out, |out| turn.encode(out)));

        hero.core.advance(frame);
        let (tick_ms, served_by) = (self.rules.tick_ms(), &self.served_by);
        let reply = |out: &mut Vec<u8>| encode_reply(frame, input.seq, &hero.core, tick_ms, served_by, out);
        context.send(member, written(&mut self.out, reply));
        if let Ask::Burst(ticks) = input.ask {
            (0..ticks)
                .for_each(|_| context.send(member, written(&mut self.out, |out| hero.tick().encode(out))));
        }
        let closes = befallen || self.rules.faults.close_at == Some(hero.core.count);
        let leaves = (input.ask == Ask::Leave).then(|| {
            hero.served_by.clone_from(&self.served_by);
            hero.save(*state_bytes)
        });
        self.tell(context, |battle, out| {
            battle.write_world(out);
            battle.write_member(member, 0, out);
        });
        if closes {
            self.remove(member, context);
            context.close(member);
        } else if let Some(state) = leaves {
            self.remove(member, context);
            context.leave(member, &state);
        }
    }

    fn left(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        self.remove(member, context);
    }

    fn timer(&mut self, timer: Timer, context: &mut GroupContext<'_>) {
        debug_assert_eq!(timer, TICK);
        for (member, Member { hero, .. }) in &mut self.members {
            context.send(*member, written(&mut self.out, |out| hero.tick().encode(out)));
        }
        self.tell(context, |battle, out| {
            battle.members.keys().for_each(|member| battle.write_member(*member, 0, out));
        });
    }

    fn finished(&mut self, work: Timer, result: &[u8], context: &mut GroupContext<'_>) {
        debug_assert_eq!(work, SERVED);
        if let Some(served_by) = Tag::load(result) {
            self.served_by = served_by;
            self.tell(context, Self::write_world);
        }
    }

    fn apply(&mut self, change: &[u8], _: &mut GroupContext<'_>) {
        let applied = self.read(change);
        // Going on with less than was kept would be worse: the proxy takes the match elsewhere.
        assert!(applied.is_ok(), "a change of {} bytes that no match writes: {applied:?}", change.len());
    }

    fn snapshot(&self) -> Vec<u8> {
        self.save()
    }
}

impl Battle {
    fn remove(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        if self.members.remove(&member).is_some() {
            self.tell(context, |_, out| saved::write_gone(member, out));
        }
    }

    /// Tells a change of the match, if somebody keeps it.
    fn tell(&mut self, context: &mut GroupContext<'_>, write: impl FnOnce(&Self, &mut Vec<u8>)) {
        if context.wants_change() {
            let mut out = std::mem::take(&mut self.out);
            context.change(written(&mut out, |out| write(self, out)));
            self.out = out;
        }
    }
}

/// One frame at a time, all in the same place.
fn written(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    out.clear();
    write(out);
    out
}

#[cfg(test)]
mod tests;
