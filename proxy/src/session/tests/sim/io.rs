//! Time and the network: a queue of what happens when, and byte streams that are slow, split anywhere, cut anywhere.
//!
//! Within a connection bytes stay in order; between connections there is no order. A connection's two ends learn of
//! its end each at its own time, or never.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use holdfast_backend::core::{JobId, Now};

use super::trace::Trace;
use crate::session::LinkId;

/// Since the start of the world.
pub type Time = Duration;

/// A moment that never comes.
pub const NEVER: Time = Duration::from_secs(1 << 40);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub usize);

/// Who holds an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A proxy's side of a link.
    Link(usize, LinkId),
    /// A run of a backend.
    Process(usize, u64),
    /// A proxy's side of a player's connection.
    Client(usize, usize),
    Player(usize),
}

/// What happens at a time.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// This end of a connection may have something to read, or room to write.
    Socket(ConnId, usize),
    /// Something is due in this proxy.
    Clock(usize),
    /// The proxy is about to sleep: what waits is written.
    Flush(usize),
    /// The task of a link has slept long enough.
    Task(usize),
    /// Nobody listens where a link was dialled.
    Refused(usize, LinkId, u64),
    /// Something is due in this run of a backend.
    Process(usize, u64),
    /// Spawned work is done: backend, run, proxy.
    Job(usize, u64, usize, JobId),
    Player(usize),
    Fault(usize),
    Thaw(usize, u64),
    /// A backend's process is started.
    Boot(usize),
    /// What a fault changed for a while is as it was.
    Mend(usize),
    /// All faults are over.
    Calm,
}

struct Entry {
    at: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The greatest is the next.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// More than any world takes: something goes round in circles.
const MAX_EVENTS: u64 = 2_000_000;

/// How a connection is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub latency: Duration,
    pub jitter: Duration,
    pub bytes_per_ms: u64,
    /// What it takes before its reader reads.
    pub capacity: usize,
    /// One in so many pieces is a small one.
    pub splits: u32,
}

struct Pipe {
    in_flight: VecDeque<(Time, Vec<u8>)>,
    arrived: Vec<u8>,
    load: usize,
    last: Time,
    held_until: Time,
    /// The writer has ended it.
    ended: bool,
    /// Bytes written go nowhere.
    lost: bool,
    blocked: bool,
}

struct Conn {
    holders: [Holder; 2],
    shape: Shape,
    /// `pipes[end]` carries what that end writes.
    pipes: [Pipe; 2],
    /// When each end learns that the connection is broken.
    broken_at: [Time; 2],
    closed: [bool; 2],
}

/// What a read brought.
#[derive(Debug)]
pub enum Read {
    Bytes(Vec<u8>),
    Nothing,
    /// The other end has written its last byte.
    End,
    Reset,
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    All,
    Some,
    Failed,
}

/// Time, chance, the network and the record of what happened.
pub struct Io {
    pub now: Time,
    pub start: Instant,
    pub rng: Rng,
    pub trace: Trace,
    /// How links are.
    pub link_shape: Shape,
    /// By backend: the run that listens there.
    pub listening: Vec<Option<u64>>,
    /// Nothing passes between a proxy and a backend before then.
    held: BTreeMap<(usize, usize), Time>,
    queue: BinaryHeap<Entry>,
    numbers: u64,
    conns: Vec<Conn>,
    /// What members were told of their matches: by match, when it was formed and count, the chain.
    pub matches: BTreeMap<(u8, u64, u32), u64>,
}

impl Io {
    pub fn new(rng: Rng, trace: Trace, link_shape: Shape, backends: usize) -> Self {
        Self {
            now: Duration::ZERO,
            start: Instant::now(),
            rng,
            trace,
            link_shape,
            listening: vec![None; backends],
            held: BTreeMap::new(),
            queue: BinaryHeap::new(),
            numbers: 0,
            conns: Vec::new(),
            matches: BTreeMap::new(),
        }
    }

    /// The time as the SDK wants it.
    pub fn moment(&self) -> Now {
        Now { at: self.start + self.now, wall: SystemTime::UNIX_EPOCH + self.now }
    }

