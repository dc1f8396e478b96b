//! All that may happen to the three, and when.

use holdfast_protocol::message::{AttachMode, Message};

use super::super::effects::{Line, at};
use super::backend::Desk;
use super::world::World;
use crate::session::{LinkId, Otherwise, Phase, Session, Timer};

/// What may happen. As in [`super::super::acts`], of one of the three where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    ToBackend(LinkId),
    ToProxy(LinkId),
    Refuse(LinkId, bool),
    BackendAck(LinkId),
    ProxyAck(usize),
    Connect(LinkId),
    Notice(LinkId),
    Gone(LinkId),
    Restart(LinkId),
    Undrain(LinkId),
    Move(usize, LinkId),
    /// Its way into the group is tried again, some time after it failed.
    Board(usize),
    Due(usize, Timer),
    Frame(usize),
    Drain(LinkId, Otherwise),
    Cut(LinkId),
    Kill(LinkId),
    /// An answer is late.
    Early(usize),
}

impl World {
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
                let (mut out, mut ghost) = Default::default();
                let desk = Desk { out: &mut out, ghost: &mut ghost, refuses: None, ack_passes: false };
                if up && backend.owes_ack(&desk) {
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
        if wire.draining {
            acts.push(Act::Undrain(link));
        }
        acts.extend((0..3).filter(|who| self.may_move(*who, link)).map(|who| Act::Move(who, link)));
    }

    /// What happens in any case.
    pub fn goes_on(&self, acts: &mut Vec<Act>) {
        for link in Self::links() {
            self.progress_of(link, acts);
        }
        acts.extend((0..3).filter(|who| self.seats[*who].owes_ack).map(Act::ProxyAck));
        if acts.is_empty() {
            for who in 0..3 {
                let due = [Timer::Answer, Timer::Home].into_iter();
                let due = due.filter(|timer| self.seats[who].timers[*timer as usize]);
                acts.extend(due.map(|timer| Act::Due(who, timer)));
                let active = self.machines[who]
                    .as_ref()
                    .is_some_and(|it: &Session| matches!(it.phase(), Phase::Active { .. }));
                if self.seats[who].wanted && active {
                    acts.push(Act::Board(who));
                }
            }
        }
    }

    fn stimuli(&self, acts: &mut Vec<Act>) {
        let budget = &self.budget;
        for link in Self::links() {
            let wire = &self.wires[at(link)];
            let up = wire.line == Line::Up;
            let asked = matches!(wire.to_backend.front(),
                Some(Message::Attach(attach)) if attach.mode != AttachMode::Resume);
            if up && asked && wire.backend.is_some() {
                let may = [(budget.refusals, true), (budget.refusals_for_good, false)];
                acts.extend(
                    may.iter().filter(|(left, _)| *left > 0).map(|(_, retry)| Act::Refuse(link, *retry)),
                );
            }
            if budget.drains > 0 && !wire.draining {
                acts.push(Act::Drain(link, Otherwise::Thaw));
                if budget.park {
                    acts.push(Act::Drain(link, Otherwise::Park));
                }
            }
            if budget.cuts > 0 && up && wire.backend.is_some() {
                acts.push(Act::Cut(link));
            }
            if budget.kills > 0 && wire.backend.is_some() {
                acts.push(Act::Kill(link));
            }
        }
        acts.extend((0..2).filter(|player| budget.frames[*player] > 0).map(Act::Frame));
        if budget.early > 0 {
            let due = (0..3).filter(|who| self.seats[*who].timers[Timer::Answer as usize]);
            acts.extend(due.map(Act::Early));
        }
    }

    pub fn acts(&self, acts: &mut Vec<Act>) {
        if self.ghost.wrong.is_none() {
            self.goes_on(acts);
            self.stimuli(acts);
        }
    }

    pub fn is_at_rest(&self) -> bool {
        let mut acts = Vec::new();
        self.goes_on(&mut acts);
        acts.is_empty()
    }
}
