//! Two players, their sessions, the group, two backends and their links; and what each act does to them.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_protocol::TraceContext;
use holdfast_protocol::message::{Message, Refused, Release, Subject};

use super::super::bound::spend;
use super::super::effects::{Line, at};
use super::super::game::Reply;
use super::super::ghost::{Ghost, Wrong};
use super::super::queue::{Queue, parse};
use super::super::world::LINKS;
use super::actor::{GROUP, session};
use super::acts::Act;
use super::backend::{Backend, Desk};
use super::effects::{Fx, Seat, Wire, candidate};
use crate::routing::Service;
use crate::session::handoff::Begun;
use crate::session::message::subject_of;
use crate::session::planted::Bug;
use crate::session::tests::seat::Ask;
use crate::session::{Effects as _, LinkId, Order, Otherwise, Phase, Session, Timer, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffCause};

/// The players are 0 and 1; this is the group.
pub const PARTY: usize = 2;

/// How often what may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Of each player. The traveller's first one joins, the second leaves.
    pub frames: [u8; 2],
    pub drains: u8,
    pub park: bool,
    pub cuts: u8,
    pub kills: u8,
    /// Answers that come too late.
    pub early: u8,
    pub refusals: u8,
    pub refusals_for_good: u8,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub service: Arc<Service>,
    pub budget: Budget,
    pub bug: Option<Bug>,
    /// A backend whose acks pass departures.
    pub ack_passes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The group's place is empty while there is none.
    pub machines: [Option<Session>; 3],
    pub seats: [Seat; 3],
    pub wires: [Wire; 2],
    pub ghost: Ghost,
    pub budget: Budget,
    /// Frames of its members that the group has processed, as they were told: each of them once, by one state.
    pub count: u8,
    /// What a drain does with who finds no place.
    pub otherwise: Otherwise,
}

pub fn subject(who: usize) -> Subject {
    match who {
        PARTY => Subject::Group(GROUP),
        player => Subject::Session(session(u8::try_from(player).unwrap())),
    }
}

fn place(subject: Subject) -> usize {
    match subject {
        Subject::Group(_) => PARTY,
        Subject::Session(id) => usize::from(id.0[0]),
    }
}

impl World {
    /// Player 0 is in the group, player 1 alone; nothing is under way.
    pub fn new(setup: &Setup) -> Self {
        let wire = |line| Wire {
            line,
            known: 0,
            draining: false,
            backend: Some(Backend::new(1)),
            next_instance: 2,
            to_backend: Queue::default(),
            to_proxy: Queue::default(),
            lethal: false,
        };
        let machine = |player| {
            let mut machine = Session::new(session(player), Arc::clone(&setup.service), "".into(), 0);
            if let Some(bug) = setup.bug {
                machine.plant(bug);
            }
            Some(machine)
        };
        let mut world = Self {
            machines: [machine(0), machine(1), None],
            seats: Default::default(),
            wires: [wire(Line::Up), wire(Line::Idle)],
            ghost: Ghost::default(),
            budget: Budget { frames: [1, 0], ..Budget::default() },
            count: 0,
            otherwise: Otherwise::Thaw,
        };
        world.wires[0].known = 1;
        for who in 0..2 {
            world.drive(who, |machine, fx| machine.open(fx));
        }
        world.come_to_rest(setup);
        world.perform(Act::Frame(0), setup);
        world.come_to_rest(setup);
        assert!(world.seats[0].aboard && world.rests_well(), "{:?}", world.ghost);
        world.budget = setup.budget;
        world
    }

    fn come_to_rest(&mut self, setup: &Setup) {
        let mut acts = Vec::new();
        self.goes_on(&mut acts);
        while let Some(act) = acts.first() {
            self.perform(*act, setup);
            acts.clear();
            self.goes_on(&mut acts);
        }
    }

