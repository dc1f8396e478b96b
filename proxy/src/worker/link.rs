//! One worker's link to one backend: its state, its buffers, and what its peer has said of itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use holdfast_protocol::InstanceId;
use holdfast_protocol::message::AttachmentEntry;
use tokio::sync::Notify;

use super::breaker::Load;
use super::check::Checks;
use super::slot::SessionKey;
use super::stream::{Outbox, Stream};
use super::tally::Tally;
use super::told::Told;
use crate::drain::Drain;
use crate::routing::pick::Logic;
use crate::routing::{Backend, DrainOrder};
use crate::telemetry::counters::Breaker;

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
    /// The longest frame that it takes, and the longest that HELLO said may come from it.
    pub takes_frame_bytes: u32,
    pub gives_frame_bytes: u32,
    pub writes_format: String,
    pub reads_formats: Vec<String>,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    pub draining: bool,
    pub attachments: Vec<AttachmentEntry>,
    /// Of those that were offered.
    pub capabilities: u64,
    /// What must be equal for a sure replay.
    pub logic: String,
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
    /// The backend's own DRAIN.
    pub own: Option<OwnDrain>,
    /// Its version is given up, for this reason.
    pub rollout: Option<String>,
    /// It is unfit, and its service has its sessions moved: why. Unlike the others it leaves the choice to send sessions
    /// there when nobody else can take them.
    pub unfit: Option<String>,
}

#[derive(Debug, Clone)]
pub struct OwnDrain {
    pub since: Instant,
    /// `None`: the service's own deadline.
    pub within: Option<Duration>,
    pub returns: bool,
    pub reason: String,
}

impl Causes {
    pub fn any(&self, instance: Option<InstanceId>) -> bool {
        self.unfit.is_some() || self.ordered(instance)
    }

    /// Somebody wants it empty, fit or not.
    pub fn ordered(&self, instance: Option<InstanceId>) -> bool {
        self.local.is_some() || self.own.is_some() || self.rollout.is_some() || self.key_applies(instance)
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
        let own = self.own.as_ref().map(|own| own.reason.clone());
        key.or(local)
            .or_else(|| self.rollout.clone())
            .or(own)
            .or_else(|| self.unfit.clone())
            .unwrap_or_default()
    }

    /// Those in force for that run of the backend.
    pub fn names(&self, instance: Option<InstanceId>) -> Vec<String> {
        let key = self.key_applies(instance);
        let named = [
            (key, "key"),
            (self.local.is_some(), "local"),
            (self.own.is_some(), "backend"),
            (self.rollout.is_some(), "rollout"),
            (self.unfit.is_some(), "unfit"),
        ];
        named.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()).collect()
    }
}

/// The latest faults that one instance committed against the link as a whole.
#[derive(Debug, Default)]
pub struct Faults {
    instance: Option<InstanceId>,
    latest: [Option<Instant>; 3],
}

impl Faults {
    /// From here on it is about this instance.
    pub fn of(&mut self, instance: InstanceId) {
        if self.instance != Some(instance) {
            *self = Self { instance: Some(instance), latest: [None; 3] };
        }
    }

    pub fn add(&mut self, now: Instant) {
        self.latest.rotate_left(1);
        self.latest[2] = Some(now);
    }

    /// A third within that time: it would go on so for ever.
    pub fn too_many(&self, now: Instant, within: Duration) -> bool {
        self.latest[0].is_some_and(|third_last| now.saturating_duration_since(third_last) <= within)
    }
}

