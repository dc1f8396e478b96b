//! Coming to a backend: one path for a new session, a moved one and a parked one.

use holdfast_protocol::Seq;
use holdfast_protocol::codec::STATE_CHUNK_BYTES;
use holdfast_protocol::message::{Attach, AttachMode, Message, Rule, State};

use super::effects::{Effects, LinkId, Note, Step, Timer, Wanted};
use super::{Phase, Session};
use crate::telemetry::counters::CloseReason;

impl Session {
    /// Looks for a backend and begins to attach there; with none in sight, see `nobody`.
    pub(super) fn seek<E: Effects>(&mut self, env: &mut E) {
        let format = self.kept.as_ref().map(|kept| kept.format.as_str());
        let wanted = Wanted { tried: &self.tried, format, home: self.home };
        match env.pick(wanted) {
            Some(link) => self.attach_to(link, env),
            None => self.nobody_is_left(env),
        }
    }

    fn nobody_is_left<E: Effects>(&mut self, env: &mut E) {
        let refused_for_good = !self.tried.is_empty() && !self.may_retry && self.is_untouched();
        if refused_for_good {
            return self.end(CloseReason::NoBackend, env);
        }
        self.nobody(env);
    }

    /// No backend has ever had it.
    fn is_untouched(&self) -> bool {
        self.kept.is_none() && !self.lost && self.inbound.had() == Seq::NONE
    }

    fn attach_to<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        self.epoch = self.epoch.next();
        self.phase = Phase::Attaching { link, asked: false, sent_bytes: 0, credit_bytes: 0 };
        env.settled(Some(link));
        env.timer(Timer::Answer, Some(self.service.limits.attach_timeout));
        if env.link_is_up(link) {
            self.ask(link, env);
        }
    }

    /// The link to the backend that was picked is up.
    pub fn link_is_ready<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        if matches!(self.phase, Phase::Attaching { link: at, asked: false, .. } if at == link) {
            self.ask(link, env);
        }
    }

    pub(super) fn ask<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let trace = env.trace(Step::Attach);
        let (mode, client_seq, total_bytes, format) = match &mut self.kept {
            Some(kept) => {
                kept.given_to = Some(self.epoch);
                (AttachMode::State, kept.client_seq, kept.bytes.len() as u64, kept.format.as_str())
            }
            None => (AttachMode::Fresh, self.outbound.acked(), 0, ""),
        };
        let attach = Attach {
            subject: holdfast_protocol::message::Subject::Session(self.id),
            epoch: self.epoch,
            mode,
            lost: self.lost,
            client_seq,
            server_seq: self.inbound.had(),
            record_seq: Seq::NONE,
            state_total_bytes: total_bytes,
            server_window_bytes: self.inbound.open_window(self.service.limits.server_window_bytes),
            trace,
            group: None,
            client: &self.client_address,
            service: &self.service.name,
            format,
        };
        env.send(link, &Message::Attach(attach));
        env.note(Note::Attaching { link });
        let credit_bytes = env.state_credit_bytes(link);
        self.phase = Phase::Attaching { link, asked: true, sent_bytes: 0, credit_bytes };
        if self.chunks_left() {
            env.has_chunks(link);
        }
    }

    /// Whether the state isn't on the link whole.
    pub(super) fn chunks_left(&self) -> bool {
        match (&self.phase, &self.kept) {
            (Phase::Attaching { asked: true, sent_bytes, .. }, Some(kept)) => {
                *sent_bytes < kept.bytes.len() as u64
            }
            _ => false,
        }
    }

    /// Sends one chunk within the credit. `true`: another may follow at once.
    pub fn send_chunk<E: Effects>(&mut self, env: &mut E) -> bool {
        let subject = self.subject();
        let (Phase::Attaching { link, asked: true, sent_bytes, credit_bytes }, Some(kept)) =
            (&mut self.phase, &self.kept)
        else {
            return false;
        };
        let total_bytes = kept.bytes.len() as u64;
        let end = total_bytes.min(*credit_bytes).min(*sent_bytes + STATE_CHUNK_BYTES as u64);
        if end <= *sent_bytes {
            return false;
        }
        let chunk = State {
            subject,
            epoch: self.epoch,
            is_final: true,
            total_bytes,
            offset_bytes: *sent_bytes,
            client_seq: kept.client_seq,
            server_seq: self.inbound.had(),
            record_seq: Seq::NONE,
            members: 0,
            chunk: &kept.bytes[usize::try_from(*sent_bytes).unwrap_or(0)..usize::try_from(end).unwrap_or(0)],
        };
        env.send(*link, &Message::State(chunk));
        *sent_bytes = end;
        end < total_bytes && end < *credit_bytes
    }

    pub(super) fn credit<E: Effects>(&mut self, link: LinkId, bytes: u64, env: &mut E) -> Result<(), Rule> {
        let Phase::Attaching { credit_bytes, .. } = &mut self.phase else { return Err(Rule::Unexpected) };
        *credit_bytes = credit_bytes.saturating_add(bytes);
        if self.chunks_left() {
            env.has_chunks(link);
        }
        Ok(())
    }

    /// The target has loaded the session: it gets what an earlier attachment had, then live input.
    pub(super) fn taken_over<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.timer(Timer::Answer, None);
        env.note(Note::Attached { link });
        self.tried.clear();
        self.may_retry = false;
        self.client_window_bytes = self.window_towards(link, env);
        self.phase = Phase::Replaying { link };
        self.pump(env);
    }

    pub(super) fn window_towards<E: Effects>(&self, link: LinkId, env: &E) -> usize {
        env.client_window_bytes(link).min(self.service.limits.client_window_bytes) as usize
    }

    /// This backend can't take it.
    pub(super) fn try_next<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.timer(Timer::Answer, None);
        env.settled(None);
        self.tried.push(link);
        self.seek(env);
    }
}
