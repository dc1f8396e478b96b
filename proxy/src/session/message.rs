//! A message from a backend, checked against the session's phase and epoch, then acted on.

use holdfast_protocol::codec::capability::GROUPS;
use holdfast_protocol::codec::delta::Delta;
use holdfast_protocol::message::{
    Data, FaultScope, Message, Record, RecordKind, Recovery, Refused, Rule, Subject,
};
use holdfast_protocol::{Epoch, GroupId, Seq, TraceContext};

use super::effects::{Effects, LinkId, Note, Timer};
use super::inbound::Arrival;
use super::journal::Checkpoint;
use super::planted::Bug;
use super::{Client, Phase, Session};

/// What a message is about, if not the link as a whole.
#[must_use]
pub fn subject_of(message: &Message<'_>) -> Option<Subject> {
    Some(match message {
        Message::Close(close) => Subject::Session(close.session),
        Message::Join(join) => Subject::Session(join.session),
        Message::Data(data) => data.subject,
        Message::Attached(attached) => attached.subject,
        Message::Refused(refused) => refused.subject,
        Message::State(state) => state.subject,
        Message::Ack(ack) => ack.subject,
        Message::Credit(credit) => credit.subject,
        Message::Record(record) => record.subject,
        Message::Fault(fault) => match fault.scope {
            FaultScope::Attachment(subject, _) => subject,
            FaultScope::Link => return None,
        },
        _ => return None,
    })
}

impl Session {
    /// A message of this session from that link.
    pub fn message<E: Effects>(&mut self, link: LinkId, message: &Message<'_>, env: &mut E) {
        let Some(epoch) = epoch_of(message) else {
            return self.broken(link, Err(Rule::Unexpected), env);
        };
        if !self.is_current(link, epoch) {
            return env.note(Note::Stale);
        }
        let outcome = match message {
            Message::Data(data) => self.data(data, env),
            Message::Ack(ack) => self.acked(ack.data, ack.epoch, env),
            Message::Close(close) => self.backend_closes(link, close, env),
            Message::Attached(attached) => self.attached(link, attached, env),
            Message::Refused(refused) => self.refused(link, refused, env),
            Message::State(state) => self.state_chunk(link, state, env),
            Message::Credit(credit) => {
                self.credit(link, credit.bytes, env);
                Ok(())
            }
            Message::Fault(fault) => {
                env.note(Note::Failed { link, rule: fault.rule, text: fault.text });
                if fault.rule == Rule::Diverged {
                    self.diverged(link, env);
                }
                if fault.rule == Rule::Group && self.is_another_proxys() {
                    self.give_way(env);
                } else {
                    self.attachment_failed(link, env);
                }
                Ok(())
            }
            Message::Record(record) => self.record(record, env),
            Message::Join(join) => self.joins(link, join.group, env),
            _ => Err(Rule::Unexpected),
        };
        self.broken(link, outcome, env);
    }

    fn broken<E: Effects>(&mut self, link: LinkId, outcome: Result<(), Rule>, env: &mut E) {
        if let Err(rule) = outcome {
            self.fault(link, rule, env);
        }
    }

    /// Of the current attachment, or of the one being attached. Until THAW is answered, the old epoch isn't stale.
    fn is_current(&self, link: LinkId, epoch: Epoch) -> bool {
        if self.planted.is(Bug::NoEpochCheck) {
            return self.link() == Some(link);
        }
        match self.phase {
            Phase::Thawing { link: at, old_epoch } => {
                link == at && (epoch == self.epoch || epoch == old_epoch)
            }
            Phase::Attaching { link: at, asked, .. } => asked && link == at && epoch == self.epoch,
            _ => self.speaking_to() == Some(link) && epoch == self.epoch,
        }
    }

    fn data<E: Effects>(&mut self, data: &Data<'_>, env: &mut E) -> Result<(), Rule> {
        if self.journal.level == Recovery::Delta {
            return Err(Rule::Unexpected);
        }
        if data.record > self.journal.records.had() && !self.planted.is(Bug::DeliverBeforeKept) {
            // What it depends on isn't kept: no player may see it.
            return Err(Rule::OutOfSequence);
        }
        if self.arrived(data.seq, data.ack, data.epoch, Some(data.frame), env)? != Some(Arrival::New) {
            return Ok(());
        }
        self.made_something_new(data.epoch, env);
        self.look_after_journal(env);
        self.deliver(data.seq, data.frame, &data.trace, env)
    }

