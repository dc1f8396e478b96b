//! What all sessions of a worker share: links, buffers, timers, counters. A session's effects touch its own seat and
//! this.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use holdfast_protocol::{GroupId, SessionId};

use super::WorkerConfig;
use super::groups::Request;
use super::link::{Link, LinkState};
use super::mirror::Mirrors;
use super::pressure::Pressure;
use super::recovery::Recoveries;
use super::slot::{Seat, SessionKey};
use super::trace::Clock;
use crate::events::Noticed;
use crate::rollout::{Stages, stages};
use crate::routing::{Backend, BackendId, Fitness, Table};
use crate::session::LinkId;
use crate::telemetry::counters::Counters;
use crate::telemetry::ids::Ids;
use crate::telemetry::tracer::Tracer;

/// Owed acks wait this long for DATA that carries them.
pub const ACK_DELAY: Duration = Duration::from_millis(100);
/// A link's outbox is written at the end of the poll, or when it holds this much.
const LINK_FLUSH_BYTES: usize = 128 * 1024;
/// Buffers that the pool keeps, and the capacity above which a buffer isn't kept.
const POOL_BUFFERS: usize = 1024;
const POOL_BUFFER_BYTES: usize = 16 * 1024;
const NEW_BUFFER_BYTES: usize = 512;
/// For so long a link that was called ahead is wanted for that alone.
const CALL_AHEAD: Duration = Duration::from_secs(5);
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Session ids are random: eight of their bytes are as good a hash as any.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0u8; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0 ^= u64::from_le_bytes(word);
    }

    fn write_usize(&mut self, _length: usize) {}
}

/// What is due when, for whom: the number is that of `timer_index`.
pub type Timers = BTreeSet<(Instant, SessionKey, u8)>;

pub type ById = HashMap<SessionId, SessionKey, BuildHasherDefault<IdHasher>>;

/// The shared part of a worker.
pub struct Hub {
    pub config: Arc<WorkerConfig>,
    pub table: Arc<Table>,
    /// What is to be done for the table's rollouts.
    pub stages: Stages,
    pub fitness: Arc<Fitness>,
    pub links: Vec<Link>,
    pub link_of: HashMap<BackendId, LinkId>,
    /// Places of links that are no longer needed.
    pub free_links: Vec<LinkId>,
    /// Links on which a drain runs.
    pub draining: Vec<LinkId>,
    /// Links made since the last look, whose tasks are to be started.
    pub new_links: Vec<LinkId>,
    pub counters: Arc<Counters>,
    pub tracer: Tracer,
    pub ids: Ids,
    pub clock: Clock,
    /// The time of the poll that is being handled.
    pub now: Instant,
    pub timers: Timers,
    /// Those that need not be on time: they are looked at whenever the worker is awake.
    pub checkpoints: Timers,
    pub owed_acks: Vec<SessionKey>,
    pub owed_due: Option<Instant>,
    pub dirty_clients: Vec<SessionKey>,
    pub dirty_links: Vec<LinkId>,
    /// Sessions that ended during this turn.
    pub ended: Vec<SessionKey>,
    /// What groups asked for in this turn, and the bytes for members' clients.
    pub requests: Vec<Request>,
    pub relay: Vec<u8>,
    /// Groups that ended a moment ago.
    pub released_groups: std::collections::VecDeque<(Instant, GroupId)>,
    /// Sessions have been parked in this turn.
    pub parked_anew: bool,
    /// Parked sessions that may look for a backend again, and how many of them are attaching.
    pub returning: std::collections::VecDeque<SessionKey>,
    pub returning_in_flight: u32,
    pub recoveries: Recoveries,
    pub mirrors: Mirrors,
    /// What the worker holds, against its bound.
    pub pressure: Pressure,
    /// A bound that held back clients does so no longer.
    pub relieved: bool,
    /// A backend that was at a bound may be below it again.
    pub room: bool,
    /// When the first bytes came that wait for the end of the poll.
    pub unflushed_since: Option<Instant>,
    /// Sessions by service, where there are any.
    pub population: HashMap<Arc<str>, u32>,
    /// Numbers links, all of this worker in one row.
    pub generation: u64,
    turned_away: Option<Instant>,
    buffers: Vec<Vec<u8>>,
}

impl Hub {
    /// A word to the control plane, which makes events of it.
    pub fn notice(&self, backend: &BackendId, what: impl FnOnce() -> Noticed) {
        self.config.notices.tell(self.config.index, backend, what);
    }

