//! A session's effects on the test's world, and the checks that hold at every one of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use holdfast_protocol::message::{Message, Rule};
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId, TraceContext, encode};

use super::company::Company;
use crate::session::outbound::{Entry, Kind};
use crate::session::riders::Departed;
use crate::session::{Effects, LinkId, Note, Step, Suspicion, Timer, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffResult};

pub const ACK_DELAY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireState {
    /// Dialled when somebody needs it.
    Idle,
    Up,
    /// Cut; the process lives.
    Broken,
    /// The process is gone.
    Dead,
}

/// One link, both ways: whole messages, in their order.
#[derive(Debug)]
pub struct Wire {
    pub state: WireState,
    /// Nothing arrives, either way, though the link is up.
    pub stalled: bool,
    pub draining: bool,
    pub to_backend: VecDeque<Vec<u8>>,
    pub to_proxy: VecDeque<Vec<u8>>,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    pub format: String,
    pub logic: String,
    pub capabilities: u64,
}

/// What lies around one session: its client, its timers, what it has told.
#[derive(Debug, Default)]
pub struct Seat {
    pub timers: BTreeMap<u8, Duration>,
    pub ack_due: Option<Duration>,
    /// Delivered, and not yet in the client's hands.
    pub outbox: VecDeque<Vec<u8>>,
    pub received: Vec<Vec<u8>>,
    pub delivered_seq: Seq,
    /// The client reads nothing.
    pub slow: bool,
    pub paused: bool,
    pub finishing: bool,
    pub ended: Option<CloseReason>,
    pub frames: Vec<Vec<u8>>,
    pub processed: usize,
    pub lost: u64,
    pub reserved: u64,
    pub settled: Option<LinkId>,
    pub results: Vec<HandoffResult>,
    pub faults: Vec<Rule>,
    pub stale: usize,
    pub too_large: usize,
    pub states_dropped: usize,
    /// Attachments that were given START (or THAW), and neither their whole state nor RELEASE.
    pub running: Vec<(LinkId, Epoch)>,
    pub epochs: Vec<Epoch>,
    pub largest_backlog: usize,
    pub in_chunks: Vec<LinkId>,
    pub handoff: bool,
    /// It waits for its turn to recover, as suspicious as this.
    pub awaits: Option<Suspicion>,
    pub recovering: bool,
    pub checkpoints: usize,
    pub diverged: usize,
    pub poisoned: bool,
    pub unprotected: usize,
    pub company: Company,
    /// With what it came out of groups.
    pub departures: Vec<Departed>,
    /// Of a group: what its members were told, in that order.
    pub said: Vec<(SessionId, Vec<u8>)>,
    /// Bytes of whole states that came in for it, FREEZEs and ATTACHes that went out.
    pub states_kept: usize,
    pub freezes: usize,
    pub attaches: Vec<LinkId>,
}

/// What a group, or a session that is to be in one, asks of its world.
#[derive(Debug)]
pub enum Ask {
    Deliver(SessionId, Vec<u8>),
    Read(SessionId, bool),
    Departs(SessionId, Departed),
    Over(SessionId, CloseReason),
    Joins(GroupId),
    Boards,
}

/// What all sessions share.
#[derive(Debug)]
pub struct Hub {
    pub now: Duration,
    pub wires: Vec<Wire>,
    pub pool_bytes: u64,
    pub reserved: u64,
    /// In their order, each with the index of who asks.
    pub asks: VecDeque<(usize, Ask)>,
}

pub struct Fx<'a> {
    pub index: usize,
    pub hub: &'a mut Hub,
    pub seat: &'a mut Seat,
}

fn number(timer: Timer) -> u8 {
    match timer {
        Timer::Answer => 0,
        Timer::Park => 1,
        Timer::Home => 2,
        Timer::Close => 3,
        Timer::Checkpoint => 4,
    }
}

pub fn timer(number: u8) -> Timer {
    [Timer::Answer, Timer::Park, Timer::Home, Timer::Close, Timer::Checkpoint][usize::from(number)]
}

