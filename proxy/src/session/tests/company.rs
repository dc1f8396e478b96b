//! What groups ask of the test's world, answered as `worker::groups` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::message::{Message, Refused};
use holdfast_protocol::{GroupId, SessionId};

use super::game::{common, group};
use super::seat::{Ask, Seat};
use super::world::{A, OPENED_US, WINDOW, World};
use crate::routing::Service;
use crate::session::riders::Departed;
use crate::session::{Client, LinkId, Order, Otherwise, Phase, Session};
use crate::telemetry::counters::{CloseReason, HandoffCause};

pub const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A session's part in a group.
#[derive(Debug, Default)]
pub struct Company {
    pub aboard: Option<usize>,
    pub wanted: Option<GroupId>,
    pub not_before: Option<Duration>,
    from: Option<LinkId>,
    pub barred: Option<(GroupId, &'static str)>,
}

impl World {
    /// The group of that number, if there is one.
    pub fn group(&self, group: GroupId) -> Option<usize> {
        self.groups.get(&group).copied()
    }

    pub fn members(&self, group: usize) -> Vec<usize> {
        let ids = self.sessions[group].riders().into_iter().flat_map(|riders| riders.ids());
        ids.map(|id| self.index_of(id)).collect()
    }

    pub fn index_of(&self, member: SessionId) -> usize {
        usize::from(member.0[15])
    }

    /// Does what was asked for since, in its order.
    pub fn answer(&mut self) {
        if std::mem::replace(&mut self.answering, true) {
            return;
        }
        let mut delivered = Vec::new();
        while let Some((index, ask)) = self.hub.asks.pop_front() {
            match ask {
                Ask::Deliver(member, frame) => {
                    let member = self.index_of(member);
                    assert_eq!(self.seats[member].company.aboard, Some(index), "it is a member");
                    self.seats[member].outbox.push_back(frame);
                    delivered.push(index);
                }
                Ask::Read(member, on) => {
                    let member = self.index_of(member);
                    assert_ne!(self.seats[member].paused, !on, "told once");
                    self.seats[member].paused = !on;
                }
                Ask::Departs(member, departed) => self.departs(member, departed),
                Ask::Over(member, reason) => {
                    let member = self.index_of(member);
                    self.disembarks(member);
                    self.drive(member, |session, fx| session.part(reason, fx));
                }
                Ask::Joins(group) => self.joins(index, group),
                Ask::Boards => self.boards(index),
            }
            self.forget_ended_groups();
        }
        self.answering = false;
        for group in delivered {
            self.group_handed(group);
        }
    }

    fn forget_ended_groups(&mut self) {
        let seats = &self.seats;
        self.groups.retain(|_, index| seats[*index].ended.is_none());
    }

    /// Nobody in the group holds it up.
    pub fn group_handed(&mut self, group: usize) {
        let clogs = |seat: &Seat| {
            seat.company.aboard == Some(group)
                && seat.outbox.iter().map(Vec::len).sum::<usize>() > WINDOW as usize
        };
        if self.seats[group].ended.is_none() && !self.seats.iter().any(clogs) {
            self.drive(group, |session, fx| session.handed(fx));
        }
    }

    fn departs(&mut self, member: SessionId, departed: Departed) {
        let member = self.index_of(member);
        let group = self.disembarks(member);
        let company = &mut self.seats[member].company;
        company.barred = departed.came_back.and_then(|reason| Some((group?, reason))).or(company.barred);
        self.seats[member].paused = false;
        self.seats[member].departures.push(departed.clone());
        self.drive(member, |session, fx| session.disembark(departed, fx));
    }

    fn disembarks(&mut self, member: usize) -> Option<GroupId> {
        let aboard = self.seats[member].company.aboard.take().expect("it was in a group");
        if self.sessions[aboard].riders().is_some_and(|riders| riders.is_empty()) {
            self.drive(aboard, |session, fx| session.end(CloseReason::BackendClose, fx));
        }
        self.sessions[aboard].group()
    }

    fn joins(&mut self, index: usize, group: GroupId) {
        if let Some((barred, reason)) =
            self.seats[index].company.barred.take_if(|(barred, _)| *barred == group)
        {
            let _ = barred;
            return self.refuse_join(index, reason);
        }
        self.seats[index].company.wanted = Some(group);
        self.try_board(index);
    }

    fn refuse_join(&mut self, index: usize, reason: &'static str) {
        self.seats[index].company.wanted = None;
        let (subject, epoch) = (self.sessions[index].subject(), self.sessions[index].epoch());
        if let Phase::Active { link } = *self.sessions[index].phase() {
            self.drive(index, |_, fx| {
                use crate::session::Effects as _;
                fx.send(link, &Message::Refused(Refused { subject, epoch, retry: false, reason }));
            });
        }
    }

