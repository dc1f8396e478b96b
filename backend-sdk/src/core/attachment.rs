//! [`Attachment`]: one session on this backend. Each of its inputs runs to its end before the next one.
//!
//! Invariants: client frames are processed once each, in order; nothing is written to the link before START or while
//! frozen but what a rule asks for; a record is written before the frames that depend on it; a fault here touches no
//! other session.

mod closing;
mod freezing;
mod inbox;
mod input;
mod loading;
mod moment;
mod recording;
mod replaying;
mod wishing;

use std::collections::VecDeque;

use std::time::{Duration, SystemTime};

use holdfast_protocol::codec::addressed::{ADDRESS_BYTES, Addressed, AddressedKind, PASSAGE_PART_BYTES};
use holdfast_protocol::message::{Ack, Attach, AttachMode, Attached, AttachmentPhase, Recovery, Subject};
use holdfast_protocol::{Epoch, GroupId, Message, Seq};

use self::closing::Ending;
use self::freezing::Sending;
pub(crate) use self::input::{Input, call, caught};
use self::loading::is_exact;
pub(crate) use self::loading::{Loading, Opened};
use super::crowd::Actor;
use super::desk::Desk;
use super::fault::Fault;
use super::frames::FrameQueue;
use super::jobs::{Job, Ordinals, Spawned};
use super::outbox::{Head, Outbox};
use super::records::Records;
use super::schedule::Timers;
use crate::context::Place;
use crate::game::{Session, Tag};
use crate::population::Headcount;
use crate::random::Random;

/// Where an attachment is in its life.
pub(crate) enum Phase<S> {
    /// Its state is arriving.
    Loading(Loading),
    /// Loaded; what an earlier attachment was given is given again. What its handlers did is held until START.
    Inert(Actor<S>, Held),
    Active(Actor<S>),
    /// Its state has been asked for. It only goes on by THAW.
    Frozen(Actor<S>, Held),
    /// The game has been told that it is over; what was sent, and CLOSE, are still to be acked.
    Closing,
}

/// What waits until the session is active.
#[derive(Default)]
pub(crate) struct Held {
    /// What handlers asked for before START.
    work: Vec<Spawned>,
    /// Ordinals and tags of work that was under way and hasn't been begun again.
    unclaimed: Vec<(u64, Tag)>,
    /// It was active: a thaw makes it so again.
    started: bool,
    /// Last client frame that had been sent at its freeze.
    frozen_at: Seq,
    /// START has come, but what was given before it, up to this client frame, comes once more.
    start_after: Option<Seq>,
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
    recovery: Recovery,
    /// The time that opening it is told.
    opened: SystemTime,
    random: Random,
    ordinals: Ordinals,
    /// Inputs so far, over all attachments of the session.
    inputs: u64,
    /// Last client seq that has arrived.
    received: Seq,
    /// Last client seq that the game is done with.
    processed: Seq,
    /// What has been processed and not acked, as it counts in the window.
    unacked: usize,
    /// The proxy is to be told what has been processed, whether or not it was told before.
    owes_ack: bool,
    ack_turn: AckTurn,
    /// Client frames, and records given, that wait until the outbox has room.
    inbox: Option<Box<FrameQueue>>,
    /// What the frames count in the window.
    inbox_cost: usize,
    waiting_record_bytes: usize,
    /// START waits behind them.
    start_waits: bool,
    /// Results of work that wait likewise.
    results: VecDeque<(Job, Vec<u8>)>,
    outbox: Outbox,
    records: Records,
    /// The record of the next client frame's time.
    values: Option<(Seq, SystemTime)>,
    /// Something of the journal has been processed: what that makes may leave before START.
    replayed: bool,
    ending: Option<Ending>,
    /// The group that it wants to be in.
    wish: Option<GroupId>,
    /// A group that refused it, and why: the game is still to be told.
    refusal: Option<Box<(GroupId, String)>>,
    /// The player has left: nothing but an ack is of use any more.
    is_gone: bool,
    timers: Timers,
    jobs: Vec<Job>,
    sending: Option<Sending>,
    /// The present link has spoken of this attachment: until then nothing is said of it.
    linked: bool,
    _counted: Headcount,
}

