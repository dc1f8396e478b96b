//! The link was cut and is back, to the same instance: each side says again what the other hasn't had.

use holdfast_protocol::message::{Attach, AttachMode, AttachmentEntry, AttachmentPhase, Message};
use holdfast_protocol::{Seq, TraceContext};

use super::effects::{Effects, LinkId};
use super::{Phase, Session};

impl Session {
    /// `entry` is what the backend's WELCOME says of this session on this link.
    pub fn resumed<E: Effects>(&mut self, link: LinkId, entry: Option<&AttachmentEntry>, env: &mut E) {
        self.release_stale(link, entry, env);
        let entry = entry.filter(|entry| self.knows(entry));
        match (&self.phase, entry) {
            (Phase::Attaching { link: at, .. }, entry) if *at == link => match entry {
                Some(entry) if entry.phase == AttachmentPhase::Inert && !self.chunks_left() => {
                    self.taken_over(link, env);
                }
                Some(_) => {
                    self.release(link, self.epoch, env);
                    self.epoch = self.epoch.next();
                    self.ask(link, env);
                }
                None => self.ask(link, env),
            },
            (Phase::Active { link: at } | Phase::Replaying { link: at }, Some(entry)) if *at == link => {
                self.go_on(link, entry, env);
            }
            (Phase::Freezing { link: at, reserved_bytes, .. }, Some(_)) if *at == link => {
                let reserved_bytes = *reserved_bytes;
                self.phase = Phase::Freezing { link, reserved_bytes, incoming: None };
                self.ask_resume(link, env);
                self.send_freeze(link, reserved_bytes, env);
            }
            (Phase::Thawing { link: at, old_epoch, .. }, Some(entry)) if *at == link => {
                let old_epoch = *old_epoch;
                if entry.epoch == self.epoch {
                    self.phase = Phase::Active { link };
                    self.go_on(link, entry, env);
                } else {
                    self.send_thaw(link, old_epoch, env);
                }
            }
            (Phase::Closing { link: at }, _) if *at == link => {}
            (_, None) => self.attachment_lost(link, env),
            _ => {}
        }
    }

    fn go_on<E: Effects>(&mut self, link: LinkId, entry: &AttachmentEntry, env: &mut E) {
        self.ask_resume(link, env);
        self.outbound.rewind_to(entry.client_seq);
        if entry.phase == AttachmentPhase::Inert {
            self.phase = Phase::Replaying { link };
        }
        self.pump(env);
    }

    /// Tells the backend which server frames the proxy has, so that it sends the rest again.
    fn ask_resume<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let attach = Attach {
            subject: self.subject(),
            epoch: self.epoch,
            mode: AttachMode::Resume,
            lost: false,
            client_seq: self.outbound.acked(),
            server_seq: self.inbound.had(),
            record_seq: Seq::NONE,
            state_total_bytes: 0,
            server_window_bytes: self.inbound.open_window(self.service.limits.server_window_bytes),
            trace: TraceContext::default(),
            group: None,
            client: &self.client_address,
            service: &self.service.name,
            format: "",
        };
        env.send(link, &Message::Attach(attach));
    }

    fn knows(&self, entry: &AttachmentEntry) -> bool {
        match self.phase {
            Phase::Thawing { old_epoch, .. } => entry.epoch == self.epoch || entry.epoch == old_epoch,
            _ => entry.epoch == self.epoch,
        }
    }

    /// What the backend still has of this session, and is neither current nor frozen for us, it may forget.
    fn release_stale<E: Effects>(&mut self, link: LinkId, entry: Option<&AttachmentEntry>, env: &mut E) {
        let Some(entry) = entry else {
            if self.old.is_some_and(|old| old.link == link) {
                self.old = None;
            }
            return;
        };
        let is_old = self.old.is_some_and(|old| old.link == link && old.epoch == entry.epoch);
        if !is_old && !self.knows(entry) {
            self.release(link, entry.epoch, env);
        }
    }
}
