//! The routing table: an immutable snapshot of every valid document. Workers read it, nobody changes it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use holdfast_protocol::message::Recovery;
use holdfast_protocol::{InstanceId, SessionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::document::route::mask;
use crate::framing::Framing;

mod health;
mod hook;

pub use health::{CheckKind, CheckPolicy, EjectionOrder, HealthPolicy, OutlierPolicy, WhenEjected};
pub use hook::{Hook, HookAction, TakeOut, TakeOutOrder};

/// One consistent state of all documents.
#[derive(Debug, Clone)]
pub struct Table {
    /// Revision of the source (etcd's, or a count of changes of the folder); 0 before the first document.
    pub revision: u64,
    pub applied_at: SystemTime,
    pub services: BTreeMap<String, Arc<Service>>,
    pub routes: BTreeMap<String, Arc<Route>>,
    pub backends: BTreeMap<BackendId, Arc<Backend>>,
    pub drains: BTreeMap<BackendId, Arc<DrainOrder>>,
    pub ejections: BTreeMap<BackendId, Arc<EjectionOrder>>,
    /// By service.
    pub rollouts: BTreeMap<String, Arc<Rollout>>,
    pub hooks: BTreeMap<String, Arc<Hook>>,
}

impl Table {
    /// The table before the first document.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            revision: 0,
            applied_at: SystemTime::UNIX_EPOCH,
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            backends: BTreeMap::new(),
            drains: BTreeMap::new(),
            ejections: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            hooks: BTreeMap::new(),
        }
    }

    /// The route of a new client: the exact server name before the longest wildcard before none, then the longest
    /// network. Compilation leaves no ties.
    #[must_use]
    pub fn route(&self, listener: &str, sni: Option<&str>, source: IpAddr) -> Option<&Arc<Route>> {
        let source = source.to_canonical();
        let sni = sni.map(|name| name.strip_suffix('.').unwrap_or(name));
        self.routes
            .values()
            .filter(|route| &*route.listener == listener)
            .filter_map(|route| Some((route.matches.rank(sni, source)?, route)))
            .max_by_key(|&(rank, _)| rank)
            .map(|(_, route)| route)
    }
}

/// `service/name`, as it stands in keys, on the command line and in metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    pub service: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.name)
    }
}

/// Where a backend listens for links.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `host:port`; the host may be a name.
    Tcp(Arc<str>),
    /// `unix:/path`
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub id: BackendId,
    pub address: BackendAddress,
    pub version: Arc<str>,
    /// Relative share among the backends of one version; 0 takes no new sessions.
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    /// Sessions that it is to have at most.
    pub capacity: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub framing: Framing,
    pub recovery: Recovery,
    pub on_crash: OnCrash,
    pub limits: Limits,
    pub drain: DrainPolicy,
    pub trace: TracePolicy,
    /// None: live sessions move only off what drains.
    pub rebalance: Option<RebalancePolicy>,
    pub health: HealthPolicy,
    pub balance: Balance,
    pub breakers: Breakers,
    /// None: nobody is mirrored.
    pub mirror: Option<Arc<MirrorPolicy>>,
}

/// What becomes of a session whose state is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// Attached anew elsewhere, marked lost.
    Fresh,
    Close,
}