impl<S: Session> Attachment<S> {
    /// An attachment whose state (or whose game's answer) is awaited.
    pub fn new(attach: &Attach<'_>, place: Place, loading: Loading, counted: Headcount) -> Self {
        let records_begin = match attach.mode {
            AttachMode::Fresh if is_exact(attach.recovery) => Seq::NONE,
            AttachMode::Fresh | AttachMode::State | AttachMode::Resume => attach.record_seq,
        };
        Self {
            epoch: attach.epoch,
            phase: Phase::Loading(loading),
            recovery: attach.recovery,
            opened: SystemTime::UNIX_EPOCH + Duration::from_micros(attach.opened_us),
            random: Random::of(place.id()),
            place,
            ordinals: Ordinals::default(),
            inputs: 0,
            received: attach.client_seq,
            processed: attach.client_seq,
            unacked: 0,
            owes_ack: false,
            ack_turn: AckTurn::None,
            inbox: None,
            inbox_cost: 0,
            waiting_record_bytes: 0,
            start_waits: false,
            results: VecDeque::new(),
            outbox: Outbox::new(attach.server_seq, attach.server_window_bytes),
            records: Records::new(records_begin, attach.record_seq),
            values: None,
            replayed: false,
            ending: None,
            wish: None,
            refusal: None,
            is_gone: false,
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
        self.place.subject
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

    #[cfg(test)]
    pub fn processed_seq(&self) -> Seq {
        self.processed
    }

    pub fn last_sent(&self) -> Seq {
        self.outbox.last_sent()
    }

    /// The proxy has handed server frames to the client, or kept records.
    pub fn ack(&mut self, desk: &mut Desk, ack: &Ack) -> Result<Next, Fault> {
        if matches!(self.phase, Phase::Loading(_)) {
            return Err(Fault::unexpected("ACK", "loading"));
        }
        self.take_ack(desk, ack.data)?;
        self.records.ack(&mut desk.pool, ack.record)?;
        self.run_waiting(desk)
    }

    /// Server frames have been handed on. An ack that a departure held back may follow.
    fn take_ack(&mut self, desk: &mut Desk, seq: Seq) -> Result<(), Fault> {
        let limit = self.outbox.ack_limit();
        self.outbox.ack(&mut desk.pool, seq)?;
        if limit.is_some() && limit != self.outbox.ack_limit() {
            self.owes_ack = true;
            self.owe_ack_soon(desk);
        }
        Ok(())
    }

    /// Last client frame that may be acked. What is acked the proxy forgets, and a frame of a member who has left
    /// belongs to whom the departure makes of them.
    fn ackable(&self) -> Seq {
        self.outbox.ack_limit().map_or(self.processed, |limit| limit.min(self.processed))
    }

    /// Largest frame, where that of one player is `max`.
    fn largest_frame(&self, max: usize) -> usize {
        match self.place.subject {
            Subject::Session(_) => max,
            Subject::Group(_) => max.max(PASSAGE_PART_BYTES).saturating_add(ADDRESS_BYTES),
        }
    }

    /// Whether a frame sent takes a member out of the group that this is.
    fn is_departure(&self, frame: &[u8]) -> bool {
        matches!(self.place.subject, Subject::Group(_))
            && Addressed::parse(frame).is_some_and(|addressed| addressed.kind == AddressedKind::Passage)
    }

    /// Writes records, and server frames while the window has room. Each frame carries the ack.
    fn pump(&mut self, desk: &mut Desk) {
        if !self.linked || desk.link.is_none() || !self.drains() {
            return;
        }
        self.pump_records(desk);
        let only_departures = matches!(self.phase, Phase::Inert(..)) && !self.replayed;
        if self.outbox.pump(self.head(), only_departures, &mut desk.out) {
            self.ack_is_told();
        }
    }

    /// Whether what it sends may leave: before START only what a journal makes, and who leaves a group.
    fn drains(&self) -> bool {
        match self.phase {
            Phase::Active(_) | Phase::Closing => true,
            Phase::Inert(..) => self.replayed || self.outbox.has_unwritten_departure(),
            Phase::Loading(_) | Phase::Frozen(..) => false,
        }
    }

    /// Notes that the proxy is to learn what has been processed; a frame that leaves before then tells it too.
    fn owe_ack(&mut self, desk: &mut Desk, more: usize) {
        self.unacked += more;
        self.owes_ack |= self.unacked > 0;
        if !self.owes_ack || !self.linked || desk.link.is_none() {
            return;
        }
        let is_much = self.unacked > desk.settings.client_window_bytes as usize / 4;
        if is_much {
            self.owe_ack_soon(desk);
        } else if self.ack_turn == AckTurn::None {
            self.ack_turn = AckTurn::Later;
            desk.ack_later(self.place.subject);
        }
    }

    fn owe_ack_soon(&mut self, desk: &mut Desk) {
        if self.ack_turn != AckTurn::Soon && self.linked && desk.link.is_some() {
            self.ack_turn = AckTurn::Soon;
            desk.acks.soon.push(self.place.subject);
        }
    }

    /// Its turn in a list of acks has come.
    pub fn tell_ack(&mut self, desk: &mut Desk) {
        self.ack_turn = AckTurn::None;
        if self.owes_ack {
            self.ack_is_told();
            self.say_ack(desk);
        }
    }

    fn ack_is_told(&mut self) {
        (self.unacked, self.owes_ack) = (0, false);
    }

    /// An ack has got lost, or may have.
    fn owe_ack_again(&mut self, desk: &mut Desk) {
        self.owes_ack = true;
        self.owe_ack(desk, 0);
    }

    fn say_ack(&self, desk: &mut Desk) {
        let (subject, epoch) = (self.subject(), self.epoch);
        desk.say(&Message::Ack(Ack { subject, epoch, data: self.ackable(), record: Seq::NONE }));
    }

    fn head(&self) -> Head {
        let record = if is_exact(self.recovery) { self.records.last() } else { Seq::NONE };
        Head { subject: self.place.subject, epoch: self.epoch, ack: self.ackable(), record }
    }

    pub fn attached(&self) -> Message<'static> {
        Message::Attached(Attached {
            subject: self.subject(),
            epoch: self.epoch,
            client_seq: self.ackable(),
            server_seq: self.outbox.last_sent(),
        })
    }

    /// Lets go of all that the peer holds for this attachment.
    pub fn dismantle(&mut self, desk: &mut Desk, abort_work: bool) {
        self.timers.clear(&mut desk.schedule);
        self.outbox.recycle(&mut desk.pool);
        self.records.recycle(&mut desk.pool);
        self.clear_inbox(desk);
        self.sending = None;
        if abort_work {
            self.jobs.drain(..).for_each(|job| desk.jobs.abort(job.id));
        }
    }

    #[cfg(test)]
    pub fn holds_no_buffer(&self) -> bool {
        let is_empty = self.outbox.is_empty() && self.records.is_empty();
        is_empty && self.inbox.is_none() && self.sending.is_none()
    }
}
