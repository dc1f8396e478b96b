//! The list of every metric: names, units, labels and help are public API and change only by addition.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    Histogram,
}

/// One metric as it is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// What one of it is: `seconds`, `bytes`, or the thing counted.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub const $id: Metric = Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help,
        };)*

        /// Every metric that `/metrics` shows.
        pub const REFERENCE: &[Metric] = &[$($id),*];
    };
}

metrics! {
    SESSIONS = Gauge "holdfast_sessions", "sessions", [], "Open sessions, parked ones included";
    SESSIONS_OPENED = Counter "holdfast_sessions_opened_total", "sessions", [], "Sessions accepted";
    SESSIONS_CLOSED = Counter "holdfast_sessions_closed_total", "sessions", ["reason"],
        "Sessions that ended, by the reason";
    PARKED = Gauge "holdfast_parked_sessions", "sessions", [],
        "Sessions that wait in the proxy because no backend can take them yet";
    GROUPS = Gauge "holdfast_groups", "groups", [], "Groups (matches, rooms) of this proxy";
    GROUP_MEMBERS = Gauge "holdfast_group_members", "sessions", [], "Sessions that are in a group";
    GROUP_CLAIMS = Counter "holdfast_group_claims_total", "claims", ["result"],
        "Groups that were to be formed, by whose they are in the cluster: mine, foreign (refused), unanswered (formed without a claim)";
    JOINS_REFUSED = Counter "holdfast_joins_refused_total", "requests", [],
        "Requests to be in a group that could not be met";
    MIRRORS = Gauge "holdfast_mirrors", "sessions", [],
        "Sessions that a shadow service sees, too; the shadow's own are in no other count of sessions";
    MIRRORED_FRAMES = Counter "holdfast_mirrored_frames_total", "frames", [], "Client frames that a shadow service was given, too";
    MIRRORS_ENDED = Counter "holdfast_mirrors_ended_total", "sessions", ["reason"],
        "Mirrored sessions that are mirrored no more (limit: never were), by the reason";
    MIRROR_REPLIES = Counter "holdfast_mirror_replies_total", "frames", ["result"],
        "Frames of shadows that are compared with what their players got: equal, different, uncompared (no counterpart, or too far from it)";
    HANDOFFS = Counter "holdfast_handoffs_total", "handoffs", ["cause", "result"],
        "Handoffs that ended, by what asked for them and how they ended";
    DRAINS = Gauge "holdfast_drains", "drains", ["state"],
        "Drains in force on this proxy's links, by state: moving, waiting, stuck (nobody can take what is left), deadline, drained";
    DRAIN_LEFT = Gauge "holdfast_drain_sessions_left", "sessions", [], "Sessions of this proxy on backends that are drained";
    DRAIN_IN_FLIGHT = Gauge "holdfast_drain_sessions_in_flight", "sessions", [],
        "Sessions of this proxy that are on their way off a drained backend";
    DRAIN_HOMELESS = Gauge "holdfast_drain_sessions_homeless", "sessions", [],
        "Sessions on drained backends that no other backend can take now";
    REBALANCING = Gauge "holdfast_rebalancing", "services", [],
        "Services whose live sessions are being moved towards shares and weights, on each worker";
    HANDOFF_PAUSE = Histogram "holdfast_handoff_pause_seconds", "seconds", [],
        "Time of a handoff from the stop of forwarding to the first live frame after it";
    KEPT_BYTES = Gauge "holdfast_kept_bytes", "bytes", ["kind"],
        "Bytes held for players and backends, by what they are; limits.kept_bytes bounds their sum on each worker";
    CHECKPOINTS = Counter "holdfast_checkpoints_total", "checkpoints", [], "Checkpoints that the proxy has kept";
    CHECKPOINT_BYTES = Counter "holdfast_checkpoint_bytes_total", "bytes", [], "Bytes of the checkpoints kept";
    RECORDS = Counter "holdfast_records_total", "records", [],
        "Records that backends sent: what a replay can't derive from client frames, and changes of state";
    RECOVERING = Gauge "holdfast_recovering_sessions", "sessions", [],
        "Sessions that a crash has thrown out and that no backend has again yet";
    UNPROTECTED = Gauge "holdfast_unprotected_sessions", "sessions", [],
        "Sessions whose backend can't do what their service's recovery asks for: its crash will cost their state";
    DIVERGED = Counter "holdfast_diverged_total", "sessions", [],
        "Replays that made something else than the player had seen";
    POISONED = Counter "holdfast_poisoned_total", "sessions", [],
        "Sessions closed because their input brought several backends down";
    LIMIT = Gauge "holdfast_limit", "limit", ["limit"], "Bounds of the workers, added up";
    BREAKERS_OPEN = Gauge "holdfast_breakers_open", "backends", ["breaker"],
        "Backends that take no more sessions from a worker, by the bound reached: of their service's breakers, their capacity, or the load they tell (at which they still do if all are)";
    UNREAD_CLIENTS = Gauge "holdfast_unread_clients", "clients", ["bound"],
        "Clients that are not read for now: their session's window is used up, or a bound of the worker is near";
    LINGERING = Gauge "holdfast_lingering_connections", "connections", [],
        "Connections whose session is over and whose last bytes are on their way";
    LINGERS_CUT = Counter "holdfast_lingers_cut_total", "connections", [],
        "Connections closed before their last bytes were taken, because too many lingered or memory was short";
    TLS_HANDSHAKES = Gauge "holdfast_tls_handshakes", "handshakes", [], "TLS handshakes under way";
    FRAMES = Counter "holdfast_frames_total", "frames", ["direction"], "Frames forwarded, by direction";
    BYTES = Counter "holdfast_bytes_total", "bytes", ["direction"], "Bytes of the frames forwarded, by direction";
    FRAMES_AGAIN = Counter "holdfast_frames_again_total", "frames", [],
        "Frames sent again after a cut, a thaw or a restore";
    FRAMES_LOST = Counter "holdfast_frames_lost_total", "frames", [],
        "Client frames that a crash lost (services with recovery none)";
    STALE_MESSAGES = Counter "holdfast_stale_messages_total", "messages", [],
        "Messages dropped because their attachment was no longer the current one";
    FAULTS = Counter "holdfast_faults_total", "faults", ["scope", "rule"],
        "Protocol rules broken by backends, by what that ended (a session or a link) and by the rule's name";
    LINKS = Gauge "holdfast_links", "links", [], "Links to backends that are up";
    LINKS_LOST = Counter "holdfast_links_lost_total", "links", [], "Links to backends that broke";
    STATES_DROPPED = Counter "holdfast_states_dropped_total", "states", [],
        "Session states dropped because no backend took them before the park deadline or the shutdown";
    TABLE_REVISION = Gauge "holdfast_table_revision", "revision", [], "Revision of the routing table in force";
    TABLE_AGE = Gauge "holdfast_table_age_seconds", "seconds", [],
        "Time since the source of the routing table was last heard; 0 while it is connected";
    HELD_CHANGES = Gauge "holdfast_held_changes", "services", [],
        "Services that a change of is held until `holdfast table accept`";
    TABLE_APPLY = Histogram "holdfast_table_apply_seconds", "seconds", [],
        "Time from a change of the routing documents, as it came from their source, until a worker acts by it";
    REFUSED_DOCUMENTS = Gauge "holdfast_refused_documents", "documents", [],
        "Routing documents that are invalid now; their last good version stays in force";
    ROLLOUTS = Gauge "holdfast_rollouts", "rollouts", ["state"], "Rollouts of the fleet, by the state they are in";
    UNFIT_BACKENDS = Gauge "holdfast_unfit_backends", "backends", ["cause"],
        "Backends that get no new sessions while others can take them, by the cause";
    CHECKS = Counter "holdfast_health_checks_total", "checks", ["result"], "Active checks of backends, by the result";
    EJECTIONS = Counter "holdfast_outlier_ejections_total", "ejections", [],
        "Backends ejected for how they treated their sessions";
    HOOKS = Counter "holdfast_hooks_total", "orders", ["action", "result"],
        "What alerts wanted done, by what became of it: done, undone, already, kept, refused, failed; no_rule: alerts that no hook is for";
    EVENTS = Counter "holdfast_events_total", "events", ["result"],
        "Events for receivers: sent, dropped (the oldest, for newer ones), failed (not taken)";
    SPANS_EXPORTED = Counter "holdfast_spans_exported_total", "spans", [], "Spans that the collector took";
    SPANS_DROPPED = Counter "holdfast_spans_dropped_total", "spans", [],
        "Spans that never reached the collector: a full queue, a failed export or the end of the process";
    BUILD_INFO = Gauge "holdfast_build_info", "info", ["version"], "Always 1; the label is the version running";
    START_TIME = Gauge "process_start_time_seconds", "seconds", [],
        "Start of the process in seconds since the Unix epoch";
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes", "bytes", [], "Resident memory of the process";
}
