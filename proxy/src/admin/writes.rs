//! `POST /table` and `POST /accept`: documents that an operator writes through a proxy, judged before they are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::ask::{AskError, ask};
use super::drains::{StoreError, StoreFuture};
use super::inspect::held as held_views;
use super::state::AdminState;
use super::tables::{self, TableError};
use super::view::{
    AcceptAnswer, AcceptRequest, AppliedView, HeldsView, ProxyHeldView, TableAnswer, TableRequest,
};
use crate::config::FieldError;
use crate::routing::Documents;
use crate::routing::document::{Key, RawAccept};
use crate::routing::edit::Edit;
use crate::routing::plan::{Now, Plan, accept_document, plan};
use crate::routing::slips::{Held, Moment};
use crate::source::history::unix_ms;
use crate::source::published::Accepted;
use crate::worker::command::Command;

/// Longest wait for the store, for a list or a transaction.
const STORE_TIMEOUT: Duration = Duration::from_secs(4);

/// Who takes documents that are written through this proxy.
pub enum TableWriter {
    /// They come from this folder, which people write; `accepts` reaches who reads it.
    Files {
        folder: PathBuf,
        accepts: mpsc::Sender<Accepted>,
    },
    Store(Arc<dyn TableStore>),
}

impl fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { folder, .. } => f.debug_tuple("Files").field(folder).finish(),
            Self::Store(_) => f.write_str("Store"),
        }
    }
}

/// One key of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Below `config/`.
    pub key: Arc<str>,
    /// None: it is deleted.
    pub value: Option<Arc<[u8]>>,
    /// Revision of the version that it takes the place of; 0: there is none. Another one there, and nothing is written.
    pub expected: u64,
    /// It stands under a lease, and stays there.
    pub leased: bool,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    At(u64),
    /// These keys are not what they were: nothing is written.
    Changed(Vec<String>),
    /// The store doesn't take so many keys at once: nothing is written.
    TooMany,
}

/// What a live proxy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyWord {
    pub proxy: String,
    /// The level of documents that it reads.
    pub schema: u32,
    /// What it holds, in words.
    pub held: Vec<String>,
}

/// Reads and writes all documents (etcd).
pub trait TableStore: Send + Sync {
    /// As they stand, each with the revision of its last change.
    fn read(&self) -> StoreFuture<'_, Documents>;
    /// All of it or nothing.
    fn commit(&self, writes: Vec<Write>) -> StoreFuture<'_, Committed>;
    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyWord>>;
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(
        "this proxy reads its documents from {0}, which is yours to write: change the files there, it follows. \
         `holdfast check {0}` judges them; `holdfast table diff now {0}` shows what isn't in force"
    )]
    Files(String),
    #[error("{0}")]
    Invalid(String),
    #[error("nothing is written, since this would be refused:\n{0}")]
    Refused(String),
    #[error("nothing is written, since this would be held:\n{0}\nIf it is meant, say so with --accept")]
    Held(String),
    #[error("{0} changed meanwhile: nothing is written, look again")]
    Changed(String),
    #[error("nothing is written: {0}")]
    Store(String),
    #[error("whether it is written isn't known: {0}; `holdfast table diff` shows what is in force")]
    Unsure(String),
    #[error(
        "nothing is written: etcd doesn't take {0} keys in one transaction; start its servers with --max-txn-ops={0} \
         or more (they take 128 unless told), or write a part at a time"
    )]
    TooMany(usize),
    #[error("nothing is held{0}")]
    NothingHeld(String),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the folder's reader has stopped")]
    Stopped,
}