    /// Gives a machine its input, and does what groups ask for.
    fn drive<T>(&mut self, who: usize, act: impl FnOnce(&mut Session, &mut Fx<'_>) -> T) -> Option<T> {
        let mut asks = VecDeque::new();
        let result = self.input(who, &mut asks, act);
        self.answer_all(&mut asks);
        if std::mem::take(&mut self.seats[PARTY].unhanded) {
            self.input(PARTY, &mut asks, |machine, fx| machine.handed(fx));
            self.answer_all(&mut asks);
        }
        result
    }

    fn answer_all(&mut self, asks: &mut VecDeque<(usize, Ask)>) {
        while let Some((who, ask)) = asks.pop_front() {
            self.answer(who, ask, asks);
            if self.seats[PARTY].ended.is_some() {
                (self.machines[PARTY], self.seats[PARTY], self.count) = (None, Seat::default(), 0);
            }
        }
    }

    fn input<T>(
        &mut self,
        who: usize,
        asks: &mut VecDeque<(usize, Ask)>,
        act: impl FnOnce(&mut Session, &mut Fx<'_>) -> T,
    ) -> Option<T> {
        let Self { machines, seats, wires, ghost, .. } = self;
        let machine = machines[who].as_mut()?;
        let mut fx = Fx { who, wires, seat: &mut seats[who], ghost, asks };
        let result = act(machine, &mut fx);
        while let Some(link) = fx.seat.chunks.take() {
            if machine.link() == Some(link) && machine.send_chunk(&mut fx) {
                fx.seat.chunks = Some(link);
            }
        }
        if who != PARTY && fx.seat.ended.is_none() && std::mem::take(&mut fx.seat.unhanded) {
            machine.handed(&mut fx);
        }
        Some(result)
    }

    /// As `worker::groups` does.
    fn answer(&mut self, who: usize, ask: Ask, asks: &mut VecDeque<(usize, Ask)>) {
        match ask {
            Ask::Deliver(member, frame) => {
                let player = &mut self.seats[place(Subject::Session(member))].player;
                let outcome = player.see(player.delivered + 1, &frame);
                self.ghost.note(outcome);
                // What it was sent alone says nothing of the group.
                let count = Reply::parse(&frame).value;
                if count > 0 {
                    self.count += 1;
                    if count != self.count {
                        self.ghost.wrong(Wrong::Torn);
                    }
                }
                self.seats[PARTY].unhanded = true;
            }
            Ask::Departs(member, departed) => {
                let player = place(Subject::Session(member));
                self.seats[player].aboard = false;
                self.seats[player].barred |= departed.came_back.is_some();
                self.seats[player].anew |= departed.state.is_none();
                self.end_if_empty(asks);
                self.input(player, asks, |machine, fx| machine.disembark(departed, fx));
            }
            Ask::Joins(_) if std::mem::take(&mut self.seats[who].barred) => {
                let Some(Phase::Active { link }) = self.machines[who].as_ref().map(Session::phase).cloned()
                else {
                    return;
                };
                let epoch = self.machines[who].as_ref().map(Session::epoch).unwrap();
                let refused = Refused { subject: subject(who), epoch, retry: false, reason: "" };
                self.input(who, asks, |_, fx| fx.send(link, &Message::Refused(refused)));
            }
            Ask::Joins(_) => {
                self.seats[who].wanted = true;
                self.try_board(who, asks);
            }
            Ask::Boards => self.boards(who, asks),
            Ask::Read(..) | Ask::Over(..) => self.ghost.wrong(Wrong::Ended),
        }
    }

    fn end_if_empty(&mut self, asks: &mut VecDeque<(usize, Ask)>) {
        let riders = self.machines[PARTY].as_ref().and_then(Session::riders);
        if riders.is_some_and(|riders| riders.is_empty()) {
            self.input(PARTY, asks, |machine, fx| machine.end(CloseReason::BackendClose, fx));
        }
    }

    fn try_board(&mut self, who: usize, asks: &mut VecDeque<(usize, Ask)>) {
        let Some(Phase::Active { link }) = self.machines[who].as_ref().map(Session::phase).cloned() else {
            return;
        };
        if self.seats[who].waits {
            return;
        }
        (self.seats[who].waits, self.seats[who].from) = (true, Some(link));
        let order = Order { cause: HandoffCause::Group, otherwise: Otherwise::Board };
        self.input(who, asks, |machine, fx| machine.leave(order, fx));
    }

    fn boards(&mut self, who: usize, asks: &mut VecDeque<(usize, Ask)>) {
        let seat = &mut self.seats[who];
        (seat.wanted, seat.waits, seat.aboard) = (false, false, true);
        let from = seat.from.take();
        let is_new = self.machines[PARTY].is_none();
        let machine = self.machines[who].as_ref().expect("a player's is always there");
        let member = machine.id();
        if is_new {
            let mut group = Session::new_group(GROUP, Arc::clone(machine.service()), 0);
            group.planted = machine.planted;
            self.machines[PARTY] = Some(group);
        }
        let Some(boarding) = self.input(who, asks, |machine, fx| machine.take_luggage(fx)) else { return };
        self.input(PARTY, asks, |machine, fx| {
            machine.admit(member, &boarding, fx);
            if is_new {
                machine.open_beside(from, fx);
            }
        });
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
        let ghost = &mut self.ghost;
        act(backend, &mut Desk { out: to_proxy, ghost, refuses, ack_passes: setup.ack_passes });
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
                if let Some(bytes) = self.wires[at(link)].to_proxy.pop() {
                    let message = parse(&bytes);
                    let who = place(subject_of(&message).expect("all is about somebody"));
                    self.drive(who, |machine, fx| machine.message(link, &message, fx));
                }
            }
            Act::BackendAck(link) => self.with_backend(setup, link, None, Backend::send_acks),
            Act::ProxyAck(who) => {
                self.seats[who].owes_ack = false;
                self.drive(who, |machine, fx| machine.send_ack(fx));
            }
            Act::Frame(player) => {
                spend(&mut self.budget.frames[player]);
                self.seats[player].player.sent += 1;
                let (frame, id) = ([self.seats[player].player.sent], session(u8::try_from(player).unwrap()));
                if self.seats[player].aboard {
                    self.drive(PARTY, |group, fx| group.member_frame(id, &frame, TraceContext::NONE, 0, fx));
                } else {
                    self.drive(player, |machine, fx| machine.frame(&frame, TraceContext::NONE, 0, fx));
                }
            }
            Act::Board(player) => {
                self.seats[player].waits = false;
                let mut asks = VecDeque::new();
                self.try_board(player, &mut asks);
                assert!(asks.is_empty(), "FREEZE is only sent");
            }
            Act::Due(who, timer) => self.fire(who, timer),
            Act::Early(who) => {
                spend(&mut self.budget.early);
                let thaws = self.machines[who].as_ref().map(|machine| machine.phase().clone());
                if let Some(Phase::Thawing { link, .. }) = thaws {
                    self.wires[at(link)].lethal = true;
                }
                self.fire(who, Timer::Answer);
            }
            Act::Move(who, link) => self.move_off(who, link),
            other => self.perform_on_link(other),
        }
        self.look_over();
    }

