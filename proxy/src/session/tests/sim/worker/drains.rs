//! Drains on this worker, and how parked sessions come back. Mirrors `worker::drains`.

use std::time::Duration;

use super::super::io::{Io, Time};
use super::Worker;
use super::hub::LinkState;
use crate::drain::{Delay, Drain};
use crate::routing::table::OnSigterm;
use crate::session::handoff::Begun;
use crate::session::{Effects, LinkId, Order, Otherwise, Phase, Wanted};
use crate::telemetry::counters::HandoffCause;

const RETURNING_AT_ONCE: u32 = 64;
const RETURNS_A_TURN: u32 = 256;

enum Turn {
    Begun,
    NotNow,
    NoPlace,
    Left,
}

impl Worker {
    /// The key that orders a drain is there, or not.
    pub fn key_changed(&mut self, id: LinkId, ordered: bool, io: &mut Io) {
        let now = io.now;
        let link = self.hub.link_mut(id);
        link.key = ordered.then_some(now);
        if link.state == LinkState::Dead {
            link.demanded = true;
        }
        self.review_drain(id, io);
        self.sessions_may_return();
        self.bring_back(io);
    }

    pub fn review_drain(&mut self, id: LinkId, io: &mut Io) {
        let (now, policy) = (self.hub.instant(), self.hub.service.drain);
        let deadline = self.hub.start + self.deadline_of(id, policy.deadline);
        let leaving = self.slots.values().filter(|slot| slot.seat.leaving == Some(id)).count();
        let link = self.hub.link_mut(id);
        let due = link.is_draining() && link.state == LinkState::Up;
        match &mut link.drain {
            None if due => {
                let under_way = u32::try_from(leaving).unwrap();
                link.drain = Some(Drain::new(policy, under_way, now, deadline));
                self.hub.draining.push(id);
                self.fill_drain(id);
                self.run_drains(io);
            }
            Some(drain) if due => {
                drain.set_deadline(deadline);
                self.run_drains(io);
            }
            Some(_) => {
                link.drain = None;
                self.hub.draining.retain(|other| *other != id);
                self.sessions_may_return();
            }
            None => {}
        }
    }

    fn deadline_of(&self, id: LinkId, default: Duration) -> Time {
        let link = self.hub.link(id);
        let own = link.own.map(|own| own.since + own.within.unwrap_or(default));
        let key = link.key.map(|since| since + default);
        own.into_iter().chain(key).max().unwrap_or(self.hub.now + default)
    }

    fn fill_drain(&mut self, id: LinkId) {
        let there = |slot: &&super::Slot| slot.session.link() == Some(id) && slot.seat.leaving.is_none();
        let sessions: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| there(slot))
            .map(|(key, slot)| (*key, slot.session.is_idle()))
            .collect();
        if let Some(drain) = &mut self.hub.link_mut(id).drain {
            drain.add(sessions);
        }
    }

    pub fn run_drains(&mut self, io: &mut Io) {
        let now = self.hub.instant();
        for id in self.hub.draining.clone() {
            while let Some(key) = self.hub.link_mut(id).drain.as_mut().and_then(|drain| drain.next(now)) {
                let turn = self.give_turn(id, key, io);
                let Some(drain) = &mut self.hub.link_mut(id).drain else { break };
                match turn {
                    Turn::Begun => drain.begins(),
                    Turn::NotNow => drain.held_up(key, Delay::NotNow, now),
                    Turn::NoPlace => drain.held_up(key, Delay::NoPlace, now),
                    Turn::Left => drain.skipped(),
                }
            }
            let link = self.hub.link(id);
            let refill = link.drain.as_ref().is_some_and(|drain| drain.is_idle() && now < drain.deadline);
            if refill && link.sessions > 0 {
                self.fill_drain(id);
            }
        }
    }

    pub fn retry_drains(&mut self) {
        let now = self.hub.instant();
        for id in self.hub.draining.clone() {
            if let Some(drain) = &mut self.hub.link_mut(id).drain {
                drain.retry(now);
            }
        }
    }

    fn give_turn(&mut self, id: LinkId, key: usize, io: &mut Io) -> Turn {
        let order = self.order(id);
        let format = self.hub.link(id).told.as_ref().map(|told| told.writes.clone());
        let turn = self.drive(key, io, |session, fx| {
            if session.link() != Some(id) {
                return Turn::Left;
            }
            let needs = session.needs_to_move();
            let wanted = Wanted { tried: &[], format: format.as_deref(), home: None, needs, logic: None };
            if order.otherwise != Otherwise::ParkForHome {
                match fx.candidate(wanted) {
                    None if order.otherwise == Otherwise::Thaw => return Turn::NoPlace,
                    Some(target) if !fx.link_is_up(target) => {
                        fx.hub.call_ahead(target);
                        return Turn::NotNow;
                    }
                    _ => {}
                }
            }
            fx.seat.leaving = Some(id);
            fx.seat.avoids = (order.otherwise == Otherwise::Thaw).then_some(id);
            match session.leave(order, fx) {
                Begun::Yes => Turn::Begun,
                Begun::NotNow => {
                    (fx.seat.leaving, fx.seat.avoids) = (None, None);
                    Turn::NotNow
                }
            }
        });
        turn.unwrap_or(Turn::Left)
    }

    fn order(&self, id: LinkId) -> Order {
        match self.hub.link(id).own {
            None => Order { cause: HandoffCause::Operator, otherwise: Otherwise::Thaw },
            Some(own) if own.returns && self.hub.service.drain.on_sigterm == OnSigterm::Park => {
                Order { cause: HandoffCause::Backend, otherwise: Otherwise::ParkForHome }
            }
            Some(_) => Order { cause: HandoffCause::Backend, otherwise: Otherwise::Park },
        }
    }

    pub fn sessions_may_return(&mut self) {
        self.recoveries_may_go_on();
        if self.hub.parked > 0 {
            let parked = self
                .slots
                .iter()
                .filter(|(_, slot)| slot.seat.parked && slot.seat.recovery.is_none())
                .map(|(key, _)| *key);
            self.hub.returning = parked.collect();
        }
    }

    pub fn bring_back(&mut self, io: &mut Io) {
        for _ in 0..RETURNS_A_TURN {
            if self.hub.returning_in_flight >= RETURNING_AT_ONCE {
                return;
            }
            let Some(key) = self.hub.returning.pop_front() else { return };
            let attaching = self.drive(key, io, |session, fx| {
                // Who recovers has a turn of its own.
                if fx.seat.recovery.is_none() {
                    session.look_again(fx);
                }
                let attaching = matches!(session.phase(), Phase::Attaching { .. });
                fx.seat.returning |= attaching;
                attaching
            });
            if attaching == Some(true) {
                self.hub.returning_in_flight += 1;
            }
        }
    }

    pub fn may_bring_back(&self) -> bool {
        !self.hub.returning.is_empty() && self.hub.returning_in_flight < RETURNING_AT_ONCE
    }
}
