//! A worker's counters. Each is written by its worker's thread alone and read by the scraper: no locked
//! instruction on the hot path, no shared cache line between workers.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_protocol::message::Rule;

/// A count (or level) with one writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    pub fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn sub(&self, amount: u64) {
        self.0.store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a session ended. Public: the `reason` label of `holdfast_sessions_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum CloseReason {
    ClientClose,
    ClientError,
    BackendClose,
    BadFrame,
    Limit,
    NoRoute,
    NoBackend,
    BackendFault,
    Crash,
    ParkDeadline,
    DrainDeadline,
    Shutdown,
    /// Its input brought several backends down.
    Poison,
    /// It read (or came to the end of its frame) too slowly while the worker's memory was short.
    SlowPlayer,
    /// Its backend took its frames too slowly while the worker's memory was short.
    SlowBackend,
}

impl CloseReason {
    pub const ALL: [Self; 15] = [
        Self::ClientClose,
        Self::ClientError,
        Self::BackendClose,
        Self::BadFrame,
        Self::Limit,
        Self::NoRoute,
        Self::NoBackend,
        Self::BackendFault,
        Self::Crash,
        Self::ParkDeadline,
        Self::DrainDeadline,
        Self::Shutdown,
        Self::Poison,
        Self::SlowPlayer,
        Self::SlowBackend,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClose => "client_close",
            Self::ClientError => "client_error",
            Self::BackendClose => "backend_close",
            Self::BadFrame => "bad_frame",
            Self::Limit => "limit",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::BackendFault => "backend_fault",
            Self::Crash => "crash",
            Self::ParkDeadline => "park_deadline",
            Self::DrainDeadline => "drain_deadline",
            Self::Shutdown => "shutdown",
            Self::Poison => "poison",
            Self::SlowPlayer => "slow_player",
            Self::SlowBackend => "slow_backend",
        }
    }
}

/// Why a session moved. Public: the `cause` label of `holdfast_handoffs_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum HandoffCause {
    /// A `drains/` key, or `drain --local`.
    Operator,
    /// The backend's own DRAIN.
    Backend,
    /// The backend is gone.
    Crash,
    /// `rebalance` in the service's document.
    Rebalance,
    /// Its game wants it in a group.
    Group,
    /// A rollout brings it to another version, or back.
    Rollout,
    /// Its backend is unfit, and `health.when_ejected` is `move`.
    Health,
}

impl HandoffCause {
    pub const ALL: [Self; 7] = [
        Self::Operator,
        Self::Backend,
        Self::Crash,
        Self::Rebalance,
        Self::Group,
        Self::Rollout,
        Self::Health,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Backend => "backend",
            Self::Crash => "crash",
            Self::Rebalance => "rebalance",
            Self::Group => "group",
            Self::Rollout => "rollout",
            Self::Health => "health",
        }
    }
}

/// How a handoff ended. Public: the `result` label of `holdfast_handoffs_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum HandoffResult {
    Moved,
    Parked,
    Thawed,
    Closed,
}

impl HandoffResult {
    pub const ALL: [Self; 4] = [Self::Moved, Self::Parked, Self::Thawed, Self::Closed];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Parked => "parked",
            Self::Thawed => "thawed",
            Self::Closed => "closed",
        }
    }
}

/// Whether the cluster lets this proxy form a group. Public: the `result` label of `holdfast_group_claims_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ClaimResult {
    Mine,
    /// The group comes through another proxy.
    Foreign,
    /// etcd is away or slow, or there is none: the group is formed all the same.
    Unanswered,
}