pub(super) async fn write(state: &AdminState, request: TableRequest) -> Result<TableAnswer, WriteError> {
    let store = store(state)?;
    let documents = in_time(store.read()).await?;
    let edit = wanted(state, &request, &documents).await?;
    let fleet = in_time(store.proxies()).await?;
    let mut plan = planned(state, &documents, &fleet, edit);
    let refused = lines(&plan.refused);
    let held: Vec<_> = plan.held.iter().map(Held::text).collect();
    let mut answer = TableAnswer {
        keys: plan.edit.0.keys().map(ToString::to_string).collect(),
        changes: plan.changes.iter().map(ToString::to_string).collect(),
        warnings: std::mem::take(&mut plan.warnings),
        ..TableAnswer::default()
    };
    if request.accept {
        plan.accept("");
        answer.accepted = held;
    } else if request.dry_run {
        answer.refused.extend(held.iter().map(|held| format!("held without --accept: {held}")));
    } else if refused.is_empty() && !held.is_empty() {
        return Err(WriteError::Held(held.join("\n")));
    }
    if request.dry_run {
        answer.refused.splice(0..0, refused);
        return Ok(answer);
    }
    if !refused.is_empty() {
        return Err(WriteError::Refused(refused.join("\n")));
    }
    if !plan.edit.is_empty() {
        answer.revision = Some(commit(store, &documents, plan.edit).await?);
    }
    Ok(answer)
}

/// The edit that is asked for.
async fn wanted(
    state: &AdminState,
    request: &TableRequest,
    documents: &Documents,
) -> Result<Edit, WriteError> {
    let mut after = documents.clone();
    if let Some(number) = request.rollback {
        let past = tables::past(state, number).await?;
        after.retain(|key| stays_in_a_rollback(documents, key) || past.last_good.contains_key(key));
        for (key, good) in past.last_good.iter().filter(|(key, good)| !good.leased && !is_order(key)) {
            if !is_registration(documents, key) {
                after.put(key, &good.raw, 0);
            }
        }
        return Ok(Edit::between(documents, &after));
    }
    after.retain(|key| {
        let kind = key.split('/').next().unwrap_or_default();
        let pruned = request.prune.iter().any(|pruned| pruned == kind);
        !pruned || request.put.contains_key(key) || stays_in_a_rollback(documents, key)
    });
    for key in &request.delete {
        if documents.get(key).is_none() {
            return Err(WriteError::Invalid(format!(
                "there is no {key}; `holdfast table list` has all keys"
            )));
        }
        after.remove(key);
    }
    for (key, text) in &request.put {
        Key::parse(key).map_err(|error| WriteError::Invalid(key_error(&error)))?;
        let leased = is_registration(documents, key);
        after.put_as(key, text.as_bytes(), 0, leased);
    }
    Ok(Edit::between(documents, &after))
}

fn key_error(FieldError { value, expected, .. }: &FieldError) -> String {
    format!("key: got {value:?}, expected {expected}")
}

/// What is nobody's to take away but who ordered or registered it.
fn stays_in_a_rollback(documents: &Documents, key: &str) -> bool {
    is_order(key) || is_registration(documents, key)
}

fn is_order(key: &str) -> bool {
    Key::parse(key).is_ok_and(|key| key.is_order())
}

fn is_registration(documents: &Documents, key: &str) -> bool {
    documents.get(key).is_some_and(|entry| entry.leased)
}

fn planned(state: &AdminState, documents: &Documents, fleet: &[ProxyWord], edit: Edit) -> Plan {
    let published = state.published();
    let fleet: Vec<_> = fleet.iter().map(|word| (word.proxy.clone(), word.schema)).collect();
    let now = Now {
        documents,
        in_force: &published.documents,
        memory: &published.memory,
        held: &published.held,
        fleet: &fleet,
        moment: Moment { revision: published.table.revision, at_ms: unix_ms(SystemTime::now()) },
    };
    plan(&now, edit)
}

