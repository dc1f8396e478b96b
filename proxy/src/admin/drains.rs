//! Drain orders from an operator: to this proxy's workers, or to every proxy through the documents' store.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ask::{AskError, ask};
use super::state::AdminState;
use super::view::{BackendView, BackendsView, DrainAnswer, DrainRequest, UndrainRequest};
use crate::routing::BackendId;
use crate::worker::command::{Command, DrainRow};

const MAX_DEADLINE_S: u64 = 24 * 60 * 60;
pub(super) const MAX_REASON_BYTES: usize = 256;

/// Longest wait for the store.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// How an order reaches all proxies.
pub enum DrainWriter {
    /// Documents come from this folder, which people write.
    Files(PathBuf),
    Store(Arc<dyn DrainStore>),
}

impl fmt::Debug for DrainWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(folder) => f.debug_tuple("Files").field(folder).finish(),
            Self::Store(_) => f.write_str("Store"),
        }
    }
}

/// A `drains/` key to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainKey {
    pub backend: BackendId,
    pub deadline: Option<Duration>,
    pub reason: String,
}

/// An `ejections/` key to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionKey {
    pub backend: BackendId,
    pub reason: String,
    pub time: Option<Duration>,
}

/// Why the store didn't take it; safe to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A key that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its full name.
    pub key: String,
    pub revision: u64,
}

/// What one proxy's status says of its drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyDrains {
    pub proxy: String,
    /// Revision of the table by which all its workers act.
    pub applied: u64,
    pub rows: Vec<DrainRow>,
    /// Draining backends that aren't among the rows.
    pub unlisted: u64,
}

/// Writes `drains/` and `ejections/` keys (etcd), and reads what the proxies say of drains.
pub trait DrainStore: Send + Sync {
    fn put(&self, drain: DrainKey) -> StoreFuture<'_, Written>;
    /// Deletes the key; returns its full name, and whether it was there.
    fn delete(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)>;
    /// Writes the key; returns its full name, and when it ends by itself.
    fn eject(&self, ejection: EjectionKey) -> StoreFuture<'_, (String, Option<SystemTime>)>;
    /// Deletes the key; returns its full name, and whether it was there.
    fn uneject(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)>;
    /// Every live proxy's word.
    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyDrains>>;
}

