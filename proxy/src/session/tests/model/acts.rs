//! All that may happen in the world, and when.

use holdfast_protocol::message::{AttachMode, Message};

use super::backend::Backend;
use super::effects::{Line, TIMERS, at};
use super::world::{LINKS, World};
use crate::session::{Client, LinkId, Otherwise, Timer};

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The next message arrives.
    ToBackend(LinkId),
    ToProxy(LinkId),
    /// The next message is an ATTACH, and it is refused; `true`: asking again may help.
    Refuse(LinkId, bool),
    Work(LinkId),
    BackendAck(LinkId),
    ProxyAck,
    Chunk(LinkId),
    /// The client's socket has taken what was delivered.
    Handed,
    /// Its turn to recover has come.
    Recover,
    /// The link comes up.
    Connect(LinkId),
    /// The proxy sees that the link has ended.
    Notice(LinkId),
    /// The proxy finds that the process is gone.
    Gone(LinkId),
    Restart(LinkId),
    Undrain(LinkId),
    /// The drain's turn comes to the session.
    Move(LinkId),
    /// Nothing else is left to happen, so time passes.
    Due(Timer),
    Frame,
    Drain(LinkId, Otherwise),
    Cut(LinkId),
    Kill(LinkId),
    Silence(LinkId),
    Early(Timer),
    Half,
    Depart,
    GameCloses(LinkId),
    Tick(LinkId),
}

/// What may happen next.
impl World {
    /// What goes on by itself; what is broken is mended some time.
    fn progress(&self, acts: &mut Vec<Act>) {
        for link in LINKS {
            self.progress_of(link, acts);
        }
        if self.seat.owes_ack {
            acts.push(Act::ProxyAck);
        }
        if let Some(link) = self.seat.chunks {
            acts.push(Act::Chunk(link));
        }
        if self.seat.awaits && self.seat.ended.is_none() {
            acts.push(Act::Recover);
        }
        if self.seat.unhanded && self.seat.ended.is_none() {
            acts.push(Act::Handed);
        }
    }

    fn progress_of(&self, link: LinkId, acts: &mut Vec<Act>) {
        let wire = &self.wires[at(link)];
        let up = wire.line == Line::Up;
        if up && !wire.to_proxy.is_empty() {
            acts.push(Act::ToProxy(link));
        }
        match &wire.backend {
            Some(backend) => {
                if up && !wire.to_backend.is_empty() {
                    acts.push(Act::ToBackend(link));
                }
                if backend.has_work() {
                    acts.push(Act::Work(link));
                }
                if up && backend.owes_ack() {
                    acts.push(Act::BackendAck(link));
                }
                if !up {
                    acts.push(Act::Connect(link));
                }
            }
            None if up => acts.push(Act::Notice(link)),
            None => {
                if wire.line != Line::Dead {
                    acts.push(Act::Gone(link));
                }
                acts.push(Act::Restart(link));
            }
        }
        if wire.drain.is_some() {
            acts.push(Act::Undrain(link));
        }
        if self.may_move(link) {
            acts.push(Act::Move(link));
        }
    }

    /// What players, games, operators and fate may do, as long as the bound allows.
    fn stimuli(&self, acts: &mut Vec<Act>) {
        let budget = &self.budget;
        for link in LINKS {
            self.stimuli_of(link, acts);
        }
        if self.seat.ended.is_some() {
            return;
        }
        let client = self.session.client();
        if budget.frames > 0 && client == Client::Open {
            acts.push(Act::Frame);
        }
        if budget.halves > 0 && client == Client::Open {
            acts.push(Act::Half);
        }
        if budget.departures > 0 && client != Client::Gone {
            acts.push(Act::Depart);
        }
        for timer in TIMERS.into_iter().filter(|timer| self.seat.timers[*timer as usize]) {
            if *self.budget.clone().of(timer) > 0 {
                acts.push(Act::Early(timer));
            }
        }
    }

    fn stimuli_of(&self, link: LinkId, acts: &mut Vec<Act>) {
        let (budget, wire) = (&self.budget, &self.wires[at(link)]);
        let up = wire.line == Line::Up;
        let asked = matches!(wire.to_backend.front(), Some(Message::Attach(attach)) if attach.mode != AttachMode::Resume);
        if up && asked && wire.backend.is_some() {
            if budget.refusals > 0 {
                acts.push(Act::Refuse(link, true));
            }
            if budget.refusals_for_good > 0 {
                acts.push(Act::Refuse(link, false));
            }
        }
        if budget.drains > 0 && wire.drain.is_none() && self.seat.ended.is_none() {
            acts.push(Act::Drain(link, Otherwise::Thaw));
            if budget.park {
                acts.push(Act::Drain(link, Otherwise::Park));
                acts.push(Act::Drain(link, Otherwise::ParkForHome));
            }
        }
        if budget.cuts > 0 && up && wire.backend.is_some() {
            acts.push(Act::Cut(link));
        }
        if budget.kills > 0 && wire.backend.is_some() {
            acts.push(Act::Kill(link));
        }
        if budget.silences > 0 && wire.line != Line::Dead {
            acts.push(Act::Silence(link));
        }
        let active = wire.backend.as_ref().is_some_and(Backend::is_active);
        if active && budget.closes > 0 {
            acts.push(Act::GameCloses(link));
        }
        if active && budget.ticks > 0 {
            acts.push(Act::Tick(link));
        }
    }

    /// What happens in any case, if nothing else does.
    pub fn goes_on(&self, acts: &mut Vec<Act>) {
        self.progress(acts);
        if acts.is_empty() {
            let due =
                [Timer::Answer, Timer::Home].into_iter().filter(|timer| self.seat.timers[*timer as usize]);
            acts.extend(due.map(Act::Due));
        }
    }

    pub fn acts(&self, acts: &mut Vec<Act>) {
        if self.ghost.wrong.is_none() {
            self.goes_on(acts);
            self.stimuli(acts);
        }
    }

    /// Nothing goes on any more, not even when time passes.
    pub fn is_at_rest(&self) -> bool {
        let mut acts = Vec::new();
        self.goes_on(&mut acts);
        acts.is_empty()
    }
}