impl ClaimResult {
    pub const ALL: [Self; 3] = [Self::Mine, Self::Foreign, Self::Unanswered];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mine => "mine",
            Self::Foreign => "foreign",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What the bytes are that a worker holds for players and backends. Public: the `kind` label of `holdfast_kept_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Kept {
    /// Client frames that wait, or that no backend has processed.
    Queue,
    /// Client frames, records and hashes that a recovery would need.
    Journal,
    /// States of sessions, whole.
    State,
    /// The beginnings of frames that clients haven't sent to the end.
    ClientPartial,
    /// What clients haven't taken.
    ClientOutbox,
    /// Promised to states on their way in.
    Transfer,
    /// The beginnings of messages from backends.
    LinkInbox,
    /// What backends haven't taken.
    LinkOutbox,
    /// The last bytes for clients whose sessions are over.
    Linger,
}

impl Kept {
    pub const ALL: [Self; 9] = [
        Self::Queue,
        Self::Journal,
        Self::State,
        Self::ClientPartial,
        Self::ClientOutbox,
        Self::Transfer,
        Self::LinkInbox,
        Self::LinkOutbox,
        Self::Linger,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Journal => "journal",
            Self::State => "state",
            Self::ClientPartial => "client_partial",
            Self::ClientOutbox => "client_outbox",
            Self::Transfer => "transfer",
            Self::LinkInbox => "link_inbox",
            Self::LinkOutbox => "link_outbox",
            Self::Linger => "linger",
        }
    }
}

/// A bound of the config file. Public: the `limit` label of `holdfast_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Limit {
    MaxSessions,
    MaxGroups,
    KeptBytes,
    LinkOutboxBytes,
    TransferPoolBytes,
}

impl Limit {
    pub const ALL: [Self; 5] =
        [Self::MaxSessions, Self::MaxGroups, Self::KeptBytes, Self::LinkOutboxBytes, Self::TransferPoolBytes];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxSessions => "max_sessions",
            Self::MaxGroups => "max_groups",
            Self::KeptBytes => "kept_bytes",
            Self::LinkOutboxBytes => "link_outbox_bytes",
            Self::TransferPoolBytes => "transfer_pool_bytes",
        }
    }
}

/// A bound of one backend's part in a worker. Public: the `breaker` label of `holdfast_breakers_open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Breaker {
    MaxSessions,
    MaxAttaching,
    MaxParked,
    MaxKeptBytes,
    /// The backend's own, as its document or it itself says.
    Capacity,
    /// It tells that it is full; unlike at the others it still takes sessions if all do.
    Load,
}

impl Breaker {
    pub const ALL: [Self; 6] = [
        Self::MaxSessions,
        Self::MaxAttaching,
        Self::MaxParked,
        Self::MaxKeptBytes,
        Self::Capacity,
        Self::Load,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxSessions => "max_sessions",
            Self::MaxAttaching => "max_attaching",
            Self::MaxParked => "max_parked",
            Self::MaxKeptBytes => "max_kept_bytes",
            Self::Capacity => "capacity",
            Self::Load => "load",
        }
    }
}

/// Why a session isn't mirrored (any more). Public: the `reason` label of `holdfast_mirrors_ended_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum MirrorEnd {
    /// Its player's session is over, and the shadow has been told.
    Finished,
    /// The shadow's game closed it.
    Closed,
    /// The shadow was slower than its player, by more than may wait for it.
    Overflow,
    /// No backend of the shadow's could take it: a mirror isn't parked.
    NoBackend,
    /// It was lost to the shadow: a crash without recovery, a broken rule, poison.
    Failed,
    /// One of the two is to be in a group.
    Group,
    /// The worker's memory is short: mirrors go first.
    Pressure,
    /// It wasn't begun: there are as many mirrors as may be.
    Limit,
    /// The document wants it no more.
    Withdrawn,
    /// The proxy ends.
    Shutdown,
}

impl MirrorEnd {
    pub const ALL: [Self; 10] = [
        Self::Finished,
        Self::Closed,
        Self::Overflow,
        Self::NoBackend,
        Self::Failed,
        Self::Group,
        Self::Pressure,
        Self::Limit,
        Self::Withdrawn,
        Self::Shutdown,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Closed => "closed",
            Self::Overflow => "overflow",
            Self::NoBackend => "no_backend",
            Self::Failed => "failed",
            Self::Group => "group",
            Self::Pressure => "pressure",
            Self::Limit => "limit",
            Self::Withdrawn => "withdrawn",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a shadow's frame is beside the one that its player got. Public: the `result` label of
/// `holdfast_mirror_replies_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Likeness {
    Equal,
    Different,
    /// It has no counterpart, or that came too much later or earlier.
    Uncompared,
}

impl Likeness {
    pub const ALL: [Self; 3] = [Self::Equal, Self::Different, Self::Uncompared];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Uncompared => "uncompared",
        }
    }
}

/// Upper bounds, in seconds, of `holdfast_table_apply_seconds`.
pub const APPLY_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0];

/// Upper bounds in seconds of the pause histogram's buckets; one more bucket is for everything above.
pub const PAUSE_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Faults by the rule that was broken; those without a name of their own are one.
#[derive(Debug, Default)]
pub struct Faults([Cell; Rule::ALL.len() + 1]);

