//! A small world: sessions, backends on the SDK's own core, links that can stall, be cut or die, and a clock that only
//! moves when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use holdfast_backend::core::{Now, Peer};
use holdfast_backend::{Population, Settings};
use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{AttachmentEntry, Hello, Message, Release, Subject};
use holdfast_protocol::{GroupId, InstanceId, MAX_MESSAGE_BYTES, SessionId, TraceContext, decode, encode};

use super::game::{Chain, Knobs, Shown, chain_of};
use super::seat::{Fx, Hub, Seat, Wire, WireState, timer};
use crate::framing::{Framing, RawFraming};
use crate::routing::Service;
use crate::routing::table::{
    Balance, Breakers, DrainPolicy, Limits, OnCrash, OnDeadline, OnSigterm, Recovery, TracePolicy,
};
use crate::session::handoff::Begun;
use crate::session::message::subject_of;
use crate::session::planted::Planted;
use crate::session::{LinkId, Order, Otherwise, Phase, Session};
use crate::telemetry::counters::{CloseReason, HandoffCause};

pub const WINDOW: u32 = 4096;
pub const ATTACH_TIMEOUT: Duration = Duration::from_millis(300);
pub const FREEZE_TIMEOUT: Duration = Duration::from_millis(300);
pub const PARK_DEADLINE: Duration = Duration::from_secs(600);
pub const PARK_HOME: Duration = Duration::from_secs(5);
pub const OPENED_US: u64 = 1_763_800_000_000_000;
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
pub const A: LinkId = LinkId(0);
pub const B: LinkId = LinkId(1);
pub const C: LinkId = LinkId(2);

/// One backend process, or the place where it was.
pub struct Node {
    pub peer: Option<Peer<Chain>>,
    pub knobs: Arc<Knobs>,
    settings: Settings,
    generation: u64,
    /// SDK faults of processes that are gone.
    faults: u64,
}

pub struct World {
    pub hub: Hub,
    pub nodes: Vec<Node>,
    pub sessions: Vec<Session>,
    pub seats: Vec<Seat>,
    /// Those that are there, by their places among the sessions.
    pub groups: BTreeMap<GroupId, usize>,
    /// What groups ask for is being done.
    pub answering: bool,
    /// A bug for the groups to come.
    pub planted: Planted,
    start: Instant,
}

pub fn limits() -> Limits {
    Limits {
        client_window_bytes: WINDOW,
        server_window_bytes: WINDOW,
        state_size_bytes: 1024,
        max_state_bytes: 256 * 1024,
        max_sessions: 100,
        attach_timeout: ATTACH_TIMEOUT,
        freeze_timeout: FREEZE_TIMEOUT,
        park_deadline: PARK_DEADLINE,
        park_home: PARK_HOME,
        liveness: Duration::from_secs(3),
        resume_timeout: Duration::from_secs(2),
        close_deadline: CLOSE_DEADLINE,
        max_journal_bytes: 64 * 1024,
        checkpoint_interval: CHECKPOINT_INTERVAL,
        max_recoveries: 3,
        recoveries_in_flight: 100,
        max_group_members: 8,
        slow_member: Duration::from_secs(1),
    }
}

/// A service whose sessions survive crashes at that level.
pub fn surviving(recovery: Recovery) -> Service {
    Service { recovery, ..service(OnCrash::Fresh) }
}

pub fn service(on_crash: OnCrash) -> Service {
    Service {
        mirror: None,
        health: Default::default(),
        name: "arena".into(),
        framing: framing(),
        recovery: Recovery::None,
        on_crash,
        limits: limits(),
        drain: DrainPolicy {
            in_flight: 100,
            per_second: 1000,
            deadline: Duration::from_secs(60),
            on_deadline: OnDeadline::Keep,
            on_sigterm: OnSigterm::Move,
        },
        trace: TracePolicy { ratio: Some(0.0), slow_frame: Duration::from_secs(1) },
        rebalance: None,
        balance: Balance::default(),
        breakers: Breakers::default(),
    }
}