    pub fn at(&mut self, at: Time, event: Event) {
        self.numbers += 1;
        self.queue.push(Entry { at: at.max(self.now), number: self.numbers, event });
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event; the clock moves there.
    pub fn next(&mut self) -> Option<Event> {
        let entry = self.queue.pop()?;
        self.now = entry.at;
        assert!(self.numbers < MAX_EVENTS, "{MAX_EVENTS} events, now {:?} at {:?}", entry.event, self.now);
        Some(entry.event)
    }

    /// A duration up to `most`.
    pub fn some(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap();
        Duration::from_micros(self.rng.u64(0..=most))
    }

    pub fn open(&mut self, holders: [Holder; 2], shape: Shape) -> ConnId {
        let pipe = || Pipe {
            in_flight: VecDeque::new(),
            arrived: Vec::new(),
            load: 0,
            last: Duration::ZERO,
            held_until: Duration::ZERO,
            ended: false,
            lost: false,
            blocked: false,
        };
        let pipes = [pipe(), pipe()];
        self.conns.push(Conn { holders, shape, pipes, broken_at: [NEVER; 2], closed: [false; 2] });
        ConnId(self.conns.len() - 1)
    }

    pub fn holder(&self, conn: ConnId, end: usize) -> Holder {
        self.conns[conn.0].holders[end]
    }

    /// Writes what the connection takes of `bytes`, and removes it from there.
    pub fn write(&mut self, conn: ConnId, end: usize, bytes: &mut Vec<u8>) -> Written {
        let now = self.now;
        let it = &mut self.conns[conn.0];
        if it.broken_at[end] <= now || it.closed[end] || it.closed[1 - end] {
            return Written::Failed;
        }
        let (shape, pipe) = (it.shape, &mut it.pipes[end]);
        let taken = bytes.len().min(shape.capacity - pipe.load);
        let mut rest: Vec<u8> = bytes.drain(..taken).collect();
        pipe.blocked |= !bytes.is_empty();
        let done = if bytes.is_empty() { Written::All } else { Written::Some };
        if pipe.lost {
            return done;
        }
        pipe.load += taken;
        let mut arrivals = Vec::new();
        while !rest.is_empty() {
            let small = shape.splits > 0 && self.rng.u32(0..shape.splits) == 0;
            let most = if small { rest.len().min(64) } else { rest.len() };
            let length = if small { self.rng.usize(1..=most) } else { most };
            let after = rest.split_off(length);
            let jitter = self.rng.u64(0..=u64::try_from(shape.jitter.as_micros()).unwrap());
            let transfer = length as u64 * 1000 / shape.bytes_per_ms.max(1);
            // A late piece holds up those behind it; the next isn't later for that.
            let comes = now + shape.latency + Duration::from_micros(jitter);
            pipe.last = comes.max(pipe.last).max(pipe.held_until) + Duration::from_micros(transfer);
            pipe.in_flight.push_back((pipe.last, rest));
            arrivals.push(pipe.last);
            rest = after;
        }
        for at in arrivals {
            self.at(at, Event::Socket(conn, 1 - end));
        }
        done
    }

    /// Reads up to `most` bytes of what has arrived.
    pub fn read(&mut self, conn: ConnId, end: usize, most: usize) -> Read {
        let now = self.now;
        let it = &mut self.conns[conn.0];
        if it.closed[end] || it.broken_at[end] <= now {
            return Read::Reset;
        }
        let latency = it.shape.latency;
        let pipe = &mut it.pipes[1 - end];
        while pipe.in_flight.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = pipe.in_flight.pop_front().expect("there is a front");
            pipe.arrived.extend_from_slice(&bytes);
        }
        if pipe.arrived.is_empty() {
            let over = pipe.ended && pipe.in_flight.is_empty() && pipe.last <= now;
            return if over { Read::End } else { Read::Nothing };
        }
        let length = pipe.arrived.len().min(most);
        let rest = pipe.arrived.split_off(length);
        let bytes = std::mem::replace(&mut pipe.arrived, rest);
        pipe.load -= length;
        let wakes = std::mem::take(&mut pipe.blocked);
        let more = !pipe.arrived.is_empty();
        if wakes {
            self.after(latency, Event::Socket(conn, 1 - end));
        }
        if more {
            self.at(now, Event::Socket(conn, end));
        }
        Read::Bytes(bytes)
    }

