//! Drains on this worker: begins them, paces them, ends them; and brings parked sessions back.

use std::time::Instant;

use super::Worker;
use super::link::LinkState;
use super::slot::SessionKey;
use crate::drain::Drain;
use crate::routing::table::{DrainPolicy, OnDeadline, OnSigterm};
use crate::session::handoff::Begun;
use crate::session::{LinkId, Order, Otherwise, Phase, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffCause};

/// Parked sessions that may be attaching at once.
const RETURNING_AT_ONCE: u32 = 64;

/// What became of the turn that a session got.
enum Turn {
    Begun,
    NotNow,
    /// Nobody else can take it now.
    NoPlace,
    /// It isn't here any more.
    Left,
}

impl Worker {
    /// A cause came or went, or the link did.
    pub(super) fn review_drain(&mut self, id: LinkId) {
        let now = self.hub.now;
        let policy = self.drain_policy(id);
        let link = self.hub.link_mut(id);
        let due = link.is_draining() && link.state == LinkState::Up;
        match (&mut link.drain, policy) {
            (None, Some(policy)) if due => {
                let deadline = deadline(link, &policy, now);
                let drain = Drain::new(policy, now, deadline);
                link.drain = Some(drain);
                let (causes, reason) = (link.causes.names(link.instance()).join(", "), link.causes.reason());
                tracing::info!(backend = %link.backend.id, causes, reason, sessions = link.sessions, "drain begins");
                self.hub.draining.push(id);
                self.fill_drain(id);
                self.run_drains();
            }
            (Some(drain), Some(policy)) if due => {
                let deadline = deadline_of(&link.causes, &policy, now);
                if deadline > drain.deadline {
                    drain.deadline = deadline;
                    drain.told = false;
                }
            }
            (Some(drain), _) if !due => {
                let (backend, moved) = (link.backend.id.clone(), drain.moved);
                link.drain = None;
                self.hub.draining.retain(|other| *other != id);
                tracing::info!(%backend, moved, "drain over");
                self.sessions_may_return();
            }
            _ => {}
        }
    }

    fn drain_policy(&self, id: LinkId) -> Option<DrainPolicy> {
        let service = &self.hub.link(id).backend.id.service;
        self.hub.table.services.get(&**service).map(|service| service.drain)
    }

