//! Drains on this worker: begins them, paces them, ends them; and brings parked sessions back.

use std::time::{Duration, Instant};

use super::Worker;
use super::link::{Causes, LinkState};
use super::placing::Occasion;
use super::slot::SessionKey;
use crate::drain::progress::Counts;
use crate::drain::{Delay, Drain};
use crate::events::Noticed;
use crate::routing::table::{DrainPolicy, OnDeadline, OnSigterm};
use crate::session::handoff::Begun;
use crate::session::{Effects, LinkId, Order, Otherwise, Phase, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffCause};

/// Parked sessions that may be attaching at once.
const RETURNING_AT_ONCE: u32 = 64;
/// Parked sessions that look for a backend before others get their turn; when nobody takes them, all would at once.
const RETURNS_A_TURN: u32 = 256;

/// The deadline of what has none.
const FOR_GOOD: Duration = Duration::from_secs(30 * 86_400);

/// What became of the turn that a session got.
enum Turn {
    Begun,
    HeldUp(Delay),
    /// It isn't here any more.
    Left,
}

impl Worker {
    /// A cause came or went, or the link did.
    pub(super) fn review_drain(&mut self, id: LinkId) {
        let now = self.hub.now;
        let policy = self.drain_policy(id);
        let link = self.hub.link(id);
        let due = link.is_draining() && link.state == LinkState::Up;
        let begins = due && link.drain.is_none();
        let under_way = if begins { self.leaving(id) } else { 0 };
        let link = self.hub.link_mut(id);
        match (&mut link.drain, policy) {
            (None, Some(policy)) if due => {
                let deadline = deadline_of(&link.causes, &policy, now);
                let drain = Drain::new(policy, under_way, now, deadline);
                link.drain = Some(drain);
                // What the backend counted before says nothing of those who came since.
                link.attachments = None;
                let (causes, reason) = (link.causes.names(link.instance()).join(", "), link.causes.reason());
                tracing::info!(backend = %link.backend.id, causes, reason, sessions = link.sessions, "drain begins");
                let backend = link.backend.id.clone();
                self.hub.notice(&backend, || Noticed::DrainBegan { causes, reason });
                self.hub.draining.push(id);
                self.fill_drain(id);
                self.run_drains();
            }
            (Some(drain), Some(policy)) if due => {
                drain.set_policy(policy);
                drain.set_deadline(deadline_of(&link.causes, &policy, drain.begun));
                self.run_drains();
            }
            (Some(_), _) if !due => {
                self.drain_ends(id);
                self.sessions_may_return();
                self.rebalance_soon();
            }
            _ => {}
        }
    }

    /// Sessions that are leaving that link, wherever they are by now.
    pub(super) fn leaving(&self, id: LinkId) -> u32 {
        let leaving = self.slots.values().filter(|slot| slot.seat.leaving == Some(id)).count();
        u32::try_from(leaving).unwrap_or(u32::MAX)
    }