    pub fn try_board(&mut self, index: usize) {
        let company = &self.seats[index].company;
        let (Some(group), &Phase::Active { link }) = (company.wanted, self.sessions[index].phase()) else {
            return;
        };
        if company.not_before.is_some_and(|time| self.hub.now < time) {
            return;
        }
        if let Some(reason) = self.bars(index, group) {
            return self.refuse_join(index, reason);
        }
        let order = Order { cause: HandoffCause::Group, otherwise: Otherwise::Board };
        let company = &mut self.seats[index].company;
        (company.not_before, company.from) = (Some(self.hub.now + AGAIN_AFTER), Some(link));
        self.drive(index, |session, fx| session.leave(order, fx));
    }

    fn bars(&self, index: usize, group: GroupId) -> Option<&'static str> {
        let most = self.sessions[index].service().limits.max_group_members as usize;
        let here = self.group(group)?;
        (self.members(here).len() >= most).then_some("full")
    }

    fn boards(&mut self, index: usize) {
        let company = &mut self.seats[index].company;
        company.not_before = None;
        let group = company.wanted.take().expect("it was asked for");
        if let Some(reason) = self.bars(index, group) {
            self.seats[index].company.barred = Some((group, reason));
            let boarding = self.drive(index, |session, fx| session.take_luggage(fx));
            return self.drive(index, |session, fx| session.disembark(boarding.back(reason), fx));
        }
        let (here, is_new) = match self.group(group) {
            Some(here) => (here, false),
            None => (self.found_group(index, group), true),
        };
        self.seats[index].company.aboard = Some(here);
        let boarding = self.drive(index, |session, fx| session.take_luggage(fx));
        let (member, beside) = (self.sessions[index].id(), self.seats[index].company.from);
        self.drive(here, |session, fx| {
            session.admit(member, &boarding, fx);
            if is_new {
                session.open_beside(beside, fx);
            }
        });
    }

    fn found_group(&mut self, first: usize, group: GroupId) -> usize {
        let service = Arc::clone(self.sessions[first].service());
        let index = self.sessions.len();
        let opened_us = OPENED_US + u64::try_from(self.hub.now.as_micros()).unwrap();
        let mut session = Session::new_group(group, service, opened_us);
        session.planted = self.planted;
        self.sessions.push(session);
        self.seats.push(Seat::default());
        self.groups.insert(group, index);
        index
    }

    /// A member's client says or does something.
    pub fn gone(&mut self, index: usize, reason: CloseReason) {
        let member = self.sessions[index].id();
        self.drive(index, |session, fx| session.client_gone(reason, fx));
        if let Some(group) = self.seats[index].company.aboard {
            self.seats[index].outbox.clear();
            self.drive(group, |session, fx| session.member_gone(member, reason, fx));
            self.group_handed(group);
        }
    }

    pub fn finished(&mut self, index: usize) {
        let member = self.sessions[index].id();
        if let Some(group) = self.seats[index].company.aboard {
            self.drive(group, |session, fx| session.member_finished(member, fx));
        }
        self.drive(index, |session, fx| session.client_finished(fx));
    }
}

/// What is asked of groups in the end.
impl World {
    /// Two backends, and that many sessions in group 1, all on A.
    pub fn party(service: Service, players: usize) -> Self {
        let mut world = Self::empty(2);
        let service = Arc::new(service);
        for _ in 0..players {
            world.open(Arc::clone(&service));
        }
        world.settle();
        (0..players).for_each(|index| world.asks(index, "join 1"));
        for index in 0..players {
            world.assert_aboard(index);
        }
        world.assert_active_on(world.party_index(), A);
        world
    }

    #[track_caller]
    pub fn party_index(&self) -> usize {
        self.group(group(1)).expect("the group is there")
    }

    /// A player says that, and all that follows from it happens.
    pub fn asks(&mut self, index: usize, frame: &str) {
        assert_eq!(self.sessions[index].client(), Client::Open);
        self.frame(index, frame.as_bytes());
        self.settle();
    }

    #[track_caller]
    pub fn assert_aboard(&self, index: usize) {
        assert_eq!(*self.sessions[index].phase(), Phase::Aboard, "{:?}", self.sessions[index]);
        assert_eq!(self.seats[index].company.aboard, self.group(group(1)));
    }

    /// Whoever was shown where the group stood after so many frames was shown the same.
    #[track_caller]
    pub fn assert_together(&self) {
        let mut chains = BTreeMap::new();
        for seat in &self.seats {
            for (count, chain) in seat.received.iter().filter_map(|frame| common(frame)) {
                assert_eq!(*chains.entry(count).or_insert(chain), chain, "after {count} frames of the group");
            }
        }
        assert!(!chains.is_empty(), "somebody was told of the group");
        assert!(self.seats.iter().all(|seat| seat.faults.is_empty()), "faults of backends");
    }

    /// Everything about that player is as it must be, up to the last frame.
    #[track_caller]
    pub fn assert_content(&self, index: usize) {
        self.assert_flawless(index);
        self.assert_all_answered(index);
        assert_eq!(self.seats[index].ended, None);
    }
}
