//! A backend: runs of a game server, one after the other, on the SDK's own core. Mirrors the SDK's `server::task`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use holdfast_backend::core::{DrainOrder, JobId, JobOrder, LinkEnd, Peer};
use holdfast_backend::{Population, Settings};
use holdfast_protocol::message::{Fault, FaultScope, Hello, Message};
use holdfast_protocol::{InstanceId, MAX_MESSAGE_BYTES, decode, decode_first, encode};

use super::game::{Chain, Knobs};
use super::io::{ConnId, Event, Io, Read, Time, Written};
use super::plan::Plan;

/// The backend's end of a link.
const HERE: usize = 1;
const MIN_LIVENESS: Duration = Duration::from_millis(500);

type Work = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

/// The place of a backend, whatever process runs there.
pub struct Backend {
    pub index: usize,
    pub knobs: Arc<Knobs>,
    pub run: u64,
    pub process: Option<Process>,
    /// Faults that this side has found in what the proxies said.
    pub faults: u64,
    settings: Settings,
    turn: usize,
    work: Duration,
}

/// One run.
pub struct Process {
    game: Arc<Chain>,
    settings: Arc<Settings>,
    pub population: Population,
    /// By proxy.
    desks: BTreeMap<usize, Desk>,
    /// Connections that haven't said HELLO.
    callers: Vec<(ConnId, Vec<u8>)>,
    pub drain: Option<DrainOrder>,
    /// It is stopped until then.
    pub stalled_until: Option<Time>,
    clock_due: Option<Time>,
}

/// What serves one proxy's worker (`PeerTask`).
struct Desk {
    peer: Peer<Chain>,
    link: Option<LiveLink>,
    jobs: BTreeMap<u64, (JobId, Work)>,
    numbers: u64,
}

struct LiveLink {
    conn: ConnId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    unread: bool,
    heard: Time,
    pinged: Time,
    liveness: Duration,
}

impl Backend {
    pub fn new(index: usize, plan: &Plan) -> Self {
        let knobs = Arc::new(Knobs::default());
        knobs.padding.store(plan.padding, Ordering::Relaxed);
        knobs.tick_us.store(u64::try_from(plan.tick.as_micros()).unwrap(), Ordering::Relaxed);
        let settings = Settings {
            client_window_bytes: plan.client_window_bytes,
            state_credit_bytes: plan.state_credit_bytes,
            outbox_bytes: plan.outbox_bytes,
            orphan_deadline: plan.orphan_deadline,
            deltas: true,
            groups: true,
            logic: "1".into(),
            ..Settings::default()
        };
        let (turn, work) = (plan.turn, plan.work);
        Self { index, knobs, run: 0, process: None, faults: 0, settings, turn, work }
    }

    /// A new process under this name.
    pub fn boot(&mut self, io: &mut Io) {
        if self.process.is_some() {
            return;
        }
        self.run += 1;
        let mut instance = [u8::try_from(self.index).unwrap(); 16];
        instance[8..].copy_from_slice(&self.run.to_be_bytes());
        let settings = Settings { instance: InstanceId(instance), ..self.settings.clone() };
        self.process = Some(Process {
            game: Arc::new(Chain { knobs: Arc::clone(&self.knobs) }),
            settings: Arc::new(settings),
            population: Population::default(),
            desks: BTreeMap::new(),
            callers: Vec::new(),
            drain: None,
            stalled_until: None,
            clock_due: None,
        });
        io.listening[self.index] = Some(self.run);
        let numbers = [self.index as u64, self.run];
        io.trace.event(io.now, "boot", &numbers, || format!("b{} run {}", self.index, self.run));
    }

    /// The process ends, in an instant. Whoever has a connection to it learns of it.
    pub fn kill(&mut self, io: &mut Io) {
        let Some(process) = self.process.take() else { return };
        io.listening[self.index] = None;
        let latency = io.link_shape.latency;
        for conn in io.conns_of(self.index, self.run) {
            io.cut(conn, [Some(latency), Some(Duration::ZERO)]);
            io.close(conn, HERE);
        }
        self.faults += process.faults();
        io.trace.event(io.now, "dead", &[self.index as u64], || format!("b{} run {}", self.index, self.run));
    }

    /// The process has ended by itself: what it has written still arrives.
    pub fn end(&mut self, io: &mut Io) {
        let Some(process) = self.process.take() else { return };
        io.listening[self.index] = None;
        for conn in io.conns_of(self.index, self.run) {
            io.close(conn, HERE);
        }
        self.faults += process.faults();
        io.trace.event(io.now, "exit", &[self.index as u64], || format!("b{} run {}", self.index, self.run));
    }

    /// SIGSTOP, and SIGCONT later.
    pub fn stall(&mut self, lasts: Duration, io: &mut Io) {
        let Some(process) = &mut self.process else { return };
        if process.stalled_until.is_none() {
            process.stalled_until = Some(io.now + lasts);
            io.after(lasts, Event::Thaw(self.index, self.run));
        }
    }

