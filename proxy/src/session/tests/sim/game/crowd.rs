//! A match of the simulation: each member's chain goes on as it was alone, and a chain over all members' frames shows the
//! one order in which they were processed. It ends every server frame.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_backend::{Group, GroupContext, Newcomer, Opening, Refusal, SessionId, Tag};

use super::{Ask, Input, Kind, Knobs, ONCE, State, TICK, micros, short, word};

/// Behind a member's part of a frame: when the match was formed, how many frames it has processed, and their chain.
pub const COMMON_BYTES: usize = 20;
/// A member's tags stand above its number.
const MEMBER_SHIFT: u32 = 42;
/// What some leavers take along: it travels in parts.
const LARGE_BYTES: usize = 40_000;

pub struct Crowd {
    knobs: Arc<Knobs>,
    born: u64,
    count: u32,
    chain: u64,
    /// Numbers given to members so far.
    last: u64,
    members: BTreeMap<SessionId, Member>,
}

struct Member {
    number: u64,
    state: State,
}

impl Crowd {
    pub fn open(
        knobs: &Arc<Knobs>,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Self, Refusal> {
        match (knobs.refuses.load(Ordering::Relaxed), opening) {
            (1, _) => return Err(Refusal::for_now("full")),
            (2, Opening::State(_)) => return Err(Refusal::for_good("not mine")),
            _ => {}
        }
        let knobs = Arc::clone(knobs);
        let mut crowd = Self { knobs, born: 0, count: 0, chain: 0, last: 0, members: BTreeMap::new() };
        match opening {
            Opening::Fresh => crowd.born = micros(context.now()),
            Opening::State(bytes) => crowd.read(bytes),
            Opening::Lost | Opening::Recovered(_) => panic!("a match never begins anew"),
        }
        let tick_us = crowd.knobs.tick_us.load(Ordering::Relaxed);
        if tick_us > 0 {
            context.every(TICK, Duration::from_micros(tick_us));
        }
        for member in crowd.members.values() {
            member.state.under_way.iter().for_each(|tag| crowd.begin(member.number, *tag, context));
        }
        Ok(crowd)
    }

    fn begin(&self, number: u64, tag: u64, context: &mut GroupContext<'_>) {
        let here = Tag(number << MEMBER_SHIFT | tag);
        if tag & ONCE != 0 {
            return context.after(here, Duration::from_millis(5 + tag % 64));
        }
        let knobs = Arc::clone(&self.knobs);
        context
            .spawn(here, async move { knobs.results.fetch_add(1, Ordering::Relaxed).to_le_bytes().to_vec() });
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.common();
        bytes.extend_from_slice(&self.last.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.members.len()).unwrap().to_le_bytes());
        for (id, member) in &self.members {
            let state = member.state.bytes();
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&member.number.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(state.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&state);
        }
        bytes
    }

    fn read(&mut self, bytes: &[u8]) {
        (self.born, self.count, self.chain) = common(bytes);
        self.last = word(bytes, COMMON_BYTES);
        self.members.clear();
        let mut at = COMMON_BYTES + 12;
        for _ in 0..short(bytes, COMMON_BYTES + 8) {
            let id = SessionId(bytes[at..at + 16].try_into().unwrap());
            let (number, length) = (word(bytes, at + 16), short(bytes, at + 24) as usize);
            let state = State::read(&bytes[at + 28..at + 28 + length]);
            self.members.insert(id, Member { number, state });
            at += 28 + length;
        }
    }

    fn common(&self) -> Vec<u8> {
        let mut bytes = self.born.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        bytes
    }

    fn send(&mut self, id: SessionId, context: &mut GroupContext<'_>) {
        let common = self.common();
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut bytes = member.state.tell();
        bytes.extend_from_slice(&common);
        context.send(id, &bytes);
    }

    fn tell_change(&self, context: &mut GroupContext<'_>) {
        if context.wants_change() {
            context.change(&self.bytes());
        }
    }

    /// The member is here no more, and what runs for it neither.
    fn remove(&mut self, id: SessionId, context: &mut GroupContext<'_>) -> State {
        let Member { number, state } = self.members.remove(&id).expect("it was a member");
        for tag in state.under_way.iter().filter(|tag| **tag & ONCE != 0) {
            context.cancel(Tag(number << MEMBER_SHIFT | tag));
        }
        state
    }

