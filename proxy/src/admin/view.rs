//! The JSON that the admin address speaks, read by the command line too. Public API: fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::rollout::Progress;
use crate::rollout::orders::Word;
pub use crate::routing::document::RawAccept;
pub use crate::source::etcd::{Registration, RegistrationState};
pub use crate::worker::command::{DrainProgress, LinkView, SessionView};

/// Every answer that isn't 2xx (but `/readyz`'s).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorView {
    pub error: String,
}

/// `GET /readyz`, with 200 or 503.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyView {
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub waiting_for: Vec<String>,
    pub stopping: bool,
    pub listeners_bound: bool,
    pub table: TableView,
    pub backends_known: u64,
    /// Links to backends that are up, over all workers.
    pub links_up: u64,
}

/// How current the routing is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableView {
    pub revision: u64,
    /// `source`; `disk`: the last good documents, the source hasn't answered yet; `none`: no table yet.
    pub origin: String,
    /// Since when this table is in force.
    pub in_force_s: u64,
    /// `etcd` or `files`.
    pub source: String,
    pub connected: bool,
    /// Since when the source hasn't been heard; 0 while it is connected.
    pub silent_s: u64,
    /// Why it doesn't answer.
    pub source_error: Option<String>,
    pub refused: u64,
}

/// `GET /sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionsView {
    pub sessions: Vec<SessionView>,
    /// Open sessions, of which the list may be a part.
    pub total: u64,
}

/// `GET /backends`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendsView {
    pub backends: Vec<BackendView>,
}

/// One backend as this proxy sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendView {
    /// `service/name`
    pub backend: String,
    /// False: its key is gone, its sessions stay while its link lives.
    pub in_table: bool,
    pub address: Option<String>,
    /// As the backend itself says, or else as its document does.
    pub version: Option<String>,
    pub weight: Option<u32>,
    pub zone: Option<String>,
    /// up, connecting, down; `none` if no worker has needed one.
    pub link: String,
    /// Of this proxy.
    pub sessions: u64,
    /// Causes in force: "key", "local", "backend", "unfit".
    pub draining: Vec<String>,
    /// Sessions that a running drain has still to move.
    pub left: u64,
    pub last_error: Option<String>,
    /// The drain that runs, over all workers.
    #[serde(default)]
    pub drain: Option<DrainProgress>,
    /// The backend's attachments over all links of all proxies, as it said last; absent while it isn't known.
    #[serde(default)]
    pub attachments: Option<u64>,
    /// Why it gets no new sessions while others can take them; empty: it is fit.
    #[serde(default)]
    pub unfit: Vec<UnfitView>,
    /// The most that it is to have: as its document says, or else as it says itself.
    #[serde(default)]
    pub capacity: Option<u64>,
    /// The most that it is to have, as it says itself; while its document names another, it means nothing.
    #[serde(default)]
    pub capacity_told: Option<u64>,
    /// How full it says it is, in thousandths; from 1000 on it is overloaded. Absent: it says nothing.
    #[serde(default)]
    pub load_permille: Option<u16>,
    /// The bounds that it has reached on any worker, so that it takes no more from there.
    #[serde(default)]
    pub at_bound: Vec<String>,
    /// Each worker's own link.
    pub links: Vec<LinkView>,
}

/// One reason why a backend is unfit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnfitView {
    /// check, outlier, order
    pub cause: String,
    pub reason: String,
    pub for_s: u64,
    /// RFC 3339; absent: until it passes its checks, or the key is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// `GET /routes`: the table in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoutesView {
    pub table: TableView,
    pub routes: Vec<RouteView>,
    pub services: Vec<ServiceView>,
    pub drains: Vec<DrainView>,
    pub refused: Vec<RefusedView>,
    pub warnings: Vec<String>,
    #[serde(default)]
    pub held: Vec<HeldView>,
}

/// `GET /documents`: what the table in force was made of; with `?table=N`, a table of the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DocumentsView {
    /// Its number in the history; absent: it is in force.
    pub number: Option<u64>,
    pub revision: u64,
    /// When it came into force, in milliseconds of Unix time.
    pub applied_ms: u64,
    pub documents: Vec<DocumentView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DocumentView {
    pub key: String,
    /// Of its last change.
    pub revision: u64,
    /// As it was written.
    pub text: String,
    /// A registrar wrote it, and it goes with the registrar.
    #[serde(default)]
    pub leased: bool,
}

