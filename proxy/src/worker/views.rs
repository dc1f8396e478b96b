//! What a worker shows of itself.

use super::Worker;
use super::command::{BackendTally, DrainProgress, DrainRow, DrainRows, LinkView, SessionView, Spoken};
use super::link::{Link, LinkState};
use super::slot::{SessionKey, Slot};
use crate::drain::progress::{Progress, State};
use crate::routing::pick::slow_start;
use crate::session::{LinkId, Session};

impl Worker {
    pub(super) fn session_views(&self, limit: usize) -> Vec<SessionView> {
        let (mirrors, players): (Vec<_>, Vec<_>) = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.session.is_group())
            .partition(|(_, slot)| slot.seat.is_mirror);
        let sessions = players.into_iter().chain(mirrors);
        sessions.take(limit).map(|(key, slot)| self.session_view(key, slot)).collect()
    }

    fn session_view(&self, key: SessionKey, slot: &Slot) -> SessionView {
        let session = &slot.session;
        let group = slot.seat.company.aboard.and_then(|key| self.slots.get(key)).map(|slot| &slot.session);
        let attached = group.unwrap_or(session);
        SessionView {
            id: session.id().to_string(),
            worker: self.hub.config.index,
            service: session.service().name.to_string(),
            route: slot.seat.route.name.to_string(),
            client: slot.seat.client.to_string(),
            group: group.and_then(Session::group).map(|group| group.to_string()),
            mirror_of: self.hub.mirrors.of(key).map(|player| player.to_string()),
            backend: attached.link().map(|link| self.hub.link(link).backend.id.to_string()),
            phase: if session.is_aboard() { attached } else { session }.phase_name().to_owned(),
            epoch: session.epoch().0,
            client_seq: session.client_seq().0,
            server_seq: session.server_seq().0,
            kept_bytes: session.kept_bytes(),
            state_bytes: session.state_bytes(),
            age_s: self.hub.now.saturating_duration_since(slot.seat.opened).as_secs(),
        }
    }

    pub(super) fn link_views(&self) -> Vec<LinkView> {
        let view = |link: &Link| LinkView {
            worker: self.hub.config.index,
            backend: link.backend.id.to_string(),
            link: link.state_name().to_owned(),
            instance: link.instance().map(|instance| instance.to_string()),
            backend_version: link.peer.as_ref().map(|peer| peer.backend_version.clone()),
            sessions: link.sessions,
            draining: link.causes.names(link.instance()),
            left: if link.drain.is_some() { link.sessions } else { 0 },
            last_error: link.last_error.clone(),
            drain: self.drain_progress(link),
            slow_start_percent: self.slow_start_percent(link),
            at_bound: link.tripped.map(|breaker| breaker.name().to_owned()),
            attachments: link.attachments.filter(|_| link.state == LinkState::Up).map(u64::from),
            capacity_told: link.told.capacity.filter(|_| link.state == LinkState::Up),
            load_permille: link.report().map(|report| report.permille),
        };
        self.hub.links.iter().filter(|link| !link.retired).map(view).collect()
    }

    pub(super) fn tallies(&self) -> Vec<BackendTally> {
        let row = |link: &Link| BackendTally {
            backend: std::sync::Arc::clone(&link.backend),
            sessions: link.sessions,
            tally: link.tally.clone(),
            spoken: link.peer.as_ref().map(|peer| Spoken {
                instance: peer.instance,
                writes_format: peer.writes_format.clone(),
                reads_formats: peer.reads_formats.clone(),
            }),
        };
        self.hub.links.iter().filter(|link| !link.retired).map(row).collect()
    }

    fn slow_start_percent(&self, link: &Link) -> Option<u64> {
        let slow_start = self.hub.table.services.get(&*link.backend.id.service)?.balance.slow_start;
        let age = self.hub.now.saturating_duration_since(link.fresh_since);
        (age < slow_start).then(|| slow_start::weight(1, age, slow_start) * 100 / slow_start::WHOLE)
    }

    fn drain_progress(&self, link: &Link) -> Option<DrainProgress> {
        let progress = link.drain.as_ref()?.progress(link.sessions, self.hub.now);
        Some(drain_view(&progress, link.causes.reason()))
    }

    pub(super) fn drain_rows(&self) -> DrainRows {
        let draining = |id: &LinkId| !self.hub.link(*id).retired && self.hub.link(*id).is_draining();
        let row = |id: LinkId| {
            let link = self.hub.link(id);
            let progress = link.drain.as_ref().map(|drain| drain.progress(link.sessions, self.hub.now));
            DrainRow {
                backend: link.backend.id.to_string(),
                sessions: link.sessions,
                in_flight: u64::from(self.leaving(id)),
                stuck: progress.is_some_and(|progress| progress.state == State::Stuck),
            }
        };
        let rows = self.hub.link_ids().filter(draining).map(row).collect();
        DrainRows { revision: self.hub.table.revision, rows }
    }
}

fn drain_view(progress: &Progress, reason: String) -> DrainProgress {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    DrainProgress {
        state: progress.state,
        reason,
        left: progress.left,
        in_flight: progress.in_flight,
        moved: progress.counts.moved,
        parked: progress.counts.parked,
        ended: progress.counts.ended,
        thawed: progress.counts.thawed,
        homeless: progress.homeless,
        waits_for: progress.waits_for.map(str::to_owned),
        running_ms: ms(progress.running),
        remaining_ms: ms(progress.remaining),
    }
}