    /// That end writes no more; what it has written still arrives.
    pub fn end(&mut self, conn: ConnId, end: usize) {
        let now = self.now;
        let it = &mut self.conns[conn.0];
        let pipe = &mut it.pipes[end];
        if std::mem::replace(&mut pipe.ended, true) || pipe.lost {
            return;
        }
        pipe.last = pipe.last.max(now + it.shape.latency).max(pipe.held_until);
        let at = pipe.last;
        self.at(at, Event::Socket(conn, 1 - end));
    }

    /// That end is gone; what it has written still arrives.
    pub fn close(&mut self, conn: ConnId, end: usize) {
        self.end(conn, end);
        self.conns[conn.0].closed[end] = true;
    }

    /// The other end has closed, and this one could know.
    pub fn is_hung_up(&self, conn: ConnId, end: usize) -> bool {
        let it = &self.conns[conn.0];
        it.broken_at[end] <= self.now || (it.closed[1 - end] && it.pipes[1 - end].last <= self.now)
    }

    /// The connection breaks; each end learns of it after its delay (`None`: it isn't told). What hasn't arrived is
    /// lost, from any byte on.
    pub fn cut(&mut self, conn: ConnId, told: [Option<Duration>; 2]) {
        let now = self.now;
        for (end, told) in told.into_iter().enumerate() {
            let it = &mut self.conns[conn.0];
            let at = told.map_or(NEVER, |delay| now + delay).min(it.broken_at[end]);
            it.broken_at[end] = at;
            let pipe = &mut it.pipes[end];
            pipe.lost = true;
            // The first piece that is still on its way arrives in part.
            let arrived = pipe.in_flight.iter().take_while(|(at, _)| *at <= now).count();
            pipe.in_flight.truncate(arrived + 1);
            if let Some((_, bytes)) = pipe.in_flight.get_mut(arrived) {
                bytes.truncate(self.rng.usize(0..=bytes.len()));
            }
            if at < NEVER {
                self.at(at, Event::Socket(conn, end));
            }
        }
    }

    /// Nothing arrives before `until`, in either direction; nothing is lost.
    pub fn hold(&mut self, conn: ConnId, until: Time) {
        let now = self.now;
        for end in 0..2 {
            let pipe = &mut self.conns[conn.0].pipes[end];
            pipe.held_until = pipe.held_until.max(until);
            for (at, _) in pipe.in_flight.iter_mut().filter(|(at, _)| *at > now) {
                *at = until.max(*at);
            }
            pipe.last = pipe.last.max(until);
            self.at(until.max(now), Event::Socket(conn, 1 - end));
        }
    }

    /// Nothing passes between a proxy and a backend for a while; nothing is lost.
    pub fn part(&mut self, proxy: usize, backend: usize, lasts: Duration) {
        let until = self.now + lasts;
        let held = self.held.entry((proxy, backend)).or_default();
        *held = until.max(*held);
        for conn in self.conns_between(proxy, backend) {
            self.hold(conn, until);
        }
    }

    pub fn held_until(&self, proxy: usize, backend: usize) -> Time {
        self.held.get(&(proxy, backend)).copied().unwrap_or_default()
    }

    /// Links of that proxy to that backend that nobody has closed.
    pub fn conns_between(&self, proxy: usize, backend: usize) -> Vec<ConnId> {
        let between = |conn: &Conn| match conn.holders {
            [Holder::Link(from, _), Holder::Process(to, _)] => (from, to) == (proxy, backend),
            _ => false,
        };
        let open = |conn: &Conn| between(conn) && conn.closed == [false; 2];
        (0..self.conns.len()).map(ConnId).filter(|conn| open(&self.conns[conn.0])).collect()
    }

    /// Connections of that run of a backend that nobody has closed.
    pub fn conns_of(&self, backend: usize, run: u64) -> Vec<ConnId> {
        let of = Holder::Process(backend, run);
        let open = |conn: &Conn| conn.holders[1] == of && conn.closed == [false; 2];
        (0..self.conns.len()).map(ConnId).filter(|conn| open(&self.conns[conn.0])).collect()
    }
}
