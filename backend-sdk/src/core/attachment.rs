//! [`Attachment`]: one session on this backend. Each of its inputs runs to its end before the next one.
//!
//! Invariants: client frames are processed once each, in order; nothing is written to the link before START or while
//! frozen but what a rule asks for; a fault here touches no other session.

mod closing;
mod freezing;
mod input;
mod loading;

use std::collections::VecDeque;

use holdfast_protocol::message::{Ack, Attach, Attached, AttachmentPhase, Data, Rule, Subject};
use holdfast_protocol::{Epoch, Message, Seq};

use self::freezing::Sending;
#[cfg(feature = "plain")]
pub(crate) use self::input::call;
pub(crate) use self::input::{Input, caught};
pub(crate) use self::loading::{Loading, Opened};
use super::desk::Desk;
use super::fault::Fault;
use super::frames::{FrameQueue, Kind, cost};
use super::jobs::JobId;
use super::outbox::{Head, Outbox};
use super::schedule::Timers;
use crate::context::{Place, Work};
use crate::game::{Session, Tag};
use crate::population::Headcount;

/// Where an attachment is in its life.
pub(crate) enum Phase<S> {
    /// Its state is arriving.
    Loading(Loading),
    /// Loaded; what an earlier attachment was given is given again. What its handlers did is held until START.
    Inert(S, Held),
    Active(S),
    /// Its state has been asked for. It only goes on by THAW.
    Frozen(S, Held),
    /// The game has been told that it is over; what was sent, and CLOSE, are still to be acked.
    Closing,
}

/// What waits until the session is active.
#[derive(Default)]
pub(crate) struct Held {
    /// What handlers asked for before START.
    work: Vec<(Tag, Work)>,
    close: bool,
    /// START has come: a thaw makes it active, not inert.
    started: bool,
}

/// What becomes of the attachment after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    /// It is over: its work runs to the end.
    Over,
    /// It lives on elsewhere, or failed: its work is of no use.
    Forget,
}

/// In which list of acks to be sent the attachment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AckTurn {
    None,
    Later,
    Soon,
}

pub(crate) struct Attachment<S> {
    place: Place,
    epoch: Epoch,
    phase: Phase<S>,
    /// Inputs so far, over all attachments of the session.
    inputs: u64,
    /// Last client seq that has arrived.
    received: Seq,
    /// Last client seq that the game is done with.
    processed: Seq,
    /// What has been processed and not acked, as it counts in the window.
    unacked: usize,
    ack_turn: AckTurn,
    /// Client frames that wait until the outbox has room.
    inbox: Option<Box<FrameQueue>>,
    /// What they count in the window.
    inbox_cost: usize,
    /// Results of work that wait likewise.
    results: VecDeque<(Tag, Vec<u8>)>,
    outbox: Outbox,
    timers: Timers,
    jobs: Vec<JobId>,
    sending: Option<Sending>,
    /// The present link has spoken of this attachment: until then nothing is said of it.
    linked: bool,
    _counted: Headcount,
}

impl<S: Session> Attachment<S> {
    /// An attachment whose state (or whose game's answer) is awaited.
    pub fn new(attach: &Attach<'_>, place: Place, loading: Loading, counted: Headcount) -> Self {
        Self {
            place,
            epoch: attach.epoch,
            phase: Phase::Loading(loading),
            inputs: 0,
            received: attach.client_seq,
            processed: attach.client_seq,
            unacked: 0,
            ack_turn: AckTurn::None,
            inbox: None,
            inbox_cost: 0,
            results: VecDeque::new(),
            outbox: Outbox::new(attach.server_seq, attach.server_window_bytes),
            timers: Timers::default(),
            jobs: Vec::new(),
            sending: None,
            linked: true,
            _counted: counted,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn subject(&self) -> Subject {
        Subject::Session(self.place.session)
    }

    /// As WELCOME names it.
    pub fn link_phase(&self) -> AttachmentPhase {
        match self.phase {
            Phase::Loading(_) => AttachmentPhase::Loading,
            Phase::Inert(..) => AttachmentPhase::Inert,
            Phase::Active(_) | Phase::Closing => AttachmentPhase::Active,
            Phase::Frozen(..) => AttachmentPhase::Frozen,
        }
    }

    fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Loading(_) => "loading",
            Phase::Inert(..) => "inert",
            Phase::Active(_) => "active",
            Phase::Frozen(..) => "frozen",
            Phase::Closing => "closing",
        }
    }