/// Bounds of one session, and how long it waits for things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Client bytes that may be in flight to the backend, and as many that may wait in the proxy.
    pub client_window_bytes: u32,
    /// Server bytes that may be in flight to the client.
    pub server_window_bytes: u32,
    /// State size expected before the first handoff tells the real one.
    pub state_size_bytes: u64,
    /// Largest state taken from a backend.
    pub max_state_bytes: u64,
    /// What is kept of a session since its last checkpoint; at half of it a checkpoint is asked for.
    pub max_journal_bytes: u64,
    /// Sessions of this service on one worker.
    pub max_sessions: u32,
    pub attach_timeout: Duration,
    pub freeze_timeout: Duration,
    /// Longest stay in the proxy with no backend able to take the session.
    pub park_deadline: Duration,
    /// How long a parked session waits for its own backend before any eligible one will do.
    pub park_home: Duration,
    /// Silence after which a backend is gone.
    pub liveness: Duration,
    /// How long a lost link may take to come back before its backend counts as gone.
    pub resume_timeout: Duration,
    /// How long the backend may take to finish a session whose client has left.
    pub close_deadline: Duration,
    /// A session that had input since its last checkpoint is asked for another after this.
    pub checkpoint_interval: Duration,
    /// Crashes that a session may go through without a new checkpoint between; then its input is called poison.
    pub max_recoveries: u32,
    /// Sessions of one worker that may be on their way to a backend after a crash.
    pub recoveries_in_flight: u32,
    /// Sessions in one group.
    pub max_group_members: u32,
    /// How long a member who doesn't read may hold up its group.
    pub slow_member: Duration,
}

/// How a session's backend is chosen among those that may take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub policy: Policy,
    pub by: By,
    /// A fresh backend comes to its full weight within this time.
    pub slow_start: Duration,
    /// With fewer than this share of them fit, nobody's health counts.
    pub panic_percent: u8,
}

impl Balance {
    /// The same for sessions that live. A turn, a draw or a load that goes up and down says where a newcomer goes, not
    /// where anybody belongs: those who are there already are spread by their numbers.
    #[must_use]
    pub fn for_live_sessions(self) -> Self {
        let policy = match self.policy {
            Policy::Hash(key) => Policy::Hash(key),
            Policy::LeastSessions | Policy::RoundRobin | Policy::TwoChoices => Policy::LeastSessions,
        };
        Self { policy, by: By::Sessions, ..self }
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::LeastSessions,
            by: By::Sessions,
            slow_start: Duration::ZERO,
            panic_percent: 50,
        }
    }
}

/// What the policies that compare backends compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// This worker's sessions there.
    #[default]
    Sessions,
    /// What the backends tell of their load.
    Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    LeastSessions,
    RoundRobin,
    TwoChoices,
    Hash(HashKey),
}

/// What sends two sessions to the same backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKey {
    Session,
    /// The client's address, without its port.
    Client,
    /// The server name that the client asked for by TLS.
    Sni,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeastSessions => f.write_str("least_sessions"),
            Self::RoundRobin => f.write_str("round_robin"),
            Self::TwoChoices => f.write_str("two_choices"),
            Self::Hash(key) => write!(f, "hash({})", key.name()),
        }
    }
}

impl HashKey {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Client => "client",
            Self::Sni => "sni",
        }
    }
}

/// Bounds of one backend's part in one worker; above one, it takes no more sessions. `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breakers {
    pub max_sessions: Option<u32>,
    /// Attaches in flight.
    pub max_attaching: Option<u32>,
    /// Parked sessions that wait for it.
    pub max_parked: Option<u32>,
    /// Bytes kept for its sessions and its link.
    pub max_kept_bytes: Option<u64>,
}

/// Which sessions a shadow service sees, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPolicy {
    /// The shadow.
    pub service: Arc<str>,
    /// Share of the new sessions.
    pub percent: u8,
    /// Its frames are compared with those that players get; else they are dropped.
    pub compare: bool,
}

impl MirrorPolicy {
    /// Whether that session is among those mirrored: always the same answer for the same id, and one that grows with the
    /// percents.
    #[must_use]
    pub fn takes(&self, session: SessionId) -> bool {
        // Not as placement hashes it: each version is to be seen.
        const SEED: u64 = u64::from_be_bytes(*b"mirrored");
        xxh3_64_with_seed(&session.0, SEED) % 100 < u64::from(self.percent)
    }
}

/// How sessions leave a draining backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPolicy {
    /// Handoffs under way at once on one worker.
    pub in_flight: u32,
    /// Handoffs begun per second on one worker.
    pub per_second: u32,
    /// Deadline of a drain that doesn't name one.
    pub deadline: Duration,
    pub on_deadline: OnDeadline,
    pub on_sigterm: OnSigterm,
}