impl Fx<'_> {
    fn wire(&self, link: LinkId) -> &Wire {
        &self.hub.wires[link.0 as usize]
    }

    fn ask(&mut self, ask: Ask) {
        self.hub.asks.push_back((self.index, ask));
    }

    fn watch(&mut self, link: LinkId, message: &Message<'_>) {
        assert_eq!(self.seat.ended, None, "after its end: {message:?}");
        match message {
            Message::Attach(attach) if attach.mode != holdfast_protocol::message::AttachMode::Resume => {
                let last = self.seat.epochs.last().copied().unwrap_or_default();
                assert!(attach.epoch >= last, "epoch {} after {last}", attach.epoch);
                self.seat.epochs.push(attach.epoch);
                self.seat.attaches.push(link);
            }
            Message::Freeze(_) => self.seat.freezes += 1,
            Message::Start(start) => {
                let others: Vec<_> =
                    self.seat.running.iter().filter(|(_, epoch)| *epoch != start.epoch).collect();
                assert!(others.is_empty(), "START of {} beside {others:?}", start.epoch);
                if !self.seat.running.contains(&(link, start.epoch)) {
                    self.seat.running.push((link, start.epoch));
                }
            }
            Message::Thaw(thaw) => {
                let last = self.seat.epochs.last().copied().unwrap_or_default();
                assert!(thaw.epoch >= last, "epoch {} after {last}", thaw.epoch);
                self.seat.epochs.push(thaw.epoch);
                self.seat.running.retain(|entry| *entry != (link, thaw.old_epoch));
                let same = (link, thaw.epoch);
                assert!(self.seat.running.iter().all(|entry| *entry == same), "THAW beside another");
                if !self.seat.running.contains(&same) {
                    self.seat.running.push(same);
                }
            }
            Message::Release(release) => {
                self.seat.running.retain(|entry| *entry != (link, release.epoch));
            }
            _ => {}
        }
    }
}

