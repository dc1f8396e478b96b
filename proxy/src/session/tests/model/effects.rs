//! What a session does to the model's world.

use std::time::Duration;

use holdfast_protocol::message::{Message, Rule};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext};

use super::backend::Backend;
use super::game::Player;
use super::ghost::{Ghost, Wrong};
use super::queue::Queue;
use crate::session::outbound::{Entry, Kind};
use crate::session::riders::Departed;
use crate::session::{Effects, LinkId, Note, Otherwise, Step, Suspicion, Timer, Wanted};
use crate::telemetry::counters::CloseReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Line {
    /// Dialled when somebody needs it.
    Idle,
    Up,
    /// Cut; the backend may be there.
    Broken,
    /// The proxy has given the backend up.
    Dead,
}

/// One link, its backend, and what the proxy knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wire {
    pub line: Line,
    /// The run of the backend that the last WELCOME named.
    pub known: u8,
    /// What a drain of this backend does with a session that nobody takes.
    pub drain: Option<Otherwise>,
    /// `None`: the process is dead.
    pub backend: Option<Backend>,
    pub next_instance: u8,
    pub to_backend: Queue,
    pub to_proxy: Queue,
    /// A fault that costs the session its attachment here has happened.
    pub lethal: bool,
}

pub const TIMERS: [Timer; 5] = [Timer::Answer, Timer::Park, Timer::Home, Timer::Close, Timer::Checkpoint];

/// What lies around the session: its client, its timers, its bookkeeping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Seat {
    pub timers: [bool; 5],
    pub owes_ack: bool,
    pub chunks: Option<LinkId>,
    /// Something was delivered that the client's socket hasn't taken.
    pub unhanded: bool,
    pub player: Player,
    pub reserved: u64,
    pub settled: Option<LinkId>,
    pub ended: Option<CloseReason>,
    /// It waits for its turn to recover.
    pub awaits: bool,
    pub recovering: bool,
}

pub struct Fx<'a> {
    pub wires: &'a mut [Wire; 2],
    pub seat: &'a mut Seat,
    pub ghost: &'a mut Ghost,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    pub capabilities: u64,
    /// After a crash all goes on as if it hadn't been.
    pub protected: bool,
}

pub fn at(link: LinkId) -> usize {
    link.0 as usize
}

pub fn candidate(wires: &[Wire; 2], wanted: Wanted<'_>) -> Option<LinkId> {
    [LinkId(0), LinkId(1)].into_iter().find(|link| {
        let wire = &wires[at(*link)];
        matches!(wire.line, Line::Up | Line::Idle)
            && wire.drain.is_none()
            && !wanted.tried.contains(link)
            && wanted.home.is_none_or(|home| home == *link)
    })
}

impl Wire {
    /// The proxy has given up what is attached here.
    pub fn disown(&mut self, epoch: Option<u64>) {
        let attachment = self.backend.as_mut().and_then(|backend| backend.attachment.as_mut());
        if let Some(attachment) = attachment.filter(|had| epoch.is_none_or(|epoch| had.epoch() == epoch)) {
            attachment.disowned = true;
        }
    }
}

impl Effects for Fx<'_> {
    fn send(&mut self, link: LinkId, message: &Message<'_>) {
        if self.seat.ended.is_some() {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        let wire = &mut self.wires[at(link)];
        if let Message::Release(release) = message {
            wire.disown(Some(release.epoch.0));
        }
        if wire.line == Line::Up {
            wire.to_backend.push(message);
        }
    }

    fn link_is_up(&self, link: LinkId) -> bool {
        self.wires[at(link)].line == Line::Up
    }

    fn client_window_bytes(&self, _link: LinkId) -> u32 {
        self.client_window_bytes
    }

    fn state_credit_bytes(&self, _link: LinkId) -> u64 {
        self.state_credit_bytes
    }

    fn state_format(&self, _link: LinkId) -> String {
        String::new()
    }

    fn max_frame_bytes(&self, _link: LinkId) -> u32 {
        u32::MAX
    }

    fn capabilities(&self, _link: LinkId) -> u64 {
        self.capabilities
    }

    fn logic(&self, _link: LinkId) -> String {
        String::new()
    }

    fn await_recovery(&mut self, _suspicion: Suspicion) {
        if self.seat.recovering {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        self.seat.awaits = true;
    }

    fn recovery_over(&mut self) {
        if !std::mem::take(&mut self.seat.recovering) {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
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

    fn deliver(&mut self, seq: Seq, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        let outcome = self.seat.player.see(seq.0, frame);
        self.ghost.note(outcome);
        self.seat.unhanded = true;
        Ok(())
    }

    fn deliver_to(&mut self, _: SessionId, _: &[u8], _: &TraceContext) -> Result<(), Rule> {
        unreachable!("no group plays here")
    }

    fn read_member(&mut self, _: SessionId, _: bool) {}

    fn member_departs(&mut self, _: SessionId, _: Departed) {}

    fn member_is_over(&mut self, _: SessionId, _: CloseReason) {}

    fn joins(&mut self, _: GroupId) {}

    fn boards(&mut self) {}

    fn read_client(&mut self, _on: bool) {
        // Windows are larger than all that a model's player sends.
        self.ghost.wrong(Wrong::Bookkeeping);
    }

    fn finish_client(&mut self) {
        if std::mem::replace(&mut self.seat.player.finishing, true) {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        self.seat.unhanded = true;
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

    fn processed(&mut self, entry: &Entry<'_>) {
        self.ghost.processed += u8::from(entry.kind == Kind::Frame);
    }

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Fault { .. } | Note::Failed { .. } | Note::Diverged { .. } | Note::Poison { .. } => {
                self.ghost.wrong(Wrong::BackendBrokeARule)
            }
            Note::Lost { link } => {
                if !self.wires[at(link)].lethal && !self.ghost.departed {
                    self.ghost.wrong(Wrong::Lost(link));
                }
                self.wires[at(link)].disown(None);
            }
            Note::FramesLost(frames) => {
                self.ghost.lost += u8::try_from(frames).unwrap();
                self.ghost.anew = true;
                if self.protected {
                    self.ghost.wrong(Wrong::ClientFrames);
                }
            }
            Note::Refused { .. }
            | Note::Late { .. }
            | Note::Freezing(_)
            | Note::StateBegins
            | Note::StateKept { .. }
            | Note::Attaching { .. }
            | Note::Attached { .. }
            | Note::Live { .. }
            | Note::HandoffDone(_)
            | Note::StateTooLarge { .. }
            | Note::Stale
            | Note::CheckpointKept { .. }
            | Note::Unprotected { .. }
            | Note::StateDropped { .. } => {}
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        if self.seat.ended.replace(reason).is_some() {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        (self.seat.timers, self.seat.owes_ack, self.seat.chunks) = ([false; 5], false, None);
    }
}
