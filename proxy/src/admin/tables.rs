//! `/documents` and `/tables`: what is in force, and what was, document by document.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::state::AdminState;
use super::view::{DocumentView, DocumentsView, PastTableView, TablesView};
use crate::config::FieldError;
use crate::routing::LastGood;
use crate::source::history::{Entry, History, HistoryError, Snapshot, unix_ms};

#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("there is no {named} in the history; {there}")]
    Unknown { named: Named, there: String },
    #[error("table {either} is one and table {other} has the revision {either}: say t{either} or r{either}")]
    Ambiguous { either: u64, other: u64 },
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

async fn past(state: &AdminState, number: u64) -> Result<Snapshot, TableError> {
    read(state, move |history| {
        let entry = find(&history.entries()?, Named::Number(number))?;
        Ok(history.read(entry)?)
    })
    .await
}

/// A table of the history as people name it, and what was in force then.
pub(super) async fn named(
    state: &AdminState,
    named: Named,
) -> Result<(PastTableView, Arc<LastGood>), TableError> {
    read(state, move |history| {
        let entry = find(&history.entries()?, named)?;
        Ok((view(entry), history.read(entry)?.last_good))
    })
    .await
}

/// What people call a table of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// `t41`
    Number(u64),
    /// `r512`
    Revision(u64),
    /// `41`, which may be either.
    Either(u64),
}

impl FromStr for Named {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let expected = "a table of `holdfast table history`, as 41, or one's revision, as r512";
        let fault = |_| FieldError { field: "table".into(), value: text.into(), expected: expected.into() };
        let number = |text: &str| text.parse().map_err(fault);
        if let Some(text) = text.strip_prefix('t') {
            return Ok(Self::Number(number(text)?));
        }
        match text.strip_prefix('r') {
            Some(text) => Ok(Self::Revision(number(text)?)),
            None => Ok(Self::Either(number(text)?)),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "table {number}"),
            Self::Revision(revision) => write!(f, "table of revision {revision}"),
            Self::Either(either) => write!(f, "table {either}, and none of revision {either}"),
        }
    }
}

/// The one that is meant. A revision may come twice, when etcd was restored from a backup: the newer one is meant.
fn find(entries: &[Entry], named: Named) -> Result<Entry, TableError> {
    let of_number = |number| entries.iter().find(|entry| entry.number == number).copied();
    let of_revision = |revision| entries.iter().rev().find(|entry| entry.revision == revision).copied();
    let found = match named {
        Named::Number(number) => of_number(number),
        Named::Revision(revision) => of_revision(revision),
        Named::Either(either) => match (of_number(either), of_revision(either)) {
            (Some(table), Some(other)) if table != other => {
                return Err(TableError::Ambiguous { either, other: other.number });
            }
            (table, other) => table.or(other),
        },
    };
    found.ok_or_else(|| TableError::Unknown { named, there: span(entries) })
}

/// All tables on disk.
pub(super) async fn all(state: &AdminState) -> Result<TablesView, TableError> {
    read(state, move |history| Ok(TablesView { tables: history.entries()?.into_iter().map(view).collect() }))
        .await
}

fn view(Entry { number, revision, applied_ms }: Entry) -> PastTableView {
    PastTableView { number, revision, applied_ms }
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
        leased: good.leased,
    };
    good.iter().map(view).collect()
}

fn span(entries: &[Entry]) -> String {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => format!("it has {} to {}", first.number, last.number),
        _ => "it is empty".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_by_its_number_or_its_revision_and_never_by_a_guess() {
        let entry = |number, revision| Entry { number, revision, applied_ms: 0 };
        let entries = [entry(1, 2), entry(2, 9), entry(3, 5), entry(4, 9)];
        let found = |text: &str| find(&entries, text.parse().unwrap()).map(|entry| entry.number);
        assert_eq!(found("1").unwrap(), 1);
        assert_eq!(found("5").unwrap(), 3);
        assert_eq!(found("9").unwrap(), 4, "of a revision that came twice, the newer");
        assert_eq!((found("t2").unwrap(), found("r2").unwrap()), (2, 1));
        let ambiguous = "table 2 is one and table 1 has the revision 2: say t2 or r2";
        assert_eq!(found("2").unwrap_err().to_string(), ambiguous);
        let unknown = "there is no table of revision 7 in the history; it has 1 to 4";
        assert_eq!(found("r7").unwrap_err().to_string(), unknown);
        assert_eq!("yesterday".parse::<Named>().unwrap_err().value, "yesterday");
    }
}