    fn perform_on_link(&mut self, act: Act) {
        match act {
            Act::Connect(link) => self.connect(link),
            Act::Notice(link) => self.link_lost(link),
            Act::Gone(link) => self.gone(link),
            Act::Restart(link) => {
                let wire = &mut self.wires[at(link)];
                wire.backend = Some(Backend::new(wire.next_instance));
                wire.next_instance += 1;
            }
            Act::Undrain(link) => {
                self.wires[at(link)].draining = false;
                self.look_again();
            }
            Act::Drain(link, otherwise) => {
                spend(&mut self.budget.drains);
                self.wires[at(link)].draining = true;
                self.otherwise = otherwise;
            }
            Act::Cut(link) => {
                spend(&mut self.budget.cuts);
                self.link_lost(link);
            }
            Act::Kill(link) => {
                spend(&mut self.budget.kills);
                let wire = &mut self.wires[at(link)];
                (wire.backend, wire.lethal) = (None, true);
                wire.to_backend.clear();
            }
            other => panic!("{other:?} isn't of a link"),
        }
    }

    fn reach_backend(&mut self, setup: &Setup, link: LinkId, refuses: Option<bool>) {
        if let Some(bytes) = self.wires[at(link)].to_backend.pop() {
            self.with_backend(setup, link, refuses, |backend, desk| backend.receive(&parse(&bytes), desk));
        }
    }

