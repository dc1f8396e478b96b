//! What a backend tells of itself by PONG: how many it has, how many it is to have, and how full it is.

use std::time::{Duration, Instant};

use holdfast_protocol::message::Pong;

use super::Worker;
use super::link::{Link, LinkState};
use crate::routing::pick::load::Report;
use crate::session::LinkId;
use crate::telemetry::counters::Breaker;

/// A load that is told again unchanged may be one that its backend hasn't measured again: for so long what came since
/// it was first told still counts.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// Of the run that the link is with.
#[derive(Debug, Default)]
pub struct Told {
    pub capacity: Option<u64>,
    load: Option<ToldLoad>,
}

#[derive(Debug, Clone, Copy)]
struct ToldLoad {
    permille: u16,
    attachments: u32,
    /// What this worker had there, then.
    own: u64,
    since: Instant,
}

impl Link {
    pub fn hear(&mut self, pong: &Pong, now: Instant) {
        self.attachments = Some(pong.attachments);
        self.told.capacity = pong.capacity.map(|capacity| u64::from(capacity.get()));
        let before = self.told.load;
        self.told.load = pong.load_permille.map(|permille| {
            let recent = |load: &ToldLoad| now.saturating_duration_since(load.since) < SETTLES_AFTER;
            before.filter(|load| load.permille == permille && recent(load)).unwrap_or(ToldLoad {
                permille,
                attachments: pong.attachments,
                own: self.load.attachments,
                since: now,
            })
        });
    }

    /// Sessions that it is to have at most: its document's word, or else its own.
    pub fn capacity(&self) -> Option<u64> {
        self.backend.capacity.or(self.told.capacity)
    }

    /// What it tells of its load, while its link is up.
    pub fn report(&self) -> Option<Report> {
        let load = self.told.load.filter(|_| self.state == LinkState::Up)?;
        let change = i128::from(self.load.attachments) - i128::from(load.own);
        Some(Report {
            permille: load.permille,
            attachments: load.attachments,
            capacity: self.capacity(),
            change: i64::try_from(change).unwrap_or_default(),
        })
    }

    /// It may change at any time, and only it knows.
    fn is_to_be_asked(&self) -> bool {
        self.is_up() && self.pinged.is_none() && (self.capacity().is_some() || self.told.load.is_some())
    }
}

impl Worker {
    pub(super) fn heard(&mut self, id: LinkId, pong: &Pong) {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        link.hear(pong, now);
        link.checks.answered(pong.nonce);
        self.hub.may_have_room(id, Breaker::Capacity);
    }

    /// What other workers and proxies have there counts, too.
    pub(super) fn ask_for_counts(&mut self) {
        for id in self.hub.link_ids() {
            if self.hub.link(id).is_to_be_asked() {
                self.ping(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::*;
    use crate::routing::{Backend, BackendAddress, BackendId};

    fn link(capacity: Option<u64>) -> Link {
        let backend = Backend {
            id: BackendId { service: "arena".into(), name: "a".into() },
            address: BackendAddress::Tcp("127.0.0.1:1".into()),
            version: "1".into(),
            weight: 1,
            zone: None,
            capacity,
        };
        let mut link = Link::new(Arc::new(backend), Instant::now());
        link.state = LinkState::Up;
        link
    }

    fn pong(capacity: u32, load_permille: Option<u16>) -> Pong {
        Pong { nonce: 0, attachments: 7, capacity: NonZeroU32::new(capacity), load_permille }
    }

    #[test]
    fn a_documents_capacity_wins_over_what_the_backend_tells() {
        let now = Instant::now();
        let capacities = [None, Some(5)].map(|documented| {
            let mut link = link(documented);
            let mut after = |told| {
                link.hear(&pong(told, None), now);
                link.capacity()
            };
            [after(8), after(9), after(0)]
        });
        assert_eq!(capacities, [[Some(8), Some(9), None], [Some(5); 3]]);
    }

    #[test]
    fn who_came_since_a_load_was_told_counts_until_it_is_told_anew() {
        let now = Instant::now();
        let mut link = link(None);
        link.load.attachments = 3;
        link.hear(&pong(0, Some(250)), now);
        link.load.attachments = 10;
        link.hear(&pong(0, Some(250)), now + SETTLES_AFTER / 2);
        let change = |link: &Link| link.report().map(|report| (report.permille, report.change));
        assert_eq!(change(&link), Some((250, 7)), "it may not have measured again");
        link.hear(&pong(0, Some(251)), now + SETTLES_AFTER / 2);
        assert_eq!(change(&link), Some((251, 0)));
        link.load.attachments = 8;
        assert_eq!(change(&link), Some((251, -2)));
        link.hear(&pong(0, Some(251)), now + 2 * SETTLES_AFTER);
        assert_eq!(change(&link), Some((251, 0)), "it had the time");
    }

    #[test]
    fn a_load_counts_while_its_link_is_up_and_it_is_told() {
        let now = Instant::now();
        let mut link = link(None);
        link.hear(&pong(0, Some(1_000)), now);
        assert!(link.report().is_some_and(|report| report.is_overloaded()));
        link.state = LinkState::Idle;
        assert_eq!(link.report(), None);
        link.state = LinkState::Up;
        link.hear(&pong(0, None), now);
        assert_eq!(link.report(), None);
    }
}
