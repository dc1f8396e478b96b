//! `/documents` and `/tables`: what is in force, and what was, document by document.

use super::state::AdminState;
use super::view::{DocumentView, DocumentsView, PastTableView, TablesView};
use crate::routing::LastGood;
use crate::source::history::{Entry, History, HistoryError, Snapshot, unix_ms};

#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("there is no table {number} in the history; {there}")]
    Unknown { number: u64, there: String },
    #[error(transparent)]
    Disk(#[from] HistoryError),
    #[error("the history's reader failed")]
    Reader,
}

/// The documents in force.
pub(super) fn in_force(state: &AdminState) -> DocumentsView {
    let published = state.published();
    DocumentsView {
        number: None,
        revision: published.table.revision,
        applied_ms: unix_ms(published.table.applied_at),
        documents: documents(&published.documents),
    }
}

/// Those of a table that was.
pub(super) async fn of_number(state: &AdminState, number: u64) -> Result<DocumentsView, TableError> {
    let past = past(state, number).await?;
    Ok(DocumentsView {
        number: Some(number),
        revision: past.revision,
        applied_ms: unix_ms(past.applied_at),
        documents: documents(&past.last_good),
    })
}

/// A table of the history, as it is on disk.
pub(super) async fn past(state: &AdminState, number: u64) -> Result<Snapshot, TableError> {
    read(state, move |history| {
        let entries = history.entries()?;
        let Some(entry) = entries.iter().find(|entry| entry.number == number) else {
            return Err(TableError::Unknown { number, there: span(&entries) });
        };
        Ok(history.read(*entry)?)
    })
    .await
}

/// All tables on disk.
pub(super) async fn all(state: &AdminState) -> Result<TablesView, TableError> {
    let view = |Entry { number, revision, applied_ms }| PastTableView { number, revision, applied_ms };
    read(state, move |history| Ok(TablesView { tables: history.entries()?.into_iter().map(view).collect() }))
        .await
}

async fn read<T: Send + 'static>(
    state: &AdminState,
    act: impl FnOnce(&History) -> Result<T, TableError> + Send + 'static,
) -> Result<T, TableError> {
    let history = state.history.clone();
    tokio::task::spawn_blocking(move || act(&history)).await.map_err(|_| TableError::Reader)?
}

fn documents(good: &LastGood) -> Vec<DocumentView> {
    let view = |(key, good): (&std::sync::Arc<str>, &crate::routing::documents::Good)| DocumentView {
        key: key.to_string(),
        revision: good.revision,
        text: String::from_utf8_lossy(&good.raw).into_owned(),
    };
    good.iter().map(view).collect()
}

fn span(entries: &[Entry]) -> String {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => format!("it has {} to {}", first.number, last.number),
        _ => "it is empty".to_owned(),
    }
}