    fn drain_policy(&self, id: LinkId) -> Option<DrainPolicy> {
        let link = self.hub.link(id);
        let mut policy = self.hub.table.services.get(&*link.backend.id.service)?.drain;
        if link.causes.own.as_ref().is_some_and(|own| own.returns) && policy.on_sigterm == OnSigterm::Park {
            // Nobody is to be spared: the process waits for all of them before it can go and come back.
            (policy.in_flight, policy.per_second) = (u32::MAX, u32::MAX);
        }
        Some(policy)
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
                    Turn::Begun => drain.begins(),
                    Turn::HeldUp(why) => drain.held_up(key, why, now),
                    Turn::Left => drain.skipped(),
                }
            }
            self.look_after_drain(id, now);
            self.report_drain(id);
        }
        self.count_drains();
    }

    /// A link has come up: sessions that had nowhere to go may have it now.
    pub(super) fn retry_drains(&mut self) {
        let now = self.hub.now;
        for id in self.hub.draining.clone() {
            if let Some(drain) = &mut self.hub.link_mut(id).drain {
                drain.retry(now);
            }
        }
    }

    fn give_turn(&mut self, id: LinkId, key: SessionKey) -> Turn {
        let only_unfit = self.hub.link(id).is_only_unfit();
        let Some(order) = self.order(id) else { return Turn::HeldUp(Delay::NotNow) };
        let format = self.hub.link(id).peer.as_ref().map(|peer| peer.writes_format.clone());
        let turn = self.drive(key, |session, fx| {
            if session.link() != Some(id) {
                return Turn::Left;
            }
            let (format, needs) = (format.as_deref(), session.needs_to_move());
            let wanted = Wanted { tried: &[], format, home: None, needs, logic: None };
            if order.otherwise != Otherwise::ParkForHome {
                match fx.candidate(wanted, Occasion::Asking) {
                    None if order.otherwise == Otherwise::Thaw => return Turn::HeldUp(Delay::NoPlace),
                    // From one that is unfit to another: nothing would be gained.
                    Some(target) if only_unfit && !fx.hub.is_fit(target) => {
                        return Turn::HeldUp(Delay::NoPlace);
                    }
                    // Nobody is frozen before it is known that there is somebody to go to.
                    Some(target) if !fx.link_is_up(target) => {
                        fx.hub.call_ahead(target);
                        return Turn::HeldUp(Delay::Link);
                    }
                    _ => {}
                }
            }
            fx.seat.leaving = Some(id);
            // Lifted or not: what has begun to leave leaves, if anybody else can take it.
            fx.seat.avoids = (order.otherwise == Otherwise::Thaw).then_some(id);
            match session.leave(order, fx) {
                Begun::Yes => Turn::Begun,
                Begun::NotNow => {
                    (fx.seat.leaving, fx.seat.avoids) = (None, None);
                    Turn::HeldUp(Delay::NotNow)
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
            None if link.causes.rollout.is_some() => {
                Order { cause: HandoffCause::Rollout, otherwise: Otherwise::Thaw }
            }
            None if link.is_only_unfit() => Order { cause: HandoffCause::Health, otherwise: Otherwise::Thaw },
            None => Order { cause: HandoffCause::Operator, otherwise: Otherwise::Thaw },
            Some(own) if own.returns && policy.on_sigterm == OnSigterm::Park => {
                Order { cause: HandoffCause::Backend, otherwise: Otherwise::ParkForHome }
            }
            Some(_) => Order { cause: HandoffCause::Backend, otherwise: Otherwise::Park },
        })
    }

    fn look_after_drain(&mut self, id: LinkId, now: Instant) {
        let sessions = self.hub.link(id).sessions;
        // Nobody asked for an unfit backend to be empty at any price.
        let ordered = !self.hub.link(id).is_only_unfit();
        let on_deadline = self.drain_policy(id).map(|policy| policy.on_deadline).filter(|_| ordered);
        let link = self.hub.link_mut(id);
        let backend = link.backend.id.clone();
        let Some(drain) = &mut link.drain else { return };
        if sessions == 0 && !drain.told && drain.in_flight() == 0 {
            drain.told = true;
            let took_ms = now.saturating_duration_since(drain.begun).as_millis();
            let counts = drain.counts;
            tracing::info!(%backend, moved = counts.moved, parked = counts.parked, ended = counts.ended,
                thawed = counts.thawed, took_ms, "drained");
            let Counts { moved, parked, ended, .. } = counts;
            self.hub.notice(&backend, || Noticed::Drained { moved, parked, ended });
        } else if now >= drain.deadline && sessions > 0 {
            if !std::mem::replace(&mut drain.told, true) {
                let (moved, parked) = (drain.counts.moved, drain.counts.parked);
                tracing::warn!(%backend, moved, parked, left = sessions, in_flight = drain.in_flight(),
                    "the drain's deadline is over");
                self.hub.notice(&backend, || Noticed::DrainOverdue { left: sessions });
            }
            if on_deadline == Some(OnDeadline::Close) {
                self.close_what_stayed(id);
            }
        } else if sessions > 0 && drain.is_idle() && now < drain.deadline {
            drain.told = false;
            self.fill_drain(id);
        }
    }

    /// Who is on the way to another backend isn't among them; who comes back from there is, at the next look.
    fn close_what_stayed(&mut self, id: LinkId) {
        let stayed: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.session.link() == Some(id))
            .map(|(key, _)| key)
            .collect();
        for key in stayed {
            self.dismiss_client(key, CloseReason::DrainDeadline);
        }
    }

    /// Something has changed for the better: parked sessions get to look again.
    pub(super) fn sessions_may_return(&mut self) {
        if self.hub.counters.parked.get() == 0 {
            return;
        }
        self.recoveries_may_go_on();
        self.hub.returning.clear();
        let parked = self.slots.iter().filter(|(_, slot)| slot.seat.parked && slot.seat.recovery.is_none());
        let parked = parked.map(|(key, _)| key);
        self.hub.returning.extend(parked);
    }

    /// Parked sessions attach, a bounded number at once.
    pub(super) fn bring_back(&mut self) {
        for _ in 0..RETURNS_A_TURN {
            if self.hub.returning_in_flight >= RETURNING_AT_ONCE {
                return;
            }
            let Some(key) = self.hub.returning.pop_front() else { return };
            let attaching = self.drive(key, |session, fx| {
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

    /// Whether parked sessions could attach right now.
    pub(super) fn may_bring_back(&self) -> bool {
        !self.hub.returning.is_empty() && self.hub.returning_in_flight < RETURNING_AT_ONCE
    }
}

/// The latest of the deadlines that the causes name.
fn deadline_of(causes: &Causes, policy: &DrainPolicy, begun: Instant) -> Instant {
    let key = causes.key.as_ref().map(|(order, seen)| *seen + order.deadline.unwrap_or(policy.deadline));
    let local = causes.local.as_ref().map(|(deadline, _)| *deadline);
    let own = causes.own.as_ref().map(|own| own.since + own.within.unwrap_or(policy.deadline));
    // A version that is given up stays so for as long as its rollout stands.
    let rollout = causes.rollout.as_ref().map(|_| begun + FOR_GOOD);
    // An unfit backend is left as long as it is unfit.
    let otherwise = if causes.unfit.is_some() { FOR_GOOD } else { policy.deadline };
    [key, local, own, rollout].into_iter().flatten().max().unwrap_or(begun + otherwise)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::{BackendId, DrainOrder};
    use crate::worker::link::OwnDrain;

    const POLICY: DrainPolicy = DrainPolicy {
        in_flight: 64,
        per_second: 1000,
        deadline: Duration::from_secs(60),
        on_deadline: OnDeadline::Keep,
        on_sigterm: OnSigterm::Move,
    };

    fn own(within: Option<Duration>, since: Instant) -> OwnDrain {
        OwnDrain { since, within, returns: true, reason: String::new() }
    }

    #[test]
    fn a_backend_that_names_no_deadline_gets_the_services() {
        let now = Instant::now();
        let causes = Causes { own: Some(own(None, now)), ..Causes::default() };
        assert_eq!(deadline_of(&causes, &POLICY, now), now + POLICY.deadline);
    }

    #[test]
    fn the_deadline_is_the_latest_of_the_causes_in_force() {
        let now = Instant::now();
        let order = DrainOrder {
            backend: BackendId { service: "arena".into(), name: "a".into() },
            deadline: Some(Duration::from_secs(5)),
            reason: String::new(),
            instance: None,
        };
        let mut causes = Causes { key: Some((Arc::new(order), now)), ..Causes::default() };
        causes.local = Some((now + Duration::from_secs(90), String::new()));
        causes.own = Some(own(Some(Duration::from_secs(7)), now));
        assert_eq!(deadline_of(&causes, &POLICY, now), now + Duration::from_secs(90));
        causes.local = None;
        assert_eq!(deadline_of(&causes, &POLICY, now), now + Duration::from_secs(7));
        causes.unfit = Some("fails its checks".to_owned());
        assert_eq!(deadline_of(&causes, &POLICY, now), now + Duration::from_secs(7), "the orders' hold");
        (causes.key, causes.own) = (None, None);
        assert_eq!(deadline_of(&causes, &POLICY, now), now + FOR_GOOD);
    }
}
