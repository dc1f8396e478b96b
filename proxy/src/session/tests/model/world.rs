//! One session, two backends, two links, a client, and all that may happen next.

use std::sync::Arc;

use holdfast_protocol::message::{AttachMode, Message, Recovery, Release};
use holdfast_protocol::{Epoch, TraceContext};

use super::backend::{Backend, Desk, SESSION, SUBJECT};
use super::effects::{Fx, Line, Seat, TIMERS, Wire, at, candidate};
use super::ghost::{Ghost, Wrong};
use super::queue::{Queue, parse};
use crate::routing::Service;
use crate::session::handoff::Begun;
use crate::session::planted::Bug;
use crate::session::{Client, LinkId, Order, Otherwise, Phase, Session, Timer, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffCause};

pub const LINKS: [LinkId; 2] = [LinkId(0), LinkId(1)];

/// How often what may still happen: the bound of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    pub frames: u8,
    /// Drains, of either backend; each is lifted some time.
    pub drains: u8,
    /// What those drains may do with a session that nobody takes.
    pub park: bool,
    pub cuts: u8,
    /// A process is killed; another one takes its place some time.
    pub kills: u8,
    /// A link is away for too long, or a backend silent: the proxy gives the process up, though it lives.
    pub silences: u8,
    /// Timers that go off though nothing is stuck.
    pub early: u8,
    pub refusals: u8,
    pub refusals_for_good: u8,
    /// The client ends its stream, and still listens.
    pub halves: u8,
    pub departures: u8,
    /// The game ends the session.
    pub closes: u8,
    /// The game speaks unasked.
    pub ticks: u8,
    pub parks_end: u8,
    /// Checkpoints that fall due.
    pub checkpoints: u8,
}

/// What doesn't change in a run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub service: Arc<Service>,
    pub budget: Budget,
    /// Backends take their time: frames wait in them.
    pub slow: bool,
    /// State goes out in chunks, each of which may be overtaken by what else happens.
    pub chunks: bool,
    /// The client takes its time to read.
    pub slow_client: bool,
    pub bug: Option<Bug>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub session: Session,
    pub wires: [Wire; 2],
    pub seat: Seat,
    pub ghost: Ghost,
    pub budget: Budget,
}

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
        let mut fx = Fx { wires, seat, ghost, state_credit_bytes, capabilities, protected };
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
            Act::ToBackend(link) => self.to_backend(setup, link, None),
            Act::Refuse(link, retry) => {
                spend(if retry { &mut self.budget.refusals } else { &mut self.budget.refusals_for_good });
                self.ghost.refused_for_good |= !retry;
                self.to_backend(setup, link, Some(retry));
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

    fn to_backend(&mut self, setup: &Setup, link: LinkId, refuses: Option<bool>) {
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
    fn may_move(&self, link: LinkId) -> bool {
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

    /// What holds after everything that happens.
    fn look_over(&mut self) {
        let speakers = self.wires.iter().filter(|wire| {
            let attachment = wire.backend.as_ref().and_then(|backend| backend.attachment.as_ref());
            attachment.is_some_and(|had| had.speaks() && !had.disowned)
        });
        if speakers.count() > 1 {
            self.ghost.wrong(Wrong::TwoActive);
        }
        let phase = self.session.phase();
        let over = *phase == Phase::Ended;
        let state_comes =
            matches!(phase, Phase::Freezing { .. }) || self.session.journal.checkpoint.is_some();
        let sound = (self.seat.reserved > 0) == state_comes
            && self.seat.ended.is_some() == over
            && (self.seat.settled == self.session.link() || matches!(phase, Phase::Closing { .. }))
            && !(matches!(phase, Phase::Active { .. }) && self.seat.timers[Timer::Answer as usize])
            && (*phase != Phase::Parked || self.seat.timers[Timer::Park as usize]);
        if !sound {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        if let Some(reason) = self.seat.ended
            && !self.may_end(reason)
        {
            self.ghost.wrong(Wrong::Ended);
        }
    }

    fn may_end(&self, reason: CloseReason) -> bool {
        match reason {
            CloseReason::ClientClose | CloseReason::ClientError => self.session.client() != Client::Open,
            CloseReason::BackendClose => self.ghost.game_closed,
            CloseReason::ParkDeadline => self.ghost.deadline_passed,
            CloseReason::NoBackend => self.ghost.deadline_passed || self.ghost.refused_for_good,
            _ => false,
        }
    }
}

impl Budget {
    fn of(&mut self, timer: Timer) -> &mut u8 {
        match timer {
            Timer::Park => &mut self.parks_end,
            Timer::Checkpoint => &mut self.checkpoints,
            Timer::Answer | Timer::Home | Timer::Close => &mut self.early,
        }
    }
}

impl Setup {
    fn state_credit_bytes(&self) -> u64 {
        if self.chunks { 4 } else { u64::MAX }
    }
}

fn spend(budget: &mut u8) {
    *budget -= 1;
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

    /// Where it comes to rest, the player plays, and has all that is theirs; or has left, and the game knows it.
    pub fn rests_well(&self) -> bool {
        let mut attached = self.wires.iter().filter_map(|wire| wire.backend.as_ref()?.attachment.as_ref());
        if self.seat.ended.is_some() {
            return attached.next().is_none() && self.was_told();
        }
        let (Phase::Active { .. }, Client::Open) = (self.session.phase(), self.session.client()) else {
            return false;
        };
        let Some(at) = attached.next() else { return false };
        let answered = self.seat.player.seen.map_or(0, |reply| reply.last) == self.seat.player.sent;
        let all = self.ghost.processed + self.ghost.lost == self.seat.player.sent;
        at.is_settled()
            && Epoch(at.epoch()) == self.session.epoch()
            && attached.next().is_none()
            && self.session.is_idle()
            && all
            && (answered || self.ghost.anew)
    }

    /// The game has heard of the player's end, with every frame.
    fn was_told(&self) -> bool {
        let sent = usize::from(self.seat.player.sent);
        let excused =
            self.ghost.deadline_passed || self.ghost.anew || self.ghost.refused_for_good || sent == 0;
        self.ghost.game_closed
            || excused
            || self.ghost.saved.as_ref().is_some_and(|frames| frames.len() == sent)
    }
}