async fn commit(store: &dyn TableStore, documents: &Documents, edit: Edit) -> Result<u64, WriteError> {
    let write = |(key, value): (Arc<str>, Option<Arc<[u8]>>)| Write {
        expected: documents.get(&key).map_or(0, |entry| entry.revision),
        leased: is_registration(documents, &key),
        key,
        value,
    };
    let writes: Vec<_> = edit.0.into_iter().map(write).collect();
    let count = writes.len();
    match in_time(store.commit(writes)).await {
        Ok(Committed::At(revision)) => Ok(revision),
        Ok(Committed::Changed(keys)) => Err(WriteError::Changed(keys.join(", "))),
        Ok(Committed::TooMany) => Err(WriteError::TooMany(count)),
        // The answer alone may be lost.
        Err(WriteError::Store(text)) => Err(WriteError::Unsure(text)),
        Err(other) => Err(other),
    }
}

/// Says yes to what is held of a service, or of all.
pub(super) async fn accept(state: &AdminState, request: AcceptRequest) -> Result<AcceptAnswer, WriteError> {
    let published = state.published();
    let meant = |held: &&Held| request.service.as_ref().is_none_or(|service| **service == *held.service);
    let held: Vec<_> = published.held.iter().filter(meant).cloned().collect();
    if held.is_empty() {
        let of = request.service.map_or_else(String::new, |service| format!(" of {service}"));
        return Err(WriteError::NothingHeld(of));
    }
    let raw = |held: &Held| RawAccept { reason: request.reason.clone(), ..held.accept.clone() };
    let (scope, revision) = match &state.tables {
        TableWriter::Files { accepts, .. } => {
            for held in &held {
                let accept = raw(held).check().map_err(|error| WriteError::Invalid(error.to_string()))?;
                accepts.send((held.service.clone(), accept)).await.map_err(|_| WriteError::Stopped)?;
            }
            ("local", None)
        }
        TableWriter::Store(store) => {
            let documents = in_time(store.read()).await?;
            let edit: BTreeMap<_, _> = held
                .iter()
                .map(|held| accept_document(&held.service, &raw(held)))
                .map(|(key, value)| (key, Some(value)))
                .collect();
            ("all", Some(commit(store.as_ref(), &documents, Edit(edit)).await?))
        }
    };
    Ok(AcceptAnswer { accepted: held_views(&held), scope: scope.to_owned(), revision })
}

/// What is held here, and what other proxies say they hold.
pub(super) async fn held(state: &AdminState) -> HeldsView {
    let proxies = match &state.tables {
        TableWriter::Files { .. } => Vec::new(),
        // With etcd away this proxy's own word is all there is.
        TableWriter::Store(store) => in_time(store.proxies()).await.unwrap_or_default(),
    };
    let others = proxies.into_iter().filter(|word| word.proxy != state.proxy_id && !word.held.is_empty());
    HeldsView {
        held: held_views(&state.published().held),
        proxies: others.map(|word| ProxyHeldView { proxy: word.proxy, held: word.held }).collect(),
    }
}

/// How far this proxy is.
pub(super) async fn applied(state: &AdminState) -> Result<AppliedView, AskError> {
    let workers = ask(state.running_workers(), |answer| Command::Drains { answer }).await?;
    let revision = state.published().table.revision;
    let applied = workers.iter().map(|worker| worker.revision).min().unwrap_or(revision);
    Ok(AppliedView { revision, applied })
}

fn store(state: &AdminState) -> Result<&dyn TableStore, WriteError> {
    match &state.tables {
        TableWriter::Store(store) => Ok(store.as_ref()),
        TableWriter::Files { folder, .. } => Err(WriteError::Files(folder.display().to_string())),
    }
}

fn lines(all: &[impl fmt::Display]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

async fn in_time<T>(future: StoreFuture<'_, T>) -> Result<T, WriteError> {
    match tokio::time::timeout(STORE_TIMEOUT, future).await {
        Ok(result) => result.map_err(|StoreError(text)| WriteError::Store(text)),
        Err(_) => {
            Err(WriteError::Store(format!("the store gave no answer within {} s", STORE_TIMEOUT.as_secs())))
        }
    }
}