/// `GET /tables`: the history on disk, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TablesView {
    pub tables: Vec<PastTableView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PastTableView {
    pub number: u64,
    pub revision: u64,
    /// When it came into force, in milliseconds of Unix time.
    pub applied_ms: u64,
}

/// `GET /rollouts`: those that have a document, and how far the fleet is with each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolloutsView {
    pub rollouts: Vec<RolloutView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolloutView {
    pub service: String,
    pub from: String,
    pub to: String,
    pub steps: Vec<u32>,
    pub interval_s: u64,
    /// run, pause, abort: what the document says.
    pub order: String,
    /// What workers of this proxy do: percent of the players on `to`.
    pub percent: u32,
    /// Of its status key; absent before the controller has begun it.
    pub progress: Option<Progress>,
}

/// `POST /rollout`: answered with a [`TableAnswer`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    pub service: String,
    /// `{"start": {"to": "1.5"}}`, `"pause"`, `"resume"`, `"abort"`, `{"promote": {"early": false}}`
    pub word: Word,
    /// Shown to whoever looks; one line of at most 256 characters.
    #[serde(default)]
    pub reason: String,
    /// Say what would be written; write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteView {
    pub name: String,
    pub listener: String,
    /// Whether this proxy has that listener; it ignores routes for others.
    pub here: bool,
    pub service: String,
    /// Version -> share; empty: by the backends' weights.
    pub versions: BTreeMap<String, u32>,
    pub prefer: String,
    pub sni: Option<String>,
    /// Network as `address/prefix length`.
    pub source: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceView {
    pub name: String,
    pub recovery: String,
    pub on_crash: String,
    pub checkpoint_interval_ms: u64,
    pub max_journal_bytes: u64,
    pub max_recoveries: u32,
    pub recoveries_in_flight: u32,
    pub max_group_members: u32,
    pub backends: u64,
}

/// A `drains/` key in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainView {
    pub backend: String,
    pub deadline_s: Option<u64>,
    pub reason: String,
    pub instance: Option<String>,
}

/// A document whose newest version isn't in force, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedView {
    pub key: String,
    /// Field, value and expectation.
    pub error: String,
    /// Revision of the refused version.
    pub since: u64,
    /// An older version of it is in force instead.
    pub last_good: bool,
}

/// A change that isn't let through: the documents' versions in force stay until somebody says yes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    pub service: String,
    /// Revision of the change with which it began.
    pub since: u64,
    /// When that was, in milliseconds of Unix time.
    pub since_ms: u64,
    /// What the change would do.
    pub why: Vec<String>,
    /// The first hundred documents whose version in force stays.
    pub keys: Vec<String>,
    /// Those that aren't listed.
    pub keys_unlisted: u64,
}

/// `GET /held`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldsView {
    pub held: Vec<HeldView>,
    /// Service -> the document `accepts/SERVICE` that lets it through.
    pub accepts: BTreeMap<String, RawAccept>,
    /// The other proxies that hold something, as their status keys say.
    pub proxies: Vec<ProxyHeldView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHeldView {
    pub proxy: String,
    pub held: Vec<String>,
}

/// Body of `POST /accept`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// Absent: all that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default)]
    pub reason: String,
}

/// Answer to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptAnswer {
    pub accepted: Vec<HeldView>,
    /// From which on it goes on.
    pub revision: u64,
}

/// Body of `POST /table`: one change of documents, as one transaction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRequest {
    /// Key -> text. What is there already, and says the same, isn't written.
    #[serde(default)]
    pub put: BTreeMap<String, String>,
    #[serde(default)]
    pub delete: Vec<String>,
    /// Delete what these kinds (`backends`) have beyond `put`, but for orders and registrations.
    #[serde(default)]
    pub prune: Vec<String>,
    /// Write back this table of the history, but for orders and registrations: its number (`41` or `t41`) or its
    /// revision (`512` or `r512`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// Say what would change, and write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Say yes to what would be held.
    #[serde(default)]
    pub accept: bool,
    /// The puts are a folder's: keys that are nobody's to write but who ordered or registered them are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folder: bool,
}

/// Answer to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableAnswer {
    /// Keys that are written (or would be).
    pub keys: Vec<String>,
    /// The difference, a line each.
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
    /// Why it would be refused: with `dry_run` alone.
    #[serde(default)]
    pub refused: Vec<String>,
    /// Why it would be held: with `dry_run` alone.
    #[serde(default)]
    pub held: Vec<String>,
    /// What `accept` said yes to.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// From which on it stands; absent: nothing was written.
    pub revision: Option<u64>,
    /// The table that is written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<PastTableView>,
}

