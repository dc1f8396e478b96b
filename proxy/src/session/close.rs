//! The end of a session, from either side. State that the proxy holds is still attached once, so that the game can
//! save it.

use holdfast_protocol::Seq;
use holdfast_protocol::message::{Ack, Close, Message, Rule};

use super::effects::{Effects, LinkId, Note, Timer};
use super::inbound::Arrival;
use super::outbound::Kind;
use super::{Client, Phase, Session};
use crate::telemetry::counters::CloseReason;

impl Session {
    /// The client has sent its last byte; it may still listen.
    pub fn client_finished<E: Effects>(&mut self, env: &mut E) {
        if self.client != Client::Open {
            return;
        }
        self.client = Client::Half;
        // Not worth a backend: it came, said nothing, and has nothing to wait for.
        if self.awaits_a_fresh_start() && self.is_untouched() && self.outbound.is_empty() {
            return self.end(CloseReason::ClientClose, env);
        }
        self.leave_word(Kind::CloseHalf, CloseReason::ClientClose, env);
    }

    /// The client is gone, or must go: what the game still sends is dropped.
    pub fn client_gone<E: Effects>(&mut self, reason: CloseReason, env: &mut E) {
        let before = std::mem::replace(&mut self.client, Client::Gone);
        if before == Client::Gone || self.phase == Phase::Ended {
            return;
        }
        self.handed(env);
        let said_half = u64::from(before == Client::Half);
        if self.awaits_a_fresh_start() && self.outbound.entries() <= said_half {
            return self.end(self.ending.unwrap_or(reason), env);
        }
        self.leave_word(Kind::Close, reason, env);
    }

    /// No backend has it, and the next one will know nothing of it.
    fn awaits_a_fresh_start(&self) -> bool {
        matches!(self.phase, Phase::Attaching { .. } | Phase::Parked) && !self.has_history()
    }

    /// Tells the game, behind the frames that wait.
    fn leave_word<E: Effects>(&mut self, kind: Kind, reason: CloseReason, env: &mut E) {
        self.ending.get_or_insert(reason);
        match self.phase {
            // In a group, the group says it.
            Phase::Aboard if !self.has_luggage() => {}
            Phase::Ended | Phase::Closing { .. } | Phase::Parting => {}
            _ => {
                self.outbound.push(kind, &[], holdfast_protocol::TraceContext::default(), 0, env);
                if matches!(self.phase, Phase::Active { .. } | Phase::Replaying { .. }) {
                    env.timer(Timer::Close, Some(self.service.limits.close_deadline));
                }
                self.pump(env);
            }
        }
    }

    /// The game has processed the client's CLOSE, and all before it.
    pub(super) fn finish_client_close<E: Effects>(&mut self, env: &mut E) {
        if self.client == Client::Gone && self.outbound.is_empty() {
            let reason = self.ending.unwrap_or(CloseReason::ClientClose);
            self.end(reason, env);
        }
    }

    /// CLOSE from the backend: the client first gets all that came before it.
    pub(super) fn backend_closes<E: Effects>(
        &mut self,
        link: LinkId,
        close: &Close<'_>,
        env: &mut E,
    ) -> Result<(), Rule> {
        if self.arrived(close.seq, close.ack, close.epoch, None, env)? != Some(Arrival::New) {
            return Ok(());
        }
        self.drop_reservation(env);
        self.abandon_checkpoint(env);
        self.recovery_is_over(env);
        env.timer(Timer::Answer, None);
        self.phase = Phase::Closing { link };
        if self.client == Client::Gone {
            self.handed(env);
        } else {
            env.timer(Timer::Close, Some(self.service.limits.close_deadline));
            env.finish_client();
        }
        Ok(())
    }

    /// The client has everything that the backend sent before its CLOSE.
    pub(super) fn finish_backend_close<E: Effects>(&mut self, env: &mut E) {
        if let Phase::Closing { link } = self.phase {
            let (data, record) = (self.inbound.take_ack(), self.journal.records.take_ack());
            let ack = Ack { subject: self.subject(), epoch: self.epoch, data, record };
            env.send(link, &Message::Ack(ack));
            let reason = self.ending.unwrap_or(CloseReason::BackendClose);
            self.end(reason, env);
        }
    }

    pub(super) fn close_is_late<E: Effects>(&mut self, env: &mut E) {
        if self.is_group() && !self.is_deserted() {
            return;
        }
        match self.phase {
            Phase::Closing { .. } | Phase::Parting | Phase::Active { .. } | Phase::Replaying { .. } => {
                let reason = self.ending.unwrap_or(CloseReason::BackendClose);
                self.end(reason, env);
            }
            // A handoff is under way: it has deadlines of its own, and START sets this timer again.
            _ => {}
        }
    }

    /// Ends the session now, wherever it is.
    pub fn end<E: Effects>(&mut self, reason: CloseReason, env: &mut E) {
        if self.phase == Phase::Ended {
            return;
        }
        // Whoever was in a group that is empty has taken along what is theirs.
        let is_over = self.riders().is_some_and(|riders| riders.is_empty());
        // A group that never came about has what its members came with.
        let carries = self.is_group() && !is_over && self.outbound.highest() == Seq::NONE;
        self.end_riders(reason, env);
        self.drop_reservation(env);
        self.abandon_checkpoint(env);
        if let Some(old) = self.old.take() {
            self.release(old.link, old.epoch, env);
        }
        let asked = !matches!(self.phase, Phase::Attaching { asked: false, .. });
        if let Some(link) = self.link().filter(|_| asked) {
            self.release(link, self.epoch, env);
        }
        let homeless = matches!(self.phase, Phase::Parked | Phase::Attaching { .. }) || self.has_luggage();
        if homeless && !is_over && (carries || self.has_history()) {
            let bytes = self.journal.state_bytes() + self.journal_bytes();
            env.note(Note::StateDropped { bytes });
        }
        self.journal.state = None;
        self.phase = Phase::Ended;
        self.recovery_is_over(env);
        env.settled(None);
        env.ended(reason);
    }
}
