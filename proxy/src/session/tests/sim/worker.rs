//! A proxy's worker: the logic around the session machine, in virtual time.
//!
//! The real worker's is bound to sockets and tasks; this mirrors it function by function (each file names what it
//! mirrors), over the same session machine, codec, framing, pick and `crate::drain::Drain`.

mod clients;
mod clock;
mod company;
mod drains;
mod fx;
mod hub;
mod life;
mod links;
mod recovery;
mod seat;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::{GroupId, SessionId};

pub use self::company::FIRST_GROUP;
pub use self::fx::Fx;
pub use self::hub::Hub;
pub use self::seat::Seat;
use super::io::{ConnId, Event, Io, Time};
use crate::routing::{Backend, Service};
use crate::session::{LinkId, Phase, Session};

pub struct Slot {
    pub session: Session,
    pub seat: Seat,
}

pub struct Worker {
    pub hub: Hub,
    pub slots: BTreeMap<usize, Slot>,
    by_id: BTreeMap<SessionId, usize>,
    groups: BTreeMap<GroupId, usize>,
    /// How many groups there have been.
    founded: usize,
    /// Seats of sessions that have ended.
    pub ended: BTreeMap<usize, Seat>,
    /// Connections whose last bytes are on their way.
    lingering: BTreeMap<ConnId, Vec<u8>>,
    next_look: Time,
    next_return: Time,
    next_hurry: Time,
    clock_due: Option<Time>,
    flush_due: bool,
    /// The longest wait for the end of a poll.
    flush: Duration,
}

impl Worker {
    pub fn new(
        index: usize,
        service: &Arc<Service>,
        backends: &[Arc<Backend>],
        flush: Duration,
        io: &Io,
    ) -> Self {
        Self {
            hub: Hub::new(index, Arc::clone(service), backends, io.start),
            slots: BTreeMap::new(),
            by_id: BTreeMap::new(),
            groups: BTreeMap::new(),
            founded: 0,
            ended: BTreeMap::new(),
            lingering: BTreeMap::new(),
            next_look: Duration::ZERO,
            next_return: Duration::ZERO,
            next_hurry: Duration::ZERO,
            clock_due: None,
            flush_due: false,
            flush,
        }
    }

    /// An event of this worker: acts, then does what follows every turn (`worker::with_worker`).
    pub fn turn(&mut self, io: &mut Io, act: impl FnOnce(&mut Self, &mut Io)) {
        self.hub.now = io.now;
        act(self, io);
        self.after_turn(io);
    }

    fn after_turn(&mut self, io: &mut Io) {
        self.do_requests(io);
        while let Some(key) = self.hub.ended.pop() {
            self.remove(key, io);
        }
        self.hurry_dials();
        if std::mem::take(&mut self.hub.relieved) {
            let held: Vec<_> =
                self.slots.iter().filter(|(_, slot)| slot.seat.held).map(|(key, _)| *key).collect();
            held.into_iter().for_each(|key| self.poll_client(key, io));
        }
        for id in self.hub.link_ids() {
            if self.hub.link(id).doomed && self.hub.link(id).conn.is_some() {
                self.link_ends(id, io);
            }
            self.poll_task(id, io);
        }
        self.recover_some(io);
        self.do_requests(io);
        self.set_clock(io);
        let waits = !self.hub.dirty_clients.is_empty() || !self.hub.dirty_links.is_empty();
        if waits && !self.flush_due {
            self.flush_due = true;
            let delay = io.some(self.flush);
            io.after(delay, Event::Flush(self.hub.index));
        }
    }

    /// Everything that waits for a socket is written.
    pub fn flush(&mut self, io: &mut Io) {
        self.flush_due = false;
        for key in std::mem::take(&mut self.hub.dirty_clients) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.seat.dirty = false;
                self.write_client(key, io);
            }
        }
        for id in std::mem::take(&mut self.hub.dirty_links) {
            self.flush_link(id, io);
        }
    }

    /// Gives one session an input (`Worker::drive`).
    fn drive<T>(
        &mut self,
        key: usize,
        io: &mut Io,
        input: impl FnOnce(&mut Session, &mut Fx<'_>) -> T,
    ) -> Option<T> {
        let slot = self.slots.get_mut(&key)?;
        let mut fx = Fx { key, id: slot.session.id(), seat: &mut slot.seat, hub: &mut self.hub, io };
        let result = input(&mut slot.session, &mut fx);
        check(&slot.session, &slot.seat);
        for (member, index) in std::mem::take(&mut self.hub.processed) {
            if let Some(slot) = self.by_id.get(&member).and_then(|key| self.slots.get_mut(key)) {
                slot.seat.processed.insert(index);
            }
        }
        let slot = self.slots.get_mut(&key)?;
        self.hub.parked_anew |= account(&slot.session, &mut slot.seat, &mut self.hub);
        self.hub.settle_recovery(&slot.session, key, &mut slot.seat);
        if slot.seat.returning && !slot.session.is_attaching() {
            slot.seat.returning = false;
            self.hub.returning_in_flight -= 1;
        }
        Some(result)
    }

    fn remove(&mut self, key: usize, io: &mut Io) {
        let Some(Slot { session, mut seat }) = self.slots.remove(&key) else { return };
        self.by_id.remove(&session.id());
        if let Some(link) = seat.leaving.take()
            && let Some(drain) = &mut self.hub.link_mut(link).drain
        {
            drain.ended();
        }
        if std::mem::take(&mut seat.returning) {
            self.hub.returning_in_flight -= 1;
        }
        self.hub.leave_recovery(&mut seat);
        self.hub.kept_bytes -= seat.kept_bytes;
        self.hub.parked -= usize::from(seat.parked);
        if let Some(conn) = seat.conn.take() {
            self.linger(conn, std::mem::take(&mut seat.outbox), io);
        }
        self.ended.insert(key, seat);
    }

    /// Sessions attached to this link, or frozen on it.
    fn keys_on(&self, id: LinkId) -> Vec<usize> {
        self.slots.iter().filter(|(_, slot)| slot.session.concerns(id)).map(|(key, _)| *key).collect()
    }
}

/// Keeps the worker's gauges in step with one session. `true`: it has just been parked.
fn account(session: &Session, seat: &mut Seat, hub: &mut Hub) -> bool {
    let kept_bytes = session.kept_bytes();
    hub.kept_bytes = hub.kept_bytes + kept_bytes - seat.kept_bytes;
    seat.kept_bytes = kept_bytes;
    let parked = matches!(session.phase(), Phase::Parked);
    let was = std::mem::replace(&mut seat.parked, parked);
    hub.parked = hub.parked + usize::from(parked) - usize::from(was);
    parked && !was
}

/// What holds after every input of a session.
fn check(session: &Session, seat: &Seat) {
    let takes = matches!(session.phase(), Phase::Freezing { .. }) || session.takes_checkpoint();
    assert_eq!(seat.reserved_bytes > 0, takes, "a reservation is for a state on its way: {session:?}");
    assert_eq!(seat.ended.is_some(), *session.phase() == Phase::Ended, "{session:?}");
    let closing = matches!(session.phase(), Phase::Closing { .. });
    assert!(seat.link == session.link() || closing, "{:?}: {session:?}", seat.link);
    if matches!(session.phase(), Phase::Active { .. }) {
        assert!(!seat.handoff, "an active session's handoff is over: {session:?}");
    }
    if *session.phase() == Phase::Parked {
        assert!(seat.timers[1].is_some(), "a stay has its end: {session:?}");
    }
}