/// `GET /applied`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedView {
    /// Of the table in force.
    pub revision: u64,
    /// Of the table by which every worker acts.
    pub applied: u64,
}

/// `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    pub proxy: String,
    pub version: String,
    /// starting, serving, stopping
    pub state: String,
    pub uptime_s: u64,
    pub workers: u64,
    pub sessions: u64,
    pub parked: u64,
    /// Groups (matches, rooms), and sessions in them.
    #[serde(default)]
    pub groups: u64,
    #[serde(default)]
    pub group_members: u64,
    pub kept_bytes: u64,
    pub listeners: Vec<ListenerView>,
    pub table: TableView,
    /// Of the backend beside this proxy, if the proxy registers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    pub backends: Vec<BackendView>,
    pub refused: Vec<RefusedView>,
    pub warnings: Vec<String>,
    #[serde(default)]
    pub held: Vec<HeldView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerView {
    pub name: String,
    pub address: String,
}

/// Body of `POST /drain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// `service/name`
    pub backend: String,
    /// Default: the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    #[serde(default)]
    pub reason: String,
    /// This proxy alone, with no key written.
    #[serde(default)]
    pub local: bool,
}

/// Body of `POST /undrain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndrainRequest {
    /// `service/name`
    pub backend: String,
    #[serde(default)]
    pub local: bool,
}

/// Answer to both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainAnswer {
    pub backend: String,
    /// `local`: this proxy; `all`: every proxy that watches the key.
    pub scope: String,
    /// Whether anything is different now: false for an undrain of what wasn't drained.
    pub changed: bool,
    /// The deadline in force, for a drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// The key written or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Revision from which on the key stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Other backends of the service that take sessions, as this proxy sees it now; for a drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<u64>,
}

/// Body of `POST /eject`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EjectRequest {
    /// `service/name`
    pub backend: String,
    #[serde(default)]
    pub reason: String,
    /// Default: until `uneject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// Body of `POST /uneject`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnejectRequest {
    /// `service/name`
    pub backend: String,
}

/// Answer to both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EjectAnswer {
    pub backend: String,
    /// The key written or deleted.
    pub key: String,
    /// Whether anything is different now: false for an uneject of what no key ejected.
    pub changed: bool,
    /// RFC 3339, for an ejection that ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Answer to `POST /hooks/alertmanager`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HooksAnswer {
    /// Why some of it is to be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In the order of the alerts: a row for each hook that matches one, or one for none.
    pub alerts: Vec<HookResultView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookResultView {
    /// Its alertname.
    pub alert: String,
    pub fingerprint: String,
    /// firing, resolved
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// drain, eject, abort
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `service/name`, or the service whose rollout it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// done, undone, already (it was so before), kept (the alert is over, its order stays), refused, failed (to be sent
    /// again), no rule
    pub result: String,
    /// The key, or why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `GET /drain?backend=SERVICE/NAME&revision=REVISION`: whether a drained backend is empty over all proxies; without
/// `revision` (an order of this proxy's own), whether this proxy and the backend itself count nobody there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainStatusView {
    pub backend: String,
    pub state: DrainState,
    /// Sessions that have still to leave, of this proxy and of the others.
    pub left: u64,
    /// Of this proxy.
    pub sessions: u64,
    pub in_flight: u64,
    /// The drain on this proxy, while it has a link there.
    pub drain: Option<DrainProgress>,
    /// The other proxies that hold a status key.
    pub proxies: Vec<ProxyDrainView>,
    /// The backend's own count over all links; absent while it isn't known.
    pub attachments: Option<u64>,
    /// In words, why it isn't over.
    pub waits_for: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainState {
    /// Not in force on every proxy.
    Ordered,
    Draining,
    /// Sessions are left that no other backend can take now.
    Stuck,
    /// Nobody is left, and nobody can come.
    Empty,
    /// The order is gone, and nothing else drains the backend.
    Lifted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyDrainView {
    pub proxy: String,
    /// The order is in force on all its workers.
    pub applied: bool,
    pub sessions: u64,
    pub in_flight: u64,
}

impl BackendView {
    /// Every link that was tried has failed.
    #[must_use]
    pub fn is_down(&self) -> bool {
        !self.links.is_empty() && self.links.iter().all(|link| link.link == "down")
    }
}
