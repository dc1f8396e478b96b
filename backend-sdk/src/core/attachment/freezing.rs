//! Giving the state away (FREEZE, CHECKPOINT), and going on after all (THAW) or after a cut (resume).

use holdfast_protocol::message::{Attach, Checkpoint, Freeze, Recovery, State, Thaw};
use holdfast_protocol::{Message, STATE_CHUNK_BYTES, Seq};
use tracing::Span;

use super::super::desk::Desk;
use super::super::envelope::{self, Keep};
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::{Attachment, Held, Next, Phase};
use crate::game::Session;
use crate::trace;

/// A state on its way to the proxy.
#[derive(Debug)]
pub(crate) struct Sending {
    bytes: Vec<u8>,
    offset: usize,
    credit: u64,
    is_final: bool,
    /// Whether the proxy knows the total: it must, even when it gives no credit.
    announced: bool,
    client_seq: Seq,
    server_seq: Seq,
    record_seq: Seq,
    /// Ends with the last chunk.
    _span: Option<Span>,
}

impl Sending {
    fn can_send(&self) -> bool {
        !self.announced || (self.credit > 0 && self.offset < self.bytes.len())
    }
}

impl<S: Session> Attachment<S> {
    pub fn freeze(&mut self, desk: &mut Desk, freeze: &Freeze) -> Result<Next, Fault> {
        match self.phase {
            Phase::Loading(_) => return Err(Fault::unexpected("FREEZE", "loading")),
            // It ends by itself; if that lasts too long, the proxy thaws it and tries again.
            Phase::Closing => return Ok(Next::Stay),
            // Asked again while the answer is under way.
            Phase::Frozen(..) if self.sending.is_some() => return Ok(Next::Stay),
            Phase::Inert(..) | Phase::Active(_) | Phase::Frozen(..) => {}
        }
        let start_waits = self.start_waits;
        self.forget_waiting(desk);
        self.timers.stop(desk.now.at, &mut desk.schedule);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Inert(session, held) => {
                let start_after = if start_waits { Some(freeze.client_seq) } else { held.start_after };
                Phase::Frozen(session, Held { frozen_at: freeze.client_seq, start_after, ..held })
            }
            Phase::Active(session) => Phase::Frozen(session, Held { started: true, ..Held::default() }),
            other => other,
        };
        self.send_state(desk, freeze.credit_bytes, true, Some(freeze.trace))
    }

    pub fn checkpoint(&mut self, desk: &mut Desk, checkpoint: &Checkpoint) -> Result<Next, Fault> {
        match self.phase {
            Phase::Loading(_) => Err(Fault::unexpected("CHECKPOINT", "loading")),
            Phase::Active(_) | Phase::Inert(..) if self.sending.is_none() => {
                self.send_state(desk, checkpoint.credit_bytes, false, None)
            }
            Phase::Active(_) | Phase::Inert(..) | Phase::Frozen(..) | Phase::Closing => Ok(Next::Stay),
        }
    }

    fn send_state(
        &mut self,
        desk: &mut Desk,
        credit: u64,
        is_final: bool,
        trace: Option<holdfast_protocol::TraceContext>,
    ) -> Result<Next, Fault> {
        // What the state names must be on its way.
        self.pump_records(desk);
        let keep = self.keep(desk);
        let (Phase::Frozen(session, _) | Phase::Inert(session, _) | Phase::Active(session)) = &self.phase
        else {
            return Ok(Next::Stay);
        };
        let span = trace.and_then(|trace| trace::snapshot(self.place.id(), trace));
        let snapshot = {
            let _entered = span.as_ref().map(Span::enter);
            session.snapshot()?
        };
        let unsent = self.outbox.unsent().filter(|(entry, _)| matches!(entry.kind, Kind::Data { .. }));
        let unsent = unsent.map(|(entry, frame)| (entry.trace, frame));
        let bytes = envelope::write(&keep, unsent, &snapshot);
        if let Some(span) = &span {
            span.record("bytes", bytes.len());
        }
        self.sending = Some(Sending {
            bytes,
            offset: 0,
            credit,
            is_final,
            announced: false,
            client_seq: self.processed,
            server_seq: self.outbox.last_sent(),
            record_seq: self.records.last(),
            _span: span,
        });
        desk.transfers.push_back(self.place.subject);
        Ok(Next::Stay)
    }

    /// What the SDK itself must know of the session to go on elsewhere.
    fn keep(&self, desk: &Desk) -> Keep {
        let mut work: Vec<_> = self.jobs.iter().map(|job| (job.ordinal, job.tag)).collect();
        work.extend(self.results.iter().map(|(job, _)| (job.ordinal, job.tag)));
        if let Phase::Inert(_, held) | Phase::Frozen(_, held) = &self.phase {
            work.extend(held.work.iter().map(|spawned| (spawned.ordinal, spawned.tag)));
            work.extend_from_slice(&held.unclaimed);
        }
        work.sort_unstable();
        Keep {
            inputs: self.inputs,
            random: self.random.state(),
            ordinals: self.ordinals,
            time: self.ending.map_or(desk.now.wall, |ending| ending.moment.time),
            close: self.ending.is_some(),
            closed: self.ending.is_some_and(|ending| ending.told),
            work,
            wish: self.wish,
            refused: self.refusal.as_deref().cloned(),
            format: None,
        }
    }

    /// What no handler has begun is thrown away: it comes again.
    fn forget_waiting(&mut self, desk: &mut Desk) {
        self.clear_inbox(desk);
        self.received = self.processed;
        self.values = None;
        self.records.forget_waiting();
    }

    /// So much more of the state may be sent.
    pub fn credit(&mut self, desk: &mut Desk, bytes: u64) {
        let Some(sending) = &mut self.sending else { return };
        let was_stuck = !sending.can_send();
        sending.credit = sending.credit.saturating_add(bytes);
        if was_stuck && sending.can_send() {
            desk.transfers.push_back(self.place.subject);
        }
    }

    /// Sends one chunk, if the credit allows; says whether there is more to send at once.
    pub fn send_chunk(&mut self, desk: &mut Desk) -> bool {
        let (subject, epoch) = (self.subject(), self.epoch);
        let is_checkpoint =
            self.sending.as_ref().is_some_and(|sending| sending.can_send() && !sending.is_final);
        if is_checkpoint && self.unacked > 0 {
            // A whole state tells the proxy what is processed: its window must not open before this side's does.
            self.ack_is_told();
            self.say_ack(desk);
        }
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.can_send()) else { return false };
        let credit = usize::try_from(sending.credit).unwrap_or(usize::MAX);
        let length = STATE_CHUNK_BYTES.min(sending.bytes.len() - sending.offset).min(credit);
        desk.say(&Message::State(State {
            subject,
            epoch,
            is_final: sending.is_final,
            total_bytes: sending.bytes.len() as u64,
            offset_bytes: sending.offset as u64,
            client_seq: sending.client_seq,
            server_seq: sending.server_seq,
            record_seq: sending.record_seq,
            members: 0,
            chunk: &sending.bytes[sending.offset..sending.offset + length],
        }));
        sending.announced = true;
        sending.offset += length;
        sending.credit -= length as u64;
        if sending.offset == sending.bytes.len() {
            self.sending = None;
            return false;
        }
        sending.can_send()
    }

    /// Goes on under a new epoch, as what it was before it was frozen. Also for one that has been thawed already, but
    /// whose answer was lost in a cut.
    pub fn thaw(&mut self, desk: &mut Desk, thaw: &Thaw) -> Result<Next, Fault> {
        self.check_had(thaw.server_seq, thaw.record_seq)?;
        self.epoch = thaw.epoch;
        self.sending = None;
        self.forget_waiting(desk);
        self.rejoin(desk, thaw.server_seq, thaw.record_seq, thaw.server_window_bytes);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Frozen(session, held) if !held.started => Phase::Inert(session, held),
            other => other,
        };
        if matches!(self.phase, Phase::Frozen(..)) {
            self.activate(desk)?;
        }
        self.say_wish(desk);
        self.run_waiting(desk)
    }

    /// The link is back, and the proxy says what it has.
    pub fn resume(&mut self, desk: &mut Desk, attach: &Attach<'_>) -> Result<Next, Fault> {
        self.check_had(attach.server_seq, attach.record_seq)?;
        self.rejoin(desk, attach.server_seq, attach.record_seq, attach.server_window_bytes);
        self.say_wish(desk);
        self.run_waiting(desk)
    }

    /// Answers ATTACHED, which acks as well, and says once more what the proxy lacks.
    fn rejoin(&mut self, desk: &mut Desk, had: Seq, record: Seq, window_bytes: u32) {
        self.linked = true;
        self.ack_is_told();
        self.outbox.set_window(had, window_bytes);
        let answer = self.attached();
        desk.say(&answer);
        self.resend(desk, had, record);
    }

    /// The first message on a new link isn't a resume: what the old link may have lost goes before the answer.
    pub fn relink(&mut self, desk: &mut Desk) {
        if !self.linked {
            self.linked = true;
            self.resend(desk, Seq::NONE, Seq::NONE);
            if self.processed > Seq::NONE {
                self.owe_ack_again(desk);
            }
        }
    }

    fn check_had(&self, had: Seq, record: Seq) -> Result<(), Fault> {
        self.records.check(record, "the proxy has record")?;
        let sent = self.outbox.last_sent();
        if had <= sent {
            return Ok(());
        }
        let text = format!("the proxy has server seq {had}, last sent is {sent}");
        Err(Fault::new(holdfast_protocol::message::Rule::AckBeyondSent, text))
    }

    /// Records go first: frames depend on them.
    fn resend(&mut self, desk: &mut Desk, had: Seq, record: Seq) {
        if desk.link.is_none() {
            return;
        }
        self.records.resend(self.place.subject, self.epoch, record, &mut desk.out);
        if self.drains() {
            self.pump_records(desk);
        }
        self.outbox.resend(self.head(), had, &mut desk.out);
        if self.needs_link() {
            self.timers.start(self.place.subject, desk.now.at, &mut desk.schedule);
        }
    }

    /// Without a link no input may begin.
    fn needs_link(&self) -> bool {
        self.recovery == Recovery::Delta && matches!(self.phase, Phase::Active(_))
    }

    /// Half a state is of no use without its link. Says whether the attachment can wait for the next one.
    pub fn link_lost(&mut self, desk: &mut Desk) -> bool {
        if self.needs_link() {
            self.timers.stop(desk.now.at, &mut desk.schedule);
        }
        self.sending = None;
        self.linked = false;
        self.ack_turn = super::AckTurn::None;
        !matches!(self.phase, Phase::Loading(_))
    }
}