    /// Sessions that are on the link and not yet in the drain's hands.
    fn fill_drain(&mut self, id: LinkId) {
        let sessions: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.session.link() == Some(id) && slot.seat.leaving.is_none())
            .map(|(key, slot)| (key, slot.session.is_idle()))
            .collect();
        if let Some(drain) = &mut self.hub.link_mut(id).drain {
            drain.add(sessions);
        }
    }

    /// Lets every drain begin what its pace allows.
    pub(super) fn run_drains(&mut self) {
        let now = self.hub.now;
        for id in self.hub.draining.clone() {
            while let Some(key) = self.hub.link_mut(id).drain.as_mut().and_then(|drain| drain.next(now)) {
                let turn = self.give_turn(id, key);
                let Some(drain) = &mut self.hub.link_mut(id).drain else { break };
                match turn {
                    Turn::Begun => {}
                    Turn::NotNow => drain.not_now(key, now),
                    Turn::NoPlace => drain.thawed(key, now),
                    Turn::Left => drain.skipped(),
                }
            }
            self.look_after_drain(id, now);
        }
    }

    fn give_turn(&mut self, id: LinkId, key: SessionKey) -> Turn {
        let Some(order) = self.order(id) else { return Turn::NotNow };
        let format = self.hub.link(id).peer.as_ref().map(|peer| peer.writes_format.clone());
        let turn = self.drive(key, |session, fx| {
            if session.link() != Some(id) {
                return Turn::Left;
            }
            let wanted = Wanted { tried: &[], format: format.as_deref(), home: None };
            if order.otherwise == Otherwise::Thaw && fx.candidate(wanted).is_none() {
                return Turn::NoPlace;
            }
            fx.seat.leaving = Some(id);
            match session.leave(order, fx) {
                Begun::Yes => Turn::Begun,
                Begun::NotNow => {
                    fx.seat.leaving = None;
                    Turn::NotNow
                }
            }
        });
        turn.unwrap_or(Turn::Left)
    }

    /// The backend's own drain parks what can't move: its process is about to end.
    fn order(&self, id: LinkId) -> Option<Order> {
        let link = self.hub.link(id);
        let policy = self.drain_policy(id)?;
        Some(match &link.causes.own {
            None => Order { cause: HandoffCause::Operator, otherwise: Otherwise::Thaw },
            Some(own) if own.returns && policy.on_sigterm == OnSigterm::Park => {
                Order { cause: HandoffCause::Backend, otherwise: Otherwise::ParkForHome }
            }
            Some(_) => Order { cause: HandoffCause::Backend, otherwise: Otherwise::Park },
        })
    }

    fn look_after_drain(&mut self, id: LinkId, now: Instant) {
        let sessions = self.hub.link(id).sessions;
        let on_deadline = self.drain_policy(id).map(|policy| policy.on_deadline);
        let link = self.hub.link_mut(id);
        let backend = link.backend.id.clone();
        let Some(drain) = &mut link.drain else { return };
        if sessions == 0 && !drain.told && drain.in_flight() == 0 {
            drain.told = true;
            let took_ms = now.saturating_duration_since(drain.begun).as_millis();
            tracing::info!(%backend, moved = drain.moved, took_ms, "drained");
        } else if now >= drain.deadline && !drain.told && sessions > 0 {
            drain.told = true;
            tracing::warn!(%backend, moved = drain.moved, left = sessions, "the drain's deadline is over");
            if on_deadline == Some(OnDeadline::Close) {
                self.close_what_stayed(id);
            }
        } else if sessions > 0 && drain.is_idle() && now < drain.deadline {
            drain.told = false;
            self.fill_drain(id);
        }
    }

    fn close_what_stayed(&mut self, id: LinkId) {
        for key in self.keys_on(id) {
            self.dismiss_client(key, CloseReason::DrainDeadline);
        }
    }

    /// Something has changed for the better: parked sessions get to look again.
    pub(super) fn sessions_may_return(&mut self) {
        if self.hub.counters.parked.get() == 0 {
            return;
        }
        self.hub.returning.clear();
        let parked = self.slots.iter().filter(|(_, slot)| slot.seat.parked).map(|(key, _)| key);
        self.hub.returning.extend(parked);
    }

    /// Parked sessions attach, a bounded number at once.
    pub(super) fn bring_back(&mut self) {
        while self.hub.returning_in_flight < RETURNING_AT_ONCE {
            let Some(key) = self.hub.returning.pop_front() else { return };
            let attaching = self.drive(key, |session, fx| {
                session.look_again(fx);
                let attaching = matches!(session.phase(), Phase::Attaching { .. });
                fx.seat.returning |= attaching;
                attaching
            });
            if attaching == Some(true) {
                self.hub.returning_in_flight += 1;
            }
        }
    }

    /// Whether parked sessions could attach right now.
    pub(super) fn may_bring_back(&self) -> bool {
        !self.hub.returning.is_empty() && self.hub.returning_in_flight < RETURNING_AT_ONCE
    }
}

fn deadline(link: &super::link::Link, policy: &DrainPolicy, now: Instant) -> Instant {
    deadline_of(&link.causes, policy, now)
}

/// The latest of the deadlines that the causes name.
fn deadline_of(causes: &super::link::Causes, policy: &DrainPolicy, now: Instant) -> Instant {
    let key = causes.key.as_ref().map(|(order, seen)| *seen + order.deadline.unwrap_or(policy.deadline));
    let local = causes.local.as_ref().map(|(deadline, _)| *deadline);
    let own = causes.own.as_ref().map(|own| own.deadline);
    [key, local, own].into_iter().flatten().max().unwrap_or(now + policy.deadline)
}
