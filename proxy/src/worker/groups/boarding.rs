//! A session on its way into its group: its state is in the proxy, and it becomes a member, or goes on alone.

use std::sync::Arc;

use holdfast_protocol::GroupId;

use super::super::Worker;
use super::super::slot::{Seat, SessionKey, Slot};
use super::directory::Owner;
use super::{Reason, TOO_MANY};
use crate::session::Session;

impl Worker {
    /// A session's state is here, and is to go into its group.
    pub(super) fn boards(&mut self, key: SessionKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.seat.company.not_before = None;
        let Some(group) = slot.seat.company.wanted else {
            return self.go_alone(key, "it isn't wanted any more".into());
        };
        if !self.can_come_back(key) {
            return self.go_alone(key, "its state is too large for a group at recovery delta".into());
        }
        self.enter(key, group);
    }

    /// The session goes to its group's worker, and into the group.
    pub(super) fn enter(&mut self, key: SessionKey, group: GroupId) {
        let config = &self.hub.config;
        match config.groups.claim(group, config.index, config.max_groups) {
            Some(Owner::Me) => self.enter_here(key, group),
            Some(Owner::Other(worker)) => self.send_over(key, group, worker),
            None => self.go_alone(key, TOO_MANY.into()),
        }
    }

    /// The session becomes a member of a group that is here, or begins here.
    pub(super) fn embark(&mut self, key: SessionKey, group: GroupId) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.session.is_aboard()) else { return };
        slot.seat.company.wanted = Some(group);
        let beside = slot.seat.company.from;
        let Some(slot) = self.slots.get(key) else { return };
        if let Some(reason) = self.bars(slot, group) {
            return self.go_alone(key, reason.into());
        }
        let (aboard, is_new) = match self.group_here(group) {
            Some(here) => (here, false),
            None => (self.found_group(key, group), true),
        };
        let Some(boarding) = self.drive(key, |session, fx| session.take_luggage(fx)) else { return };
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.seat.company.aboard = Some(aboard);
        (slot.seat.company.wanted, slot.seat.company.barred) = (None, None);
        let member = slot.session.id();
        self.hub.counters.group_members.add(1);
        self.drive(aboard, |session, fx| session.admit(member, &boarding, fx));
        if is_new {
            self.drive(aboard, |session, fx| session.open_beside(beside, fx));
        }
        self.weigh_group(aboard);
    }

    fn found_group(&mut self, first: SessionKey, group: GroupId) -> SessionKey {
        let opened_us = self.now_us();
        let slot = &self.slots[first];
        let (service, route) = (Arc::clone(slot.session.service()), Arc::clone(&slot.seat.route));
        let seat = Seat::empty(slot.seat.client, route, self.hub.now);
        let session = Session::new_group(group, service, opened_us);
        let key = self.slots.insert(Slot::new(session, seat));
        self.groups.insert(group, key);
        self.hub.counters.groups.add(1);
        tracing::debug!(%group, "group formed");
        key
    }

    /// It can't be in the group, and its state is here: it goes on as it was, wherever there is place.
    pub(super) fn go_alone(&mut self, key: SessionKey, reason: Reason) {
        let Some(boarding) = self.drive(key, |session, fx| session.take_luggage(fx)) else { return };
        if let Some(slot) = self.slots.get_mut(key)
            && let Some(group) = slot.seat.company.wanted.take()
        {
            slot.seat.company.barred = Some((group, reason));
        }
        let departed = boarding.back("it came into no group");
        self.drive(key, |session, fx| session.disembark(departed, fx));
    }
}
