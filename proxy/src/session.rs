//! One client connection, from accept to close, as a state machine without I/O.
//!
//! It keeps every client frame until the game has processed it, numbers what it sends, and moves from backend to
//! backend without the client noticing. Invariants: at most one attachment is active; a failed handoff thaws the
//! session where it was, tries the next backend or parks it; the client's connection is closed by none of these.
//! No socket, clock or runtime may appear below this module.

pub mod attach;
mod checkpoint;
pub mod close;
pub mod effects;
pub mod handoff;
pub mod inbound;
mod journal;
pub mod message;
pub mod outbound;
mod park;
pub mod planted;
pub mod records;
mod recovery;
pub mod resume;
pub mod riders;
pub mod state;
mod view;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use holdfast_protocol::message::{
    Ack, Close, Data, Fault, FaultScope, Message, Recovery, Release, Rule, Start, Subject,
};
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId, TraceContext};

pub use effects::{Effects, LinkId, Note, Step, Suspicion, Timer, Wanted};
use inbound::Inbound;
use journal::Journal;
use outbound::{Kind, Outbound};
use planted::{Bug, Planted};
use riders::Riders;
use state::Incoming;

use crate::routing::Service;
use crate::telemetry::counters::{CloseReason, HandoffCause, HandoffResult};

/// Who may be served by whom, and where the session is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A backend is being asked to take the session. `asked`: ATTACH is on the link.
    Attaching {
        link: LinkId,
        asked: bool,
        sent_bytes: u64,
        credit_bytes: u64,
    },
    /// Loaded; what an earlier attachment was given is given again, then START.
    Replaying {
        link: LinkId,
    },
    Active {
        link: LinkId,
    },
    /// FREEZE is sent; the state is on its way in.
    Freezing {
        link: LinkId,
        reserved_bytes: u64,
        incoming: Option<Incoming>,
    },
    /// THAW is sent: the session goes on where it was, under a new epoch.
    Thawing {
        link: LinkId,
        old_epoch: Epoch,
    },
    /// No backend can take it yet.
    Parked,
    /// The backend has closed; the client's last bytes are being written.
    Closing {
        link: LinkId,
    },
    /// A group has it: its client's frames are the group's.
    Aboard,
    /// The game has ended it, in a group; the client's last bytes are being written.
    Parting,
    Ended,
}

/// The client's side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    Open,
    /// It has sent its last byte and still listens.
    Half,
    Gone,
}

/// What a handoff is for, and what becomes of the session when no backend takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    pub cause: HandoffCause,
    pub otherwise: Otherwise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// Thaw it where it was: the process stays.
    Thaw,
    /// Park it: the process is about to end.
    Park,
    /// Don't look for another backend at all; wait for this one to come back.
    ParkForHome,
    /// It isn't to go to a backend, but into a group.
    Board,
}

/// An attachment that is frozen on its old backend while the session moves, and where it stands, should it be thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Frozen {
    link: LinkId,
    epoch: Epoch,
    level: Recovery,
    /// Last server frame that it sent.
    server_seq: Seq,
    /// Last record that it was to be given.
    last_to_give: Seq,
}

/// The service's rules for this session. They never change, so they tell no two states of a session apart.
#[derive(Clone, PartialEq, Eq)]
struct Rules(Arc<Service>);

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name.fmt(f)
    }
}

impl Hash for Rules {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

impl Deref for Rules {
    type Target = Arc<Service>;

    fn deref(&self) -> &Arc<Service> {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    subject: Subject,
    /// Of a group: who is in it.
    riders: Option<Box<Riders>>,
    epoch: Epoch,
    service: Rules,
    client_address: Arc<str>,
    /// When it began, in microseconds of Unix time.
    opened_us: u64,
    phase: Phase,
    outbound: Outbound,
    inbound: Inbound,
    journal: Journal,
    old: Option<Frozen>,
    /// ATTACH(resume) is on the link, and its ATTACHED isn't here.
    resuming: bool,
    order: Option<Order>,
    /// The backend that a parked session waits for.
    home: Option<LinkId>,
    /// Where a group would rather be, at first.
    beside: Option<LinkId>,
    tried: Vec<LinkId>,
    /// A refusal of this attempt was not final.
    may_retry: bool,
    /// It began anew, because an earlier state could not be kept; the game is told.
    lost: bool,
    /// The park deadline runs, from the first moment without a backend.
    park_runs: bool,
    park_expired: bool,
    /// A crash was its backend's end, and its turn to recover hasn't come.
    awaits_turn: bool,
    /// It is having its turn, which is over when this client frame is processed.
    recovering: Option<Seq>,
    client: Client,
    reading: bool,
    client_window_bytes: usize,
    /// What the last state weighed: reserved before the next freeze.
    last_state_bytes: Option<u64>,
    /// Why the session is ending, once it is.
    ending: Option<CloseReason>,
    planted: Planted,
}

impl Session {
    #[must_use]
    pub fn new(id: SessionId, service: Arc<Service>, client_address: Arc<str>, opened_us: u64) -> Self {
        Self::of(Subject::Session(id), service, client_address, opened_us)
    }

