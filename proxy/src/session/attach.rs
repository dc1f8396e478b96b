//! Coming to a backend: one path for a new session, a moved one and a parked one.

use std::ops::Range;

use holdfast_protocol::Seq;
use holdfast_protocol::codec::STATE_CHUNK_BYTES;
use holdfast_protocol::message::{Attach, AttachMode, Message, Recovery, State};

use super::effects::{Effects, LinkId, Note, Step, Timer, Wanted};
use super::state::KeptState;
use super::{Phase, Session};
use crate::telemetry::counters::CloseReason;

impl Session {
    /// Looks for a backend and begins to attach there; with none in sight, see [`Self::nobody`].
    pub(super) fn seek<E: Effects>(&mut self, env: &mut E) {
        let format = self.journal.state.as_ref().map(|state| state.format.as_str());
        let needs = self.needs();
        let logic = self.journal.logic.as_deref().filter(|_| needs != 0);
        let wanted = Wanted { tried: &self.tried, format, home: self.home, needs, logic };
        let beside = self.beside.filter(|link| !self.tried.contains(link));
        let picked =
            beside.and_then(|_| env.pick(Wanted { home: beside, ..wanted })).or_else(|| env.pick(wanted));
        match picked {
            Some(link) => self.attach_to(link, env),
            None => self.nobody_is_left(env),
        }
    }

    fn nobody_is_left<E: Effects>(&mut self, env: &mut E) {
        let refused_for_good = !self.tried.is_empty() && !self.may_retry && self.is_untouched();
        if refused_for_good {
            // Who came goes back to what it was.
            self.dissolve("no backend takes the group", env);
            return self.end(CloseReason::NoBackend, env);
        }
        self.nobody(env);
    }

    /// No backend has ever had anything of it.
    pub(super) fn is_untouched(&self) -> bool {
        let was_live = self.journal.logic.is_some();
        !self.lost && !was_live && !self.has_history() && self.inbound.had() == Seq::NONE
    }

    fn attach_to<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        // To go back where it was is to go on anew there: ATTACH ends what is frozen, so no thaw will find it.
        self.old.take_if(|old| old.link == link);
        self.epoch = self.epoch.next();
        self.resuming = false;
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
        let Some(level) = self.level_at(link, env) else {
            // It came up with less than it takes to go on from the journal.
            return self.try_next(link, env);
        };
        self.begin_at(level);
        let trace = env.trace(Step::Attach);
        let base = self.journal.base();
        let is_rollback = level == Recovery::Checkpoint && self.is_ahead_of(base);
        let (mode, total_bytes, format) = match &mut self.journal.state {
            Some(state) => {
                state.given_to = Some(self.epoch);
                (AttachMode::State, state.bytes.len() as u64, state.format.as_str())
            }
            None => (AttachMode::Fresh, 0, ""),
        };
        let attach = Attach {
            subject: self.subject,
            epoch: self.epoch,
            mode,
            lost: self.lost || is_rollback,
            client_seq: base.client_seq,
            server_seq: self.inbound.echo(),
            record_seq: self.journal.records.had(),
            state_total_bytes: total_bytes,
            server_window_bytes: self.inbound.open_window(self.service.limits.server_window_bytes),
            trace,
            group: None,
            recovery: level,
            opened_us: self.opened_us,
            client: &self.client_address,
            service: &self.service.name,
            format,
        };
        env.send(link, &Message::Attach(attach));
        env.note(Note::Attaching { link });
        let credit_bytes = env.state_credit_bytes(link);
        self.phase = Phase::Attaching { link, asked: true, sent_bytes: 0, credit_bytes };
        if let Some(state) = &self.journal.state
            && total_bytes.min(credit_bytes) == 0
        {
            // An empty chunk is the whole of an empty state, and tells the size of one that has no credit yet.
            env.send(link, &Message::State(self.chunk(state, 0..0)));
        }
        if self.chunks_left() {
            env.has_chunks(link);
        }
    }

    /// Whether the state isn't on the link whole.
    pub(super) fn chunks_left(&self) -> bool {
        match (&self.phase, &self.journal.state) {
            (Phase::Attaching { asked: true, sent_bytes, .. }, Some(state)) => {
                *sent_bytes < state.bytes.len() as u64
            }
            _ => false,
        }
    }

    /// Sends one chunk within the credit. `true`: another may follow at once.
    pub fn send_chunk<E: Effects>(&mut self, env: &mut E) -> bool {
        let (&Phase::Attaching { link, asked: true, sent_bytes: begin, credit_bytes }, Some(state)) =
            (&self.phase, &self.journal.state)
        else {
            return false;
        };
        let total_bytes = state.bytes.len() as u64;
        let end = total_bytes.min(credit_bytes).min(begin + STATE_CHUNK_BYTES as u64);
        if end <= begin {
            return false;
        }
        env.send(link, &Message::State(self.chunk(state, begin..end)));
        // A large state takes its time: it is late only when nothing goes on.
        env.timer(Timer::Answer, Some(self.service.limits.attach_timeout));
        self.phase = Phase::Attaching { link, asked: true, sent_bytes: end, credit_bytes };
        end < total_bytes && end < credit_bytes
    }

    fn chunk<'a>(&self, kept: &'a KeptState, part: Range<u64>) -> State<'a> {
        let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX).min(kept.bytes.len());
        State {
            subject: self.subject(),
            epoch: self.epoch,
            is_final: true,
            total_bytes: kept.bytes.len() as u64,
            offset_bytes: part.start,
            client_seq: kept.client_seq,
            server_seq: kept.server_seq,
            record_seq: kept.record_seq,
            members: 0,
            chunk: &kept.bytes[at(part.start)..at(part.end)],
        }
    }

    pub(super) fn credit<E: Effects>(&mut self, link: LinkId, bytes: u64, env: &mut E) {
        // What comes for the last chunk may cross with its ATTACHED.
        let Phase::Attaching { credit_bytes, .. } = &mut self.phase else { return };
        *credit_bytes = credit_bytes.saturating_add(bytes);
        if self.chunks_left() {
            env.has_chunks(link);
        }
    }

    /// The target has loaded the session: it gets what an earlier attachment had, then live input.
    pub(super) fn taken_over<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.note(Note::Attached { link });
        self.may_retry = false;
        self.replay(link, env);
    }

    /// What an earlier attachment was given comes again, then START. Until the backend shows by an ack that it gets on
    /// with it, the state may still go elsewhere.
    pub(super) fn replay<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.timer(Timer::Answer, Some(self.service.limits.attach_timeout));
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
        self.outbound.rewind_to_base();
        env.settled(None);
        self.tried.push(link);
        self.seek(env);
    }
}
