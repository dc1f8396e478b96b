//! From a change of documents to the table in force: compile, swap, tell.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::history::{Snapshot, unix_ms};
use crate::rollout::Progresses;
use crate::routing::diff::difference;
use crate::routing::document::Document;
use crate::routing::slips::{self, Held, Judgement, Memory, Moment};
use crate::routing::{Compiled, Documents, LastGood, Refusal, Table, Warning, compile};

/// Most lines of one change's difference that are logged.
const LOGGED_CHANGES: usize = 50;

/// Where the table in force was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// No document was ever read.
    Nothing,
    /// The last good documents on disk: the source itself has not answered yet.
    Disk,
    Source,
}

/// What is in force, and how the source is.
#[derive(Debug, Clone)]
pub struct Published {
    pub table: Arc<Table>,
    /// What the table was made of.
    pub documents: Arc<LastGood>,
    pub origin: Origin,
    pub refused: Arc<[Refusal]>,
    pub warnings: Arc<[Warning]>,
    /// Changes that are not let through until somebody says yes to them.
    pub held: Arc<[Held]>,
    /// By what the next change is judged.
    pub memory: Arc<Memory>,
    /// The source answers now.
    pub connected: bool,
    /// When it last did; the table's age is counted from here.
    pub last_contact: Option<SystemTime>,
    /// Why it doesn't answer.
    pub source_error: Option<String>,
}

/// The readers' side of a source.
#[derive(Debug, Clone)]
pub struct Source {
    /// For workers: one load is one consistent state of all documents.
    pub table: Arc<ArcSwap<Table>>,
    /// Changes with every new table, and when the source comes or goes; not with every sign of life.
    pub published: watch::Receiver<Arc<Published>>,
    /// How far the fleet's rollouts are; none where documents are files.
    pub rollouts: watch::Receiver<Arc<Progresses>>,
}

/// The writer's side: one per source.
pub struct Publisher {
    documents: Documents,
    last_good: Arc<LastGood>,
    table: Arc<ArcSwap<Table>>,
    published: watch::Sender<Arc<Published>>,
    snapshots: watch::Sender<Snapshot>,
    memory: watch::Sender<Arc<Memory>>,
    rollouts: watch::Sender<Arc<Progresses>>,
}

impl Publisher {
    #[must_use]
    pub fn new() -> (Self, Source) {
        let empty = Arc::new(Table::empty());
        let table = Arc::new(ArcSwap::new(empty.clone()));
        let first = Published {
            table: empty,
            documents: Arc::default(),
            origin: Origin::Nothing,
            refused: Arc::new([]),
            warnings: Arc::new([]),
            held: Arc::new([]),
            memory: Arc::default(),
            connected: false,
            last_contact: None,
            source_error: None,
        };
        let (published, receiver) = watch::channel(Arc::new(first));
        let (rollouts, progresses) = watch::channel(Arc::default());
        let publisher = Self {
            documents: Documents::default(),
            last_good: Arc::default(),
            table: table.clone(),
            published,
            snapshots: watch::channel(Snapshot::empty()).0,
            memory: watch::channel(Arc::default()).0,
            rollouts,
        };
        (publisher, Source { table, published: receiver, rollouts: progresses })
    }