impl Effects for Fx<'_> {
    fn send(&mut self, link: LinkId, message: &Message<'_>) {
        self.watch(link, message);
        let wire = &mut self.hub.wires[link.0 as usize];
        if wire.state == WireState::Up {
            let mut bytes = Vec::new();
            encode(message, &mut bytes);
            wire.to_backend.push_back(bytes);
        }
    }

    fn link_is_up(&self, link: LinkId) -> bool {
        self.wire(link).state == WireState::Up
    }

    fn client_window_bytes(&self, link: LinkId) -> u32 {
        self.wire(link).client_window_bytes
    }

    fn state_credit_bytes(&self, link: LinkId) -> u64 {
        self.wire(link).state_credit_bytes
    }

    fn state_format(&self, link: LinkId) -> String {
        self.wire(link).format.clone()
    }

    fn max_frame_bytes(&self, _link: LinkId) -> u32 {
        u32::MAX
    }

    fn capabilities(&self, link: LinkId) -> u64 {
        self.wire(link).capabilities
    }

    fn logic(&self, link: LinkId) -> String {
        self.wire(link).logic.clone()
    }

    fn await_recovery(&mut self, suspicion: Suspicion) {
        assert!(!self.seat.recovering, "the attempt before is over");
        self.seat.awaits = Some(suspicion);
    }

    fn recovery_over(&mut self) {
        assert!(std::mem::take(&mut self.seat.recovering), "an attempt ends once");
    }

    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId> {
        (0..self.hub.wires.len()).map(|index| LinkId(u32::try_from(index).unwrap())).find(|link| {
            let wire = self.wire(*link);
            matches!(wire.state, WireState::Up | WireState::Idle)
                && !wire.draining
                && !wanted.tried.contains(link)
                && wire.capabilities & wanted.needs == wanted.needs
                && wanted.home.is_none_or(|home| home == *link)
                && wanted.format.is_none_or(|format| format == wire.format)
        })
    }

    fn settled(&mut self, link: Option<LinkId>) {
        self.seat.settled = link;
    }

    fn reserve(&mut self, bytes: u64, _frees: u64) -> bool {
        let fits = self.hub.reserved + bytes <= self.hub.pool_bytes;
        if fits {
            self.hub.reserved += bytes;
            self.seat.reserved += bytes;
        }
        fits
    }

    fn unreserve(&mut self, bytes: u64) {
        assert!(self.seat.reserved >= bytes, "gave back {bytes} of {}", self.seat.reserved);
        self.hub.reserved -= bytes;
        self.seat.reserved -= bytes;
    }

    fn has_chunks(&mut self, link: LinkId) {
        if !self.seat.in_chunks.contains(&link) {
            self.seat.in_chunks.push(link);
        }
    }

    fn deliver(&mut self, seq: Seq, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        assert_eq!(self.seat.ended, None);
        if frame.starts_with(b"unframeable") {
            return Err(Rule::Malformed);
        }
        assert_eq!(seq, self.seat.delivered_seq.next(), "server frames are consecutive");
        self.seat.delivered_seq = seq;
        self.seat.outbox.push_back(frame.to_vec());
        let backlog = self.seat.outbox.iter().map(Vec::len).sum();
        self.seat.largest_backlog = self.seat.largest_backlog.max(backlog);
        Ok(())
    }

    fn deliver_to(&mut self, member: SessionId, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        if frame.starts_with(b"unframeable") {
            return Err(Rule::Malformed);
        }
        self.seat.said.push((member, frame.to_vec()));
        self.ask(Ask::Deliver(member, frame.to_vec()));
        Ok(())
    }

    fn read_member(&mut self, member: SessionId, on: bool) {
        self.ask(Ask::Read(member, on));
    }

    fn member_departs(&mut self, member: SessionId, departed: Departed) {
        self.ask(Ask::Departs(member, departed));
    }

    fn member_is_over(&mut self, member: SessionId, reason: CloseReason) {
        self.ask(Ask::Over(member, reason));
    }

    fn joins(&mut self, group: GroupId) {
        self.ask(Ask::Joins(group));
    }

    fn boards(&mut self) {
        self.ask(Ask::Boards);
    }

    fn read_client(&mut self, on: bool) {
        assert_ne!(self.seat.paused, !on, "told once");
        self.seat.paused = !on;
    }

    fn finish_client(&mut self) {
        assert!(!self.seat.finishing, "told once");
        self.seat.finishing = true;
    }

    fn owe_ack(&mut self) {
        self.seat.ack_due.get_or_insert(self.hub.now + ACK_DELAY);
    }

    fn timer(&mut self, timer: Timer, after: Option<Duration>) {
        match after {
            Some(after) => self.seat.timers.insert(number(timer), self.hub.now + after),
            None => self.seat.timers.remove(&number(timer)),
        };
    }

    fn trace(&mut self, _step: Step) -> TraceContext {
        TraceContext::default()
    }

    fn processed(&mut self, entry: &Entry<'_>) {
        if entry.kind == Kind::Frame {
            self.seat.processed += 1;
        }
    }

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::HandoffDone(result) => {
                assert!(self.seat.handoff, "{result:?} of no handoff");
                self.seat.handoff = result == HandoffResult::Parked;
                self.seat.results.push(result);
            }
            Note::Freezing(_) => {
                assert!(!self.seat.handoff, "a handoff in a handoff");
                self.seat.handoff = true;
            }
            Note::StateKept { .. } => {
                self.seat.running.clear();
                self.seat.states_kept += 1;
            }
            Note::Lost { link } => {
                self.seat.handoff = true;
                self.seat.running.retain(|(at, _)| *at != link);
            }
            Note::Fault { rule, .. } => self.seat.faults.push(rule),
            Note::StateTooLarge { .. } => self.seat.too_large += 1,
            Note::CheckpointKept { .. } => self.seat.checkpoints += 1,
            Note::Unprotected { .. } => self.seat.unprotected += 1,
            Note::Diverged { .. } => self.seat.diverged += 1,
            Note::Poison { .. } => self.seat.poisoned = true,
            Note::Stale => self.seat.stale += 1,
            Note::FramesLost(frames) => self.seat.lost += frames,
            Note::StateDropped { .. } => self.seat.states_dropped += 1,
            Note::StateBegins
            | Note::Attaching { .. }
            | Note::Attached { .. }
            | Note::Live { .. }
            | Note::Refused { .. }
            | Note::Late { .. }
            | Note::Failed { .. } => {}
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        assert_eq!(self.seat.ended, None, "a session ends once");
        self.seat.ended = Some(reason);
        self.seat.timers.clear();
        self.seat.ack_due = None;
        self.seat.handoff = false;
    }
}
