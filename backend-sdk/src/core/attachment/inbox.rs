//! What the proxy gives a session: checked as it comes, processed at once or as soon as the outbox has room, in order.

use holdfast_protocol::message::{Data, Recovery, Rule};
use holdfast_protocol::{Seq, TraceContext};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::{Entry, Kind, cost};
use super::input::Input;
use super::replaying::Given;
use super::{Attachment, Next, Phase};
use crate::game::Session;

impl<S: Session> Attachment<S> {
    /// All that was given before has been given: what was held takes effect, once that is processed.
    pub fn start(&mut self, desk: &mut Desk) -> Result<Next, Fault> {
        if matches!(self.phase, Phase::Inert(..)) && self.records.are_missing() {
            let (had, end) = (self.records.had(), self.records.journal_end());
            let text = format!("START after record {had}, the journal's last is {end}");
            return Err(Fault::new(Rule::OutOfSequence, text));
        }
        match &mut self.phase {
            Phase::Loading(_) => return Err(Fault::unexpected("START", "loading")),
            Phase::Frozen(_, held) => {
                if !held.started {
                    held.start_after = Some(held.frozen_at);
                }
                return Ok(Next::Stay);
            }
            Phase::Inert(..) => {}
            // Repeated after a cut.
            Phase::Active(_) | Phase::Closing => return Ok(Next::Stay),
        }
        match &mut self.inbox {
            Some(_) if self.start_waits => {}
            Some(inbox) => {
                self.start_waits = true;
                inbox.push(Kind::Start, TraceContext::NONE, &[]);
            }
            None => self.begin(desk)?,
        }
        self.run_waiting(desk)
    }

    fn begin(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        self.activate(desk)?;
        self.pump(desk);
        self.say_wish(desk);
        self.owe_ack(desk, 0);
        Ok(())
    }