    fn fire(&mut self, who: usize, timer: Timer) {
        self.seats[who].timers[timer as usize] = false;
        self.drive(who, |machine, fx| machine.timer(timer, fx));
    }

    fn concerns(&self, who: usize, link: LinkId) -> bool {
        self.machines[who].as_ref().is_some_and(|machine| machine.concerns(link))
    }

    fn link_lost(&mut self, link: LinkId) {
        let missed = (0..3).any(|who| self.concerns(who, link));
        let wire = &mut self.wires[at(link)];
        wire.line = if missed { Line::Broken } else { Line::Idle };
        wire.to_backend.clear();
        wire.to_proxy.clear();
        if let Some(backend) = &mut wire.backend {
            backend.link_lost();
        }
    }

    /// As `worker::link_life` does when a link comes up.
    fn connect(&mut self, link: LinkId) {
        let wire = &mut self.wires[at(link)];
        let Some(backend) = &wire.backend else { return };
        let entries = backend.entries();
        let resumed = wire.line == Line::Broken && wire.known == backend.instance;
        (wire.line, wire.known) = (Line::Up, backend.instance);
        let concerned: Vec<_> = (0..3).filter(|who| self.concerns(*who, link)).collect();
        for who in &concerned {
            let entry = entries.iter().find(|entry| entry.subject == subject(*who));
            self.drive(*who, |machine, fx| match machine.phase() {
                Phase::Attaching { link: to, asked: false, .. } if *to == link => {
                    machine.link_is_ready(link, fx)
                }
                _ if resumed => machine.resumed(link, entry, fx),
                _ => machine.attachment_lost(link, fx),
            });
        }
        for entry in entries.iter().filter(|entry| !concerned.contains(&place(entry.subject))) {
            let wire = &mut self.wires[at(link)];
            wire.disown(|had| had.subject == entry.subject && had.epoch == entry.epoch.0);
            wire.to_backend.push(&Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
        }
        self.wires[at(link)].lethal = false;
        self.look_again();
    }

    /// The dial was refused, or has lasted too long.
    fn gone(&mut self, link: LinkId) {
        self.wires[at(link)].line = Line::Dead;
        self.wires[at(link)].disown(|_| true);
        for who in 0..3 {
            if self.concerns(who, link) {
                self.drive(who, |machine, fx| machine.attachment_lost(link, fx));
            }
        }
    }

    fn look_again(&mut self) {
        for who in 0..3 {
            self.drive(who, |machine, fx| machine.look_again(fx));
        }
    }

    pub fn may_move(&self, who: usize, link: LinkId) -> bool {
        let wire = &self.wires[at(link)];
        let is_there = self.machines[who].as_ref().is_some_and(|it| *it.phase() == Phase::Active { link });
        if !wire.draining || !is_there || wire.line != Line::Up {
            return false;
        }
        let anywhere = Wanted { tried: &[], format: None, home: None, needs: 0, logic: None };
        match candidate(&self.wires, anywhere) {
            Some(target) => self.wires[at(target)].line == Line::Up,
            None => self.otherwise == Otherwise::Park,
        }
    }

    fn move_off(&mut self, who: usize, _link: LinkId) {
        let order = Order { cause: HandoffCause::Operator, otherwise: self.otherwise };
        if self.drive(who, |machine, fx| machine.leave(order, fx)) != Some(Begun::Yes) {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
    }

    pub fn links() -> [LinkId; 2] {
        LINKS
    }
}
