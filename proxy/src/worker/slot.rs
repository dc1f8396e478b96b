//! A session's place on its worker: the machine, and the seat (socket, buffers, waits) that it drives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use slotmap::new_key_type;

use super::breaker::Share;
use super::groups::Company;
use super::pressure::Holding;
use super::recovery::Place;
use super::stream::{Outbox, Stream};
use super::trace::{HandoffTrace, SessionTrace};
use crate::routing::{Route, Service};
use crate::session::{LinkId, Session, Timer};

new_key_type! {
    /// A session of this worker; a key of an ended session finds nothing.
    pub struct SessionKey;
}

pub struct Slot {
    pub session: Session,
    pub seat: Seat,
    /// The session's own, so that it need not be counted at each input.
    pub service: Arc<Service>,
}

impl Slot {
    pub fn new(session: Session, seat: Seat) -> Self {
        Self { service: Arc::clone(session.service()), session, seat }
    }
}

/// Everything of a session that isn't its machine.
pub struct Seat {
    /// Absent once the client is gone.
    pub stream: Option<Stream>,
    pub client: SocketAddr,
    /// The server name that it asked for by TLS.
    pub sni: Option<Arc<str>>,
    pub route: Arc<Route>,
    pub opened: Instant,
    /// Client bytes that aren't a whole frame yet.
    pub partial: Vec<u8>,
    /// Bytes of `partial` in which no frame's end was found.
    pub searched: usize,
    pub outbox: Outbox,
    /// Close the connection when the outbox is empty.
    pub finishing: bool,
    pub reading: bool,
    /// A bound of the worker or of its link keeps it from being read for now.
    pub held: bool,
    /// The client's end of stream has been read.
    pub read_closed: bool,
    /// Wakes the task that serves the client.
    pub waker: Option<Waker>,
    /// It stands in the worker's list of clients with fresh bytes.
    pub dirty: bool,
    /// It stands in the worker's list of owed acks.
    pub owes_ack: bool,
    /// The link that counts this session as its own.
    pub link: Option<LinkId>,
    /// The link that counted it before.
    pub before: Option<LinkId>,
    /// Its backend broke a rule: that it is lost to the session then is no crash.
    pub faulted: bool,
    /// The draining link that this session is leaving under a drain's pace.
    pub leaving: Option<LinkId>,
    /// The link that it is to leave, though its backend may take sessions (again).
    pub avoids: Option<LinkId>,
    /// Where its move is to end: chosen before it was frozen, whoever's turn it is by then.
    pub bound_for: Option<LinkId>,
    /// It holds one of the places for attaching out of a park.
    pub returning: bool,
    /// Its place among those that a crash has thrown out.
    pub recovery: Option<Place>,
    /// Its backend can't do what the service's `recovery` asks for.
    pub unprotected: bool,
    pub timers: [Option<Instant>; TIMERS.len()],
    pub handoff: Option<HandoffTrace>,
    /// Absent where spans go nowhere.
    pub life: Option<Box<SessionTrace>>,
    /// What this session adds to the worker's account.
    pub kept: Holding,
    /// What it adds to its link's load.
    pub share: Share,
    /// Since when its socket hasn't taken all that is for the client.
    pub unread_since: Option<Instant>,
    /// Since when it has held more than its share of a worker whose memory is short.
    pub over_since: Option<Instant>,
    pub parked: bool,
    /// What it counts on its link: of a group, its members.
    pub weight: u64,
    pub company: Company,
    /// The session of a shadow service that is given this one's frames, too; it may have ended.
    pub mirror: Option<SessionKey>,
    /// It is such a session itself: nobody's, in no count of players, and given up rather than waited for.
    pub is_mirror: bool,
    /// Keeps the worker alive on whose reactor the socket is, if that isn't this one.
    pub lease: Option<Arc<()>>,
}

impl Seat {
    pub fn new(stream: Stream, client: SocketAddr, route: Arc<Route>, now: Instant) -> Self {
        Self { stream: Some(stream), ..Self::empty(client, route, now) }
    }

    /// The seat of nobody's socket: a group's.
    pub fn empty(client: SocketAddr, route: Arc<Route>, now: Instant) -> Self {
        Self {
            stream: None,
            client,
            sni: None,
            route,
            opened: now,
            partial: Vec::new(),
            searched: 0,
            outbox: Outbox::default(),
            finishing: false,
            reading: true,
            held: false,
            read_closed: false,
            waker: None,
            dirty: false,
            owes_ack: false,
            link: None,
            before: None,
            faulted: false,
            leaving: None,
            avoids: None,
            bound_for: None,
            returning: false,
            recovery: None,
            unprotected: false,
            timers: [None; TIMERS.len()],
            handoff: None,
            life: None,
            kept: Holding::default(),
            share: Share::default(),
            unread_since: None,
            over_since: None,
            parked: false,
            weight: 1,
            company: Company::default(),
            mirror: None,
            is_mirror: false,
            lease: None,
        }
    }

    /// Lets the client's task look at the seat again.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// The index of a timer in `Seat::timers`.
pub fn timer_index(timer: Timer) -> usize {
    match timer {
        Timer::Answer => 0,
        Timer::Park => 1,
        Timer::Home => 2,
        Timer::Close => 3,
        Timer::Checkpoint => 4,
    }
}

pub const TIMERS: [Timer; 5] = [Timer::Answer, Timer::Park, Timer::Home, Timer::Close, Timer::Checkpoint];