    /// The good documents after each change, for the tables on disk.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.subscribe()
    }

    /// What is to outlive a restart besides.
    #[must_use]
    pub fn memories(&self) -> watch::Receiver<Arc<Memory>> {
        self.memory.subscribe()
    }

    /// Where to tell how far rollouts are.
    #[must_use]
    pub fn rollouts(&self) -> watch::Sender<Arc<Progresses>> {
        self.rollouts.clone()
    }

    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Whether the table in force is the source's own, not one from disk.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.published.borrow().origin == Origin::Source
    }

    #[must_use]
    pub fn revision(&self) -> u64 {
        self.table.load().revision
    }

    /// Puts the documents from disk in force until the source answers, which is then judged by `memory`.
    pub fn start_from(&mut self, snapshot: &Snapshot, memory: Memory) {
        self.memory.send_replace(Arc::new(memory));
        for (key, good) in snapshot.last_good.iter() {
            self.documents.put_good(key.clone(), good.clone());
        }
        self.publish(snapshot.revision, Origin::Disk);
    }

    /// Applies one change of the source's documents as one swap.
    pub fn apply(&mut self, revision: u64, change: impl FnOnce(&mut Documents)) {
        change(&mut self.documents);
        self.publish(revision, Origin::Source);
    }

    /// What of the source's documents isn't let through.
    fn judge(&self, revision: u64, origin: Origin) -> Judgement {
        let memory = self.memory.borrow().clone();
        if origin != Origin::Source {
            return Judgement { memory: (*memory).clone(), held: Vec::new() };
        }
        let moment = Moment { revision, at_ms: unix_ms(SystemTime::now()) };
        slips::judge(&memory, &self.documents, &self.last_good, moment)
    }

    fn publish(&mut self, revision: u64, origin: Origin) {
        let Judgement { memory, held } = self.judge(revision, origin);
        let kept = (!held.is_empty()).then(|| slips::hold(&self.documents, &self.last_good, &held));
        let documents = kept.as_ref().unwrap_or(&self.documents);
        let Compiled { table, refused, warnings, last_good } = compile(documents, &self.last_good, revision);
        let table = Arc::new(table);
        self.last_good = Arc::new(last_good);
        let old_table = self.table.swap(table.clone());
        let now = (origin == Origin::Source).then(SystemTime::now);
        let old = self.published.borrow().clone();
        let new = Published {
            table: table.clone(),
            documents: self.last_good.clone(),
            origin,
            refused: refused.into(),
            warnings: warnings.into(),
            held: held.into(),
            memory: Arc::new(memory),
            connected: origin == Origin::Source,
            last_contact: now.or(old.last_contact),
            source_error: if now.is_some() { None } else { old.source_error.clone() },
        };
        log_news(&old, &new);
        log_held(&old, &new);
        self.remember(&new.memory);
        self.published.send_replace(Arc::new(new));
        log_difference(&old_table, &table, origin);
        let applied_at = table.applied_at;
        self.snapshots.send_replace(Snapshot { revision, applied_at, last_good: self.last_good.clone() });
    }

    fn remember(&self, memory: &Arc<Memory>) {
        self.memory.send_if_modified(|known| {
            let is_news = known != memory;
            *known = memory.clone();
            is_news
        });
    }

    /// The source has shown a sign of life.
    pub fn contact(&self) {
        self.published.send_if_modified(|published| {
            let came_back = !published.connected;
            let published = Arc::make_mut(published);
            published.last_contact = Some(SystemTime::now());
            published.connected = true;
            published.source_error = None;
            came_back
        });
    }

    /// The source doesn't answer; what is in force stays. Says whether it did until now.
    pub fn lost(&self, error: String) -> bool {
        let mut is_first = false;
        self.published.send_if_modified(|published| {
            is_first = published.connected || published.source_error.is_none();
            let is_news = is_first || published.source_error.as_ref() != Some(&error);
            let published = Arc::make_mut(published);
            published.connected = false;
            published.source_error = Some(error);
            is_news
        });
        is_first
    }
}

/// A refusal or warning is logged once, when it is new.
fn log_news(old: &Published, new: &Published) {
    let known: BTreeSet<_> = old.refused.iter().map(|refusal| (&refusal.key, refusal.since)).collect();
    for refusal in new.refused.iter().filter(|refusal| !known.contains(&(&refusal.key, refusal.since))) {
        warn!(
            key = refusal.key,
            field = refusal.field,
            value = refusal.value,
            expected = refusal.expected,
            revision = refusal.since,
            last_good = refusal.last_good,
            "a document is refused"
        );
    }
    let known: BTreeSet<_> = old.warnings.iter().map(|warning| (&warning.key, &warning.text)).collect();
    for warning in new.warnings.iter().filter(|warning| !known.contains(&(&warning.key, &warning.text))) {
        warn!(key = warning.key, "{}", warning.text);
    }
}