    /// From inert or frozen to active.
    pub(super) fn activate(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Inert(session, held) | Phase::Frozen(session, held) => {
                self.phase = Phase::Active(session);
                self.begin_work(desk, held.work)?;
                self.timers.start(self.place.subject, desk.now.at, &mut desk.schedule);
                self.try_end(desk)
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    pub fn data(&mut self, desk: &mut Desk, data: &Data<'_>) -> Result<Next, Fault> {
        self.take_ack(desk, data.ack)?;
        let max = self.largest_frame(desk.settings.max_frame_bytes as usize);
        if data.frame.len() > max {
            let text = format!("client frame of {} bytes, the limit is {max}", data.frame.len());
            return Err(Fault::new(Rule::FrameTooLarge, text));
        }
        if !self.take_seq(desk, "DATA", data.seq, data.again, data.frame.len())? {
            return self.run_waiting(desk);
        }
        // A change that comes behind it covers it.
        let is_covered = self.recovery == Recovery::Delta && self.records.are_missing();
        if is_covered {
            return Ok(Next::Stay);
        }
        if self.inbox.is_some() || self.must_wait(desk) {
            self.inbox_cost += cost(data.frame.len());
            let kind = Kind::Data { again: data.again };
            self.inbox.get_or_insert_with(|| desk.pool.take()).push(kind, data.trace, data.frame);
            return self.run_waiting(desk);
        }
        self.process(desk, data.seq, data.frame, data.trace, data.again)?;
        self.run_waiting(desk)
    }

    /// Checks a client seq against the phase, the sequence and the window. `false`: it is to be skipped.
    pub(super) fn take_seq(
        &mut self,
        desk: &mut Desk,
        name: &str,
        seq: Seq,
        again: bool,
        bytes: usize,
    ) -> Result<bool, Fault> {
        let is_starting =
            self.start_waits || matches!(&self.phase, Phase::Inert(_, held) if held.start_after.is_some());
        match &self.phase {
            Phase::Loading(_) if again => return Err(Fault::unexpected(name, "loading")),
            Phase::Loading(_) | Phase::Inert(..) if !again && !is_starting => {
                return Err(Fault::new(Rule::LiveBeforeStart, format!("{name} {seq} before START")));
            }
            // It isn't begun any more: it comes again wherever the session goes on.
            Phase::Frozen(..) => return Ok(false),
            Phase::Loading(_) | Phase::Inert(..) | Phase::Active(_) | Phase::Closing => {}
        }
        if seq <= self.received {
            desk.repeated += 1;
            self.owe_ack_again(desk);
            return Ok(false);
        }
        if seq != self.received.next() {
            let text = format!("client seq {seq}, expected {}", self.received.next());
            return Err(Fault::new(Rule::OutOfSequence, text));
        }
        self.check_window(desk, bytes)?;
        self.received = seq;
        if self.is_ending() {
            self.processed = seq;
            self.owe_ack(desk, cost(bytes));
            return Ok(false);
        }
        Ok(true)
    }

    fn check_window(&self, desk: &Desk, bytes: usize) -> Result<(), Fault> {
        let (in_flight, window) =
            (self.unacked + self.inbox_cost, desk.settings.client_window_bytes as usize);
        if in_flight > 0 && in_flight + cost(bytes) > window {
            let text = format!("{in_flight} client bytes in flight and {bytes} more, the window is {window}");
            return Err(Fault::new(Rule::WindowExceeded, text));
        }
        Ok(())
    }

    fn footprint(&self) -> usize {
        self.outbox.footprint() + self.records.footprint()
    }

    /// Whether the next client frame must wait for the outbox, or for a departure to be on the link: a state that
    /// covers later frames must not hold it. As long as nothing may leave, waiting would be for ever.
    pub(super) fn must_wait(&self, desk: &Desk) -> bool {
        let is_full = self.drains() && self.footprint() > desk.settings.outbox_bytes;
        is_full || self.lacks_window(desk) || self.outbox.has_unwritten_departure()
    }

    /// Whether every input must wait.
    pub(super) fn must_pause(&self, desk: &Desk) -> bool {
        let is_overfull = self.footprint() > desk.settings.outbox_bytes.saturating_mul(4);
        is_overfull || self.lacks_window(desk) || self.outbox.has_unwritten_departure()
    }

    /// At `delta` an input needs a place for what it sends: then nothing is ever unsent.
    pub(super) fn lacks_window(&self, desk: &Desk) -> bool {
        self.recovery == Recovery::Delta && !(self.linked && desk.link.is_some() && self.outbox.has_window())
    }

    /// Gives the game one client frame.
    fn process(
        &mut self,
        desk: &mut Desk,
        seq: Seq,
        frame: &[u8],
        trace: TraceContext,
        again: bool,
    ) -> Result<(), Fault> {
        self.processed = seq;
        self.unacked += cost(frame.len());
        self.replayed |= super::is_exact(self.recovery);
        let moment = self.moment(desk);
        self.run(desk, Input::Frame { seq, frame, trace, again }, moment)?;
        self.owe_ack(desk, 0);
        Ok(())
    }

    /// Writes what the window lets out, and runs what waited for room.
    pub fn run_waiting(&mut self, desk: &mut Desk) -> Result<Next, Fault> {
        self.pump(desk);
        while !self.results.is_empty() && self.is_playing() && !self.must_pause(desk) {
            let Some((job, result)) = self.results.pop_front() else { break };
            let moment = self.moment_between(desk);
            let input = Input::Finished { ordinal: job.ordinal, tag: job.tag, result: &result };
            self.run(desk, input, moment)?;
        }
        loop {
            self.begin_if_due(desk)?;
            if self.inbox.is_none() || !self.is_open() || (!self.is_ending() && self.must_wait(desk)) {
                break;
            }
            self.run_next(desk)?;
        }
        self.tell_refusal(desk)?;
        self.try_end(desk)?;
        if matches!(self.phase, Phase::Closing) && self.is_gone {
            self.say_ack(desk);
            return Ok(Next::Over);
        }
        let over = matches!(self.phase, Phase::Closing) && self.outbox.is_empty();
        Ok(if over { Next::Over } else { Next::Stay })
    }

    /// START had come before a freeze that was called off, and what was given before it has come again.
    fn begin_if_due(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        let Phase::Inert(_, held) = &self.phase else { return Ok(()) };
        let is_due = held.start_after.is_some_and(|after| self.processed >= after);
        if is_due && !self.records.is_replaying() { self.begin(desk) } else { Ok(()) }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Active(_) | Phase::Inert(..))
    }

    /// Whether inputs that no client sent may run.
    pub(super) fn is_playing(&self) -> bool {
        matches!(self.phase, Phase::Active(_)) && !self.is_ending()
    }

    /// Takes the first entry of the inbox and gives it to the game.
    fn run_next(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        let Some(mut queue) = self.inbox.take() else { return Ok(()) };
        let outcome = match queue.at(0, 0) {
            Some((entry, bytes)) => self.run_entry(desk, entry, bytes),
            None => Ok(()),
        };
        queue.pop();
        if queue.is_empty() || !self.is_open() {
            (self.inbox_cost, self.waiting_record_bytes, self.start_waits) = (0, 0, false);
            desk.pool.give(queue);
        } else {
            self.inbox = Some(queue);
        }
        outcome
    }

    fn run_entry(&mut self, desk: &mut Desk, entry: Entry, bytes: &[u8]) -> Result<(), Fault> {
        let seq = self.processed.next();
        match entry.kind {
            Kind::Data { again } => {
                self.inbox_cost = self.inbox_cost.saturating_sub(entry.cost());
                if self.is_ending() {
                    // A handler that ended the session has no use for the rest.
                    self.processed = self.received;
                    self.owe_ack(desk, entry.cost());
                    return Ok(());
                }
                self.process(desk, seq, bytes, entry.trace, again)
            }
            Kind::Close { half } => {
                self.inbox_cost = self.inbox_cost.saturating_sub(entry.cost());
                self.processed = if self.is_ending() { self.received } else { seq };
                self.is_gone |= !half;
                self.end_by_client(desk)
            }
            Kind::Record { kind, seq, after } => {
                self.waiting_record_bytes = self.waiting_record_bytes.saturating_sub(bytes.len());
                self.replay(desk, Given { kind, seq, after, bytes })
            }
            Kind::Start => {
                self.start_waits = false;
                self.begin(desk)
            }
            Kind::Recorded { .. } => Ok(()),
        }
    }

    /// Processes all that the player sent before leaving, with no regard to the outbox: nobody reads it any more.
    pub(super) fn run_out(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        while self.inbox.is_some() && self.is_open() {
            self.run_next(desk)?;
        }
        Ok(())
    }

    pub(super) fn clear_inbox(&mut self, desk: &mut Desk) {
        (self.inbox_cost, self.waiting_record_bytes, self.start_waits) = (0, 0, false);
        if let Some(queue) = self.inbox.take() {
            desk.pool.give(queue);
        }
    }
}
