//! A core's runtime: accepts clients, reads and writes sockets, speaks links; drives the sessions on it.
//!
//! A worker is one thread with a current-thread runtime. Its sessions and links live in a thread-local that only its
//! own tasks touch: nothing is shared with other workers, nothing is locked. All frames that became readable in one
//! poll leave on the link in one write, just before the thread would sleep; all frames read from a link in one read
//! are grouped by session and leave in one write a session.

pub mod accept;
mod client;
mod clock;
pub mod command;
mod control;
mod dial;
mod drains;
mod fx;
mod hub;
mod link;
mod link_io;
mod slot;
mod stream;
mod trace;
mod views;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use holdfast_protocol::InstanceId;
use slotmap::SlotMap;
use tokio::sync::{Notify, mpsc};

use crate::routing::{BackendAddress, BackendId, Service, Table};
use crate::session::Session;
use crate::telemetry::counters::Counters;
use crate::telemetry::tracer::Tracer;
use command::Command;
use fx::Fx;
use hub::{ById, Hub};
use slot::{Seat, SessionKey, Slot};

/// Bytes that one read may bring; shared by all sockets of a worker.
const SCRATCH_BYTES: usize = 256 * 1024;

/// What a worker is told at its start.
pub struct WorkerConfig {
    pub index: u16,
    pub proxy_id: String,
    /// The run of this proxy process.
    pub instance: InstanceId,
    pub zone: Option<Arc<str>>,
    /// The backend beside this proxy, and the way to it from here.
    pub local: Option<(BackendId, BackendAddress)>,
    pub table: Arc<ArcSwap<Table>>,
    pub counters: Arc<Counters>,
    pub tracer: Tracer,
    /// Share of frames that are sampled where the service's document doesn't say.
    pub ratio: f64,
    /// From the environment: wins over every document.
    pub forced_ratio: Option<f64>,
    pub max_sessions: u64,
    /// Bytes of frames and state kept for sessions; above it no session is frozen.
    pub kept_bytes: u64,
    /// Bytes of state that may be on their way into the proxy at once.
    pub transfer_pool_bytes: u64,
    pub close_deadline: Duration,
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
    hub: Hub,
    scratch: Vec<u8>,
    /// Wakes the task that waits for the next due time.
    clock_moved: Arc<Notify>,
    clock_due: Option<Instant>,
    next_look: Instant,
    next_return: Instant,
    stopping: Option<control::Stopping>,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Runs `act` on this thread's worker, at the present time. Must not be nested.
fn with_worker<T>(act: impl FnOnce(&mut Worker) -> T) -> T {
    WORKER.with_borrow_mut(|slot| {
        let worker = slot.as_mut().expect("tasks of a worker run on its thread, after its start");
        worker.hub.now = Instant::now();
        let result = act(worker);
        worker.after_turn();
        result
    })
}

/// Runs a worker on this thread until it is told to shut down and its sessions are gone.
///
/// # Errors
/// The runtime can't be built.
pub fn run(
    config: WorkerConfig,
    listeners: Vec<accept::Listener>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(flush_before_sleep)
        .build()?;
    let table = config.table.load_full();
    let clock_moved = Arc::new(Notify::new());
    let worker = Worker {
        slots: SlotMap::with_key(),
        by_id: ById::default(),
        hub: Hub::new(Arc::new(config), table),
        scratch: vec![0; SCRATCH_BYTES],
        clock_moved: Arc::clone(&clock_moved),
        clock_due: None,
        next_look: Instant::now(),
        next_return: Instant::now(),
        stopping: None,
    };
    WORKER.set(Some(worker));
    runtime.block_on(control::serve(listeners, commands, clock_moved));
    // Sockets go while their runtime is still there.
    let guard = runtime.enter();
    WORKER.set(None);
    drop(guard);
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
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
        let service = Arc::clone(slot.session.service());
        let mut fx = Fx {
            key,
            id: slot.session.id(),
            framing: &service.framing,
            slow_frame: service.trace.slow_frame,
            ratio: self.hub.config.ratio(&service),
            service: &service.name,
            seat: &mut slot.seat,
            hub: &mut self.hub,
        };
        let result = input(&mut slot.session, &mut fx);
        self.hub.parked_anew |= account(&slot.session, &mut slot.seat, &self.hub.counters);
        if slot.seat.returning && !slot.session.is_attaching() {
            slot.seat.returning = false;
            self.hub.returning_in_flight = self.hub.returning_in_flight.saturating_sub(1);
        }
        Some(result)
    }

    /// After every turn: sessions that ended leave their places, new links get their tasks, the clock is set.
    fn after_turn(&mut self) {
        while let Some(key) = self.hub.ended.pop() {
            self.remove(key);
        }
        while let Some(link) = self.hub.new_links.pop() {
            dial::spawn(self, link);
        }
        self.hurry_dials();
        self.set_clock();
    }

    fn remove(&mut self, key: SessionKey) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        self.by_id.remove(&slot.session.id());
        self.leave_places(&mut slot.seat);
        self.hub.counters.sessions.sub(1);
        self.hub.counters.kept_bytes.sub(slot.seat.kept_bytes);
        if slot.seat.parked {
            self.hub.counters.parked.sub(1);
        }
        slot.seat.wake();
    }

    fn leave_places(&mut self, seat: &mut Seat) {
        if let Some(link) = seat.leaving.take()
            && let Some(drain) = &mut self.hub.link_mut(link).drain
        {
            drain.finished();
        }
        if std::mem::take(&mut seat.returning) {
            self.hub.returning_in_flight = self.hub.returning_in_flight.saturating_sub(1);
        }
    }

    /// Writes everything that is waiting for a socket.
    fn flush(&mut self) {
        self.flush_clients();
        self.flush_links();
        self.after_turn();
    }
}

/// Keeps the worker's gauges in step with one session. `true`: it has just been parked.
fn account(session: &Session, seat: &mut Seat, counters: &Counters) -> bool {
    let kept_bytes = session.kept_bytes();
    if kept_bytes != seat.kept_bytes {
        counters.kept_bytes.add(kept_bytes.wrapping_sub(seat.kept_bytes));
        seat.kept_bytes = kept_bytes;
    }
    let parked = matches!(session.phase(), crate::session::Phase::Parked);
    let changed = parked != std::mem::replace(&mut seat.parked, parked);
    match (changed, parked) {
        (true, true) => counters.parked.add(1),
        (true, false) => counters.parked.sub(1),
        (false, _) => {}
    }
    changed && parked
}