    /// A group that nobody is in yet.
    #[must_use]
    pub fn new_group(id: GroupId, service: Arc<Service>, opened_us: u64) -> Self {
        let riders = Some(Box::default());
        // A group may be formed again under the same id: then it is newer than whatever a backend has of the one before.
        let epoch = Epoch(opened_us);
        Self { riders, epoch, ..Self::of(Subject::Group(id), service, "".into(), opened_us) }
    }

    fn of(subject: Subject, service: Arc<Service>, client_address: Arc<str>, opened_us: u64) -> Self {
        let client_window_bytes = service.limits.client_window_bytes as usize;
        Self {
            subject,
            riders: None,
            epoch: Epoch::default(),
            service: Rules(service),
            client_address,
            opened_us,
            phase: Phase::Parked,
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            journal: Journal::default(),
            old: None,
            resuming: false,
            order: None,
            home: None,
            beside: None,
            tried: Vec::new(),
            may_retry: false,
            lost: false,
            park_runs: false,
            park_expired: false,
            awaits_turn: false,
            recovering: None,
            client: Client::Open,
            reading: true,
            client_window_bytes,
            last_state_bytes: None,
            ending: None,
            planted: Planted::default(),
        }
    }

    /// The first look for a backend.
    pub fn open<E: Effects>(&mut self, env: &mut E) {
        self.seek(env);
    }

    /// A frame from the client.
    pub fn frame<E: Effects>(&mut self, frame: &[u8], trace: TraceContext, received: u64, env: &mut E) {
        if self.client != Client::Open || self.phase == Phase::Ended {
            return;
        }
        self.outbound.push(Kind::Frame, frame, trace, received, env);
        self.pump(env);
    }

    /// The client's socket has taken everything that was delivered.
    pub fn handed<E: Effects>(&mut self, env: &mut E) {
        let urgent = self.inbound.handed();
        match self.phase {
            Phase::Closing { .. } => return self.finish_backend_close(env),
            Phase::Parting => return self.end(self.ending.unwrap_or(CloseReason::BackendClose), env),
            _ => {}
        }
        if urgent {
            self.send_ack(env);
        } else {
            self.note_ack(env);
        }
    }

    /// Has an ack sent soon, if one is owed.
    fn note_ack<E: Effects>(&self, env: &mut E) {
        if self.inbound.owes_ack() || self.journal.records.owes_ack() {
            env.owe_ack();
        }
    }

    /// An owed ack has waited long enough.
    pub fn send_ack<E: Effects>(&mut self, env: &mut E) {
        let Some(link) = self.speaking_to() else { return };
        if self.inbound.owes_ack() || self.journal.records.owes_ack() {
            let (data, record) = (self.inbound.take_ack(), self.journal.records.take_ack());
            let ack = Ack { subject: self.subject(), epoch: self.epoch, data, record };
            env.send(link, &Message::Ack(ack));
        }
    }

    pub fn timer<E: Effects>(&mut self, timer: Timer, env: &mut E) {
        match timer {
            Timer::Answer => self.answer_is_late(env),
            Timer::Park => self.park_is_over(env),
            Timer::Home => self.home_is_over(env),
            Timer::Close => self.close_is_late(env),
            Timer::Checkpoint => self.checkpoint_is_due(env),
        }
    }

    /// Sends what may be sent; ends a replay with START.
    fn pump<E: Effects>(&mut self, env: &mut E) {
        let moving = matches!(self.phase, Phase::Replaying { .. });
        loop {
            match self.phase {
                Phase::Replaying { link } if self.may_start() => self.start(link, env),
                Phase::Replaying { link } | Phase::Active { link } => {
                    if !self.send_next(link, env) {
                        break;
                    }
                }
                _ => break,
            }
        }
        if moving && matches!(self.phase, Phase::Active { .. }) && self.order.take().is_some() {
            env.note(Note::HandoffDone(HandoffResult::Moved));
        }
        self.look_after_journal(env);
        self.regulate_reading(env);
    }

