//! Moves live sessions towards shares and weights, where the service's document or a rollout asks for it.
//!
//! A session moves only when placement would put it elsewhere if it came now, and would still do so if it were there
//! already: a move that another would undo is never begun. Each worker counts its own sessions, so workers and
//! proxies can't work against each other. What drains, or has lost its key, is none of this module's business.

use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::fx::Fx;
use super::link::Link;
use super::placing::Occasion;
use super::slot::SessionKey;
use crate::drain::rebalance::{Move, Rebalance};
use crate::routing::BackendId;
use crate::session::handoff::Begun;
use crate::session::{Effects, LinkId, Order, Otherwise, Phase, Wanted};
use crate::telemetry::counters::HandoffCause;

/// Sessions that one turn of the worker looks at.
const LOOKS_A_TURN: usize = 64;
/// While a backend's weight grows there are so many passes, and so much time between two of them.
const PASSES_A_SLOW_START: u32 = 20;
const SLOW_START_REST: Duration = Duration::from_secs(1);

type Moves = [Move<SessionKey, LinkId>];

/// How one service's sessions are brought to where they are wanted.
struct Pace {
    in_flight: u32,
    per_second: u32,
    cause: HandoffCause,
    /// A rollout alone asks for it: who has the right version stays where it is.
    versions_only: bool,
}

/// What came of a look at one session.
enum Look {
    Stays,
    NotNow,
    Begun { from: LinkId, to: LinkId },
}

impl Worker {
    /// Documents or links have changed: sessions may have something to gain.
    pub(super) fn rebalance_soon(&mut self) {
        let now = self.hub.now;
        let wanting = self.hub.table.services.values().filter(|service| {
            let rolls_out = self.hub.stages.get(&*service.name).is_some_and(|stage| stage.moves);
            service.rebalance.is_some() || rolls_out
        });
        for service in wanting {
            let name = Arc::clone(&service.name);
            self.rebalances.entry(name).or_insert_with(|| Rebalance::new(now)).changed(now);
        }
        self.hub.counters.rebalancing.set(self.rebalances.len() as u64);
    }

    pub(super) fn run_rebalances(&mut self) {
        // Each is taken out while it is worked on; none is made meanwhile.
        for (service, mut rebalance) in std::mem::take(&mut self.rebalances) {
            self.run_rebalance(&service, &mut rebalance);
            if rebalance.is_over() {
                self.look_at_slow_starts(&service, &mut rebalance);
            }
            if !rebalance.is_over() {
                self.rebalances.insert(service, rebalance);
            }
        }
        self.hub.counters.rebalancing.set(self.rebalances.len() as u64);
    }

    fn run_rebalance(&mut self, name: &Arc<str>, rebalance: &mut Rebalance<SessionKey, LinkId>) {
        let now = self.hub.now;
        rebalance.settle(|one| self.is_over(one), now);
        let Some(pace) = self.rebalance_pace(name) else {
            // The document has changed its mind; what has begun ends as it would.
            *rebalance = Rebalance::new(now);
            return;
        };
        if rebalance.wants_pass(now) {
            let of_service = self.slots.iter().filter(|(_, slot)| slot.session.service().name == *name);
            let active = of_service.filter(|(_, slot)| matches!(slot.session.phase(), Phase::Active { .. }));
            rebalance.begin_pass(active.map(|(key, slot)| (key, slot.session.is_idle())).collect::<Vec<_>>());
        }
        for _ in 0..LOOKS_A_TURN {
            let Some(key) = rebalance.next(pace.in_flight, now) else { return };
            match self.look_at(key, &rebalance.moving, &pace) {
                Look::Stays => {}
                Look::NotNow => rebalance.not_now(key, now),
                Look::Begun { from, to } => rebalance.begins(Move { key, from, to }, pace.per_second, now),
            }
        }
        rebalance.breathe(now);
    }

    /// While a backend's weight grows there is more to be gained from time to time.
    fn look_at_slow_starts(&self, name: &str, rebalance: &mut Rebalance<SessionKey, LinkId>) {
        let Some(service) = self.hub.table.services.get(name) else { return };
        let (slow_start, now) = (service.balance.slow_start, self.hub.now);
        let grows = |link: &Link| {
            let is_young = now.saturating_duration_since(link.fresh_since) < slow_start;
            is_young && !link.retired && *link.backend.id.service == *name
        };
        if service.rebalance.is_some() && self.hub.links.iter().any(grows) {
            rebalance.later(now + (slow_start / PASSES_A_SLOW_START).max(SLOW_START_REST));
        }
    }

    /// `None`: nobody asks for it (any more).
    fn rebalance_pace(&self, service: &Arc<str>) -> Option<Pace> {
        let service = self.hub.table.services.get(&**service)?;
        let own = service.rebalance.map(|policy| policy.per_second);
        let stage = self.hub.stages.get(&*service.name).filter(|stage| stage.moves);
        let per_second = match stage {
            Some(stage) => stage.per_second.or(own).unwrap_or(service.drain.per_second),
            None => own?,
        };
        let cause = if stage.is_some() { HandoffCause::Rollout } else { HandoffCause::Rebalance };
        Some(Pace { in_flight: service.drain.in_flight, per_second, cause, versions_only: own.is_none() })
    }

