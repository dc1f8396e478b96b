//! What the log, the metrics and the operator's commands learn of the drains on this worker.

use std::time::Duration;

use super::Worker;
use super::link::LinkState;
use crate::drain::progress::State;
use crate::events::Noticed;
use crate::routing::BackendId;
use crate::session::LinkId;

/// A draining backend is asked so often how many attachments it has, over all links of all proxies.
const ASK_EVERY: Duration = Duration::from_millis(250);

impl Worker {
    /// A line where there is something new; and a question to the backend, whose own count tells when it is empty.
    pub(super) fn report_drain(&mut self, id: LinkId) {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        let (left, may_ask) = (link.sessions, link.pinged.is_none());
        let Some(drain) = &mut link.drain else { return };
        let progress = drain.progress(left, now);
        if drain.reporter.is_news(&progress, now) && progress.state != State::Drained {
            let (backend, counts) = (&link.backend.id, progress.counts);
            let (state, waits_for) = (progress.state.name(), progress.waits_for.unwrap_or_default());
            let remaining_s = progress.remaining.as_secs();
            if progress.state == State::Stuck {
                tracing::warn!(%backend, left, moved = counts.moved, waits_for, remaining_s,
                    "the drain waits: nobody can take the sessions that are left");
            } else {
                tracing::info!(%backend, state, left, in_flight = progress.in_flight, moved = counts.moved,
                    parked = counts.parked, ended = counts.ended, thawed = counts.thawed, waits_for, remaining_s,
                    "drain goes on");
            }
        }
        if may_ask && drain.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY) {
            drain.asked = Some(now);
            self.ping(id);
        }
    }

    /// Its causes are lifted, or its link is gone.
    pub(super) fn drain_ends(&mut self, id: LinkId) {
        let link = self.hub.link_mut(id);
        let Some(drain) = link.drain.take() else { return };
        let (backend, moved, left) = (link.backend.id.clone(), drain.counts.moved, link.sessions);
        let in_flight = drain.in_flight();
        if link.is_draining() {
            tracing::info!(%backend, moved, left, in_flight, "the drain waits for its link");
        } else if link.is_up() {
            tracing::info!(%backend, moved, left, in_flight, "drain lifted");
        } else {
            tracing::info!(%backend, moved, left, in_flight, "drain over: the backend has left");
        }
        self.hub.notice(&backend, || Noticed::DrainEnded { left });
        self.hub.draining.retain(|other| *other != id);
        self.count_drains();
    }

    pub(super) fn count_drains(&mut self) {
        let now = self.hub.now;
        let (mut states, mut left, mut in_flight, mut homeless) = ([0u64; State::ALL.len()], 0, 0, 0);
        for id in &self.hub.draining {
            let link = self.hub.link(*id);
            let Some(drain) = &link.drain else { continue };
            let progress = drain.progress(link.sessions, now);
            states[progress.state as usize] += 1;
            left += progress.left;
            in_flight += progress.in_flight;
            homeless += progress.homeless;
        }
        let counters = &self.hub.counters;
        for (cell, count) in counters.drains.iter().zip(states) {
            cell.set(count);
        }
        counters.drain_left.set(left);
        counters.drain_in_flight.set(in_flight);
        counters.drain_homeless.set(homeless);
    }

    /// Somebody waits for that backend to be empty over all proxies: it is asked for its count, and called first if
    /// there is no link to it.
    pub(super) fn ask_count(&mut self, backend: &BackendId) {
        let Some(id) = self.listed_link(backend) else { return };
        let link = self.hub.link(id);
        match link.state {
            LinkState::Up if link.pinged.is_none() => self.ping(id),
            LinkState::Up => {}
            _ => self.hub.call_ahead(id),
        }
    }
}
