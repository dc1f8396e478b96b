//! Groups on this worker. Mirrors `worker::groups`, but that nobody is dismissed for taking nothing: a match waits for
//! its slowest player here, who has done nothing wrong.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::message::{Message, Refused, Subject};
use holdfast_protocol::{GroupId, SessionId};

use super::super::io::{Io, Time};
use super::seat::Seat;
use super::{Slot, Worker};
use crate::session::handoff::Begun;
use crate::session::riders::Departed;
use crate::session::tests::seat::Ask;
use crate::session::{LinkId, Order, Otherwise, Phase, Session};
use crate::telemetry::counters::{CloseReason, HandoffCause};

const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Groups' places follow those of players.
pub const FIRST_GROUP: usize = 1000;

/// A session's part in a group.
#[derive(Debug, Default)]
pub struct Company {
    pub aboard: Option<usize>,
    pub wanted: Option<GroupId>,
    pub not_before: Option<Time>,
    pub from: Option<LinkId>,
    pub barred: Option<(GroupId, &'static str)>,
    pub clogs: bool,
    pub clogged: u32,
    /// How often it came into a group.
    pub joined: u32,
}

impl Worker {
    pub fn do_requests(&mut self, io: &mut Io) {
        let mut acked = Vec::new();
        while !self.hub.requests.is_empty() {
            for (key, ask) in std::mem::take(&mut self.hub.requests) {
                match ask {
                    Ask::Deliver(member, frame) => {
                        self.relay(key, member, &frame);
                        acked.push(key);
                    }
                    Ask::Read(member, on) => self.read_member(member, on),
                    Ask::Departs(member, departed) => self.departs(member, departed, io),
                    Ask::Over(member, reason) => {
                        let member = self.by_id[&member];
                        self.disembarks(member, io);
                        self.drive(member, io, |session, fx| session.part(reason, fx));
                    }
                    Ask::Joins(group) => self.joins(key, group, io),
                    Ask::Boards => self.boards(key, io),
                }
                let slots = &self.slots;
                self.groups.retain(|_, key| slots.get(key).is_some_and(|slot| slot.seat.ended.is_none()));
            }
        }
        acked.dedup();
        for group in acked {
            self.group_handed(group, io);
        }
        if !self.hub.requests.is_empty() {
            self.do_requests(io);
        }
    }

    fn relay(&mut self, group: usize, member: SessionId, frame: &[u8]) {
        let Some(key) = self.by_id.get(&member).copied() else { return };
        let Some(Slot { seat, session }) = self.slots.get_mut(&key) else { return };
        assert_eq!(seat.company.aboard, Some(group), "only members are sent to");
        if seat.conn.is_none() {
            return;
        }
        self.hub.service.framing.write(frame, &mut seat.outbox).expect("the game's frames are short");
        if !std::mem::replace(&mut seat.dirty, true) {
            self.hub.dirty_clients.push(key);
        }
        let window = session.service().limits.server_window_bytes as usize;
        if seat.outbox.len() > window && !std::mem::replace(&mut seat.company.clogs, true) {
            self.slots.get_mut(&group).unwrap().seat.company.clogged += 1;
        }
    }

    pub fn unclog(&mut self, key: usize, io: &mut Io) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if std::mem::take(&mut slot.seat.company.clogs)
            && let Some(group) = slot.seat.company.aboard
            && let Some(slot) = self.slots.get_mut(&group)
        {
            slot.seat.company.clogged -= 1;
            self.group_handed(group, io);
        }
    }

    fn group_handed(&mut self, group: usize, io: &mut Io) {
        let free = |slot: &Slot| slot.seat.company.clogged == 0 && slot.seat.ended.is_none();
        if self.slots.get(&group).is_some_and(free) {
            self.drive(group, io, |session, fx| session.handed(fx));
        }
    }

    pub fn look_after_groups(&mut self, io: &mut Io) {
        let wants = |slot: &Slot| slot.seat.company.wanted.is_some();
        let waiting: Vec<_> =
            self.slots.iter().filter(|(_, slot)| wants(slot)).map(|(key, _)| *key).collect();
        waiting.into_iter().for_each(|key| self.try_board(key, io));
    }

    fn read_member(&mut self, member: SessionId, on: bool) {
        let Some(slot) = self.by_id.get(&member).and_then(|key| self.slots.get_mut(key)) else { return };
        slot.seat.reading = on;
        slot.seat.held |= on;
        self.hub.relieved |= on;
    }