    /// All that an earlier attachment was given is on the link.
    fn may_start(&self) -> bool {
        let errs = self.planted.is(Bug::LiveBeforeStart) && self.outbound.has_queued();
        !self.gives_again() && !errs
    }

    /// Whether the current attachment is yet to be given something that an earlier one had.
    fn gives_again(&self) -> bool {
        self.outbound.has_again() || self.journal.records.has_again()
    }

    fn start<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.send(link, &Message::Start(Start { subject: self.subject(), epoch: self.epoch }));
        self.phase = Phase::Active { link };
        if let Some(old) = self.old.take() {
            self.release(old.link, old.epoch, env);
        }
        env.note(Note::Live { link });
        if self.journal.is_kept() {
            self.journal.logic = Some(env.logic(link));
        }
        self.back_in_play(env);
        self.recovery_goes_on(env);
    }

    /// A backend has it: the waits of its stay in the proxy are over, the wait for its end may run.
    fn back_in_play<E: Effects>(&mut self, env: &mut E) {
        env.timer(Timer::Answer, None);
        self.home = None;
        self.tried.clear();
        if std::mem::take(&mut self.park_runs) {
            env.timer(Timer::Park, None);
            env.timer(Timer::Home, None);
        }
        self.park_expired = false;
        if self.client != Client::Open || self.is_deserted() {
            env.timer(Timer::Close, Some(self.service.limits.close_deadline));
        }
        // It fell due while there was nobody to tell.
        self.note_ack(env);
    }

    /// Puts the next entry on the link, if there is one and the window has room.
    fn send_next<E: Effects>(&mut self, link: LinkId, env: &mut E) -> bool {
        let epoch = self.epoch;
        if let Some(record) = self.journal.records.next(self.outbound.sent()) {
            env.send(link, &Message::Record(self.record_again(&record)));
            self.journal.records.mark_given();
            return true;
        }
        let Some(entry) = self.outbound.next(self.client_window_bytes) else { return false };
        let ack = self.inbound.take_ack();
        let (seq, record, again) = (entry.seq, Seq::NONE, entry.again);
        let message = match entry.kind {
            Kind::Frame => Message::Data(Data {
                subject: self.subject,
                epoch,
                seq,
                ack,
                record,
                again,
                trace: entry.trace,
                frame: entry.frame,
            }),
            Kind::Close | Kind::CloseHalf => {
                let half = entry.kind == Kind::CloseHalf;
                Message::Close(Close {
                    session: self.id(),
                    epoch,
                    seq,
                    ack,
                    record,
                    half,
                    again,
                    reason: self.close_text(),
                })
            }
        };
        env.send(link, &message);
        self.outbound.mark_sent();
        true
    }

    fn close_text(&self) -> &'static str {
        self.ending.map_or("", CloseReason::name)
    }

    /// Back-pressure: the proxy stops reading a client whose frames the backend doesn't take.
    fn regulate_reading<E: Effects>(&mut self, env: &mut E) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.is_group() {
            return self.regulate_members(env);
        }
        let bound = self.service.limits.client_window_bytes as usize;
        let queued = self.outbound.fresh_bytes();
        let fits = if self.reading { queued < bound } else { queued <= bound / 2 };
        // A checkpoint is on its way, and trims it; until then what the client sends can't be kept.
        let reading = fits && !self.journal_is_full();
        if reading != self.reading {
            self.reading = reading;
            env.read_client(reading);
        }
    }

    fn release<E: Effects>(&self, link: LinkId, epoch: Epoch, env: &mut E) {
        env.send(link, &Message::Release(Release { subject: self.subject(), epoch }));
    }

    /// The backend broke a rule: it is told, and the attachment ends by the crash path.
    fn fault<E: Effects>(&mut self, link: LinkId, rule: Rule, env: &mut E) {
        env.note(Note::Fault { link, rule });
        if rule == Rule::Diverged {
            self.diverged(link, env);
        }
        let scope = FaultScope::Attachment(self.subject(), self.epoch);
        env.send(link, &Message::Fault(Fault { scope, rule, text: "" }));
        self.release(link, self.epoch, env);
        self.attachment_failed(link, env);
    }

    /// The link on which the current attachment speaks and is spoken to.
    fn speaking_to(&self) -> Option<LinkId> {
        match self.phase {
            Phase::Replaying { link }
            | Phase::Active { link }
            | Phase::Freezing { link, .. }
            | Phase::Closing { link } => Some(link),
            Phase::Attaching { .. }
            | Phase::Thawing { .. }
            | Phase::Parked
            | Phase::Aboard
            | Phase::Parting
            | Phase::Ended => None,
        }
    }

    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject
    }
}
