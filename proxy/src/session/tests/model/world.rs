//! One session, two backends, two links, a client; and what each act does to them.

use std::sync::Arc;

use holdfast_protocol::TraceContext;
use holdfast_protocol::message::{Message, Recovery, Release};

use super::acts::Act;
use super::backend::{Backend, Desk, SESSION, SUBJECT};
use super::bound::{Budget, Setup, spend};
use super::effects::{Fx, Line, Seat, Wire, at, candidate};
use super::ghost::{Ghost, Wrong};
use super::queue::{Queue, parse};
use crate::session::handoff::Begun;
use crate::session::{LinkId, Order, Otherwise, Phase, Session, Timer, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffCause};

pub const LINKS: [LinkId; 2] = [LinkId(0), LinkId(1)];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub session: Session,
    pub wires: [Wire; 2],
    pub seat: Seat,
    pub ghost: Ghost,
    pub budget: Budget,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        let wire = |line| Wire {
            line,
            known: 0,
            drain: None,
            backend: Some(Backend::new(1)),
            next_instance: 2,
            to_backend: Queue::default(),
            to_proxy: Queue::default(),
            lethal: false,
        };
        let mut session = Session::new(SESSION, Arc::clone(&setup.service), "".into(), 0);
        if let Some(bug) = setup.bug {
            session.plant(bug);
        }
        let mut world = Self {
            session,
            wires: [wire(Line::Up), wire(Line::Idle)],
            seat: Seat::default(),
            ghost: Ghost::default(),
            budget: setup.budget,
        };
        world.wires[0].known = 1;
        world.drive(setup, |session, fx| session.open(fx));
        world
    }

    fn drive<T>(&mut self, setup: &Setup, act: impl FnOnce(&mut Session, &mut Fx<'_>) -> T) -> T {
        let state_credit_bytes = setup.state_credit_bytes();
        let (capabilities, protected) =
            (setup.service.recovery.needs(), setup.service.recovery != Recovery::None);
        let Self { session, wires, seat, ghost, .. } = self;
        let client_window_bytes = if setup.narrow { 1 } else { u32::MAX };
        let mut fx =
            Fx { wires, seat, ghost, client_window_bytes, state_credit_bytes, capabilities, protected };
        let result = act(session, &mut fx);
        if !setup.chunks {
            while let Some(link) = fx.seat.chunks.take() {
                if session.link() == Some(link) && session.send_chunk(&mut fx) {
                    fx.seat.chunks = Some(link);
                }
            }
        }
        if !setup.slow_client && fx.seat.ended.is_none() && std::mem::take(&mut fx.seat.unhanded) {
            session.handed(&mut fx);
        }
        result
    }

    fn with_backend(
        &mut self,
        setup: &Setup,
        link: LinkId,
        refuses: Option<bool>,
        act: impl FnOnce(&mut Backend, &mut Desk<'_>),
    ) {
        let Wire { backend, to_proxy, line, .. } = &mut self.wires[at(link)];
        let Some(backend) = backend else { return };
        let (slow, state_credit_bytes) = (setup.slow, setup.state_credit_bytes());
        let value = 16 * u8::try_from(link.0).unwrap() + backend.instance;
        let ghost = &mut self.ghost;
        act(backend, &mut Desk { out: to_proxy, ghost, refuses, slow, state_credit_bytes, value });
        if *line != Line::Up {
            to_proxy.clear();
        }
    }

    /// Does it.
    pub fn perform(&mut self, act: Act, setup: &Setup) {
        match act {
            Act::ToBackend(link) => self.reach_backend(setup, link, None),
            Act::Refuse(link, retry) => {
                spend(if retry { &mut self.budget.refusals } else { &mut self.budget.refusals_for_good });
                self.ghost.refused_for_good |= !retry;
                self.reach_backend(setup, link, Some(retry));
            }
            Act::ToProxy(link) => {
                if let Some(bytes) = self.wires[at(link)].to_proxy.pop()
                    && self.seat.ended.is_none()
                {
                    self.drive(setup, |session, fx| session.message(link, &parse(&bytes), fx));
                }
            }
            Act::Work(link) => self.with_backend(setup, link, None, Backend::work),
            Act::BackendAck(link) => self.with_backend(setup, link, None, Backend::send_ack),
            Act::ProxyAck => {
                self.seat.owes_ack = false;
                self.drive(setup, |session, fx| session.send_ack(fx));
            }
            Act::Chunk(link) => {
                self.seat.chunks = None;
                let more =
                    self.drive(setup, |session, fx| session.link() == Some(link) && session.send_chunk(fx));
                if more {
                    self.seat.chunks = Some(link);
                }
            }
            Act::Handed => {
                self.seat.unhanded = false;
                self.drive(setup, |session, fx| session.handed(fx));
            }
            Act::Recover => {
                (self.seat.awaits, self.seat.recovering) = (false, true);
                self.drive(setup, |session, fx| session.recover(fx));
            }
            Act::Due(timer) => self.fire(setup, timer),
            Act::Early(timer) => self.fire_early(setup, timer),
            Act::Frame => self.frame(setup),
            Act::Half => {
                spend(&mut self.budget.halves);
                self.drive(setup, |session, fx| session.client_finished(fx));
            }
            Act::Depart => {
                spend(&mut self.budget.departures);
                self.ghost.departed = true;
                self.drive(setup, |session, fx| session.client_gone(CloseReason::ClientError, fx));
            }
            Act::GameCloses(link) => {
                spend(&mut self.budget.closes);
                self.ghost.game_closed = true;
                self.with_backend(setup, link, None, |backend, desk| backend.act(true, desk));
            }
            Act::Tick(link) => {
                spend(&mut self.budget.ticks);
                self.with_backend(setup, link, None, |backend, desk| backend.act(false, desk));
            }
            other => self.perform_on_link(other, setup),
        }
        self.look_over();
    }

    fn perform_on_link(&mut self, act: Act, setup: &Setup) {
        match act {
            Act::Connect(link) => self.connect(setup, link),
            Act::Notice(link) => self.link_lost(setup, link),
            Act::Gone(link) => self.gone(setup, link),
            Act::Restart(link) => {
                let wire = &mut self.wires[at(link)];
                wire.backend = Some(Backend::new(wire.next_instance));
                wire.next_instance += 1;
            }
            Act::Undrain(link) => {
                self.wires[at(link)].drain = None;
                self.look_again(setup);
            }
            Act::Move(link) => self.move_off(setup, link),
            Act::Drain(link, otherwise) => {
                spend(&mut self.budget.drains);
                self.wires[at(link)].drain = Some(otherwise);
            }
            Act::Cut(link) => {
                spend(&mut self.budget.cuts);
                self.link_lost(setup, link);
            }
            Act::Kill(link) => {
                spend(&mut self.budget.kills);
                let wire = &mut self.wires[at(link)];
                (wire.backend, wire.lethal) = (None, true);
                wire.to_backend.clear();
            }
            Act::Silence(link) => {
                spend(&mut self.budget.silences);
                self.wires[at(link)].lethal = true;
                if self.wires[at(link)].line == Line::Up {
                    self.link_lost(setup, link);
                }
                self.gone(setup, link);
            }
            other => panic!("{other:?} isn't of a link"),
        }
    }

    fn reach_backend(&mut self, setup: &Setup, link: LinkId, refuses: Option<bool>) {
        if let Some(bytes) = self.wires[at(link)].to_backend.pop() {
            self.with_backend(setup, link, refuses, |backend, desk| backend.receive(&parse(&bytes), desk));
        }
    }

    fn frame(&mut self, setup: &Setup) {
        spend(&mut self.budget.frames);
        self.seat.player.sent += 1;
        let frame = [self.seat.player.sent];
        self.drive(setup, |session, fx| session.frame(&frame, TraceContext::NONE, 0, fx));
    }

    fn fire(&mut self, setup: &Setup, timer: Timer) {
        self.seat.timers[timer as usize] = false;
        self.ghost.deadline_passed |= matches!(timer, Timer::Park | Timer::Close);
        self.drive(setup, |session, fx| session.timer(timer, fx));
    }

    fn fire_early(&mut self, setup: &Setup, timer: Timer) {
        spend(self.budget.of(timer));
        if let (Phase::Thawing { link, .. }, Timer::Answer) = (self.session.phase(), timer) {
            // A backend that doesn't answer THAW in time is given up.
            self.wires[at(*link)].lethal = true;
        }
        self.fire(setup, timer);
    }

    /// The connection is gone on both sides; a link that nobody needs isn't missed.
    fn link_lost(&mut self, _setup: &Setup, link: LinkId) {
        let missed = self.seat.ended.is_none() && self.session.concerns(link);
        let wire = &mut self.wires[at(link)];
        wire.line = if missed { Line::Broken } else { Line::Idle };
        wire.to_backend.clear();
        wire.to_proxy.clear();
        if let Some(backend) = &mut wire.backend {
            backend.link_lost();
        }
        if self.seat.chunks == Some(link) {
            self.seat.chunks = None;
        }
    }

    /// As `worker::link_life` does when a link comes up.
    fn connect(&mut self, setup: &Setup, link: LinkId) {
        let wire = &mut self.wires[at(link)];
        let Some(backend) = &wire.backend else { return };
        let entry = backend.entry();
        let resumed = wire.line == Line::Broken && wire.known == backend.instance;
        (wire.line, wire.known) = (Line::Up, backend.instance);
        let alive = self.seat.ended.is_none();
        let concerned = alive && self.session.concerns(link);
        if concerned {
            self.drive(setup, |session, fx| match session.phase() {
                Phase::Attaching { link: to, asked: false, .. } if *to == link => {
                    session.link_is_ready(link, fx)
                }
                _ if resumed => session.resumed(link, entry.as_ref(), fx),
                _ => session.attachment_lost(link, fx),
            });
        }
        if let Some(entry) = entry.filter(|_| self.seat.ended.is_some() || !self.session.concerns(link)) {
            let wire = &mut self.wires[at(link)];
            wire.disown(Some(entry.epoch.0));
            wire.to_backend.push(&Message::Release(Release { subject: SUBJECT, epoch: entry.epoch }));
        }
        self.wires[at(link)].lethal = false;
        self.look_again(setup);
    }

    /// The dial was refused, or has lasted too long.
    fn gone(&mut self, setup: &Setup, link: LinkId) {
        self.wires[at(link)].line = Line::Dead;
        self.wires[at(link)].disown(None);
        if self.seat.ended.is_none() && self.session.concerns(link) {
            self.drive(setup, |session, fx| session.attachment_lost(link, fx));
        }
    }

    fn look_again(&mut self, setup: &Setup) {
        if self.seat.ended.is_none() {
            self.drive(setup, |session, fx| session.look_again(fx));
        }
    }

    /// With nowhere to go, only an order that parks begins; nobody is frozen before the link to the target is up.
    pub fn may_move(&self, link: LinkId) -> bool {
        let wire = &self.wires[at(link)];
        let Some(otherwise) = wire.drain else { return false };
        if *self.session.phase() != (Phase::Active { link }) || wire.line != Line::Up {
            return false;
        }
        let target =
            candidate(&self.wires, Wanted { tried: &[], format: None, home: None, needs: 0, logic: None });
        match target {
            _ if otherwise == Otherwise::ParkForHome => true,
            Some(target) => self.wires[at(target)].line == Line::Up,
            None => otherwise == Otherwise::Park,
        }
    }

    fn move_off(&mut self, setup: &Setup, link: LinkId) {
        let Some(otherwise) = self.wires[at(link)].drain else { return };
        let order = Order { cause: HandoffCause::Operator, otherwise };
        if self.drive(setup, |session, fx| session.leave(order, fx)) != Begun::Yes {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
    }
}