/// Each time something else is held, and how it ends.
fn log_held(old: &Published, new: &Published) {
    let find = |all: &[Held], service: &str| all.iter().position(|held| &*held.service == service);
    for held in new.held.iter() {
        if find(&old.held, &held.service).is_some_and(|known| old.held[known].keys == held.keys) {
            continue;
        }
        error!(
            service = &*held.service,
            revision = held.since,
            documents = held.keys.len(),
            "a change is held, what was in force stays: {}; `holdfast table held` lists it, `holdfast table accept {}` \
             lets it through",
            held.why.join("; "),
            held.service
        );
    }
    for held in old.held.iter().filter(|held| find(&new.held, &held.service).is_none()) {
        let (service, revision) = (&*held.service, new.table.revision);
        match said_yes(old, new, service) {
            Some(reason) => info!(service, revision, reason, "the change that was held is accepted"),
            None => info!(service, revision, "the change that was held is taken back"),
        }
    }
}

/// Why it was accepted, if it was.
fn said_yes<'a>(old: &Published, new: &'a Published, service: &str) -> Option<&'a str> {
    let key = format!("accepts/{service}");
    let accept = new.documents.get(&*key)?;
    match &accept.document {
        Document::Accept(said) if old.documents.get(&*key) != Some(accept) => Some(said.reason()),
        _ => None,
    }
}

fn log_difference(old: &Table, new: &Table, origin: Origin) {
    let changes = difference(old, new);
    let revision = new.revision;
    for change in changes.iter().take(LOGGED_CHANGES) {
        info!(revision, ?origin, "{change}");
    }
    if let Some(more) = changes.len().checked_sub(LOGGED_CHANGES).filter(|&more| more > 0) {
        info!(revision, ?origin, "and {more} more changes");
    }
}

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &[u8] = br#"{"protocol": "link", "framing": {"kind": "length"}}"#;

    #[test]
    fn a_change_is_one_swap_that_readers_are_told_of() {
        let (mut publisher, mut source) = Publisher::new();
        publisher.apply(7, |documents| {
            documents.put("services/arena", SERVICE, 7);
            documents.put("services/lobby", b"{}", 7);
        });
        assert!(source.published.has_changed().unwrap());
        let published = source.published.borrow_and_update().clone();
        assert_eq!((published.table.revision, published.origin), (7, Origin::Source));
        assert!(published.connected && published.refused.len() == 1);
        assert!(Arc::ptr_eq(&published.table, &source.table.load_full()));
    }

    #[test]
    fn a_lost_source_leaves_the_table_in_force_and_a_sign_of_life_wakes_nobody() {
        let (mut publisher, mut source) = Publisher::new();
        publisher.apply(1, |documents| documents.put("services/arena", SERVICE, 1));
        source.published.borrow_and_update();
        publisher.contact();
        assert!(!source.published.has_changed().unwrap());
        publisher.lost("gone".to_owned());
        assert!(source.published.has_changed().unwrap());
        let published = source.published.borrow_and_update().clone();
        assert_eq!((published.connected, published.source_error.as_deref()), (false, Some("gone")));
        assert_eq!(published.table.services.len(), 1);
        publisher.contact();
        assert!(source.published.has_changed().unwrap() && source.published.borrow().connected);
    }

    #[test]
    fn documents_from_disk_are_marked_and_still_shield_from_a_bad_write() {
        let (mut first, _) = Publisher::new();
        first.apply(5, |documents| documents.put("services/arena", SERVICE, 5));
        let snapshot = first.snapshots().borrow().clone();
        let (mut publisher, source) = Publisher::new();
        publisher.start_from(&snapshot, Memory::default());
        let published = source.published.borrow().clone();
        assert_eq!((published.origin, published.table.revision), (Origin::Disk, 5));
        assert!(!published.connected && published.last_contact.is_none());
        publisher.apply(6, |documents| documents.put("services/arena", b"{", 6));
        let published = source.published.borrow().clone();
        assert_eq!((published.origin, published.table.services.len()), (Origin::Source, 1));
        assert!(published.refused[0].last_good);
    }
}
