//! A core's runtime: accepts clients, reads and writes sockets, speaks links; drives the sessions on it.
//!
//! A worker is one thread with a current-thread runtime. Its sessions and links live in a thread-local that only its
//! own tasks touch: nothing is shared with other workers, nothing is locked. All frames that became readable in one
//! poll leave on the link in one write, just before the thread would sleep; all frames read from a link in one read
//! are grouped by session and leave in one write a session.

pub mod accept;
mod breaker;
mod check;
mod client;
mod clock;
pub mod command;
mod control;
mod dial;
mod drain_report;
mod drains;
mod fx;
pub mod groups;
mod hub;
mod link;
mod link_io;
mod link_life;
mod mirror;
mod placing;
mod pressure;
mod rebalance;
mod recovery;
mod slot;
mod stream;
pub mod tally;
#[cfg(test)]
mod tests;
mod told;
mod trace;
mod unfit;
mod views;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use holdfast_protocol::{GroupId, InstanceId};
use slotmap::SlotMap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::drain::rebalance::Rebalance;
use crate::events::Notices;
use crate::rollout::Progresses;
use crate::routing::{BackendAddress, BackendId, Service, Table};
use crate::session::{LinkId, Session};
use crate::telemetry::counters::{CloseReason, Counters};
use crate::telemetry::tracer::Tracer;
use command::Command;
use fx::Fx;
use groups::claims::Unsettled;
use groups::directory::Directory;
use groups::traveller::{Door, Traveller};
use hub::{ById, Hub};
use slot::{Seat, SessionKey, Slot};

/// Bytes that one read may bring; shared by all sockets of a worker.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Threads that may resolve backends' names at once.
const RESOLVERS: usize = 8;
/// Bytes wait no longer for the end of the poll.
const FLUSH_AFTER: Duration = Duration::from_millis(1);

/// What a worker is told at its start.
pub struct WorkerConfig {
    pub index: u16,
    pub proxy_id: String,
    /// The run of this proxy process.
    pub instance: InstanceId,
    pub zone: Option<Arc<str>>,
    /// The local backend is to be registered as it says it is: its link is kept even before it is listed.
    pub registers_local: bool,
    /// The backend beside this proxy, and the way to it from here.
    pub local: Option<(BackendId, BackendAddress)>,
    pub table: Arc<ArcSwap<Table>>,
    /// How far the fleet's rollouts are.
    pub rollouts: Arc<ArcSwap<Progresses>>,
    pub counters: Arc<Counters>,
    /// Where it is told what happens.
    pub notices: Notices,
    pub tracer: Tracer,
    /// Share of frames that are sampled where the service's document doesn't say.
    pub ratio: f64,
    /// From the environment: wins over every document.
    pub forced_ratio: Option<f64>,
    pub max_sessions: u64,
    /// Bytes held for players and backends, all kinds together: see [`pressure`].
    pub kept_bytes: u64,
    /// Bytes that may wait for one backend to read them; above it its clients aren't read.
    pub link_outbox_bytes: u64,
    /// Bytes of state that may be on their way into the proxy at once.
    pub transfer_pool_bytes: u64,
    pub close_deadline: Duration,
    /// Groups of this proxy, at most.
    pub max_groups: usize,
    pub groups: Arc<Directory>,
    /// Where sessions go that another worker is to have, by worker.
    pub doors: Vec<Door>,
}

impl WorkerConfig {
    fn ratio(&self, service: &Service) -> f64 {
        self.forced_ratio.or(service.trace.ratio).unwrap_or(self.ratio)
    }
}