    /// `Some`: the move is over; whether the session is where it was to go.
    fn is_over(&self, one: &Move<SessionKey, LinkId>) -> Option<bool> {
        let Some(slot) = self.slots.get(one.key) else { return Some(true) };
        (slot.seat.leaving != Some(one.from)).then(|| slot.session.link() == Some(one.to))
    }

    fn look_at(&mut self, key: SessionKey, moves: &Moves, pace: &Pace) -> Look {
        let under_way = self.under_way(moves);
        let Some(slot) = self.slots.get(key) else { return Look::Stays };
        let (Phase::Active { link: from }, None) = (slot.session.phase(), slot.seat.leaving) else {
            return Look::Stays;
        };
        let from = *from;
        let link = self.hub.link(from);
        let listed = self.hub.table.backends.contains_key(&link.backend.id);
        if !listed || !link.is_up() || link.is_draining() || !self.hub.is_fit(from) {
            return Look::Stays;
        }
        let format = link.peer.as_ref().map(|peer| peer.writes_format.clone());
        let order = Order { cause: pace.cause, otherwise: Otherwise::Thaw };
        let look = self.drive(key, |session, fx| {
            let Some(to) = fx.better_place(from, format.as_deref(), session.needs_to_move(), &under_way)
            else {
                return Look::Stays;
            };
            let version = |link| &fx.hub.link(link).backend.version;
            if pace.versions_only && version(to) == version(from) {
                return Look::Stays;
            }
            if !fx.link_is_up(to) {
                fx.hub.call_ahead(to);
                return Look::NotNow;
            }
            (fx.seat.leaving, fx.seat.avoids, fx.seat.bound_for) = (Some(from), Some(from), Some(to));
            match session.leave(order, fx) {
                Begun::Yes => Look::Begun { from, to },
                Begun::NotNow => {
                    (fx.seat.leaving, fx.seat.avoids, fx.seat.bound_for) = (None, None, None);
                    Look::NotNow
                }
            }
        });
        look.unwrap_or(Look::Stays)
    }

    /// Moves that the links' counts don't show yet: where one is still counted, and where nobody counts it so far.
    fn under_way(&self, moves: &Moves) -> Vec<(LinkId, bool)> {
        let mut changes = Vec::new();
        for one in moves {
            match self.slots.get(one.key).map(|slot| slot.seat.link) {
                Some(Some(at)) if at == one.from => changes.extend([(one.from, false), (one.to, true)]),
                Some(None) => changes.push((one.to, true)),
                _ => {}
            }
        }
        changes
    }
}

impl Fx<'_> {
    /// Where this session would be better off than at `from`: where it would go if it came now, and would even if it
    /// were counted there already.
    fn better_place(
        &mut self,
        from: LinkId,
        format: Option<&str>,
        needs: u64,
        under_way: &[(LinkId, bool)],
    ) -> Option<LinkId> {
        let mut changes = under_way.to_vec();
        changes.push((from, false));
        let to = self.candidate_if(
            &changes,
            &[from],
            Wanted { tried: &[], format, home: None, needs, logic: None },
        )?;
        if to == from {
            return None;
        }
        changes.push((to, true));
        let others = self.others(from, to);
        let wanted = Wanted { tried: &others, format, home: None, needs, logic: None };
        let again = self.candidate_if(&changes, &[from, to], wanted)?;
        (again == to).then_some(to)
    }

    /// The pick if the links' counts were changed by one each, up (`true`) or down.
    fn candidate_if(
        &mut self,
        changes: &[(LinkId, bool)],
        counted_on: &[LinkId],
        wanted: Wanted<'_>,
    ) -> Option<LinkId> {
        let before: Vec<_> = changes.iter().map(|(link, _)| (*link, self.hub.link(*link).sessions)).collect();
        for (link, more) in changes {
            let sessions = &mut self.hub.link_mut(*link).sessions;
            *sessions = if *more { *sessions + 1 } else { sessions.saturating_sub(1) };
        }
        let picked = self.candidate(wanted, Occasion::Living { counted_on });
        // A link that stands there twice was changed twice: the count from before the first comes last.
        for (link, sessions) in before.into_iter().rev() {
            self.hub.link_mut(link).sessions = sessions;
        }
        picked
    }

    /// All links of the service but these two.
    fn others(&mut self, one: LinkId, other: LinkId) -> Vec<LinkId> {
        let table = Arc::clone(&self.hub.table);
        let first = BackendId { service: self.service.name.clone(), name: "".into() };
        let listed = table.backends.range(first..).take_while(|(id, _)| id.service == self.service.name);
        let links = listed.map(|(_, backend)| self.hub.link_for(backend));
        links.filter(|link| *link != one && *link != other).collect()
    }
}
