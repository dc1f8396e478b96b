//! Documents that an operator writes through this proxy: judged as the whole table that they would make, then written
//! as one transaction, if nobody else has written there meanwhile.

mod held;
mod request;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::drains::{StoreError, StoreFuture};
use super::state::AdminState;
use super::tables::TableError;
use super::view::TableAnswer;
use crate::config::FieldError;
use crate::routing::Documents;
use crate::routing::edit::Edit;
use crate::routing::plan::{Now, Plan, plan};
use crate::routing::slips::{Held, Moment};
use crate::source::history::unix_ms;
use crate::source::write::{Committed, Listing, Transaction};

pub(super) use held::{accept, held};
pub(super) use request::{applied, write};

/// Longest wait for the store, for a list or a transaction.
const STORE_TIMEOUT: Duration = Duration::from_secs(4);

/// Who takes documents that are written through this proxy.
pub enum TableWriter {
    /// They come from this folder, which people write.
    Files(PathBuf),
    Store(Arc<dyn TableStore>),
}

impl fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(folder) => f.debug_tuple("Files").field(folder).finish(),
            Self::Store(_) => f.write_str("Store"),
        }
    }
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
    fn read(&self) -> StoreFuture<'_, Listing>;
    /// All of it or nothing.
    fn commit(&self, transaction: Transaction) -> StoreFuture<'_, Committed>;
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
        "nothing is written: etcd doesn't take {0} keys like these in one transaction; start its servers with \
         --max-txn-ops={0} or more (they take 128 unless told), or write a part at a time"
    )]
    TooMany(usize),
    #[error(
        "nothing is written: etcd doesn't take {0} keys of this size in one transaction; start its servers with a \
         larger --max-request-bytes (they take 1.5 MiB unless told), or write a part at a time"
    )]
    TooLarge(usize),
    #[error("nothing is held{0}")]
    NothingHeld(String),
    #[error(
        "this proxy reads its documents from {folder}: to say yes, write there\n{}",
        files.join("\n")
    )]
    AcceptInFiles { folder: String, files: Vec<String> },
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<FieldError> for WriteError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    /// Say what would become of it; write nothing.
    pub(super) dry_run: bool,
    /// Say yes to what would be held, in the same transaction.
    pub(super) accept: bool,
    /// Why, where it is accepted.
    pub(super) reason: String,
}

/// Makes the edit that `wanted` says, given the documents as they stand: all of it, or nothing if any of it would be
/// refused or held, or if one of its keys is written by somebody else meanwhile.
pub(super) async fn change(
    state: &AdminState,
    wanted: impl FnOnce(&Documents) -> Result<Edit, WriteError>,
    how: How,
) -> Result<TableAnswer, WriteError> {
    let store = store(state)?;
    let listing = in_time(store.read()).await?;
    let edit = wanted(&listing.documents)?;
    let fleet = in_time(store.proxies()).await?;
    let mut plan = planned(state, &listing.documents, &fleet, edit);
    let mut answer = TableAnswer {
        keys: lines(plan.edit.0.keys()),
        changes: lines(&plan.changes),
        refused: lines(&plan.refused),
        warnings: std::mem::take(&mut plan.warnings),
        ..TableAnswer::default()
    };
    let held: Vec<_> = plan.held.iter().map(Held::text).collect();
    if how.accept {
        plan.accept(&listing.documents, &how.reason)?;
        answer.accepted = held;
    } else {
        answer.held = held;
    }
    if how.dry_run || plan.edit.is_empty() {
        return Ok(answer);
    }
    if !answer.refused.is_empty() {
        return Err(WriteError::Refused(answer.refused.join("\n")));
    }
    if !answer.held.is_empty() {
        return Err(WriteError::Held(answer.held.join("\n")));
    }
    answer.revision = Some(commit(store, &listing, plan.edit).await?);
    Ok(answer)
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

async fn commit(store: &dyn TableStore, listing: &Listing, edit: Edit) -> Result<u64, WriteError> {
    let transaction = Transaction::new(listing, edit);
    let count = transaction.writes.len();
    match in_time(store.commit(transaction)).await {
        Ok(Committed::At(revision)) => Ok(revision),
        Ok(Committed::Changed(keys)) => Err(WriteError::Changed(keys.join(", "))),
        Ok(Committed::TooMany) => Err(WriteError::TooMany(count)),
        Ok(Committed::TooLarge) => Err(WriteError::TooLarge(count)),
        Ok(Committed::Refused(text)) => Err(WriteError::Store(text)),
        // The answer alone may be lost.
        Err(WriteError::Store(text)) => Err(WriteError::Unsure(text)),
        Err(other) => Err(other),
    }
}

fn store(state: &AdminState) -> Result<&dyn TableStore, WriteError> {
    match &state.tables {
        TableWriter::Store(store) => Ok(store.as_ref()),
        TableWriter::Files(folder) => Err(WriteError::Files(folder.display().to_string())),
    }
}

fn lines<T: ToString>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|one| one.to_string()).collect()
}

async fn in_time<T>(future: StoreFuture<'_, T>) -> Result<T, WriteError> {
    match tokio::time::timeout(STORE_TIMEOUT, future).await {
        Ok(result) => result.map_err(|StoreError(text)| WriteError::Store(text)),
        Err(_) => {
            Err(WriteError::Store(format!("the store gave no answer within {} s", STORE_TIMEOUT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests;