    pub fn thaw(&mut self, run: u64, io: &mut Io) {
        let Some(process) = self.process.as_mut().filter(|_| run == self.run) else { return };
        process.stalled_until = None;
        process.clock_due = None;
        for conn in io.conns_of(self.index, run) {
            io.at(io.now, Event::Socket(conn, HERE));
        }
        self.clock(run, io);
    }

    /// SIGTERM.
    pub fn term(&mut self, deadline: Duration, returns: bool, io: &mut Io) {
        let moment = io.moment();
        let Some(process) = self.process.as_mut().filter(|process| process.drain.is_none()) else { return };
        let order = DrainOrder { deadline: moment.at + deadline, returns };
        process.drain = Some(order);
        process.desks.values_mut().for_each(|desk| desk.peer.drain(order, moment));
        io.after(deadline, Event::Process(self.index, self.run));
        self.clock(self.run, io);
    }

    /// It has drained, or its time for it is over.
    pub fn is_finished(&self, now: Instant) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let over = |order: DrainOrder| process.population.get() == 0 || order.deadline <= now;
            process.stalled_until.is_none() && process.drain.is_some_and(over)
        })
    }

    fn running(&mut self, run: u64) -> Option<&mut Process> {
        let current = run == self.run;
        self.process.as_mut().filter(|process| current && process.stalled_until.is_none())
    }

    pub fn socket(&mut self, run: u64, conn: ConnId, io: &mut Io) {
        let (index, turn) = (self.index, self.turn);
        let Some(process) = self.running(run) else { return };
        let desk =
            process.desks.iter().find(|(_, desk)| desk.link.as_ref().is_some_and(|it| it.conn == conn));
        match desk.map(|(proxy, _)| *proxy) {
            Some(proxy) => process.read(proxy, turn, io),
            None => process.call(conn, io),
        }
        self.settle(index, run, io);
    }

    /// Something is due.
    pub fn clock(&mut self, run: u64, io: &mut Io) {
        let (index, turn) = (self.index, self.turn);
        let Some(process) = self.running(run) else { return };
        process.clock_due = None;
        for proxy in process.desks.keys().copied().collect::<Vec<_>>() {
            let desk = process.desks.get_mut(&proxy).expect("just listed");
            if desk.link.as_ref().is_some_and(|link| link.unread) {
                process.take_messages(proxy, turn, io);
            }
            process.tick(proxy, io);
        }
        self.settle(index, run, io);
    }

    pub fn job(&mut self, run: u64, proxy: usize, job: JobId, io: &mut Io) {
        let index = self.index;
        // A stopped process finds it done when it goes on.
        if let Some(until) = self.process.as_ref().and_then(|process| process.stalled_until) {
            return io.at(until, Event::Job(index, run, proxy, job));
        }
        let Some(desk) = self.running(run).and_then(|process| process.desks.get_mut(&proxy)) else { return };
        let Some(number) = desk.jobs.iter().find(|(_, (id, _))| *id == job).map(|(number, _)| *number) else {
            return;
        };
        let (_, mut work) = desk.jobs.remove(&number).expect("just found");
        let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the game's work waits for nothing");
        };
        desk.peer.finished(job, Some(result), io.moment());
        self.settle(index, run, io);
    }

    /// Ends the batch: begins work, writes what there is, sets the clock (`PeerTask::push`).
    fn settle(&mut self, index: usize, run: u64, io: &mut Io) {
        let work = self.work;
        let Some(process) = self.process.as_mut() else { return };
        for (proxy, desk) in &mut process.desks {
            desk.push(index, run, *proxy, work, io);
        }
        process.retire();
        let due = process.desks.values().filter_map(|desk| desk.due(io)).min();
        if let Some(due) = due
            && process.clock_due.is_none_or(|before| due < before)
        {
            process.clock_due = Some(due);
            io.at(due, Event::Process(index, run));
        }
    }
}

impl Process {
    fn faults(&self) -> u64 {
        self.desks.values().map(|desk| desk.peer.counts().faults).sum()
    }

    /// A task with neither link nor sessions ends.
    fn retire(&mut self) {
        self.desks.retain(|_, desk| {
            assert_eq!(desk.peer.counts().faults, 0, "the proxy breaks no rule");
            desk.link.is_some() || !desk.peer.is_idle()
        });
    }

    /// A connection that hasn't said HELLO yet.
    fn call(&mut self, conn: ConnId, io: &mut Io) {
        let at = self.callers.iter().position(|(known, _)| *known == conn).unwrap_or_else(|| {
            self.callers.push((conn, Vec::new()));
            self.callers.len() - 1
        });
        match io.read(conn, HERE, usize::MAX) {
            Read::Nothing => return,
            Read::Bytes(bytes) => self.callers[at].1.extend_from_slice(&bytes),
            Read::End | Read::Reset => {
                self.callers.remove(at);
                return io.close(conn, HERE);
            }
        }
        let bytes = std::mem::take(&mut self.callers[at].1);
        let Some((message, length)) = decode_first(&bytes, MAX_MESSAGE_BYTES).expect("a HELLO") else {
            self.callers[at].1 = bytes;
            return;
        };
        self.callers.remove(at);
        let Message::Hello(hello) = message else { panic!("{message:?}") };
        self.take_link(conn, &hello, bytes[length..].to_vec(), io);
    }