pub struct Link {
    pub backend: Arc<Backend>,
    pub state: LinkState,
    pub stream: Option<Stream>,
    pub peer: Option<Peer>,
    /// Bytes of a message that isn't whole yet.
    pub inbox: Vec<u8>,
    pub outbox: Outbox,
    /// What its inbox and outbox add to the worker's account.
    pub kept: [u64; 2],
    /// Since when the socket has taken nothing of what waits.
    pub stuck_since: Option<Instant>,
    /// Too much waits for the backend to read: its clients aren't read either.
    pub congested: bool,
    pub dirty: bool,
    pub waker: Option<Waker>,
    /// Sessions with STATE chunks to send, in turn.
    pub transfers: VecDeque<SessionKey>,
    /// Sessions whose attachment is (or is to be) here.
    pub sessions: u64,
    pub last_heard: Instant,
    /// When the PING was sent that has no answer yet.
    pub pinged: Option<Instant>,
    pub idle_since: Instant,
    /// The backend's attachments over all its links, as its last PONG said.
    pub attachments: Option<u32>,
    pub told: Told,
    pub checks: Checks,
    pub last_error: Option<String>,
    pub causes: Causes,
    pub drain: Option<Drain<SessionKey>>,
    /// A drain is about to send sessions here: until then the link is wanted even without any.
    pub called_ahead: Option<Instant>,
    /// Tells the task that drives this link that somebody needs it.
    pub demand: Arc<Notify>,
    /// The link is to be closed, with the reason.
    pub doomed: Option<String>,
    pub faults: Faults,
    /// What its sessions and those that wait for it add up to.
    pub load: Load,
    /// The bound that it has reached: it takes no more.
    pub tripped: Option<Breaker>,
    /// Since when this run of it has been known here.
    pub fresh_since: Instant,
    /// What the policy `round_robin` remembers of it.
    pub turn: i64,
    /// How it has treated its sessions, since it has this version.
    pub tally: Tally,
    /// Its backend is off the list and nobody needs it: the place is free when its task has ended.
    pub retired: bool,
    complained: Seldom,
    warned: Seldom,
}

/// What may be a line in the log once a second, however often it happens.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn may(&mut self, now: Instant) -> bool {
        let quiet = self.0.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAIN_EVERY);
        if quiet {
            self.0 = Some(now);
        }
        quiet
    }
}