    fn deliver<E: Effects>(
        &mut self,
        seq: Seq,
        frame: &[u8],
        trace: &TraceContext,
        env: &mut E,
    ) -> Result<(), Rule> {
        if self.is_group() {
            return self.deliver_addressed(frame, trace, env);
        }
        if self.client == Client::Gone {
            self.handed(env);
            return Ok(());
        }
        env.deliver(seq, frame, trace)
    }

    /// Its game wants it in a group. Who is on the move is asked for again where it arrives.
    fn joins<E: Effects>(&mut self, link: LinkId, group: GroupId, env: &mut E) -> Result<(), Rule> {
        if env.capabilities(link) & GROUPS == 0 {
            return Err(Rule::Group);
        }
        match self.phase {
            Phase::Active { .. } => env.joins(group),
            Phase::Attaching { .. } | Phase::Replaying { .. } => return Err(Rule::Unexpected),
            _ => {}
        }
        Ok(())
    }

    /// An input that no client sent, or a change of state: kept before anything that depends on it is handed on.
    fn record<E: Effects>(&mut self, record: &Record<'_>, env: &mut E) -> Result<(), Rule> {
        let expected = match self.journal.level {
            Recovery::Replay => record.kind != RecordKind::Delta,
            Recovery::Delta => record.kind == RecordKind::Delta,
            Recovery::None | Recovery::Checkpoint => false,
        };
        if !expected || matches!(self.phase, Phase::Attaching { .. } | Phase::Closing { .. }) {
            return Err(Rule::Unexpected);
        }
        let delta = match record.kind {
            RecordKind::Delta => Some(Delta::parse(record.bytes).ok_or(Rule::Unexpected)?),
            RecordKind::Input | RecordKind::Values => None,
        };
        #[cfg(test)]
        if self.forgets(record, env) {
            return Ok(());
        }
        let arrival = self.journal.records.keep(record, self.outbound.sent())?;
        env.owe_ack();
        if arrival == Arrival::New {
            self.made_something_new(record.epoch, env);
            if let Some(delta) = delta {
                self.delta(record.after_client_seq, &delta, env)?;
            }
            self.bound_records(env)?;
            self.look_after_journal(env);
        }
        Ok(())
    }

    /// The record is kept: so are its frames, which the client gets now, and what it covers needn't be given again.
    fn delta<E: Effects>(&mut self, covers: Seq, delta: &Delta<'_>, env: &mut E) -> Result<(), Rule> {
        if delta.server_seq != self.inbound.had() {
            return Err(Rule::OutOfSequence);
        }
        let mut seq = delta.server_seq;
        for frame in delta.frames() {
            seq = seq.next();
            self.inbound.arrive_in_record(seq, frame, seq == delta.server_seq.next())?;
            self.deliver(seq, frame, &delta.trace, env)?;
        }
        self.members_processed(covers, env);
        self.outbound.release(covers, env);
        self.outbound.trim(covers);
        self.recovery_goes_on(env);
        // The ack that follows says nothing new: what waited for it goes on here.
        self.finish_client_close(env);
        self.pump(env);
        Ok(())
    }

    /// A backend that goes on recording while it answers no CHECKPOINT would fill the proxy's memory. Where this side
    /// has no room for the state it is nobody's fault, and the session goes on without a journal.
    fn bound_records<E: Effects>(&mut self, env: &mut E) -> Result<(), Rule> {
        if !self.journal.is_kept() {
            self.journal.records.forget();
            return Ok(());
        }
        // The client's frames are the client's; they stop by its not being read.
        let recorded = self.journal.records.kept_bytes() as u64;
        let bound = self.journal_bound().saturating_mul(2);
        if recorded <= bound {
            return Ok(());
        }
        let asked = self.journal.checkpoint.as_ref().is_some_and(Checkpoint::may_be_sent);
        match self.phase {
            Phase::Active { link } if !asked => self.give_up_journal(link, env),
            _ => return Err(Rule::WindowExceeded),
        }
        Ok(())
    }

