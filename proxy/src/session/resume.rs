//! The link was cut and is back, to the same instance: each side says again what the other hasn't had.

use holdfast_protocol::message::{Attach, AttachMode, AttachmentEntry, AttachmentPhase, Message};
use holdfast_protocol::{Seq, TraceContext};

use super::effects::{Effects, LinkId};
use super::{Phase, Session};

impl Session {
    /// `entry` is what the backend's WELCOME says of this session on this link.
    pub fn resumed<E: Effects>(&mut self, link: LinkId, entry: Option<&AttachmentEntry>, env: &mut E) {
        self.look_after_old(link, entry, env);
        let current = entry.filter(|entry| self.knows(link, entry));
        if let Some(entry) = entry.filter(|entry| current.is_none() && !self.is_old(link, entry)) {
            // Neither current nor frozen for us.
            self.release(link, entry.epoch, env);
        }
        if self.link() != Some(link) {
            return;
        }
        self.resuming = false;
        // After a cut a checkpoint isn't taken up again: the next one is asked for in its time.
        self.abandon_checkpoint(env);
        match (&self.phase, current) {
            (Phase::Closing { .. }, _) => {}
            (Phase::Attaching { .. }, Some(entry))
                if entry.phase == AttachmentPhase::Inert && !self.chunks_left() =>
            {
                self.ask_resume(link, entry, env);
                self.taken_over(link, env);
            }
            (Phase::Attaching { .. }, entry) => {
                if entry.is_some() {
                    self.release(link, self.epoch, env);
                    self.epoch = self.epoch.next();
                }
                self.ask(link, env);
            }
            (_, None) => self.attachment_lost(link, env),
            (_, Some(entry)) => self.go_on(link, entry, env),
        }
    }

    /// ATTACH(resume), then whatever the entry shows to be unanswered.
    fn go_on<E: Effects>(&mut self, link: LinkId, entry: &AttachmentEntry, env: &mut E) {
        self.ask_resume(link, entry, env);
        match self.phase {
            Phase::Freezing { reserved_bytes, .. } => {
                self.phase = Phase::Freezing { link, reserved_bytes, incoming: None };
                self.send_freeze(link, reserved_bytes, env);
            }
            Phase::Thawing { old_epoch, .. } => {
                if entry.epoch == old_epoch {
                    self.send_thaw(link, old_epoch, env);
                }
            }
            _ => {
                self.outbound.rewind_to(entry.client_seq);
                self.journal.records.rewind_to(entry.record_seq);
                if entry.phase == AttachmentPhase::Inert {
                    return self.replay(link, env);
                }
                self.pump(env);
            }
        }
    }

    /// Tells the backend which server frames the proxy has, so that it sends the rest again.
    fn ask_resume<E: Effects>(&mut self, link: LinkId, entry: &AttachmentEntry, env: &mut E) {
        self.resuming = true;
        self.inbound.forget_ack();
        self.journal.records.forget_ack();
        self.note_ack(env);
        let window_bytes = self.inbound.open_window(self.service.limits.server_window_bytes);
        self.say_resume(link, entry, window_bytes, env);
    }

    fn say_resume<E: Effects>(
        &self,
        link: LinkId,
        entry: &AttachmentEntry,
        server_window_bytes: u32,
        env: &mut E,
    ) {
        let attach = Attach {
            subject: self.subject(),
            epoch: entry.epoch,
            mode: AttachMode::Resume,
            lost: false,
            client_seq: entry.client_seq,
            server_seq: if entry.epoch == self.epoch { self.inbound.echo() } else { self.frozen_echo() },
            record_seq: self.journal.records.had(),
            state_total_bytes: 0,
            server_window_bytes,
            trace: TraceContext::default(),
            group: None,
            recovery: self.journal.level,
            opened_us: self.opened_us,
            client: &self.client_address,
            service: &self.service.name,
            format: "",
        };
        env.send(link, &Message::Attach(attach));
    }

    /// The last server frame of the attachment that is frozen (or was, until its THAW is answered).
    fn frozen_echo(&self) -> Seq {
        self.old.map_or(self.inbound.echo(), |old| old.server_seq)
    }

    fn knows(&self, link: LinkId, entry: &AttachmentEntry) -> bool {
        match self.phase {
            Phase::Thawing { link: at, old_epoch } if at == link => {
                entry.epoch == self.epoch || entry.epoch == old_epoch
            }
            _ => self.link() == Some(link) && entry.epoch == self.epoch,
        }
    }

    fn is_old(&self, link: LinkId, entry: &AttachmentEntry) -> bool {
        self.old.is_some_and(|old| old.link == link && old.epoch == entry.epoch)
    }

    /// The attachment that is frozen while the session moves: on a new link it must be asked for, or it couldn't be
    /// thawed. Its answer is of no interest: it names an epoch that isn't current any more.
    fn look_after_old<E: Effects>(&mut self, link: LinkId, entry: Option<&AttachmentEntry>, env: &mut E) {
        match entry.filter(|entry| self.is_old(link, entry)) {
            // It sends nothing before its THAW, which opens a window of its own.
            Some(entry) => self.say_resume(link, entry, self.service.limits.server_window_bytes, env),
            None if self.old.is_some_and(|old| old.link == link) => self.old = None,
            None => {}
        }
    }
}