/// Why an order wasn't carried out, by whose turn it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{field} is {value}: expected {expected}")]
    Invalid { field: &'static str, value: String, expected: &'static str },
    #[error("no backend {backend:?}; known: {known}")]
    Unknown { backend: String, known: String },
    #[error(
        "this proxy reads its documents from files, so it can't order other proxies: use \"local\": true (holdfast {verb} --local), \
         or {what} {path} yourself"
    )]
    Files { verb: &'static str, what: &'static str, path: String },
    #[error("this proxy reads its documents from files: {what} {path} yourself")]
    Folder { what: &'static str, path: String },
    #[error("the store of documents didn't take the ejection: {0}")]
    Ejection(String),
    #[error("the store of documents didn't take the order: {0}; \"local\": true orders this proxy alone")]
    Store(String),
    #[error(transparent)]
    Ask(#[from] AskError),
}

pub(super) async fn drain(state: &AdminState, request: DrainRequest) -> Result<DrainAnswer, OrderError> {
    check(&request)?;
    let id = known_backend(state, &request.backend).await?;
    let deadline = request.deadline_s.map(Duration::from_secs);
    let others = others(state, &id).await?;
    let (written, changed) = if request.local {
        let answers = ask(state.running_workers(), |answer| Command::Drain {
            backend: id.clone(),
            deadline,
            reason: request.reason.clone(),
            answer,
        });
        (None, answers.await?.contains(&true))
    } else {
        let drain = DrainKey { backend: id.clone(), deadline, reason: request.reason };
        let store = store(state, &id, "drain", "write")?;
        (Some(in_time(store.put(drain)).await?), true)
    };
    let table = Arc::clone(&state.published().table);
    let default = table.services.get(&*id.service).map(|service| service.drain.deadline.as_secs());
    Ok(DrainAnswer {
        backend: id.to_string(),
        scope: scope(request.local),
        changed,
        deadline_s: request.deadline_s.or(default),
        revision: written.as_ref().map(|written| written.revision),
        key: written.map(|written| written.key),
        others: Some(others),
    })
}

/// Backends that could take its sessions, as far as documents and links tell.
async fn others(state: &AdminState, id: &BackendId) -> Result<u64, AskError> {
    let BackendsView { backends } = super::inspect::backends(state).await?;
    let own = id.to_string();
    let service = format!("{}/", id.service);
    let takes = |view: &BackendView| {
        let other = view.backend != own && view.backend.starts_with(&service);
        other && view.in_table && view.weight > Some(0) && view.draining.is_empty() && !view.is_down()
    };
    Ok(backends.iter().filter(|view| takes(view)).count() as u64)
}

pub(super) async fn undrain(state: &AdminState, request: UndrainRequest) -> Result<DrainAnswer, OrderError> {
    let id = known_backend(state, &request.backend).await?;
    let (key, changed) = if request.local {
        let answers = ask(state.running_workers(), |answer| Command::Undrain { backend: id.clone(), answer });
        (None, answers.await?.contains(&true))
    } else {
        let store = store(state, &id, "undrain", "delete")?;
        let (key, was_there) = in_time(store.delete(id.clone())).await?;
        (Some(key), was_there)
    };
    Ok(DrainAnswer {
        backend: id.to_string(),
        scope: scope(request.local),
        changed,
        deadline_s: None,
        key,
        revision: None,
        others: None,
    })
}

fn scope(local: bool) -> String {
    if local { "local" } else { "all" }.to_owned()
}

fn check(request: &DrainRequest) -> Result<(), OrderError> {
    if let Some(seconds) = request.deadline_s
        && !(1..=MAX_DEADLINE_S).contains(&seconds)
    {
        let expected = "whole seconds from 1 to 86400 (a day)";
        return Err(OrderError::Invalid { field: "deadline_s", value: seconds.to_string(), expected });
    }
    if request.reason.len() > MAX_REASON_BYTES {
        let value = format!("{} bytes long", request.reason.len());
        return Err(OrderError::Invalid { field: "reason", value, expected: "at most 256 bytes" });
    }
    Ok(())
}

pub(super) fn parse_backend(text: &str) -> Result<BackendId, OrderError> {
    let expected = "SERVICE/NAME, such as arena/a";
    let invalid = || OrderError::Invalid { field: "backend", value: format!("{text:?}"), expected };
    let (service, name) = text.split_once('/').ok_or_else(invalid)?;
    if service.is_empty() || name.is_empty() || name.contains('/') {
        return Err(invalid());
    }
    Ok(BackendId { service: service.into(), name: name.into() })
}

/// A backend of the table, or one whose key is gone while a worker still knows it.
pub(super) async fn known_backend(state: &AdminState, text: &str) -> Result<BackendId, OrderError> {
    let id = parse_backend(text)?;
    let table = Arc::clone(&state.published().table);
    if table.backends.contains_key(&id) {
        return Ok(id);
    }
    let links = ask(state.running_workers(), |answer| Command::Links { answer }).await?;
    let mut known: BTreeSet<String> = links.into_iter().flatten().map(|link| link.backend).collect();
    if known.contains(text) {
        return Ok(id);
    }
    known.extend(table.backends.keys().map(ToString::to_string));
    Err(OrderError::Unknown { backend: text.to_owned(), known: list(&known) })
}

/// At most twenty names: an error is to be read.
fn list(known: &BTreeSet<String>) -> String {
    const SHOWN: usize = 20;
    if known.is_empty() {
        return "none".to_owned();
    }
    let mut text = known.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN {
        text.push_str(&format!(" and {} more", known.len() - SHOWN));
    }
    text
}

fn store<'a>(
    state: &'a AdminState,
    id: &BackendId,
    verb: &'static str,
    what: &'static str,
) -> Result<&'a dyn DrainStore, OrderError> {
    match &state.drains {
        DrainWriter::Store(store) => Ok(store.as_ref()),
        DrainWriter::Files(folder) => {
            let path = folder.join("drains").join(&*id.service).join(format!("{}.json", id.name));
            Err(OrderError::Files { verb, what, path: path.display().to_string() })
        }
    }
}

pub(super) async fn in_time<T>(future: StoreFuture<'_, T>) -> Result<T, OrderError> {
    match tokio::time::timeout(STORE_TIMEOUT, future).await {
        Ok(result) => result.map_err(|error| OrderError::Store(error.to_string())),
        Err(_) => Err(OrderError::Store(format!("no answer within {} s", STORE_TIMEOUT.as_secs()))),
    }
}