    fn departs(&mut self, member: SessionId, departed: Departed, io: &mut Io) {
        let key = self.by_id[&member];
        let group = self.disembarks(key, io);
        if let (Some(reason), Some(group)) = (departed.came_back, group) {
            self.slots.get_mut(&key).unwrap().seat.company.barred = Some((group, reason));
        }
        self.read_member(member, true);
        self.drive(key, io, |session, fx| session.disembark(departed, fx));
    }

    fn disembarks(&mut self, key: usize, io: &mut Io) -> Option<GroupId> {
        self.unclog(key, io);
        let aboard = self.slots.get_mut(&key)?.seat.company.aboard.take()?;
        let slot = self.slots.get(&aboard)?;
        let group = slot.session.group();
        if slot.session.riders().is_some_and(|riders| riders.is_empty()) {
            self.drive(aboard, io, |session, fx| session.end(CloseReason::BackendClose, fx));
        }
        group
    }

    fn joins(&mut self, key: usize, group: GroupId, io: &mut Io) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let company = &mut slot.seat.company;
        if let Some((_, reason)) = company.barred.take_if(|(barred, _)| *barred == group) {
            return self.refuse_join(key, reason);
        }
        company.wanted = Some(group);
        self.try_board(key, io);
    }

    fn refuse_join(&mut self, key: usize, reason: &'static str) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.seat.company.wanted = None;
        let (subject, epoch) = (slot.session.subject(), slot.session.epoch());
        if let Phase::Active { link } = *slot.session.phase() {
            self.hub.say(link, &Message::Refused(Refused { subject, epoch, retry: false, reason }));
        }
    }

    fn try_board(&mut self, key: usize, io: &mut Io) {
        let now = self.hub.now;
        let Some(slot) = self.slots.get(&key) else { return };
        let company = &slot.seat.company;
        let (Some(group), &Phase::Active { link }) = (company.wanted, slot.session.phase()) else { return };
        if company.not_before.is_some_and(|time| now < time) || slot.seat.leaving.is_some() {
            return;
        }
        if let Some(reason) = self.bars(slot, group) {
            return self.refuse_join(key, reason);
        }
        let order = Order { cause: HandoffCause::Group, otherwise: Otherwise::Board };
        let begun = self.drive(key, io, |session, fx| {
            fx.seat.company.not_before = Some(now + AGAIN_AFTER);
            fx.seat.company.from = Some(link);
            session.leave(order, fx)
        });
        if begun == Some(Begun::NotNow) {
            self.slots.get_mut(&key).unwrap().seat.company.not_before = None;
        }
    }

    fn bars(&self, slot: &Slot, group: GroupId) -> Option<&'static str> {
        let here = self.slots.get(self.groups.get(&group)?)?;
        let members = here.session.riders().map_or(0, |riders| riders.len());
        (members >= slot.session.service().limits.max_group_members as usize).then_some("full")
    }

    fn boards(&mut self, key: usize, io: &mut Io) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.seat.company.not_before = None;
        let group = slot.seat.company.wanted.take().expect("it was asked for");
        let beside = slot.seat.company.from;
        if let Some(reason) = self.bars(&self.slots[&key], group) {
            self.slots.get_mut(&key).unwrap().seat.company.barred = Some((group, reason));
            let boarding = self.drive(key, io, |session, fx| session.take_luggage(fx)).unwrap();
            self.drive(key, io, |session, fx| session.disembark(boarding.back(reason), fx));
            return;
        }
        let (aboard, is_new) = match self.groups.get(&group) {
            Some(here) => (*here, false),
            None => (self.found_group(group, io), true),
        };
        let boarding = self.drive(key, io, |session, fx| session.take_luggage(fx)).unwrap();
        let slot = self.slots.get_mut(&key).unwrap();
        slot.seat.company.aboard = Some(aboard);
        slot.seat.company.joined += 1;
        let member = slot.session.id();
        self.drive(aboard, io, |session, fx| {
            session.admit(member, &boarding, fx);
            if is_new {
                session.open_beside(beside, fx);
            }
        });
    }

    fn found_group(&mut self, group: GroupId, io: &mut Io) -> usize {
        let key = FIRST_GROUP + self.founded;
        self.founded += 1;
        let opened_us = u64::try_from(io.now.as_micros()).unwrap();
        let session = Session::new_group(group, Arc::clone(&self.hub.service), opened_us);
        self.slots.insert(key, Slot { session, seat: Seat::empty() });
        self.groups.insert(group, key);
        key
    }

    pub fn key_of(&self, subject: Subject) -> Option<usize> {
        match subject {
            Subject::Session(session) => self.by_id.get(&session).copied(),
            Subject::Group(group) => self.groups.get(&group).copied(),
        }
    }

    pub fn aboard(&self, key: usize) -> Option<usize> {
        self.slots.get(&key)?.seat.company.aboard
    }
}
