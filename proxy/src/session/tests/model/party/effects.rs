//! What the three machines do to their world.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_protocol::codec::capability::GROUPS;
use holdfast_protocol::message::{Message, Rule, Subject};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext};

use super::super::effects::{Line, at};
use super::super::game::Player;
use super::super::ghost::{Ghost, Wrong};
use super::super::queue::Queue;
use super::backend::{Attachment, Backend};
use crate::session::message::subject_of;
use crate::session::outbound::Entry;
use crate::session::riders::Departed;
use crate::session::tests::seat::Ask;
use crate::session::{Effects, LinkId, Note, Step, Suspicion, Timer, Wanted};
use crate::telemetry::counters::CloseReason;

/// One link, its backend, and what the proxy knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wire {
    pub line: Line,
    pub known: u8,
    pub draining: bool,
    pub backend: Option<Backend>,
    pub next_instance: u8,
    pub to_backend: Queue,
    pub to_proxy: Queue,
    /// A fault that costs all attachments here has happened.
    pub lethal: bool,
}

/// What lies around one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Seat {
    pub timers: [bool; 5],
    pub owes_ack: bool,
    pub chunks: Option<LinkId>,
    pub player: Player,
    pub reserved: u64,
    pub settled: Option<LinkId>,
    pub ended: Option<CloseReason>,
    /// Of a session: whether it is in the group, is to be, has just failed to be, or can't be.
    pub aboard: bool,
    pub wanted: bool,
    pub waits: bool,
    pub barred: bool,
    pub from: Option<LinkId>,
    /// It has begun anew after a crash.
    pub anew: bool,
    /// Bytes went to a client, whose socket takes them at once.
    pub unhanded: bool,
}

pub struct Fx<'a> {
    pub who: usize,
    pub wires: &'a mut [Wire; 2],
    pub seat: &'a mut Seat,
    pub ghost: &'a mut Ghost,
    pub asks: &'a mut VecDeque<(usize, Ask)>,
}

pub fn candidate(wires: &[Wire; 2], wanted: Wanted<'_>) -> Option<LinkId> {
    [LinkId(0), LinkId(1)].into_iter().find(|link| {
        let wire = &wires[at(*link)];
        matches!(wire.line, Line::Up | Line::Idle)
            && !wire.draining
            && !wanted.tried.contains(link)
            && wanted.home.is_none_or(|home| home == *link)
    })
}

impl Wire {
    /// The proxy has given up what is attached here.
    pub fn disown(&mut self, which: impl Fn(&Attachment) -> bool) {
        let attachments = self.backend.iter_mut().flat_map(|backend| &mut backend.attachments);
        attachments.filter(|had| which(had)).for_each(|had| had.disowned = true);
    }
}

impl Fx<'_> {
    fn subject(&self) -> Subject {
        super::world::subject(self.who)
    }
}

impl Effects for Fx<'_> {
    fn send(&mut self, link: LinkId, message: &Message<'_>) {
        if self.seat.ended.is_some() {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        let wire = &mut self.wires[at(link)];
        if let Message::Release(release) = message {
            wire.disown(|had| had.subject == release.subject && had.epoch == release.epoch.0);
        }
        debug_assert!(subject_of(message).is_none_or(|subject| subject == super::world::subject(self.who)));
        if wire.line == Line::Up {
            wire.to_backend.push(message);
        }
    }

    fn link_is_up(&self, link: LinkId) -> bool {
        self.wires[at(link)].line == Line::Up
    }

    fn client_window_bytes(&self, _link: LinkId) -> u32 {
        u32::MAX
    }

    fn state_credit_bytes(&self, _link: LinkId) -> u64 {
        u64::MAX
    }

    fn state_format(&self, _link: LinkId) -> String {
        String::new()
    }

    fn max_frame_bytes(&self, _link: LinkId) -> u32 {
        u32::MAX
    }

    fn capabilities(&self, _link: LinkId) -> u64 {
        GROUPS
    }

    fn logic(&self, _link: LinkId) -> String {
        String::new()
    }

    fn await_recovery(&mut self, _suspicion: Suspicion) {
        self.ghost.wrong(Wrong::Bookkeeping);
    }

    fn recovery_over(&mut self) {
        self.ghost.wrong(Wrong::Bookkeeping);
    }

    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId> {
        candidate(self.wires, wanted)
    }

    fn settled(&mut self, link: Option<LinkId>) {
        self.seat.settled = link;
    }

    fn reserve(&mut self, bytes: u64, _frees: u64) -> bool {
        self.seat.reserved += bytes;
        true
    }

    fn unreserve(&mut self, bytes: u64) {
        match self.seat.reserved.checked_sub(bytes) {
            Some(left) => self.seat.reserved = left,
            None => self.ghost.wrong(Wrong::Bookkeeping),
        }
    }

    fn has_chunks(&mut self, link: LinkId) {
        self.seat.chunks = Some(link);
    }

    fn deliver(&mut self, _seq: Seq, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        let outcome = self.seat.player.see(self.seat.player.delivered + 1, frame);
        self.ghost.note(outcome);
        self.seat.unhanded = true;
        Ok(())
    }

    fn deliver_to(&mut self, member: SessionId, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        self.asks.push_back((self.who, Ask::Deliver(member, frame.to_vec())));
        Ok(())
    }

    fn read_member(&mut self, _: SessionId, _: bool) {
        self.ghost.wrong(Wrong::Bookkeeping);
    }

    fn member_departs(&mut self, member: SessionId, departed: Departed) {
        self.asks.push_back((self.who, Ask::Departs(member, departed)));
    }

    fn member_is_over(&mut self, member: SessionId, reason: CloseReason) {
        self.asks.push_back((self.who, Ask::Over(member, reason)));
    }

    fn joins(&mut self, group: GroupId) {
        self.asks.push_back((self.who, Ask::Joins(group)));
    }

    fn boards(&mut self) {
        self.asks.push_back((self.who, Ask::Boards));
    }

    fn read_client(&mut self, _on: bool) {
        self.ghost.wrong(Wrong::Bookkeeping);
    }

    fn finish_client(&mut self) {
        self.ghost.wrong(Wrong::Ended);
    }

    fn owe_ack(&mut self) {
        self.seat.owes_ack = true;
    }

    fn timer(&mut self, timer: Timer, after: Option<Duration>) {
        self.seat.timers[timer as usize] = after.is_some();
    }

    fn trace(&mut self, _step: Step) -> TraceContext {
        TraceContext::NONE
    }

    fn processed(&mut self, _entry: &Entry<'_>) {}

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Fault { .. } | Note::Failed { .. } | Note::Diverged { .. } | Note::Poison { .. } => {
                self.ghost.wrong(Wrong::BackendBrokeARule)
            }
            Note::Lost { link } => {
                if !self.wires[at(link)].lethal {
                    self.ghost.wrong(Wrong::Lost(link));
                }
                let subject = self.subject();
                self.wires[at(link)].disown(|had| had.subject == subject);
            }
            Note::FramesLost(_) => self.seat.anew = true,
            // Everybody in it knows who is a member.
            Note::Stale if self.subject() == Subject::Group(super::actor::GROUP) => {}
            _ => {}
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        if self.seat.ended.replace(reason).is_some() {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        (self.seat.timers, self.seat.owes_ack, self.seat.chunks) = ([false; 5], false, None);
    }
}
