//! A change of a source's documents, as its store is asked to make it: all of it or nothing.

use std::sync::Arc;

use crate::routing::Documents;
use crate::routing::edit::Edit;

/// All documents as they stood at a revision of the store.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub documents: Documents,
    pub revision: u64,
}

/// One key of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Below `config/`.
    pub key: Arc<str>,
    /// None: it is deleted.
    pub value: Option<Arc<[u8]>>,
    /// Revision of the version that it takes the place of; 0: there is none.
    pub expected: u64,
    /// It stands under a lease, and stays there.
    pub leased: bool,
}

/// Writes that are made together, or, if any of their keys isn't what it was in the listing, not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub writes: Vec<Write>,
    /// Revision of the listing.
    pub listed_at: u64,
}

impl Transaction {
    /// The edit of what was listed.
    #[must_use]
    pub fn new(listing: &Listing, edit: Edit) -> Self {
        let write = |(key, value): (Arc<str>, Option<Arc<[u8]>>)| {
            let known = listing.documents.get(&key);
            Write {
                expected: known.map_or(0, |entry| entry.revision),
                leased: known.is_some_and(|entry| entry.leased),
                key,
                value,
            }
        };
        Self { writes: edit.0.into_iter().map(write).collect(), listed_at: listing.revision }
    }
}

/// How a transaction ended. Unless it is `At`, nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    At(u64),
    /// These keys are not what they were.
    Changed(Vec<String>),
    /// The store doesn't take so many keys at once.
    TooMany,
    /// Nor so many bytes.
    TooLarge,
    /// The store says no, in its words.
    Refused(String),
}
