//! What becomes of a backend's sessions when its link comes up, breaks, or can't be had.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::message::{AttachmentEntry, Hello, Message, Release, Subject};

use super::Worker;
use super::dial::{BACKOFF_CUT, BACKOFF_FIRST, CONNECT_TIMEOUT, Call, DialError, OFFERED, Wish};
use super::link::{Link, LinkState, OwnDrain, Peer};
use super::slot::SessionKey;
use super::stream::Stream;
use super::told::Told;
use crate::events::Noticed;
use crate::routing::Service;
use crate::session::{LinkId, Phase};

/// The longest pause between two dials.
const BACKOFF_LAST: Duration = Duration::from_millis(1000);
/// The same while sessions are parked, for each backend that is away.
const BACKOFF_PARKED: Duration = Duration::from_millis(50);
/// An idle link to another host is closed after this.
pub const IDLE_LINK: Duration = Duration::from_secs(30);
/// Where a service's document is gone, its links are held to these.
pub const LIVENESS: Duration = Duration::from_secs(3);
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);
/// However little of the resume time is left, a dial begun within it may take this long.
const TRY_LEAST: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn wish(&self, id: LinkId) -> Wish {
        match self.is_wanted(id) {
            _ if self.hub.link(id).retired => Wish::End,
            true => Wish::Dial,
            false => Wish::Rest,
        }
    }

    /// Gives up the places of links whose backends are off the list and that nobody needs.
    pub(super) fn retire_links(&mut self) {
        for id in self.hub.link_ids() {
            let link = self.hub.link(id);
            let idle = matches!(link.state, LinkState::Idle | LinkState::Dead) && link.sessions == 0;
            let kept = self.hub.is_kept(&link.backend.id);
            let awaited = link.load.parked > 0;
            if idle
                && !kept
                && !awaited
                && !link.retired
                && self.keys_on(id).is_empty()
                && self.leaving(id) == 0
            {
                let link = self.hub.link_mut(id);
                link.retired = true;
                link.tripped = None;
                link.demand.notify_one();
                let backend = link.backend.id.clone();
                self.hub.link_of.remove(&backend);
            }
        }
    }

    pub(super) fn is_wanted(&self, id: LinkId) -> bool {
        let link = self.hub.link(id);
        let kept = self.hub.is_kept(&link.backend.id);
        match link.state {
            LinkState::Broken { .. } => true,
            // Looked after until it is back, or is taken off the list.
            LinkState::Dead => kept,
            _ if link.called_ahead.is_some_and(|until| self.hub.now < until) => true,
            _ => link.sessions > 0 || (kept && self.hub.is_local(&link.backend.id)),
        }
    }

    /// While sessions are parked players feel each wait, but many dead backends aren't dialled all at that pace.
    pub(super) fn longest_backoff(&self) -> Duration {
        if self.hub.counters.parked.get() == 0 {
            return BACKOFF_LAST;
        }
        let dead = self.hub.links.iter().filter(|link| link.state == LinkState::Dead).count();
        let dead = u32::try_from(dead).unwrap_or(u32::MAX).max(1);
        BACKOFF_PARKED.saturating_mul(dead).min(BACKOFF_LAST)
    }

    /// The first and the longest pause before the next dial of this link.
    pub(super) fn backoff(&self, id: LinkId) -> (Duration, Duration) {
        let cut = matches!(self.hub.link(id).state, LinkState::Broken { .. });
        (if cut { BACKOFF_CUT } else { BACKOFF_FIRST }, self.longest_backoff())
    }

    /// Sessions have just been parked: backends that are away are asked for at once.
    pub(super) fn hurry_dials(&mut self) {
        if std::mem::take(&mut self.hub.parked_anew) && self.hub.now >= self.next_hurry {
            self.next_hurry = self.hub.now + self.longest_backoff();
            let away = self.hub.links.iter().filter(|link| link.state == LinkState::Dead);
            away.for_each(|link| link.demand.notify_one());
        }
    }

    pub(super) fn prepare_call(&mut self, id: LinkId) -> Call {
        let config = Arc::clone(&self.hub.config);
        let table = Arc::clone(&self.hub.table);
        let now = self.hub.now;
        // One count for all links: a backend that comes off the list and on again knows the old link's numbers.
        self.hub.generation += 1;
        let generation = self.hub.generation;
        let link = self.hub.link_mut(id);
        if let Some(backend) = table.backends.get(&link.backend.id) {
            link.backend = Arc::clone(backend);
        }
        if link.state == LinkState::Idle {
            link.state = LinkState::Connecting;
        }
        let service = table.services.get(&*link.backend.id.service);
        let max_frame_bytes = service.map_or(0, |service| max_frame_bytes(service));
        let liveness = service.map_or(LIVENESS, |service| service.limits.liveness);
        let resume_timeout = service.map_or(RESUME_TIMEOUT, |service| service.limits.resume_timeout);
        let patience = match link.state {
            LinkState::Broken { since } => {
                (since + resume_timeout).saturating_duration_since(now).max(TRY_LEAST)
            }
            _ => CONNECT_TIMEOUT + liveness,
        };
        let hello = Message::Hello(Hello {
            min_version: codec::PROTOCOL_VERSION,
            max_version: codec::PROTOCOL_VERSION,
            instance: config.instance,
            worker: config.index,
            generation,
            max_frame_bytes,
            liveness_ms: u32::try_from(liveness.as_millis()).unwrap_or(u32::MAX),
            capabilities: OFFERED,
            proxy: &config.proxy_id,
            service: &link.backend.id.service,
            proof: &[],
        });
        let mut bytes = Vec::new();
        codec::encode(&hello, &mut bytes);
        let address = match &config.local {
            Some((local, address)) if *local == link.backend.id => address.clone(),
            _ => link.backend.address.clone(),
        };
        Call { address, hello: bytes, generation, max_frame_bytes, liveness, patience }
    }

    /// `false`: nobody wants the link any more.
    pub(super) fn link_up(&mut self, id: LinkId, stream: Stream, peer: Peer, rest: &[u8]) -> bool {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        if link.retired {
            return false;
        }
        let same = link.instance() == Some(peer.instance);
        let resumed = same && matches!(link.state, LinkState::Broken { .. });
        if !same {
            link.causes.own = None;
            (link.attachments, link.told) = (None, Told::default());
            // One that was never dialled before has been there since it was listed, for all that is known.
            if link.peer.is_some() || link.state == LinkState::Dead {
                link.fresh_since = now;
            }
        }
        if peer.draining && link.causes.own.is_none() {
            // Its DRAIN, which follows, says the rest.
            let reason = "told in WELCOME".to_owned();
            link.causes.own = Some(OwnDrain { since: now, within: None, returns: true, reason });
        }
        tracing::info!(backend = %link.backend.id, instance = %peer.instance, version = %peer.backend_version,
            resumed, "link up");
        reset(link);
        link.faults.of(peer.instance);
        link.stream = Some(stream);
        link.state = LinkState::Up;
        link.last_heard = now;
        link.idle_since = now;
        link.last_error = None;
        let attachments = link.peer.insert(peer).attachments.split_off(0);
        self.hub.account_link(id);
        self.hub.counters.links_up.add(1);
        self.meet_sessions(id, &attachments, resumed);
        self.review_drain(id);
        self.sessions_may_return();
        self.retry_drains();
        self.rebalance_soon();
        self.review_frames(id);
        self.ping_checks(id);
        if !rest.is_empty()
            && let Err(reason) = self.link_bytes(id, rest)
        {
            self.hub.link_mut(id).doom(reason);
        }
        true
    }

    /// The service's frames may have grown since HELLO: the backend is told anew, and its sessions resume. What it takes
    /// itself only another run of it can change.
    pub(super) fn review_frames(&mut self, id: LinkId) {
        let table = Arc::clone(&self.hub.table);
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        let Some(service) = table.services.get(&*link.backend.id.service) else { return };
        let most = max_frame_bytes(service);
        let Some(peer) = link.peer.as_ref().filter(|_| link.state == LinkState::Up) else { return };
        let (takes, gives) = (peer.takes_frame_bytes, peer.gives_frame_bytes);
        if takes < most && link.may_warn(now) {
            tracing::warn!(backend = %link.backend.id, max_frame_bytes = most,
                "it gets no sessions with longer frames: the backend takes frames up to {takes} bytes");
        }
        if gives < most {
            link.doom(format!("the service's frames have grown to {most} bytes"));
        }
    }

    /// Sessions of this link go on, begin, or learn that their backend was replaced.
    fn meet_sessions(&mut self, id: LinkId, attachments: &[AttachmentEntry], resumed: bool) {
        if !resumed {
            self.release_stale(id, attachments);
        }
        let entries: HashMap<Subject, &AttachmentEntry> =
            attachments.iter().map(|entry| (entry.subject, entry)).collect();
        for key in self.keys_on(id) {
            self.drive(key, |session, fx| {
                let entry = entries.get(&session.subject()).copied();
                let waits =
                    matches!(session.phase(), Phase::Attaching { link, asked: false, .. } if *link == id);
                if waits {
                    session.link_is_ready(id, fx);
                } else if resumed {
                    session.resumed(id, entry, fx);
                } else {
                    session.attachment_lost(id, fx);
                }
            });
        }
        for entry in attachments.iter().filter(|_| resumed) {
            self.release_unknown(id, entry);
        }
    }

    /// The backend was held for gone and is back, with what it had then: its sessions have gone on without it.
    fn release_stale(&mut self, id: LinkId, attachments: &[AttachmentEntry]) {
        if !attachments.is_empty() {
            let backend = &self.hub.link(id).backend.id;
            tracing::warn!(%backend, attachments = attachments.len(), "the backend is back, too late for its sessions");
        }
        for entry in attachments {
            self.send_on_link(id, &Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
        }
    }

    /// The backend keeps something for a session that has ended here, or is elsewhere by now.
    fn release_unknown(&mut self, id: LinkId, entry: &AttachmentEntry) {
        let slot = self.key_of(entry.subject).and_then(|key| self.slots.get(key));
        if !slot.is_some_and(|slot| slot.session.concerns(id)) {
            self.send_on_link(id, &Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
        }
    }

    /// Sessions attached to this link, or frozen on it.
    pub(super) fn keys_on(&self, id: LinkId) -> Vec<SessionKey> {
        self.slots.iter().filter(|(_, slot)| slot.session.concerns(id)).map(|(key, _)| key).collect()
    }

    pub(super) fn link_cut(&mut self, id: LinkId, reason: String) {
        let now = self.hub.now;
        let sessions = self.keys_on(id).len();
        let resume_timeout = self.resume_timeout(id);
        let link = self.hub.link_mut(id);
        let had_own_drain = link.causes.own.is_some();
        reset(link);
        if link.state != LinkState::Dead {
            link.state = if sessions > 0 { LinkState::Broken { since: now } } else { LinkState::Idle };
        }
        if sessions == 0 && had_own_drain {
            // It said that it would go, and it is gone.
            link.causes.own = None;
            link.state = LinkState::Dead;
            tracing::info!(backend = %link.backend.id, "the backend ended its drain and left");
        } else if sessions == 0 {
            tracing::info!(backend = %link.backend.id, reason, "link closed");
        } else {
            tracing::warn!(backend = %link.backend.id, sessions, reason, "link lost");
        }
        link.last_error = Some(reason);
        let talks_nonsense = link.faults.too_many(now, resume_timeout);
        self.hub.account_link(id);
        self.hub.counters.links_up.sub(1);
        self.hub.counters.links_lost.add(1);
        self.hub.relieved = true;
        if talks_nonsense && self.hub.link(id).state != LinkState::Dead {
            return self.backend_gone(id);
        }
        self.review_drain(id);
    }

    pub(super) fn dial_failed(&mut self, id: LinkId, error: &DialError) {
        let now = self.hub.now;
        let resume_timeout = self.resume_timeout(id);
        if let DialError::Fault { rule, .. } = error {
            self.hub.counters.link_faults.add(*rule);
        }
        let link = self.hub.link_mut(id);
        let again = link.last_error.as_deref() == Some(&error.to_string());
        if !again {
            tracing::warn!(backend = %link.backend.id, %error, "no link");
        }
        link.last_error = Some(error.to_string());
        if let LinkState::Broken { since } = link.state
            && !error.is_gone()
            && now.saturating_duration_since(since) < resume_timeout
        {
            return;
        }
        // Of a dead one nobody waits for news.
        if self.hub.link(id).state != LinkState::Dead {
            self.backend_gone(id);
        }
    }

    /// The backend's process is gone, or as good as gone: its sessions take the crash path.
    pub(super) fn backend_gone(&mut self, id: LinkId) {
        let keys = self.keys_on(id);
        let link = self.hub.link(id);
        if !keys.is_empty() {
            let (backend, sessions) = (link.backend.id.clone(), keys.len() as u64);
            tracing::warn!(%backend, sessions, "the backend is gone");
            self.hub.notice(&backend, || Noticed::Crashed { sessions });
        }
        let link = self.hub.link_mut(id);
        link.state = LinkState::Dead;
        link.peer = None;
        link.causes.own = None;
        for key in keys {
            self.drive(key, |session, fx| session.attachment_lost(id, fx));
        }
        self.review_drain(id);
    }

    fn resume_timeout(&self, id: LinkId) -> Duration {
        let service = self.hub.table.services.get(&*self.hub.link(id).backend.id.service);
        service.map_or(RESUME_TIMEOUT, |service| service.limits.resume_timeout)
    }
}

fn max_frame_bytes(service: &Service) -> u32 {
    u32::try_from(service.framing.max_frame_bytes()).unwrap_or(u32::MAX)
}

/// What belonged to the connection that is over.
fn reset(link: &mut Link) {
    link.stream = None;
    link.inbox.clear();
    link.outbox.clear();
    link.transfers.clear();
    link.doomed = None;
    link.pinged = None;
    link.waker = None;
    link.congested = false;
    link.stuck_since = None;
}
