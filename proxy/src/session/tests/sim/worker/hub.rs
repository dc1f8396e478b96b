//! A worker's links and what its sessions share. Mirrors `worker::hub` and `worker::link`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_protocol::message::{AttachmentEntry, Message};
use holdfast_protocol::{InstanceId, SessionId, encode};

use super::super::io::{ConnId, Time};
use super::recovery::Recoveries;
use crate::drain::Drain;
use crate::routing::pick::Logic;
use crate::routing::{Backend, Service};
use crate::session::LinkId;
use crate::session::tests::seat::Ask;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Idle,
    Connecting,
    Up,
    Broken { since: Time },
    Dead,
}

/// What the task of a link does (`worker::dial::spawn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Rests,
    /// Waits for WELCOME.
    Dials {
        conn: Option<ConnId>,
        generation: u64,
        until: Time,
    },
    Serves {
        since: Time,
    },
    /// Between two dials; whoever needs the link may cut it short after `least`.
    Pauses {
        least: Time,
        until: Time,
    },
}

/// What WELCOME told.
#[derive(Debug, Clone)]
pub struct Told {
    pub instance: InstanceId,
    pub writes: String,
    pub reads: Vec<String>,
    pub logic: String,
    pub capabilities: u64,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    pub draining: bool,
    pub attachments: Vec<AttachmentEntry>,
}

#[derive(Debug, Clone, Copy)]
pub struct OwnDrain {
    pub since: Time,
    pub within: Option<Duration>,
    pub returns: bool,
}

pub struct Link {
    pub backend: Arc<Backend>,
    pub state: LinkState,
    pub task: Task,
    /// Numbers the waits of the task, so that one that is over wakes nobody.
    pub wait: u64,
    pub backoff: Duration,
    pub demanded: bool,
    pub conn: Option<ConnId>,
    pub told: Option<Told>,
    pub inbox: Vec<u8>,
    pub outbox: Vec<u8>,
    pub transfers: VecDeque<usize>,
    pub sessions: u64,
    pub last_heard: Time,
    pub pinged: Option<Time>,
    pub stuck_since: Option<Time>,
    pub congested: bool,
    pub doomed: bool,
    /// When a drain by key was ordered.
    pub key: Option<Time>,
    pub own: Option<OwnDrain>,
    pub drain: Option<Drain<usize>>,
    pub called_ahead: Option<Time>,
}

impl Link {
    pub fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            state: LinkState::Idle,
            task: Task::Rests,
            wait: 0,
            backoff: Duration::ZERO,
            demanded: false,
            conn: None,
            told: None,
            inbox: Vec::new(),
            outbox: Vec::new(),
            transfers: VecDeque::new(),
            sessions: 0,
            last_heard: Time::ZERO,
            pinged: None,
            stuck_since: None,
            congested: false,
            doomed: false,
            key: None,
            own: None,
            drain: None,
            called_ahead: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up && !self.doomed
    }

    /// Whether a replay there is sure to come out the same.
    pub fn runs(&self, logic: Option<&str>) -> Logic {
        match (logic, &self.told) {
            (Some(logic), Some(told)) if told.logic == logic => Logic::Same,
            (Some(_), Some(_)) => Logic::Other,
            _ => Logic::Unknown,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.key.is_some() || self.own.is_some()
    }

    pub fn takes(&self, format: Option<&str>, needs: u64) -> bool {
        let alive = matches!(self.state, LinkState::Idle | LinkState::Connecting | LinkState::Up);
        let told = self.told.as_ref().filter(|_| self.state == LinkState::Up);
        let reads = told.is_none_or(|told| {
            let reads = format.is_none_or(|format| told.reads.iter().any(|it| it == format));
            reads && told.capabilities & needs == needs
        });
        alive && reads && !self.doomed && !self.is_draining()
    }

    /// What belonged to the connection that is over.
    pub fn reset(&mut self) {
        self.conn = None;
        self.inbox.clear();
        self.outbox.clear();
        self.transfers.clear();
        self.doomed = false;
        self.pinged = None;
        self.congested = false;
        self.stuck_since = None;
    }
}

pub struct Hub {
    pub index: usize,
    pub now: Time,
    pub start: Instant,
    pub service: Arc<Service>,
    pub links: Vec<Link>,
    pub draining: Vec<LinkId>,
    pub timers: BTreeSet<(Time, usize, usize)>,
    pub owed_acks: Vec<usize>,
    pub owed_due: Option<Time>,
    pub dirty_clients: Vec<usize>,
    pub dirty_links: BTreeSet<LinkId>,
    pub ended: Vec<usize>,
    pub parked: usize,
    pub parked_anew: bool,
    pub returning: VecDeque<usize>,
    pub returning_in_flight: u32,
    pub pool_bytes: u64,
    pub reserved_bytes: u64,
    pub recoveries: Recoveries,
    pub kept_bytes: u64,
    pub relieved: bool,
    pub generation: u64,
    pub stale: u64,
    /// What groups, and sessions that are to be in one, ask for.
    pub requests: Vec<(usize, Ask)>,
    /// Members' frames that a group has processed.
    pub processed: Vec<(SessionId, u32)>,
}

/// Above it a backend's clients aren't read.
const LINK_OUTBOX_BYTES: usize = 64 * 1024;

impl Hub {
    pub fn new(index: usize, service: Arc<Service>, backends: &[Arc<Backend>], start: Instant) -> Self {
        Self {
            index,
            now: Time::ZERO,
            start,
            service,
            links: backends.iter().map(|backend| Link::new(Arc::clone(backend))).collect(),
            draining: Vec::new(),
            timers: BTreeSet::new(),
            owed_acks: Vec::new(),
            requests: Vec::new(),
            processed: Vec::new(),
            owed_due: None,
            dirty_clients: Vec::new(),
            dirty_links: BTreeSet::new(),
            ended: Vec::new(),
            parked: 0,
            parked_anew: false,
            returning: VecDeque::new(),
            returning_in_flight: 0,
            pool_bytes: 0,
            reserved_bytes: 0,
            recoveries: Recoveries::default(),
            kept_bytes: 0,
            relieved: false,
            generation: 0,
            stale: 0,
        }
    }

    pub fn instant(&self) -> Instant {
        self.start + self.now
    }

    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id.0 as usize]
    }

    pub fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id.0 as usize]
    }

    pub fn link_ids(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..u32::try_from(self.links.len()).unwrap()).map(LinkId)
    }

    pub fn say(&mut self, id: LinkId, message: &Message<'_>) -> bool {
        let link = self.link_mut(id);
        let up = link.state == LinkState::Up && link.conn.is_some();
        if up {
            encode(message, &mut link.outbox);
            self.mark_link(id);
        }
        up
    }

    pub fn mark_link(&mut self, id: LinkId) {
        self.dirty_links.insert(id);
        let link = self.link_mut(id);
        link.congested |= link.outbox.len() > LINK_OUTBOX_BYTES;
    }

    pub fn was_written(&mut self, id: LinkId) {
        let link = self.link_mut(id);
        if link.congested && link.outbox.len() <= LINK_OUTBOX_BYTES / 2 {
            link.congested = false;
            self.relieved = true;
        }
    }

    pub fn demand(&mut self, id: LinkId) {
        let link = self.link_mut(id);
        if matches!(link.state, LinkState::Idle | LinkState::Dead) {
            link.demanded = true;
        }
    }

    pub fn call_ahead(&mut self, id: LinkId) {
        let until = self.now + Duration::from_secs(5);
        self.link_mut(id).called_ahead = Some(until);
        self.demand(id);
    }
}