    fn is_over(&self, id: SessionId, chain: u64) {
        self.knobs.closed.lock().unwrap().entry(id).or_default().push(chain);
    }

    fn member_of(&self, tag: Tag) -> Option<SessionId> {
        let number = tag.0 >> MEMBER_SHIFT;
        self.members.iter().find(|(_, member)| member.number == number).map(|(id, _)| *id)
    }

    fn take_own(&mut self, tag: Tag, kind: Kind, b: u64, context: &mut GroupContext<'_>) {
        // Of who has left since: it is begun again where they are.
        let Some(id) = self.member_of(tag) else { return };
        let tag = tag.0 & ((1 << MEMBER_SHIFT) - 1);
        let state = &mut self.members.get_mut(&id).unwrap().state;
        state.under_way.retain(|other| *other != tag);
        state.take(Input { kind, a: tag, b }, &[]);
        self.send(id, context);
    }
}

/// When the match was formed, its count and its chain.
pub fn common(bytes: &[u8]) -> (u64, u32, u64) {
    (word(bytes, 0), short(bytes, 8), word(bytes, 12))
}

impl Group for Crowd {
    fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal> {
        self.last += 1;
        let (number, state) = (self.last, State::read(newcomer.state));
        state.under_way.iter().for_each(|tag| self.begin(number, *tag, context));
        let before = self.members.insert(newcomer.session, Member { number, state });
        assert!(before.is_none(), "{} came twice", newcomer.session);
        self.tell_change(context);
        Ok(())
    }

    fn frame(&mut self, id: SessionId, frame: &[u8], context: &mut GroupContext<'_>) {
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&id.0, self.chain);
        self.chain = xxhash_rust::xxh3::xxh3_64_with_seed(frame, seed);
        self.count += 1;
        let (index, ask) = (u64::from(short(frame, 0)), Ask::of(frame));
        let b = if ask == Ask::Values { micros(context.now()) ^ context.random() } else { 0 };
        let member = self.members.get_mut(&id).expect("only members are heard");
        member.state.take(Input { kind: Kind::Frame, a: index, b }, frame);
        let number = member.number;
        if let Some(tag) = ask.begins(index) {
            member.state.under_way.push(tag);
            self.begin(number, tag, context);
        }
        (0..ask.answers()).for_each(|_| self.send(id, context));
        match ask {
            Ask::Quit => {
                let state = self.remove(id, context);
                self.is_over(id, state.chain);
                context.close(id);
            }
            Ask::Leave => {
                let mut bytes = self.remove(id, context).bytes();
                // What the process would say of its own would be another thing in a replay.
                if index % 4 == 0 {
                    bytes.resize(bytes.len() + LARGE_BYTES, 0xaa);
                }
                context.leave(id, &bytes);
            }
            _ => {}
        }
        self.tell_change(context);
    }

    fn left(&mut self, id: SessionId, context: &mut GroupContext<'_>) {
        let state = self.remove(id, context);
        self.is_over(id, state.chain);
        self.tell_change(context);
    }

    fn timer(&mut self, timer: Tag, context: &mut GroupContext<'_>) {
        let values = micros(context.now()) ^ context.random();
        if timer == TICK {
            let ids: Vec<_> = self.members.keys().copied().collect();
            for id in ids {
                let state = &mut self.members.get_mut(&id).unwrap().state;
                state.take(Input { kind: Kind::Tick, a: 0, b: values }, &[]);
                self.send(id, context);
            }
        } else {
            self.take_own(timer, Kind::Once, values, context);
        }
        self.tell_change(context);
    }

    fn finished(&mut self, work: Tag, result: &[u8], context: &mut GroupContext<'_>) {
        self.take_own(work, Kind::Result, word(result, 0), context);
        self.tell_change(context);
    }

    fn apply(&mut self, change: &[u8], context: &mut GroupContext<'_>) {
        let before = std::mem::take(&mut self.members);
        self.read(change);
        for (id, member) in &self.members {
            let had = |tag: &u64| {
                before
                    .get(id)
                    .is_some_and(|old| old.number == member.number && old.state.under_way.contains(tag))
            };
            let begun = member.state.under_way.iter().filter(|tag| *tag & ONCE == 0 && !had(tag));
            begun.for_each(|tag| self.begin(member.number, *tag, context));
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.resize(bytes.len() + self.knobs.padding.load(Ordering::Relaxed), 0xaa);
        bytes
    }
}
