//! One worker's link to one backend: its state, its buffers, and what its peer has said of itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use holdfast_protocol::InstanceId;
use holdfast_protocol::message::AttachmentEntry;
use tokio::sync::Notify;

use super::slot::SessionKey;
use super::stream::{Outbox, Stream};
use crate::drain::Drain;
use crate::routing::{Backend, DrainOrder};

const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Nobody needs it.
    Idle,
    Connecting,
    Up,
    /// Cut; the instance may still be there.
    Broken {
        since: Instant,
    },
    /// The backend doesn't answer; dialled again later while somebody waits for it.
    Dead,
}

/// What WELCOME told.
#[derive(Debug, Clone)]
pub struct Peer {
    pub instance: InstanceId,
    pub backend_version: String,
    pub writes_format: String,
    pub reads_formats: Vec<String>,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    pub draining: bool,
    pub attachments: Vec<AttachmentEntry>,
}

impl Peer {
    pub fn reads(&self, format: &str) -> bool {
        self.reads_formats.iter().any(|read| read == format)
    }
}

/// Why a backend is to be empty. Each is lifted alone.
#[derive(Debug, Default)]
pub struct Causes {
    /// A `drains/` document, and when it was first seen.
    pub key: Option<(Arc<DrainOrder>, Instant)>,
    /// `drain --local`: deadline and reason.
    pub local: Option<(Instant, String)>,
    /// The backend's own DRAIN: deadline, and whether it will be back.
    pub own: Option<OwnDrain>,
}

#[derive(Debug, Clone)]
pub struct OwnDrain {
    pub deadline: Instant,
    pub returns: bool,
    pub reason: String,
}

impl Causes {
    pub fn any(&self, instance: Option<InstanceId>) -> bool {
        self.local.is_some() || self.own.is_some() || self.key_applies(instance)
    }

    /// A key that names an instance is about that run only.
    pub fn key_applies(&self, instance: Option<InstanceId>) -> bool {
        match &self.key {
            None => false,
            Some((order, _)) => order.instance.is_none() || order.instance == instance,
        }
    }

    /// What the first cause says of itself.
    pub fn reason(&self) -> String {
        let key = self.key.as_ref().map(|(order, _)| order.reason.clone());
        let local = self.local.as_ref().map(|(_, reason)| reason.clone());
        key.or(local).or(self.own.as_ref().map(|own| own.reason.clone())).unwrap_or_default()
    }

    /// Those in force for that run of the backend.
    pub fn names(&self, instance: Option<InstanceId>) -> Vec<String> {
        let key = self.key_applies(instance);
        let named = [(key, "key"), (self.local.is_some(), "local"), (self.own.is_some(), "backend")];
        named.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()).collect()
    }
}

pub struct Link {
    pub backend: Arc<Backend>,
    pub state: LinkState,
    pub stream: Option<Stream>,
    pub peer: Option<Peer>,
    pub generation: u64,
    /// Bytes of a message that isn't whole yet.
    pub inbox: Vec<u8>,
    pub outbox: Outbox,
    pub dirty: bool,
    pub waker: Option<Waker>,
    /// Sessions with STATE chunks to send, in turn.
    pub transfers: VecDeque<SessionKey>,
    /// Sessions whose attachment is (or is to be) here.
    pub sessions: u64,
    pub last_heard: Instant,
    pub pinged: bool,
    pub idle_since: Instant,
    /// The backend's attachments over all its links, as its last PONG said.
    pub attachments: Option<u32>,
    pub last_error: Option<String>,
    pub causes: Causes,
    pub drain: Option<Drain<SessionKey>>,
    /// Tells the task that drives this link that somebody needs it.
    pub demand: Arc<Notify>,
    /// The link is to be closed, with the reason.
    pub doomed: Option<String>,
    /// Its backend is off the list and nobody needs it: the place is free when its task has ended.
    pub retired: bool,
    complained: Option<Instant>,
}

impl Link {
    pub fn new(backend: Arc<Backend>, now: Instant) -> Self {
        Self {
            backend,
            state: LinkState::Idle,
            stream: None,
            peer: None,
            generation: 0,
            inbox: Vec::new(),
            outbox: Outbox::default(),
            dirty: false,
            waker: None,
            transfers: VecDeque::new(),
            sessions: 0,
            last_heard: now,
            pinged: false,
            idle_since: now,
            attachments: None,
            last_error: None,
            causes: Causes::default(),
            drain: None,
            demand: Arc::new(Notify::new()),
            doomed: None,
            retired: false,
            complained: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up && self.doomed.is_none()
    }

    pub fn instance(&self) -> Option<InstanceId> {
        self.peer.as_ref().map(|peer| peer.instance)
    }

    pub fn is_draining(&self) -> bool {
        self.causes.any(self.instance())
    }

    /// May new and moved sessions come here?
    pub fn takes(&self, format: Option<&str>) -> bool {
        let alive = matches!(self.state, LinkState::Idle | LinkState::Connecting | LinkState::Up);
        let reads = match (format, &self.peer) {
            (Some(format), Some(peer)) if self.state == LinkState::Up => peer.reads(format),
            _ => true,
        };
        alive && reads && self.doomed.is_none() && !self.is_draining()
    }

    /// Ends the connection at the next turn of its task.
    pub fn doom(&mut self, reason: String) {
        self.doomed.get_or_insert(reason);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether a refusal may be a line in the log: one a second, however many sessions are refused.
    pub fn may_complain(&mut self, now: Instant) -> bool {
        let quiet = self.complained.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAIN_EVERY);
        if quiet {
            self.complained = Some(now);
        }
        quiet
    }

    /// How long ago anything came.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    pub fn state_name(&self) -> &'static str {
        match self.state {
            LinkState::Idle => "idle",
            LinkState::Connecting => "connecting",
            LinkState::Up => "up",
            LinkState::Broken { .. } => "broken",
            LinkState::Dead => "down",
        }
    }
}