/// How live sessions move towards shares and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebalancePolicy {
    /// Moves begun per second on one worker.
    pub per_second: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeadline {
    Keep,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSigterm {
    Move,
    Park,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TracePolicy {
    /// Share of frames that are sampled, 0 to 1; the proxy's own ratio where the document doesn't say.
    pub ratio: Option<f64>,
    /// A frame slower than this is exported even when not sampled.
    pub slow_frame: Duration,
}

impl Eq for TracePolicy {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub name: Arc<str>,
    pub listener: Arc<str>,
    pub service: Arc<str>,
    /// Version -> share. Empty: all versions by their backends' weights.
    pub versions: BTreeMap<Arc<str>, u32>,
    pub prefer: Prefer,
    pub matches: RouteMatch,
}

/// Which clients of the listener a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RouteMatch {
    /// Exact name, or `*.suffix`.
    pub sni: Option<Arc<str>>,
    /// Source network as (address, prefix length).
    pub source: Option<(IpAddr, u8)>,
}

/// How exactly a route matches a client; the greatest wins: 1 + length of the server name that matched (an exact one
/// counts above every wildcard), then 1 + length of the network.
type Rank = (usize, u16);

impl RouteMatch {
    fn rank(&self, sni: Option<&str>, source: IpAddr) -> Option<Rank> {
        Some((self.rank_name(sni)?, self.rank_network(source)?))
    }

    fn rank_name(&self, sni: Option<&str>) -> Option<usize> {
        let Some(pattern) = self.sni.as_deref() else { return Some(0) };
        let name = sni?;
        let Some(suffix) = pattern.strip_prefix('*') else {
            return name.eq_ignore_ascii_case(pattern).then_some(usize::MAX);
        };
        // `suffix` begins with a dot; at least one character stands before it.
        let start = name.len().checked_sub(suffix.len()).filter(|&start| start > 0)?;
        let end = name.as_bytes().get(start..)?;
        end.eq_ignore_ascii_case(suffix.as_bytes()).then_some(1 + suffix.len())
    }

    fn rank_network(&self, source: IpAddr) -> Option<u16> {
        let Some((base, length)) = self.source else { return Some(0) };
        (mask(source, length) == base && source.is_ipv4() == base.is_ipv4()).then_some(1 + u16::from(length))
    }
}

/// Which eligible backends come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    Local,
    Zone,
    None,
}

/// A `drains/` key in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOrder {
    pub backend: BackendId,
    /// From the moment the order is first seen; the service's default otherwise.
    pub deadline: Option<Duration>,
    pub reason: String,
    /// Only that run of the backend.
    pub instance: Option<InstanceId>,
}

/// A `rollouts/` key in force: how players are brought from one version of a service to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub service: Arc<str>,
    pub from: Arc<str>,
    pub to: Arc<str>,
    /// Percent of the players on `to`, growing; at least one.
    pub steps: Vec<u32>,
    /// How long each step lasts.
    pub interval: Duration,
    /// Moves begun per second on one worker; the service's pace of drains otherwise.
    pub per_second: Option<u32>,
    pub abort: AbortRule,
    pub pause: PauseRule,
    pub order: RolloutOrder,
    pub reason: String,
    /// Tells a rollout from an earlier one between the same versions.
    pub attempt: u64,
    /// Even if players couldn't be moved back.
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutOrder {
    Run,
    Pause,
    Abort,
}

/// When a rollout's players are moved back.
#[derive(Debug, Clone, PartialEq)]
pub struct AbortRule {
    pub failures_percent: f64,
    /// Failures are counted over this time.
    pub window: Duration,
    /// For so long the share must be exceeded.
    pub lasting: Duration,
    pub count: Vec<Failure>,
}

/// How a backend fails a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Late,
    Fault,
    Close,
    Crash,
    Divergence,
}

/// When a rollout stays where it is, and somebody is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseRule {
    /// Of the time from a frame's arrival until the game has processed it.
    pub p99: Duration,
    pub lasting: Duration,
}

#[cfg(test)]
mod tests;