/// All that lives on a worker's thread.
pub struct Worker {
    slots: SlotMap<SessionKey, Slot>,
    by_id: ById,
    groups: HashMap<GroupId, SessionKey>,
    unsettled: Unsettled,
    hub: Hub,
    scratch: Vec<u8>,
    /// Wakes the task that waits for the next due time.
    clock_moved: Arc<Notify>,
    clock_due: Option<Instant>,
    next_look: Instant,
    next_return: Instant,
    next_hurry: Instant,
    /// Services whose sessions are being brought to where shares and weights want them.
    rebalances: HashMap<Arc<str>, Rebalance<SessionKey, LinkId>>,
    stopping: Option<control::Stopping>,
    /// Each socket of this worker that another one serves has it, too.
    lent: Arc<()>,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    /// A panic has left the worker half changed. The runtime keeps panics of tasks to itself.
    static BROKEN: CancellationToken = CancellationToken::new();
}

/// Tells of a panic on its way through `with_worker`.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            BROKEN.with(CancellationToken::cancel);
        }
    }
}

/// Runs `act` on this thread's worker, at the present time. Must not be nested.
fn with_worker<T>(act: impl FnOnce(&mut Worker) -> T) -> T {
    let _alarm = Alarm;
    WORKER.with_borrow_mut(|slot| {
        let worker = slot.as_mut().expect("tasks of a worker run on its thread, after its start");
        worker.hub.now = Instant::now();
        let result = act(worker);
        worker.recover_some();
        worker.after_turn();
        if worker.is_flush_overdue() {
            worker.flush();
        }
        result
    })
}

/// Runs a worker on this thread until it is told to shut down and its sessions are gone.
///
/// # Errors
/// The runtime can't be built, or a task panicked: what the worker knows can't be trusted any more.
pub fn run(
    config: WorkerConfig,
    listeners: Vec<accept::Listener>,
    commands: mpsc::Receiver<Command>,
    arrivals: mpsc::UnboundedReceiver<Traveller>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVERS)
        .on_thread_park(flush_before_sleep)
        .build()?;
    let table = config.table.load_full();
    let clock_moved = Arc::new(Notify::new());
    let worker = Worker {
        slots: SlotMap::with_key(),
        by_id: ById::default(),
        groups: HashMap::new(),
        unsettled: Unsettled::default(),
        hub: Hub::new(Arc::new(config), table),
        scratch: vec![0; SCRATCH_BYTES],
        clock_moved: Arc::clone(&clock_moved),
        clock_due: None,
        next_look: Instant::now(),
        next_return: Instant::now(),
        next_hurry: Instant::now(),
        rebalances: HashMap::new(),
        stopping: None,
        lent: Arc::default(),
    };
    WORKER.set(Some(worker));
    let broken = BROKEN.with(CancellationToken::clone);
    let whole = runtime.block_on(async {
        tokio::select! {
            () = control::serve(listeners, commands, arrivals, clock_moved) => true,
            () = broken.cancelled() => false,
        }
    });
    // Sockets go while their runtime is still there.
    let guard = runtime.enter();
    WORKER.set(None);
    drop(guard);
    runtime.shutdown_timeout(Duration::from_millis(100));
    if whole { Ok(()) } else { Err(std::io::Error::other("a task of the worker panicked")) }
}

/// The end of a poll: everything that is ready has been read, so everything that is written goes out together.
fn flush_before_sleep() {
    WORKER.with_borrow_mut(|slot| {
        if let Some(worker) = slot {
            worker.flush();
        }
    });
}