    pub fn new(config: Arc<WorkerConfig>, table: Arc<Table>) -> Self {
        Self {
            stages: stages(&table, &config.rollouts.load()),
            table,
            fitness: Arc::default(),
            links: Vec::new(),
            link_of: HashMap::new(),
            free_links: Vec::new(),
            draining: Vec::new(),
            new_links: Vec::new(),
            counters: Arc::clone(&config.counters),
            tracer: config.tracer.clone(),
            ids: Ids::default(),
            clock: Clock::new(),
            now: Instant::now(),
            timers: Timers::new(),
            checkpoints: Timers::new(),
            owed_acks: Vec::new(),
            owed_due: None,
            dirty_clients: Vec::new(),
            dirty_links: Vec::new(),
            ended: Vec::new(),
            requests: Vec::new(),
            relay: Vec::new(),
            released_groups: std::collections::VecDeque::new(),
            parked_anew: false,
            returning: std::collections::VecDeque::new(),
            returning_in_flight: 0,
            recoveries: Recoveries::default(),
            mirrors: Mirrors::default(),
            pressure: Pressure::new(&config),
            relieved: false,
            room: false,
            unflushed_since: None,
            population: HashMap::new(),
            generation: 0,
            turned_away: None,
            buffers: Vec::new(),
            config,
        }
    }

    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id.0 as usize]
    }

    pub fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id.0 as usize]
    }

    pub fn link_ids(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..u32::try_from(self.links.len()).unwrap_or(u32::MAX)).map(LinkId)
    }

    /// The link to this backend; made when first asked for, dialled when first needed.
    pub fn link_for(&mut self, backend: &Arc<Backend>) -> LinkId {
        if let Some(id) = self.link_of.get(&backend.id) {
            return *id;
        }
        let mut link = Link::new(Arc::clone(backend), self.now);
        link.causes.key = self.table.drains.get(&backend.id).map(|order| (Arc::clone(order), self.now));
        let id = match self.free_links.pop() {
            Some(free) => {
                *self.link_mut(free) = link;
                free
            }
            None => {
                self.links.push(link);
                LinkId(u32::try_from(self.links.len() - 1).expect("fewer than 2^32 backends"))
            }
        };
        self.link_of.insert(backend.id.clone(), id);
        self.mark_unfit(id);
        self.new_links.push(id);
        id
    }

    /// The backend beside this proxy: as it is listed, or else, if it is to be registered as it says it is, by its
    /// address alone. Nobody is sent to one that isn't listed.
    pub fn local_backend(&self) -> Option<Arc<Backend>> {
        let (id, address) = self.config.local.as_ref()?;
        let listed = self.table.backends.get(id).cloned();
        let unlisted = || {
            let (id, address) = (id.clone(), address.clone());
            let no_version = Arc::from("");
            Arc::new(Backend { id, address, version: no_version, weight: 0, zone: None, capacity: None })
        };
        listed.or_else(|| self.is_kept(id).then(unlisted))
    }

    /// Whether there is a use for a link to it: it is listed, or is to be registered. What its frames may measure is
    /// said at the handshake, so its service must be known.
    pub fn is_kept(&self, backend: &BackendId) -> bool {
        let registers = self.config.registers_local && self.is_local(backend);
        self.table.backends.contains_key(backend)
            || (registers && self.table.services.contains_key(&*backend.service))
    }

    pub fn is_local(&self, backend: &BackendId) -> bool {
        self.config.local.as_ref().is_some_and(|(local, _)| local == backend)
    }

    pub fn mark_link(&mut self, id: LinkId) {
        let bound = self.config.link_outbox_bytes;
        let link = &mut self.links[id.0 as usize];
        if !link.dirty {
            link.dirty = true;
            self.dirty_links.push(id);
            self.unflushed_since.get_or_insert(self.now);
        }
        let waiting = link.outbox.waiting();
        link.congested |= waiting as u64 > bound;
        // What the socket didn't take a moment ago it takes when it says so.
        if waiting > LINK_FLUSH_BYTES && link.stuck_since.is_none() {
            self.write_link(id);
        }
    }

    /// Writes what the link's socket takes. `true`: all is out, and there is room for more.
    pub fn write_link(&mut self, id: LinkId) -> bool {
        let link = &mut self.links[id.0 as usize];
        let Some(stream) = &mut link.stream else {
            link.outbox.clear();
            self.account_link(id);
            return true;
        };
        let before = link.outbox.waiting();
        let waker = link.waker.as_ref().unwrap_or(Waker::noop());
        let written = link.outbox.poll_out(stream, &mut Context::from_waker(waker));
        let waiting = link.outbox.waiting();
        link.stuck_since = match link.stuck_since {
            _ if written.is_ready() => None,
            Some(since) if waiting == before => Some(since),
            _ => Some(self.now),
        };
        if link.congested && waiting as u64 <= self.config.link_outbox_bytes / 2 {
            link.congested = false;
            self.relieved = true;
        }
        self.account_link(id);
        let link = &mut self.links[id.0 as usize];
        match written {
            Poll::Ready(Ok(())) => {
                if link.outbox.bytes.capacity() > 4 * LINK_FLUSH_BYTES {
                    link.outbox.bytes.shrink_to(LINK_FLUSH_BYTES);
                }
                true
            }
            Poll::Ready(Err(error)) => {
                // Nothing gets out any more: whoever has more to send must not try on.
                link.doom(format!("write: {error}"));
                false
            }
            Poll::Pending => false,
        }
    }

    /// Whether a client that is turned away may be a line in the log: one a second, however many they are.
    pub fn may_complain(&mut self) -> bool {
        let quiet =
            self.turned_away.is_none_or(|last| self.now.saturating_duration_since(last) >= COMPLAIN_EVERY);
        if quiet {
            self.turned_away = Some(self.now);
        }
        quiet
    }

    pub fn set_unprotected(&self, seat: &mut Seat, unprotected: bool) {
        match (std::mem::replace(&mut seat.unprotected, unprotected), unprotected) {
            (false, true) => self.counters.unprotected.add(1),
            (true, false) => self.counters.unprotected.sub(1),
            _ => {}
        }
    }

    /// Somebody needs this link.
    pub fn demand(&self, id: LinkId) {
        let link = self.link(id);
        if matches!(link.state, LinkState::Idle | LinkState::Dead) {
            link.demand.notify_one();
        }
    }

    /// Somebody will need this link in a moment.
    pub fn call_ahead(&mut self, id: LinkId) {
        self.keep_ahead(id);
        self.demand(id);
    }

    /// The same, without hurry.
    pub fn keep_ahead(&mut self, id: LinkId) {
        let until = self.now + CALL_AHEAD;
        self.link_mut(id).called_ahead = Some(until);
    }

    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(NEW_BUFFER_BYTES))
    }

    pub fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        let fits = buffer.capacity() > 0 && buffer.capacity() <= POOL_BUFFER_BYTES;
        if fits && self.buffers.len() < POOL_BUFFERS {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