pub fn framing() -> Framing {
    let raw: RawFraming = serde_json::from_str(r#"{"kind": "length", "width": 4, "order": "big"}"#).unwrap();
    raw.check().unwrap()
}

pub fn order(otherwise: Otherwise) -> Order {
    Order { cause: HandoffCause::Operator, otherwise }
}

impl World {
    /// `backends` processes with links that are up, and one session on the first.
    pub fn new(backends: u32) -> Self {
        Self::with_service(backends, service(OnCrash::Fresh))
    }

    pub fn with_service(backends: u32, service: Service) -> Self {
        let mut world = Self::empty(backends);
        world.open(Arc::new(service));
        world.settle();
        world
    }

    pub fn empty(backends: u32) -> Self {
        let hub = Hub {
            now: Duration::ZERO,
            wires: Vec::new(),
            pool_bytes: 1 << 20,
            reserved: 0,
            asks: VecDeque::new(),
        };
        let mut world = Self {
            hub,
            nodes: Vec::new(),
            sessions: Vec::new(),
            seats: Vec::new(),
            groups: BTreeMap::new(),
            answering: false,
            planted: Planted::default(),
            start: Instant::now(),
        };
        for index in 0..backends {
            world.add_backend(Settings {
                instance: InstanceId([u8::try_from(index).unwrap(); 16]),
                client_window_bytes: WINDOW,
                state_credit_bytes: 16 * 1024,
                outbox_bytes: 4096,
                deltas: true,
                groups: true,
                ..Settings::default()
            });
            world.connect(LinkId(index));
        }
        world
    }

    pub fn add_backend(&mut self, settings: Settings) {
        self.hub.wires.push(Wire {
            state: WireState::Idle,
            stalled: false,
            draining: false,
            to_backend: VecDeque::new(),
            to_proxy: VecDeque::new(),
            client_window_bytes: settings.client_window_bytes,
            state_credit_bytes: settings.state_credit_bytes,
            format: settings.writes_format.clone(),
            logic: settings.logic.clone(),
            capabilities: 0,
        });
        let knobs = Arc::new(Knobs::default());
        let mut node = Node { peer: None, knobs, settings, generation: 0, faults: 0 };
        node.start(self.now());
        self.nodes.push(node);
    }

    pub fn open(&mut self, service: Arc<Service>) -> usize {
        let index = self.sessions.len();
        let mut id = *b"session-........";
        id[15] = u8::try_from(index).unwrap();
        self.sessions.push(Session::new(SessionId(id), service, "203.0.113.9:50123".into(), OPENED_US));
        self.seats.push(Seat::default());
        self.drive(index, |session, fx| session.open(fx));
        index
    }

    pub fn now(&self) -> Now {
        Now { at: self.start + self.hub.now, wall: SystemTime::UNIX_EPOCH + self.hub.now }
    }

    pub fn drive<T>(&mut self, index: usize, act: impl FnOnce(&mut Session, &mut Fx<'_>) -> T) -> T {
        let mut fx = Fx { index, hub: &mut self.hub, seat: &mut self.seats[index] };
        let result = act(&mut self.sessions[index], &mut fx);
        self.check_always(index);
        self.answer();
        result
    }

    /// What holds after every input.
    fn check_always(&self, index: usize) {
        let (session, seat) = (&self.sessions[index], &self.seats[index]);
        let takes = matches!(session.phase(), Phase::Freezing { .. }) || session.takes_checkpoint();
        assert_eq!(seat.reserved > 0, takes, "a reservation is for a state on its way: {session:?}");
        assert_eq!(seat.ended.is_some(), *session.phase() == Phase::Ended);
        let closing = matches!(session.phase(), Phase::Closing { .. });
        assert!(seat.settled == session.link() || closing, "{:?}: {session:?}", seat.settled);
        if matches!(session.phase(), Phase::Active { .. }) {
            assert!(!seat.handoff, "an active session's handoff is over: {session:?}");
            assert!(!seat.timers.contains_key(&0), "no answer is due: {session:?}");
        }
        if *session.phase() == Phase::Parked {
            assert!(seat.timers.contains_key(&1), "a stay has its end: {session:?}");
        }
        if seat.ended.is_some() {
            assert_eq!(seat.settled, None);
        }
    }
}

/// What happens in it.
impl World {
    pub fn frame(&mut self, index: usize, frame: &[u8]) {
        if self.seats[index].paused || self.sessions[index].client() != crate::session::Client::Open {
            return;
        }
        self.seats[index].frames.push(frame.to_vec());
        let now = u64::try_from(self.hub.now.as_micros()).unwrap();
        if let Some(group) = self.seats[index].company.aboard {
            let member = self.sessions[index].id();
            let trace = TraceContext::default();
            return self.drive(group, |session, fx| session.member_frame(member, frame, trace, now, fx));
        }
        self.drive(index, |session, fx| session.frame(frame, TraceContext::default(), now, fx));
    }

    pub fn frames(&mut self, index: usize, count: usize) {
        for _ in 0..count {
            let number = self.seats[index].frames.len();
            self.frame(index, format!("frame {number}").as_bytes());
        }
    }

    pub fn leave(&mut self, index: usize, otherwise: Otherwise) -> Begun {
        if let Some(link) = self.sessions[index].link() {
            self.hub.wires[link.0 as usize].draining = true;
        }
        self.drive(index, |session, fx| session.leave(order(otherwise), fx))
    }

    pub fn wire(&mut self, link: LinkId) -> &mut Wire {
        &mut self.hub.wires[link.0 as usize]
    }

    pub fn node(&mut self, link: LinkId) -> &mut Node {
        &mut self.nodes[link.0 as usize]
    }

    pub fn knobs(&self, link: LinkId) -> &Knobs {
        &self.nodes[link.0 as usize].knobs
    }

    pub fn refuse(&mut self, link: LinkId, how: u8) {
        self.knobs(link).refuses.store(how, Ordering::Relaxed);
    }

    /// The connection breaks; the process lives. A link that nobody needs isn't missed, and is dialled again on demand.
    pub fn cut(&mut self, link: LinkId) {
        let now = self.now();
        if self.wire(link).state != WireState::Up {
            return;
        }
        let missed = self.sessions.iter().any(|session| session.concerns(link));
        let wire = self.wire(link);
        wire.to_backend.clear();
        wire.to_proxy.clear();
        wire.state = if missed { WireState::Broken } else { WireState::Idle };
        wire.stalled = false;
        self.node(link).peer.as_mut().unwrap().link_lost(now);
        for seat in &mut self.seats {
            seat.in_chunks.retain(|at| *at != link);
        }
    }

    /// The process dies, and the proxy sees it.
    pub fn kill(&mut self, link: LinkId) {
        self.cut(link);
        let node = self.node(link);
        node.faults += node.peer.take().map_or(0, |peer| peer.counts().faults);
        self.wire(link).state = WireState::Dead;
        for index in 0..self.sessions.len() {
            if self.sessions[index].concerns(link) {
                self.drive(index, |session, fx| session.attachment_lost(link, fx));
            }
        }
    }

    /// A new process under the same name.
    pub fn restart(&mut self, link: LinkId) {
        let now = self.now();
        self.node(link).settings.instance.0[1] += 1;
        self.node(link).start(now);
        self.wire(link).draining = false;
        self.connect(link);
    }

    /// The link comes up: what the worker does then.
    pub fn connect(&mut self, link: LinkId) {
        let resumed = self.wire(link).state == WireState::Broken;
        let entries = self.shake_hands(link);
        self.wire(link).state = WireState::Up;
        for index in 0..self.sessions.len() {
            let subject = self.sessions[index].subject();
            let entry = entries.iter().find(|entry| entry.subject == subject);
            if self.seats[index].ended.is_some() {
                if let Some(entry) = entry {
                    let mut bytes = Vec::new();
                    encode(&Message::Release(Release { subject, epoch: entry.epoch }), &mut bytes);
                    self.wire(link).to_backend.push_back(bytes);
                }
                continue;
            }
            let concerns = self.sessions[index].concerns(link);
            let waits = matches!(self.sessions[index].phase(), Phase::Attaching { asked: false, .. });
            self.drive(index, |session, fx| match entry {
                _ if concerns && waits => session.link_is_ready(link, fx),
                _ if concerns && !resumed => session.attachment_lost(link, fx),
                None if !concerns => {}
                entry => session.resumed(link, entry, fx),
            });
        }
        self.look_again();
    }

    pub fn look_again(&mut self) {
        for index in 0..self.sessions.len() {
            self.drive(index, |session, fx| session.look_again(fx));
        }
    }

    pub fn undrain(&mut self, link: LinkId) {
        self.wire(link).draining = false;
        self.look_again();
    }

    fn shake_hands(&mut self, link: LinkId) -> Vec<AttachmentEntry> {
        let now = self.now();
        let node = self.node(link);
        node.generation += 1;
        let hello = Hello {
            min_version: 1,
            max_version: 1,
            instance: InstanceId([0xee; 16]),
            worker: 0,
            generation: node.generation,
            max_frame_bytes: 65_536,
            liveness_ms: 3000,
            capabilities: capability::REPLAY
                | capability::DELTA
                | capability::CHECKPOINTS
                | capability::GROUPS,
            proxy: "host-a",
            service: "arena",
            proof: &[],
        };
        let peer = node.peer.as_mut().expect("a process is there");
        peer.link_up(&hello, now).expect("a newer generation");
        let mut output = std::mem::take(peer.output());
        let (welcome, length) = decode(&output, MAX_MESSAGE_BYTES).unwrap().expect("WELCOME comes first");
        let Message::Welcome(welcome) = welcome else { panic!("{welcome:?}") };
        let entries = welcome.attachments.iter().collect();
        let (capabilities, logic) = (welcome.capabilities, welcome.logic.to_owned());
        output.drain(..length);
        *peer.output() = output;
        let wire = self.wire(link);
        (wire.capabilities, wire.logic) = (capabilities, logic);
        entries
    }
}

impl Node {
    fn start(&mut self, now: Now) {
        let game = Arc::new(Chain { knobs: Arc::clone(&self.knobs) });
        let settings = Arc::new(self.settings.clone());
        self.peer = Some(Peer::new(game, settings, Population::default(), now, 1));
    }
}

/// How it goes on.
impl World {
    /// Moves one message of one link, in the direction that is asked for. `false`: nothing there.
    pub fn step(&mut self, link: LinkId, to_backend: bool) -> bool {
        self.collect(link);
        if self.wire(link).stalled || self.wire(link).state != WireState::Up {
            return false;
        }
        if to_backend {
            let now = self.now();
            let Some(bytes) = self.wire(link).to_backend.pop_front() else { return false };
            let (message, _) = decode(&bytes, MAX_MESSAGE_BYTES).unwrap().unwrap();
            let peer = self.node(link).peer.as_mut().unwrap();
            peer.receive(&message, now).unwrap_or_else(|fault| panic!("{fault:?} at {message:?}"));
            self.collect(link);
        } else {
            let Some(bytes) = self.wire(link).to_proxy.pop_front() else { return false };
            let (message, _) = decode(&bytes, MAX_MESSAGE_BYTES).unwrap().unwrap();
            self.give(link, &message);
        }
        true
    }

    /// A message reaches the proxy.
    pub fn give(&mut self, link: LinkId, message: &Message<'_>) {
        let subject = subject_of(message).unwrap_or_else(|| panic!("{message:?}"));
        let index = match subject {
            Subject::Session(id) => self.index_of(id),
            Subject::Group(id) => match self.group(id) {
                Some(index) => index,
                None => return,
            },
        };
        if self.seats[index].ended.is_none() {
            self.drive(index, |session, fx| session.message(link, message, fx));
        }
    }

    /// Takes what the backend has to say.
    fn collect(&mut self, link: LinkId) {
        let Some(peer) = &mut self.nodes[link.0 as usize].peer else { return };
        peer.flush(true);
        let output = std::mem::take(peer.output());
        let mut rest = output.as_slice();
        while let Some((_, length)) = decode(rest, MAX_MESSAGE_BYTES).unwrap() {
            self.hub.wires[link.0 as usize].to_proxy.push_back(rest[..length].to_vec());
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    /// Whoever waits for a turn to recover gets it; one that input makes suspicious, after all others.
    pub fn give_turns(&mut self) -> bool {
        let waiting = (0..self.sessions.len()).filter(|index| self.seats[*index].awaits.is_some());
        let Some(index) = waiting.min_by_key(|index| self.seats[*index].awaits) else { return false };
        self.seats[index].awaits = None;
        if self.seats[index].ended.is_none() {
            self.seats[index].recovering = true;
            self.drive(index, |session, fx| session.recover(fx));
        }
        true
    }

    pub fn send_chunks(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.sessions.len() {
            for link in std::mem::take(&mut self.seats[index].in_chunks) {
                any = true;
                let more =
                    self.drive(index, |session, fx| session.link() == Some(link) && session.send_chunk(fx));
                if more {
                    self.seats[index].in_chunks.push(link);
                }
            }
        }
        any
    }

    /// The clients read what was delivered.
    pub fn flush_clients(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.sessions.len() {
            let seat = &mut self.seats[index];
            let gone = self.sessions[index].client() == crate::session::Client::Gone;
            if seat.ended.is_some() || (seat.slow && !gone) || (seat.outbox.is_empty() && !seat.finishing) {
                continue;
            }
            let outbox = std::mem::take(&mut seat.outbox);
            if !gone {
                seat.received.extend(outbox);
            }
            any = true;
            self.drive(index, |session, fx| session.handed(fx));
            if let Some(group) = self.seats[index].company.aboard {
                self.group_handed(group);
            }
        }
        any
    }

    /// Everything that can happen without the clock moving.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut any = self.send_chunks() | self.flush_clients() | self.give_turns();
            for index in 0..self.hub.wires.len() {
                let link = LinkId(u32::try_from(index).unwrap());
                any |= self.step(link, true) | self.step(link, false);
            }
            if !any {
                return;
            }
        }
        panic!("it never settles");
    }

    /// The clock moves, and all that falls due on the way happens.
    pub fn advance(&mut self, by: Duration) {
        let end = self.hub.now + by;
        self.settle();
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            self.hub.now = self.hub.now.max(due);
            self.fire();
            self.settle();
        }
        self.hub.now = end;
    }

    fn next_due(&self) -> Option<Duration> {
        let boards =
            |seat: &Seat| seat.company.wanted.and(seat.company.not_before).filter(|due| *due > self.hub.now);
        let timers = self
            .seats
            .iter()
            .flat_map(|seat| seat.timers.values().copied().chain(seat.ack_due).chain(boards(seat)));
        let peers = self.nodes.iter().filter_map(|node| node.peer.as_ref()?.next_due());
        timers.chain(peers.map(|due| due.saturating_duration_since(self.start))).min()
    }

    fn fire(&mut self) {
        let now = self.now();
        for node in &mut self.nodes {
            if let Some(peer) = &mut node.peer {
                peer.tick(now);
            }
        }
        for index in 0..self.sessions.len() {
            let due: Vec<u8> = self.seats[index]
                .timers
                .iter()
                .filter(|(_, due)| **due <= self.hub.now)
                .map(|(n, _)| *n)
                .collect();
            for number in due {
                if self.seats[index].timers.remove(&number).is_some() {
                    self.drive(index, |session, fx| session.timer(timer(number), fx));
                }
            }
            if self.seats[index].ack_due.is_some_and(|due| due <= self.hub.now) {
                self.seats[index].ack_due = None;
                self.drive(index, |session, fx| session.send_ack(fx));
            }
            self.try_board(index);
        }
    }
}

/// What is asked of it in the end.
impl World {
    pub fn phase(&self, index: usize) -> &'static str {
        self.sessions[index].phase_name()
    }

    pub fn shown(&self, index: usize) -> Vec<Shown> {
        self.seats[index].received.iter().map(|frame| Shown::parse(frame)).collect()
    }

    /// Faults that backends found in what the proxy said.
    pub fn faults_of_the_proxy(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| node.faults + node.peer.as_ref().map_or(0, |peer| peer.counts().faults))
            .sum()
    }

    /// Every client frame was processed exactly once in order, every server frame shown exactly once in order, in one
    /// history, and nobody broke a rule.
    #[track_caller]
    pub fn assert_flawless(&self, index: usize) {
        let seat = &self.seats[index];
        assert_eq!(seat.faults, [], "faults of backends");
        assert_eq!(self.faults_of_the_proxy(), 0, "faults of the proxy");
        assert_eq!(seat.lost, 0, "frames lost");
        self.assert_in_order(index);
        let shown = self.shown(index);
        if let Some(last) = shown.last() {
            let first = shown[0].lineage;
            assert!(shown.iter().all(|shown| shown.lineage == first), "one history: {shown:?}");
            assert!(last.count as usize <= seat.frames.len());
        }
        for shown in &shown {
            let expected = chain_of(&seat.frames[..shown.count as usize]);
            assert_eq!(shown.chain, expected, "the game has processed exactly the first {}", shown.count);
        }
    }

    /// The player's last frame was answered, so all before it were processed.
    #[track_caller]
    pub fn assert_all_answered(&self, index: usize) {
        let count = self.shown(index).last().map_or(0, |shown| shown.count as usize);
        assert_eq!(count, self.seats[index].frames.len(), "answered, of what was sent");
    }

    /// Server frames are numbered on without a gap inside each history, and histories only get younger.
    #[track_caller]
    pub fn assert_in_order(&self, index: usize) {
        let mut before: Option<Shown> = None;
        for shown in self.shown(index) {
            match before {
                Some(before) if before.lineage == shown.lineage => {
                    assert_eq!(shown.number, before.number + 1, "{before:?} then {shown:?}");
                }
                Some(before) => {
                    assert!(shown.lineage > before.lineage && shown.number == 1, "{before:?} then {shown:?}");
                }
                None => assert_eq!(shown.number, 1),
            }
            before = Some(shown);
        }
    }

    #[track_caller]
    pub fn assert_ended(&self, index: usize, reason: CloseReason) {
        assert_eq!(self.seats[index].ended, Some(reason), "{:?}", self.sessions[index]);
    }

    #[track_caller]
    pub fn assert_active_on(&self, index: usize, link: LinkId) {
        assert_eq!(*self.sessions[index].phase(), Phase::Active { link }, "{:?}", self.sessions[index]);
    }
}