impl Worker {
    /// Gives one session an input, with the worker as its world.
    fn drive<T>(&mut self, key: SessionKey, input: impl FnOnce(&mut Session, &mut Fx<'_>) -> T) -> Option<T> {
        let slot = self.slots.get_mut(key)?;
        let mut fx = Fx {
            key,
            id: slot.session.id(),
            is_group: slot.session.is_group(),
            ratio: self.hub.config.ratio(&slot.service),
            service: &slot.service,
            seat: &mut slot.seat,
            hub: &mut self.hub,
        };
        let result = input(&mut slot.session, &mut fx);
        if self.hub.pressure.is_near() {
            slot.session.rest();
        }
        self.hub.settle_recovery(&slot.session, key, &mut slot.seat);
        self.hub.parked_anew |= account(key, &slot.session, &mut slot.seat, &mut self.hub);
        if slot.seat.returning && !slot.session.is_attaching() {
            slot.seat.returning = false;
            self.hub.returning_in_flight = self.hub.returning_in_flight.saturating_sub(1);
        }
        self.hub.review_hold(&mut slot.seat);
        Some(result)
    }

    /// After every turn: sessions that ended leave their places, new links get their tasks, the clock is set.
    fn after_turn(&mut self) {
        self.give_up_mirrors();
        self.keep_below_the_bound();
        self.do_requests();
        while let Some(key) = self.hub.ended.pop() {
            self.remove(key);
        }
        while let Some(link) = self.hub.new_links.pop() {
            dial::spawn(self, link);
        }
        self.hurry_dials();
        if std::mem::take(&mut self.hub.room) {
            self.review_breakers();
        }
        if std::mem::take(&mut self.hub.relieved) {
            self.slots.values().filter(|slot| slot.seat.held).for_each(|slot| slot.seat.wake());
        }
        self.set_clock();
    }

    fn remove(&mut self, key: SessionKey) {
        self.unclog(key);
        self.mirror_leaves(key, CloseReason::ClientClose);
        let Some(mut slot) = self.take_slot(key) else { return };
        if let Some(stream) = slot.seat.stream.take() {
            // What was delivered before the end still goes out.
            self.let_linger(stream, std::mem::take(&mut slot.seat.outbox));
        }
        slot.seat.wake();
    }

    /// Takes a session out of the worker, and out of all its accounts.
    fn take_slot(&mut self, key: SessionKey) -> Option<Slot> {
        let mut slot = self.slots.remove(key)?;
        self.leave_places(&mut slot.seat);
        self.hub.leave_recovery(&slot.session.service().name, &mut slot.seat);
        self.hub.set_unprotected(&mut slot.seat, false);
        self.hub.close_account(&mut slot.seat);
        self.hub.close_load(&mut slot.seat);
        if slot.seat.parked {
            self.hub.counters.parked.sub(1);
        }
        if let Some(group) = slot.session.group() {
            self.group_removed(group, key);
            return Some(slot);
        }
        self.by_id.remove(&slot.session.id());
        if slot.seat.is_mirror {
            self.hub.forget_mirror(key);
            return Some(slot);
        }
        self.hub.counters.sessions.sub(1);
        if let Some(population) = self.hub.population.get_mut(&slot.session.service().name) {
            *population -= 1;
        }
        Some(slot)
    }

    fn leave_places(&mut self, seat: &mut Seat) {
        if let Some(link) = seat.leaving.take()
            && let Some(drain) = &mut self.hub.link_mut(link).drain
        {
            drain.ended();
        }
        if std::mem::take(&mut seat.returning) {
            self.hub.returning_in_flight = self.hub.returning_in_flight.saturating_sub(1);
        }
    }

    /// The thread may not sleep for long when there is much to do; nobody is to wait for that.
    fn is_flush_overdue(&self) -> bool {
        let since = self.hub.unflushed_since;
        since.is_some_and(|since| self.hub.now.saturating_duration_since(since) >= FLUSH_AFTER)
    }

    /// Writes everything that is waiting for a socket.
    fn flush(&mut self) {
        self.take_checkpoints();
        self.flush_clients();
        self.flush_links();
        self.hub.unflushed_since = None;
        self.after_turn();
    }
}

/// Keeps the worker's gauges in step with one session. `true`: it has just been parked.
fn account(key: SessionKey, session: &Session, seat: &mut Seat, hub: &mut Hub) -> bool {
    hub.account_session(session, seat);
    hub.account_load(session, seat);
    if seat.is_mirror {
        hub.account_mirror(key, session, seat);
        return false;
    }
    let counters = &hub.counters;
    let parked = matches!(session.phase(), crate::session::Phase::Parked);
    let changed = parked != std::mem::replace(&mut seat.parked, parked);
    match (changed, parked) {
        (true, true) => counters.parked.add(1),
        (true, false) => counters.parked.sub(1),
        (false, _) => {}
    }
    changed && parked
}
