//! What a worker shows of itself.

use super::Worker;
use super::command::{LinkView, SessionView};
use super::slot::Slot;

impl Worker {
    pub(super) fn session_views(&self, limit: usize) -> Vec<SessionView> {
        self.slots.values().take(limit).map(|slot| self.session_view(slot)).collect()
    }

    fn session_view(&self, slot: &Slot) -> SessionView {
        let session = &slot.session;
        SessionView {
            id: session.id().to_string(),
            worker: self.hub.config.index,
            service: session.service().name.to_string(),
            route: slot.seat.route.name.to_string(),
            client: slot.seat.client.to_string(),
            backend: session.link().map(|link| self.hub.link(link).backend.id.to_string()),
            phase: session.phase_name().to_owned(),
            epoch: session.epoch().0,
            client_seq: session.client_seq().0,
            server_seq: session.server_seq().0,
            kept_bytes: session.kept_bytes(),
            state_bytes: session.state_bytes(),
            age_s: self.hub.now.saturating_duration_since(slot.seat.opened).as_secs(),
        }
    }

    pub(super) fn link_views(&self) -> Vec<LinkView> {
        let view = |link: &super::link::Link| LinkView {
            worker: self.hub.config.index,
            backend: link.backend.id.to_string(),
            link: link.state_name().to_owned(),
            instance: link.instance().map(|instance| instance.to_string()),
            backend_version: link.peer.as_ref().map(|peer| peer.backend_version.clone()),
            sessions: link.sessions,
            draining: link.causes.names(link.instance()),
            left: if link.drain.is_some() { link.sessions } else { 0 },
            last_error: link.last_error.clone(),
        };
        self.hub.links.iter().filter(|link| !link.retired).map(view).collect()
    }
}
