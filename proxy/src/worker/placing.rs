//! Where a session may go: the worker's links as placement's candidates.

use std::sync::Arc;

use super::fx::Fx;
use crate::routing::BackendId;
use crate::routing::pick::hash::{self, Player};
use crate::routing::pick::{Candidate, Rules, load, pick, slow_start};
use crate::routing::table::{Balance, Breakers, By};
use crate::session::{LinkId, Wanted};

/// What a place is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Occasion<'a> {
    /// The session goes there.
    Going,
    /// Whether there is one, and which it would be.
    Asking,
    /// Where a session that lives had better be. It is counted on those links: no bound speaks against them.
    Living { counted_on: &'a [LinkId] },
}

impl Occasion<'_> {
    fn counts_on(self, link: LinkId) -> bool {
        matches!(self, Self::Living { counted_on } if counted_on.contains(&link))
    }
}

impl Fx<'_> {
    /// Every backend of the service that may take the session, then the pick among them.
    pub fn candidate(&mut self, wanted: Wanted<'_>, occasion: Occasion<'_>) -> Option<LinkId> {
        let table = Arc::clone(&self.hub.table);
        // A route that goes to another service by now has no shares for this one's versions.
        let route =
            table.routes.get(&*self.seat.route.name).filter(|route| route.service == self.service.name);
        let route = route.unwrap_or(&self.seat.route).clone();
        // What the operator wants now is what counts, for sessions that began before, too.
        let service = table.services.get(&*self.service.name).map_or(self.service, |service| &**service);
        let balance = match occasion {
            Occasion::Living { .. } => service.balance.for_live_sessions(),
            Occasion::Going | Occasion::Asking => service.balance,
        };
        let first = BackendId { service: self.service.name.clone(), name: "".into() };
        let listed = table.backends.range(first..).take_while(|(id, _)| id.service == self.service.name);
        let (mut links, mut candidates, mut turns) = (Vec::new(), Vec::new(), Vec::new());
        for (id, backend) in listed {
            let link = self.hub.link_for(backend);
            if !self.may_go_to(link, wanted, &service.breakers, occasion) {
                continue;
            }
            let of_link = self.hub.link(link);
            let zone = &self.hub.config.zone;
            let age = self.hub.now.saturating_duration_since(of_link.fresh_since);
            links.push(link);
            turns.push(of_link.turn);
            candidates.push(Candidate {
                backend,
                weight: slow_start::weight(backend.weight, age, balance.slow_start),
                load: of_link.sessions,
                // Who is there already doesn't leave for a load that may be less in a moment.
                report: of_link.report().filter(|_| !occasion.counts_on(link)),
                local: self.hub.is_local(id),
                same_zone: zone.is_some() && backend.zone == *zone,
                logic: of_link.runs(wanted.logic),
                fit: self.hub.is_fit(link),
            });
        }
        if wanted.home.is_some() {
            return links.first().copied();
        }
        if let (Occasion::Going, Some(bound_for)) = (occasion, self.seat.bound_for)
            && links.contains(&bound_for)
        {
            return Some(bound_for);
        }
        let Balance { policy, by, panic_percent, .. } = balance;
        if by == By::Load {
            load::weigh(&mut candidates);
        }
        let stage = self.hub.stages.get(&*self.service.name);
        let staged = stage.and_then(|stage| stage.shares(&route.versions));
        let shares = staged.as_ref().unwrap_or(&route.versions);
        let rules = Rules { shares, prefer: route.prefer, policy, panic_percent };
        let seed = hash::seed(policy, &self.player());
        let index = pick(seed, &rules, &candidates, &mut turns)?;
        if matches!(occasion, Occasion::Going) {
            for (link, turn) in links.iter().zip(turns) {
                self.hub.link_mut(*link).turn = turn;
            }
        }
        Some(links[index])
    }

    fn may_go_to(
        &mut self,
        link: LinkId,
        wanted: Wanted<'_>,
        breakers: &Breakers,
        occasion: Occasion<'_>,
    ) -> bool {
        let avoided = wanted.tried.contains(&link) || self.seat.avoids == Some(link);
        let may = wanted.home.is_none_or(|home| home == link) && !avoided;
        if !may || !self.hub.link(link).takes(wanted.format, wanted.needs) {
            return false;
        }
        let most = self.service.framing.max_frame_bytes();
        let now = self.hub.now;
        let of_link = self.hub.link_mut(link);
        if !of_link.takes_frames_of(most) {
            if of_link.may_warn(now) {
                tracing::warn!(backend = %of_link.backend.id, max_frame_bytes = most,
                    "sessions go elsewhere: the backend doesn't take frames as long as their service's");
            }
            return false;
        }
        if occasion.counts_on(link) {
            return true;
        }
        let reached = self.hub.link(link).reached(breakers, wanted.home.is_some());
        if reached.is_some() && !matches!(occasion, Occasion::Living { .. }) {
            // Whoever finds it full is to hear when it isn't any more.
            self.hub.trip(link, reached);
        }
        reached.is_none()
    }

    /// Whose place it is. A group goes by its own id, wherever its members come from.
    fn player(&self) -> Player<'_> {
        let client = (!self.is_group).then(|| self.seat.client.ip());
        Player { session: self.id, client, sni: self.seat.sni.as_deref() }
    }
}
