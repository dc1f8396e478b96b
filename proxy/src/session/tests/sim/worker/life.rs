//! What becomes of a backend's sessions when its link comes up, breaks, or can't be had. Mirrors `worker::link_life`.

use holdfast_protocol::message::{AttachmentEntry, Message, Release};

use super::super::io::{ConnId, Io};
use super::Worker;
use super::hub::{LinkState, OwnDrain, Told};
use super::links::HERE;
use crate::session::{LinkId, Phase};

impl Worker {
    pub fn link_up(&mut self, id: LinkId, conn: ConnId, mut told: Told, rest: &[u8], io: &mut Io) {
        let (now, proxy) = (io.now, self.hub.index);
        let link = self.hub.link_mut(id);
        let same = link.told.as_ref().is_some_and(|before| before.instance == told.instance);
        let resumed = same && matches!(link.state, LinkState::Broken { .. });
        if !same {
            link.own = None;
        }
        if told.draining && link.own.is_none() {
            link.own = Some(OwnDrain { since: now, within: None, returns: true });
        }
        io.trace.event(now, "link up", &[proxy as u64, u64::from(id.0), u64::from(resumed)], || {
            format!("p{proxy} - b{} resumed {resumed}, {} attachments", id.0, told.attachments.len())
        });
        link.reset();
        link.conn = Some(conn);
        link.state = LinkState::Up;
        link.last_heard = now;
        let attachments = std::mem::take(&mut told.attachments);
        link.told = Some(told);
        self.meet_sessions(id, &attachments, resumed, io);
        self.review_drain(id, io);
        self.sessions_may_return();
        self.retry_drains();
        self.link_bytes(id, rest, io);
    }

    /// Sessions of this link go on, begin, or learn that their backend was replaced.
    fn meet_sessions(&mut self, id: LinkId, attachments: &[AttachmentEntry], resumed: bool, io: &mut Io) {
        if !resumed {
            // It was held for gone and is back: its sessions have gone on without it.
            for entry in attachments {
                self.hub.say(id, &Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
            }
        }
        for key in self.keys_on(id) {
            self.drive(key, io, |session, fx| {
                let subject = session.subject();
                let entry = attachments.iter().find(|entry| entry.subject == subject);
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

    /// The backend keeps something for a session that has ended here, or is elsewhere by now.
    fn release_unknown(&mut self, id: LinkId, entry: &AttachmentEntry) {
        let slot = self.key_of(entry.subject).and_then(|key| self.slots.get(&key));
        if !slot.is_some_and(|slot| slot.session.concerns(id)) {
            self.hub.say(id, &Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
        }
    }

    /// The connection of a link that was up is over.
    pub fn link_ends(&mut self, id: LinkId, io: &mut Io) {
        let (now, proxy) = (io.now, self.hub.index);
        let sessions = self.keys_on(id).len();
        let link = self.hub.link_mut(id);
        let Some(conn) = link.conn else { return };
        io.close(conn, HERE);
        link.reset();
        io.trace.event(now, "link cut", &[proxy as u64, u64::from(id.0)], || {
            format!("p{proxy} - b{} with {sessions} sessions", id.0)
        });
        if link.state != LinkState::Dead {
            link.state = if sessions > 0 { LinkState::Broken { since: now } } else { LinkState::Idle };
        }
        if sessions == 0 && link.own.take().is_some() {
            link.state = LinkState::Dead;
        }
        self.hub.relieved = true;
        self.review_drain(id, io);
        self.served(id, io);
    }

    /// `gone`: nobody listened.
    pub fn dial_failed(&mut self, id: LinkId, gone: bool, io: &mut Io) {
        let now = io.now;
        let resume_timeout = self.hub.service.limits.resume_timeout;
        let state = self.hub.link(id).state;
        if let LinkState::Broken { since } = state
            && !gone
            && now - since < resume_timeout
        {
            return;
        }
        if state != LinkState::Dead {
            self.backend_gone(id, io);
        }
    }

    /// The backend's process is gone, or as good as gone: its sessions take the crash path.
    pub fn backend_gone(&mut self, id: LinkId, io: &mut Io) {
        let (proxy, keys) = (self.hub.index, self.keys_on(id));
        let link = self.hub.link_mut(id);
        io.trace.event(io.now, "gone", &[proxy as u64, u64::from(id.0)], || {
            format!("p{proxy} - b{} with {} sessions", id.0, keys.len())
        });
        link.state = LinkState::Dead;
        link.told = None;
        link.own = None;
        for key in keys {
            self.drive(key, io, |session, fx| session.attachment_lost(id, fx));
        }
        self.review_drain(id, io);
    }
}