impl Faults {
    pub fn add(&self, rule: Rule) {
        let index = Rule::ALL.iter().position(|known| *known == rule).unwrap_or(Rule::ALL.len());
        self.0[index].add(1);
    }

    /// Every name and its count.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, &Cell)> {
        let names = Rule::ALL.iter().map(|rule| rule.name()).chain(["other"]);
        names.zip(&self.0)
    }
}

/// One worker's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open sessions now.
    pub sessions: Cell,
    pub sessions_opened: Cell,
    pub sessions_closed: [Cell; CloseReason::ALL.len()],
    pub frames_to_backend: Cell,
    pub frames_to_client: Cell,
    pub bytes_to_backend: Cell,
    pub bytes_to_client: Cell,
    /// Frames resent after a cut, a thaw or a restore.
    pub frames_again: Cell,
    /// Client frames that a crash lost (`recovery: none`).
    pub frames_lost: Cell,
    /// Messages of an attachment that isn't current, dropped.
    pub stale_messages: Cell,
    /// By cause, then result.
    pub handoffs: [[Cell; HandoffResult::ALL.len()]; HandoffCause::ALL.len()],
    /// Proxy-side pause: from the stop of forwarding to the first live frame after it.
    pub pause_buckets: [Cell; PAUSE_BUCKETS.len() + 1],
    /// Tables that this worker has put in force, by how long after the change was known; the last holds the rest.
    pub apply_buckets: [Cell; APPLY_BUCKETS.len() + 1],
    pub apply_sum_us: Cell,
    pub pause_sum_us: Cell,
    pub parked: Cell,
    /// Services whose sessions are being brought to where shares and weights want them.
    pub rebalancing: Cell,
    /// Running drains, by state.
    pub drains: [Cell; crate::drain::progress::State::ALL.len()],
    /// Sessions on backends that are drained.
    pub drain_left: Cell,
    pub drain_in_flight: Cell,
    /// Of those left, found to have nowhere to go.
    pub drain_homeless: Cell,
    /// All bytes held for players and backends: the sum of those by kind.
    pub kept_bytes: Cell,
    pub kept_by_kind: [Cell; Kept::ALL.len()],
    /// The bounds of this worker.
    pub limits: [Cell; Limit::ALL.len()],
    /// Backends that take no more, by the bound that they have reached.
    pub breakers: [Cell; Breaker::ALL.len()],
    /// Clients that aren't read: their session's own window is used up.
    pub unread_by_window: Cell,
    /// Clients that aren't read: a bound of the worker or of its link is near.
    pub unread_by_worker: Cell,
    /// Connections whose session is over and whose last bytes are on their way.
    pub lingering: Cell,
    /// Connections closed at once instead.
    pub lingers_cut: Cell,
    /// TLS handshakes under way.
    pub tls_handshakes: Cell,
    pub links_up: Cell,
    pub links_lost: Cell,
    /// Rules that backends broke for the link as a whole, and for one session.
    pub link_faults: Faults,
    pub session_faults: Faults,
    /// State that had to be dropped (at shutdown or a park deadline).
    pub states_dropped: Cell,
    pub checkpoints: Cell,
    pub checkpoint_bytes: Cell,
    pub records: Cell,
    /// Sessions that wait for their turn after a crash, or are on their way.
    pub recovering: Cell,
    pub diverged: Cell,
    pub poisoned: Cell,
    /// Sessions whose backend can't do what their service's `recovery` asks for.
    pub unprotected: Cell,
    /// Groups, and sessions in them.
    pub groups: Cell,
    pub group_members: Cell,
    pub group_claims: [Cell; ClaimResult::ALL.len()],
    /// Requests to be in a group that couldn't be met.
    pub joins_refused: Cell,
    /// Sessions of shadow services that mirror a client's. They count in no number of sessions.
    pub mirrors: Cell,
    pub mirrors_ended: [Cell; MirrorEnd::ALL.len()],
    /// Client frames that a shadow has been given, too.
    pub mirrored_frames: Cell,
    pub mirror_replies: [Cell; Likeness::ALL.len()],
}

impl Counters {
    /// A table is in force on this worker, so long after its change was known.
    pub fn table_applied(&self, after: std::time::Duration) {
        let seconds = after.as_secs_f64();
        let bucket = APPLY_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(APPLY_BUCKETS.len());
        self.apply_buckets[bucket].add(1);
        self.apply_sum_us.add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }
}