    pub fn received(&self) -> Seq {
        self.received
    }

    pub fn last_sent(&self) -> Seq {
        self.outbox.last_sent()
    }

    /// All that was given before has been given: what was held takes effect.
    pub fn start(&mut self, desk: &mut Desk) -> Result<Next, Fault> {
        match &mut self.phase {
            Phase::Loading(_) => Err(Fault::unexpected("START", "loading")),
            Phase::Frozen(_, held) => {
                held.started = true;
                Ok(Next::Stay)
            }
            Phase::Inert(..) => {
                self.activate(desk)?;
                self.owe_ack(desk, 0);
                self.run_waiting(desk)
            }
            // Repeated after a cut.
            Phase::Active(_) | Phase::Closing => Ok(Next::Stay),
        }
    }

    /// From inert or frozen to active.
    fn activate(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Inert(session, held) | Phase::Frozen(session, held) => {
                self.phase = Phase::Active(session);
                self.begin_work(desk, held.work)?;
                self.timers.start(self.place.session, desk.now.at, &mut desk.schedule);
                if held.close { self.finish(desk) } else { Ok(()) }
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    pub fn data(&mut self, desk: &mut Desk, data: &Data<'_>) -> Result<Next, Fault> {
        self.outbox.ack(&mut desk.pool, data.ack)?;
        let max = desk.settings.max_frame_bytes as usize;
        if data.frame.len() > max {
            let text = format!("client frame of {} bytes, the limit is {max}", data.frame.len());
            return Err(Fault::new(Rule::FrameTooLarge, text));
        }
        if !self.take_seq(desk, "DATA", data.seq, data.again, data.frame.len())? {
            return self.run_waiting(desk);
        }
        if self.inbox.is_some() || self.is_full(desk) {
            self.inbox_cost += cost(data.frame.len());
            self.inbox.get_or_insert_with(|| desk.pool.take()).push(Kind::Data, data.trace, data.frame);
            return self.run_waiting(desk);
        }
        self.process(desk, data.seq, data.frame, data.trace)?;
        self.run_waiting(desk)
    }

    /// Checks a client seq against the phase, the sequence and the window. `false`: it is to be skipped.
    fn take_seq(
        &mut self,
        desk: &mut Desk,
        name: &str,
        seq: Seq,
        again: bool,
        bytes: usize,
    ) -> Result<bool, Fault> {
        match &self.phase {
            Phase::Loading(_) if again => return Err(Fault::unexpected(name, "loading")),
            Phase::Loading(_) | Phase::Inert(..) if !again => {
                return Err(Fault::new(Rule::LiveBeforeStart, format!("{name} {seq} before START")));
            }
            // It isn't begun any more: it comes again wherever the session goes on.
            Phase::Frozen(..) => return Ok(false),
            Phase::Loading(_) | Phase::Inert(..) | Phase::Active(_) | Phase::Closing => {}
        }
        if seq <= self.received {
            desk.repeated += 1;
            self.owe_ack(desk, 1);
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

    /// Whether the game has ended the session, or will at START.
    fn is_ending(&self) -> bool {
        match &self.phase {
            Phase::Closing => true,
            Phase::Inert(_, held) => held.close,
            Phase::Loading(_) | Phase::Active(_) | Phase::Frozen(..) => false,
        }
    }

    /// Whether the next client frame must wait for the outbox.
    fn is_full(&self, desk: &Desk) -> bool {
        self.outbox.footprint() > desk.settings.outbox_bytes
    }

    /// Whether every input must wait.
    fn is_overfull(&self, desk: &Desk) -> bool {
        self.outbox.footprint() > desk.settings.outbox_bytes.saturating_mul(4)
    }

    /// Gives the game one client frame.
    fn process(
        &mut self,
        desk: &mut Desk,
        seq: Seq,
        frame: &[u8],
        trace: holdfast_protocol::TraceContext,
    ) -> Result<(), Fault> {
        self.processed = seq;
        self.unacked += cost(frame.len());
        self.run(desk, Input::Frame { seq, frame, trace })?;
        self.owe_ack(desk, 0);
        Ok(())
    }

    /// The proxy has handed server frames to the client.
    pub fn ack(&mut self, desk: &mut Desk, ack: &Ack) -> Result<Next, Fault> {
        if matches!(self.phase, Phase::Loading(_)) {
            return Err(Fault::unexpected("ACK", "loading"));
        }
        self.outbox.ack(&mut desk.pool, ack.data)?;
        self.run_waiting(desk)
    }

    /// Writes what the window lets out, and runs what waited for room.
    pub fn run_waiting(&mut self, desk: &mut Desk) -> Result<Next, Fault> {
        self.pump(desk);
        while !self.results.is_empty() && !self.is_overfull(desk) && matches!(self.phase, Phase::Active(_)) {
            let Some((tag, result)) = self.results.pop_front() else { break };
            self.run(desk, Input::Finished { tag, result: &result })?;
        }
        while self.inbox.is_some() && !self.is_full(desk) && self.runs() {
            self.run_next_frame(desk)?;
        }
        let over = matches!(self.phase, Phase::Closing) && self.outbox.is_empty();
        Ok(if over { Next::Over } else { Next::Stay })
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Active(_) | Phase::Inert(..)) && !self.is_ending()
    }

    /// Takes the first frame of the inbox and gives it to the game.
    fn run_next_frame(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        let Some(mut queue) = self.inbox.take() else { return Ok(()) };
        let seq = self.processed.next();
        let outcome = match queue.at(0, 0) {
            Some((entry, frame)) => {
                self.inbox_cost = self.inbox_cost.saturating_sub(cost(entry.bytes));
                match entry.kind {
                    Kind::Data => self.process(desk, seq, frame, entry.trace),
                    Kind::Close { .. } => {
                        self.processed = seq;
                        self.finish(desk)
                    }
                }
            }
            None => Ok(()),
        };
        queue.pop();
        // A handler that ended the session has no use for the rest.
        if queue.is_empty() || !self.runs() {
            self.inbox_cost = 0;
            self.processed = self.received;
            desk.pool.give(queue);
        } else {
            self.inbox = Some(queue);
        }
        outcome
    }

    /// Writes server frames while the window has room. Each carries the ack.
    fn pump(&mut self, desk: &mut Desk) {
        let may_write =
            self.linked && desk.link.is_some() && matches!(self.phase, Phase::Active(_) | Phase::Closing);
        if may_write && self.outbox.pump(self.head(), &mut desk.out) {
            self.unacked = 0;
        }
    }

    /// Notes that the proxy is to learn what has been processed; a frame that leaves before then tells it too.
    fn owe_ack(&mut self, desk: &mut Desk, more: usize) {
        self.unacked += more;
        if self.unacked == 0 || !self.linked || desk.link.is_none() {
            return;
        }
        let is_much = self.unacked > desk.settings.client_window_bytes as usize / 4;
        if is_much && self.ack_turn != AckTurn::Soon {
            self.ack_turn = AckTurn::Soon;
            desk.acks.soon.push(self.place.session);
        } else if self.ack_turn == AckTurn::None && !matches!(self.phase, Phase::Inert(..)) {
            self.ack_turn = AckTurn::Later;
            desk.ack_later(self.place.session);
        }
    }

    /// Its turn in a list of acks has come.
    pub fn tell_ack(&mut self, desk: &mut Desk) {
        self.ack_turn = AckTurn::None;
        if self.unacked > 0 {
            self.unacked = 0;
            self.say_ack(desk);
        }
    }

    fn say_ack(&self, desk: &mut Desk) {
        let (subject, epoch) = (self.subject(), self.epoch);
        desk.say(&Message::Ack(Ack { subject, epoch, data: self.processed, record: Seq::NONE }));
    }

    fn head(&self) -> Head {
        Head { session: self.place.session, epoch: self.epoch, ack: self.processed }
    }

    pub fn attached(&self) -> Message<'static> {
        Message::Attached(Attached {
            subject: self.subject(),
            epoch: self.epoch,
            client_seq: self.processed,
            server_seq: self.outbox.last_sent(),
        })
    }

    /// Lets go of all that the peer holds for this attachment.
    pub fn dismantle(&mut self, desk: &mut Desk, abort_work: bool) {
        self.timers.clear(&mut desk.schedule);
        self.outbox.recycle(&mut desk.pool);
        self.clear_inbox(desk);
        self.sending = None;
        if abort_work {
            self.jobs.drain(..).for_each(|job| desk.jobs.abort(job));
        }
    }

    fn clear_inbox(&mut self, desk: &mut Desk) {
        self.inbox_cost = 0;
        if let Some(queue) = self.inbox.take() {
            desk.pool.give(queue);
        }
    }

    #[cfg(test)]
    pub fn holds_no_buffer(&self) -> bool {
        self.inbox.is_none() && self.outbox.is_empty() && self.sending.is_none()
    }
}