    /// The attachment has gone beyond what any before it did: the one that is frozen can't be thawed any more.
    fn made_something_new<E: Effects>(&mut self, epoch: Epoch, env: &mut E) {
        if matches!(self.phase, Phase::Replaying { .. })
            && let Some(old) = self.old.take()
        {
            self.release(old.link, old.epoch, env);
        }
        self.confirm(epoch);
    }

    /// The part that DATA and CLOSE have in common: the ack and the seq. `None`: that ack has ended the session.
    pub(super) fn arrived<E: Effects>(
        &mut self,
        seq: Seq,
        ack: Seq,
        epoch: Epoch,
        frame: Option<&[u8]>,
        env: &mut E,
    ) -> Result<Option<Arrival>, Rule> {
        if matches!(self.phase, Phase::Attaching { .. }) {
            return Err(Rule::LiveBeforeStart);
        }
        self.acked(ack, epoch, env)?;
        if self.phase == Phase::Ended {
            return Ok(None);
        }
        if matches!(self.phase, Phase::Closing { .. }) && seq > self.inbound.had() {
            return Err(Rule::Unexpected);
        }
        let arrival = match frame {
            Some(frame) => self.inbound.arrive(seq, frame)?,
            None => self.inbound.arrive_close(seq)?,
        };
        if arrival != Arrival::New {
            if self.inbound.is_urgent() { self.send_ack(env) } else { env.owe_ack() }
        }
        Ok(Some(arrival))
    }

    /// The game has processed client frames up to `seq`.
    pub(super) fn acked<E: Effects>(&mut self, seq: Seq, epoch: Epoch, env: &mut E) -> Result<(), Rule> {
        if seq > self.outbound.sent() {
            return Err(Rule::AckBeyondSent);
        }
        if seq > self.outbound.acked() {
            self.members_processed(seq, env);
            self.outbound.release(seq, env);
            if self.planted.is(Bug::TrimOnAck) {
                self.outbound.trim(seq);
            }
            self.confirm(epoch);
            if matches!(self.phase, Phase::Replaying { .. }) {
                // It gets on; how long that takes is its own affair.
                env.timer(Timer::Answer, None);
            }
            self.recovery_goes_on(env);
            self.finish_client_close(env);
            self.pump(env);
        }
        Ok(())
    }

    /// The attachment has shown that it carries on: where nothing is kept for a crash, the state it was given is no
    /// longer needed.
    fn confirm(&mut self, epoch: Epoch) {
        if self.journal.is_kept() {
            return;
        }
        self.journal.recoveries = 0;
        if self.journal.state.as_ref().is_some_and(|state| state.given_to == Some(epoch)) {
            self.journal.state = None;
        }
    }

    fn refused<E: Effects>(&mut self, link: LinkId, refused: &Refused<'_>, env: &mut E) -> Result<(), Rule> {
        env.note(Note::Refused { link, reason: refused.reason });
        match self.phase {
            Phase::Attaching { .. } => {
                self.may_retry |= refused.retry;
                self.try_next(link, env);
                Ok(())
            }
            // Neither does it have what it was to go on with.
            Phase::Thawing { .. } => {
                self.attachment_lost(link, env);
                Ok(())
            }
            _ if self.resuming => {
                self.attachment_lost(link, env);
                Ok(())
            }
            _ => Err(Rule::Unexpected),
        }
    }
}

/// The epoch that a message names.
#[must_use]
pub fn epoch_of(message: &Message<'_>) -> Option<Epoch> {
    Some(match message {
        Message::Data(data) => data.epoch,
        Message::Close(close) => close.epoch,
        Message::Attached(attached) => attached.epoch,
        Message::Refused(refused) => refused.epoch,
        Message::State(state) => state.epoch,
        Message::Ack(ack) => ack.epoch,
        Message::Credit(credit) => credit.epoch,
        Message::Record(record) => record.epoch,
        Message::Join(join) => join.epoch,
        Message::Fault(fault) => match fault.scope {
            FaultScope::Attachment(_, epoch) => epoch,
            FaultScope::Link => return None,
        },
        _ => return None,
    })
}
