//! Bounds of one backend's part in this worker: the service's `breakers` and the backend's own `capacity`. Who has
//! reached one takes no more until it is below again; who is there stays. A bound of one backend keeps its trouble from
//! becoming the whole worker's.

use super::Worker;
use super::hub::Hub;
use super::link::{Link, LinkState};
use super::slot::Seat;
use crate::events::Noticed;
use crate::routing::table::Breakers;
use crate::session::{LinkId, Session};
use crate::telemetry::counters::Breaker;

/// What a link's sessions add up to, besides their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// As the backend counts them: a group once.
    pub attachments: u64,
    /// On their way to the backend; a group counts once.
    pub attaching: u64,
    /// Parked until it is back.
    pub parked: u64,
    /// What is kept for its sessions.
    pub kept_bytes: u64,
}

/// What one session adds to that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    link: Option<LinkId>,
    attaching: bool,
    kept_bytes: u64,
    waits_for: Option<LinkId>,
}

impl Link {
    /// The bound that keeps it from one more session. Who was parked for it may return, however many they are.
    pub fn reached(&self, breakers: &Breakers, returns: bool) -> Option<Breaker> {
        let over = |bound: Option<u64>, count: u64| bound.is_some_and(|bound| count >= bound);
        let kept_bytes = self.load.kept_bytes + self.kept.iter().sum::<u64>();
        let everywhere = self.attachments.filter(|_| self.state == LinkState::Up).map_or(0, u64::from);
        // A document counts players, a backend what it has.
        let own = if self.backend.capacity.is_some() { self.sessions } else { self.load.attachments };
        let bounds = [
            (Breaker::MaxSessions, over(breakers.max_sessions.map(u64::from), self.sessions)),
            (Breaker::MaxAttaching, over(breakers.max_attaching.map(u64::from), self.load.attaching)),
            (Breaker::MaxParked, !returns && over(breakers.max_parked.map(u64::from), self.load.parked)),
            (Breaker::MaxKeptBytes, over(breakers.max_kept_bytes, kept_bytes)),
            (Breaker::Capacity, over(self.capacity(), own.max(everywhere))),
        ];
        bounds.into_iter().find(|(_, over)| *over).map(|(breaker, _)| breaker)
    }
}

impl Hub {
    /// Keeps the loads of links in step with one session.
    pub fn account_load(&mut self, session: &Session, seat: &mut Seat) {
        let now = Share {
            link: seat.link,
            attaching: session.is_attaching(),
            kept_bytes: if seat.link.is_some() { seat.kept.total() } else { 0 },
            waits_for: session.waits_for(),
        };
        if now != seat.share {
            let before = std::mem::replace(&mut seat.share, now);
            self.replace_share(before, now);
        }
    }

    /// The session has left the worker.
    pub fn close_load(&mut self, seat: &mut Seat) {
        self.replace_share(std::mem::take(&mut seat.share), Share::default());
    }

    fn replace_share(&mut self, before: Share, now: Share) {
        if let Some(id) = before.link {
            let load = &mut self.link_mut(id).load;
            load.attachments = load.attachments.saturating_sub(1);
            load.attaching = load.attaching.saturating_sub(before.attaching.into());
            load.kept_bytes = load.kept_bytes.saturating_sub(before.kept_bytes);
        }
        if let Some(id) = before.waits_for {
            let load = &mut self.link_mut(id).load;
            load.parked = load.parked.saturating_sub(1);
            self.may_have_room(id, Breaker::MaxParked);
        }
        if let Some(id) = now.link {
            let load = &mut self.link_mut(id).load;
            load.attachments += 1;
            load.attaching += u64::from(now.attaching);
            load.kept_bytes += now.kept_bytes;
        }
        if let Some(id) = now.waits_for {
            self.link_mut(id).load.parked += 1;
        }
        if let Some(id) = before.link {
            if before.attaching {
                self.may_have_room(id, Breaker::MaxAttaching);
            }
            self.may_have_room(id, Breaker::MaxKeptBytes);
        }
    }

