//! The group of these tests: each member's chain goes on as it was alone, and a chain over all members' frames shows
//! the one order in which they were processed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_backend::{Group, GroupContext, Newcomer, Opening, Refusal, SessionId, Tag};

use super::{Knobs, SHOWN_BYTES, Shown, TICK, link_in_chain};

pub struct Party {
    knobs: Arc<Knobs>,
    /// Frames of all members, and the chain over them.
    count: u32,
    chain: u64,
    members: BTreeMap<SessionId, Shown>,
}

const MEMBER_BYTES: usize = 16 + SHOWN_BYTES;

/// What a member's frame from a group has behind its own part: the group's count and chain.
pub fn common(frame: &[u8]) -> Option<(u32, u64)> {
    let rest = frame.get(SHOWN_BYTES..)?.first_chunk::<12>()?;
    let (count, chain) = rest.split_at(4);
    Some((u32::from_le_bytes(count.try_into().unwrap()), u64::from_le_bytes(chain.try_into().unwrap())))
}

impl Party {
    pub fn open(
        knobs: &Arc<Knobs>,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Self, Refusal> {
        match knobs.refuses_parties.load(Ordering::Relaxed) {
            0 => {}
            1 => return Err(Refusal::for_now("full")),
            _ => return Err(Refusal::for_good("not mine")),
        }
        knobs.parties.fetch_add(1, Ordering::Relaxed);
        if knobs.ticks.load(Ordering::Relaxed) {
            context.every(Tag(1), TICK);
        }
        let mut party = Self { knobs: Arc::clone(knobs), count: 0, chain: 0, members: BTreeMap::new() };
        match opening {
            Opening::Fresh => {}
            Opening::State(bytes) => party.read(bytes),
            Opening::Lost | Opening::Recovered(_) => panic!("no group begins anew, or at a checkpoint"),
        }
        Ok(party)
    }

    fn read(&mut self, bytes: &[u8]) {
        let (count, rest) = bytes.split_at(4);
        let (chain, members) = rest.split_at(8);
        self.count = u32::from_le_bytes(count.try_into().unwrap());
        self.chain = u64::from_le_bytes(chain.try_into().unwrap());
        let member = |bytes: &[u8]| (SessionId(bytes[..16].try_into().unwrap()), Shown::parse(&bytes[16..]));
        self.members = members.chunks_exact(MEMBER_BYTES).map(member).collect();
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = [&self.count.to_le_bytes()[..], &self.chain.to_le_bytes()].concat();
        for (id, shown) in &self.members {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&shown.bytes());
        }
        bytes
    }

    fn say(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        let Some(shown) = self.members.get_mut(&member) else { return };
        shown.number += 1;
        let common = [&self.count.to_le_bytes()[..], &self.chain.to_le_bytes()].concat();
        context.send(member, &[shown.bytes(), common].concat());
    }

    fn remove(&mut self, member: SessionId) -> Vec<u8> {
        self.members.remove(&member).map_or(Vec::new(), Shown::bytes)
    }
}

impl Group for Party {
    fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal> {
        if self.knobs.turns_away.load(Ordering::Relaxed) {
            return Err(Refusal::for_good("not in the mood"));
        }
        self.members.insert(newcomer.session, Shown::parse(newcomer.state));
        context.change(&self.write());
        Ok(())
    }

    /// As alone; `leave..` is the member's last frame here, `all..` is answered to everybody, `kick..` ends all others.
    fn frame(&mut self, member: SessionId, frame: &[u8], context: &mut GroupContext<'_>) {
        assert!(!frame.starts_with(b"poison"), "the game can't bear it");
        self.count += 1;
        self.chain = link_in_chain(link_in_chain(self.chain, &member.0), frame);
        let Some(shown) = self.members.get_mut(&member) else { panic!("{member} isn't a member") };
        shown.chain = link_in_chain(shown.chain, frame);
        shown.count += 1;
        let all: Vec<_> = self.members.keys().copied().collect();
        if frame.starts_with(b"all") {
            all.iter().for_each(|member| self.say(*member, context));
        } else if !frame.starts_with(b"quiet") {
            let answers = if frame.starts_with(b"burst") { 20 } else { 1 };
            (0..answers).for_each(|_| self.say(member, context));
        }
        if frame.starts_with(b"kick") {
            for other in all.into_iter().filter(|other| *other != member) {
                context.close(other);
                self.remove(other);
            }
        }
        if frame.starts_with(b"quit") {
            context.close(member);
            self.remove(member);
        }
        if frame.starts_with(b"leave") {
            let state = self.remove(member);
            let padding = self.knobs.padding.load(Ordering::Relaxed);
            context.leave(member, &[state, vec![0xaa; padding]].concat());
        }
        context.change(&self.write());
    }

    fn left(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        let shown = self.members.remove(&member).expect("who left was a member");
        self.knobs.closed.lock().unwrap().push((shown.count, shown.chain));
        context.change(&self.write());
    }

    fn timer(&mut self, _timer: Tag, context: &mut GroupContext<'_>) {
        let all: Vec<_> = self.members.keys().copied().collect();
        all.into_iter().for_each(|member| self.say(member, context));
        context.change(&self.write());
    }

    fn apply(&mut self, change: &[u8], _context: &mut GroupContext<'_>) {
        self.read(change);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.write()
    }
}