    fn take_link(&mut self, conn: ConnId, hello: &Hello<'_>, inbox: Vec<u8>, io: &mut Io) {
        let (moment, proxy) = (io.moment(), usize::from(hello.instance.0[0]));
        let seed = io.rng.u64(..);
        let desk = self.desks.entry(proxy).or_insert_with(|| {
            let (game, settings) = (Arc::clone(&self.game), Arc::clone(&self.settings));
            let peer = Peer::new(game, settings, self.population.clone(), moment, seed);
            Desk { peer, link: None, jobs: BTreeMap::new(), numbers: 0 }
        });
        if let Some(order) = self.drain {
            desk.peer.drain(order, moment);
        }
        if let Err(fault) = desk.peer.link_up(hello, moment) {
            let mut bytes = Vec::new();
            let (scope, rule, text) = (FaultScope::Link, fault.rule, fault.text.as_str());
            encode(&Message::Fault(Fault { scope, rule, text }), &mut bytes);
            io.write(conn, HERE, &mut bytes);
            return io.close(conn, HERE);
        }
        let liveness = Duration::from_millis(hello.liveness_ms.into()).max(MIN_LIVENESS);
        let (heard, pinged) = (io.now, io.now);
        let link = LiveLink { conn, inbox, outbox: Vec::new(), unread: true, heard, pinged, liveness };
        if let Some(old) = desk.link.replace(link) {
            io.close(old.conn, HERE);
        }
    }

    fn read(&mut self, proxy: usize, turn: usize, io: &mut Io) {
        let desk = self.desks.get_mut(&proxy).expect("it has the connection");
        let Some(live) = &mut desk.link else { return };
        let most = io.rng.usize(1..=65_536);
        match io.read(live.conn, HERE, most) {
            Read::Nothing => {}
            Read::Bytes(bytes) => {
                live.inbox.extend_from_slice(&bytes);
                self.take_messages(proxy, turn, io);
            }
            Read::End | Read::Reset => desk.lose_link(io),
        }
    }

    fn take_messages(&mut self, proxy: usize, turn: usize, io: &mut Io) {
        let desk = self.desks.get_mut(&proxy).expect("it has a link");
        let Some(live) = &mut desk.link else { return };
        let (mut at, mut left) = (0, turn);
        live.unread = false;
        live.heard = io.now;
        while let Some((message, length)) = decode(&live.inbox[at..], MAX_MESSAGE_BYTES).expect("good bytes")
        {
            if left == 0 {
                live.unread = true;
                break;
            }
            left -= 1;
            at += length;
            match desk.peer.receive(&message, io.moment()) {
                Ok(()) => {}
                Err(LinkEnd::Fault(fault) | LinkEnd::Told(fault)) => panic!("{fault} at {message:?}"),
            }
        }
        live.inbox.drain(..at);
    }

    fn tick(&mut self, proxy: usize, io: &mut Io) {
        let moment = io.moment();
        let desk = self.desks.get_mut(&proxy).expect("just listed");
        if desk.peer.next_due().is_some_and(|due| due <= moment.at) {
            desk.peer.tick(moment);
        }
        let Some(live) = &mut desk.link else { return };
        if live.heard + live.liveness <= io.now {
            desk.lose_link(io);
        } else if live.ping_at() <= io.now {
            live.pinged = io.now;
            desk.peer.ping();
        }
    }
}

impl LiveLink {
    fn ping_at(&self) -> Time {
        self.heard.max(self.pinged) + self.liveness / 3
    }
}

impl Desk {
    fn lose_link(&mut self, io: &mut Io) {
        let Some(live) = self.link.take() else { return };
        io.close(live.conn, HERE);
        self.peer.link_lost(io.moment());
    }

    fn push(&mut self, index: usize, run: u64, proxy: usize, work: Duration, io: &mut Io) {
        for order in self.peer.job_orders() {
            match order {
                JobOrder::Begin(id, work_itself) => {
                    self.numbers += 1;
                    self.jobs.insert(self.numbers, (id, work_itself));
                    let takes = io.some(work);
                    io.after(takes, Event::Job(index, run, proxy, id));
                }
                JobOrder::Abort(id) => self.jobs.retain(|_, (known, _)| *known != id),
            }
        }
        let Some(live) = &mut self.link else { return };
        self.peer.flush(live.outbox.is_empty());
        live.outbox.append(self.peer.output());
        if !live.outbox.is_empty() && io.write(live.conn, HERE, &mut live.outbox) == Written::Failed {
            self.lose_link(io);
        }
    }

    /// When it wants its turn.
    fn due(&self, io: &Io) -> Option<Time> {
        let peer = self.peer.next_due().map(|due| due.saturating_duration_since(io.start));
        let Some(live) = &self.link else { return peer };
        let more = self.peer.has_more() && live.outbox.is_empty();
        let now = (more || live.unread).then_some(io.now);
        let silent = live.ping_at().min(live.heard + live.liveness);
        [peer, now, Some(silent)].into_iter().flatten().min()
    }
}