    /// The backend is seen to be at that bound, or at none; returns what was seen before.
    pub fn trip(&mut self, id: LinkId, reached: Option<Breaker>) -> Option<Breaker> {
        let before = std::mem::replace(&mut self.link_mut(id).tripped, reached);
        if let (None, Some(breaker)) = (before, reached) {
            self.notice(&self.link(id).backend.id, || Noticed::Tripped { breaker });
        }
        before
    }

    /// Something of that backend's may have become less.
    pub fn may_have_room(&mut self, id: LinkId, bound: Breaker) {
        self.room |= self.link(id).tripped == Some(bound);
    }
}

impl Worker {
    /// Who is below all bounds again may be gone to.
    pub(super) fn review_breakers(&mut self) {
        let table = std::sync::Arc::clone(&self.hub.table);
        let mut open = [0; Breaker::ALL.len()];
        let mut has_room = false;
        for id in self.hub.link_ids() {
            let link = self.hub.link(id);
            let service = table.services.get(&*link.backend.id.service);
            let listed = !link.retired && table.backends.contains_key(&link.backend.id);
            let reached =
                service.filter(|_| listed).and_then(|service| link.reached(&service.breakers, false));
            let overloaded = listed && link.report().is_some_and(|report| report.is_overloaded());
            let reached = reached.or(overloaded.then_some(Breaker::Load));
            let before = self.hub.trip(id, reached);
            has_room |= before.is_some() && reached.is_none();
            if let Some(breaker) = reached {
                open[breaker as usize] += 1;
            }
        }
        for (cell, count) in self.hub.counters.breakers.iter().zip(open) {
            cell.set(count);
        }
        if has_room {
            self.sessions_may_return();
            self.retry_drains();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::routing::{Backend, BackendAddress, BackendId};

    fn link() -> Link {
        let backend = Backend {
            id: BackendId { service: "arena".into(), name: "a".into() },
            address: BackendAddress::Tcp("127.0.0.1:1".into()),
            version: "1".into(),
            weight: 1,
            zone: None,
            capacity: Some(100),
        };
        let load = Load { attachments: 9, attaching: 2, parked: 3, kept_bytes: 40 };
        let mut link = Link::new(Arc::new(backend), Instant::now());
        (link.sessions, link.load, link.kept) = (9, load, [1, 1]);
        link
    }

    #[test]
    fn each_bound_holds_from_its_number_on_and_none_by_itself() {
        let none = Breakers::default();
        assert_eq!(link().reached(&none, false), None);
        let bounds = |by: u32| {
            let less = |count: u32| Some(count + 1 - by);
            [
                (Breaker::MaxSessions, Breakers { max_sessions: less(9), ..none }),
                (Breaker::MaxAttaching, Breakers { max_attaching: less(2), ..none }),
                (Breaker::MaxParked, Breakers { max_parked: less(3), ..none }),
                (Breaker::MaxKeptBytes, Breakers { max_kept_bytes: less(42).map(u64::from), ..none }),
            ]
        };
        for (breaker, breakers) in bounds(1) {
            assert_eq!(link().reached(&breakers, false), Some(breaker));
        }
        for (breaker, breakers) in bounds(0) {
            assert_eq!(link().reached(&breakers, false), None, "{breaker:?}");
        }
    }

    #[test]
    fn a_match_of_many_players_is_one_of_those_that_a_backend_says_it_takes() {
        let mut link = link();
        (link.sessions, link.load.attachments) = (20, 1);
        link.backend = Arc::new(Backend { capacity: None, ..Backend::clone(&link.backend) });
        link.told.capacity = Some(20);
        assert_eq!(link.reached(&Breakers::default(), false), None);
        link.load.attachments = 20;
        assert_eq!(link.reached(&Breakers::default(), false), Some(Breaker::Capacity));
    }

    #[test]
    fn who_was_parked_for_a_backend_may_return_to_it() {
        let breakers = Breakers { max_parked: Some(1), ..Breakers::default() };
        assert_eq!(link().reached(&breakers, true), None);
    }

    #[test]
    fn what_a_backend_says_of_itself_counts_while_its_link_is_up() {
        let mut link = link();
        link.attachments = Some(100);
        assert_eq!(link.reached(&Breakers::default(), false), None, "that was another run");
        link.state = LinkState::Up;
        assert_eq!(link.reached(&Breakers::default(), false), Some(Breaker::Capacity));
    }
}