impl Link {
    pub fn new(backend: Arc<Backend>, now: Instant) -> Self {
        Self {
            backend,
            state: LinkState::Idle,
            stream: None,
            peer: None,
            inbox: Vec::new(),
            outbox: Outbox::default(),
            kept: [0; 2],
            stuck_since: None,
            congested: false,
            dirty: false,
            waker: None,
            transfers: VecDeque::new(),
            sessions: 0,
            last_heard: now,
            pinged: None,
            idle_since: now,
            attachments: None,
            told: Told::default(),
            checks: Checks::default(),
            last_error: None,
            causes: Causes::default(),
            drain: None,
            called_ahead: None,
            demand: Arc::new(Notify::new()),
            doomed: None,
            faults: Faults::default(),
            load: Load::default(),
            tripped: None,
            fresh_since: now,
            turn: 0,
            tally: Tally::default(),
            retired: false,
            complained: Seldom::default(),
            warned: Seldom::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up && self.doomed.is_none()
    }

    pub fn instance(&self) -> Option<InstanceId> {
        self.peer.as_ref().map(|peer| peer.instance)
    }

    /// Sessions leave it for no other reason than that it is unfit.
    pub fn is_only_unfit(&self) -> bool {
        self.causes.unfit.is_some() && !self.causes.ordered(self.instance())
    }

    pub fn is_draining(&self) -> bool {
        self.causes.any(self.instance())
    }

    /// May new and moved sessions come here? What a backend reads and can do counts once its link is up.
    pub fn takes(&self, format: Option<&str>, needs: u64) -> bool {
        let alive = matches!(self.state, LinkState::Idle | LinkState::Connecting | LinkState::Up);
        let able = self.told().is_none_or(|peer| {
            format.is_none_or(|format| peer.reads(format)) && needs & !peer.capabilities == 0
        });
        alive && able && self.doomed.is_none() && !self.causes.ordered(self.instance())
    }

    /// Whether it takes frames of a service whose longest is that long. Services may grow while links are up.
    pub fn takes_frames_of(&self, max_frame_bytes: usize) -> bool {
        self.told().is_none_or(|peer| peer.takes_frame_bytes as usize >= max_frame_bytes)
    }

    /// What the backend has said of itself, if that still holds.
    fn told(&self) -> Option<&Peer> {
        self.peer.as_ref().filter(|_| self.state == LinkState::Up)
    }

    /// Whether it runs that logic, as far as is known.
    pub fn runs(&self, logic: Option<&str>) -> Logic {
        match (logic, &self.peer) {
            (Some(logic), Some(peer)) if peer.logic == logic => Logic::Same,
            (Some(_), Some(_)) => Logic::Other,
            _ => Logic::Unknown,
        }
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
        self.complained.may(now)
    }

    /// The same for what this backend can't do.
    pub fn may_warn(&mut self, now: Instant) -> bool {
        self.warned.may(now)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{BackendAddress, BackendId};

    fn link(state: LinkState, capabilities: u64) -> Link {
        let backend = Backend {
            id: BackendId { service: "arena".into(), name: "a".into() },
            address: BackendAddress::Tcp("127.0.0.1:1".into()),
            version: "1".into(),
            weight: 1,
            zone: None,
            capacity: None,
        };
        let peer = Peer {
            instance: InstanceId([1; 16]),
            backend_version: "1".to_owned(),
            takes_frame_bytes: 1_000,
            gives_frame_bytes: 1_000,
            writes_format: "one".to_owned(),
            reads_formats: vec!["one".to_owned()],
            client_window_bytes: 1,
            state_credit_bytes: 1,
            draining: false,
            attachments: Vec::new(),
            capabilities,
            logic: "seven".to_owned(),
        };
        Link { state, peer: Some(peer), ..Link::new(Arc::new(backend), Instant::now()) }
    }

    #[test]
    fn a_backend_takes_whom_it_can_serve() {
        let up = link(LinkState::Up, 0b101);
        assert!(up.takes(Some("one"), 0b100) && up.takes(None, 0b101) && up.takes(None, 0));
        assert!(!up.takes(None, 0b010) && !up.takes(None, 0b111));
        assert!(!up.takes(Some("two"), 0b100));
    }

    #[test]
    fn a_backend_takes_services_whose_frames_it_takes() {
        let mut link = link(LinkState::Up, 0);
        assert!(link.takes_frames_of(1_000) && !link.takes_frames_of(1_001));
        link.state = LinkState::Idle;
        assert!(link.takes_frames_of(1_001), "another run of it may take them");
    }

    #[test]
    fn what_a_backend_can_do_counts_once_its_link_is_up() {
        for state in [LinkState::Idle, LinkState::Connecting] {
            assert!(link(state, 0).takes(Some("two"), 0b111), "another run of it may be able to");
        }
        assert!(!link(LinkState::Dead, 0b111).takes(None, 0));
    }

    #[test]
    fn a_backend_that_was_never_asked_may_run_any_logic() {
        let mut link = link(LinkState::Up, 0);
        assert_eq!((link.runs(Some("seven")), link.runs(Some("eight"))), (Logic::Same, Logic::Other));
        assert_eq!(link.runs(None), Logic::Unknown, "nobody asks");
        link.peer = None;
        assert_eq!(link.runs(Some("seven")), Logic::Unknown);
    }

    #[test]
    fn the_third_fault_of_an_instance_within_the_resume_time_is_too_many() {
        let now = Instant::now();
        let within = Duration::from_secs(2);
        let mut faults = Faults::default();
        faults.of(InstanceId([1; 16]));
        faults.add(now);
        faults.add(now);
        assert!(!faults.too_many(now, within));
        faults.of(InstanceId([1; 16]));
        faults.add(now);
        assert!(faults.too_many(now, within));
        assert!(!faults.too_many(now + Duration::from_secs(3), within), "they are long ago");
        faults.of(InstanceId([2; 16]));
        assert!(!faults.too_many(now, within), "another run of the backend");
    }
}
