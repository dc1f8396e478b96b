//! A change of documents as a value: made of two sets, applied to one, written as one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::documents::{Documents, Entry};

/// Key -> what is to stand there; none: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit(pub BTreeMap<Arc<str>, Option<Arc<[u8]>>>);

impl Edit {
    /// What leads from one set to another. A document that says the same in other words isn't changed.
    #[must_use]
    pub fn between(from: &Documents, to: &Documents) -> Self {
        let written = to.iter().filter_map(|(key, entry)| {
            let raw = entry.source.as_ref().ok()?;
            let is_there = from.get(key).is_some_and(|known| says_the_same(known, entry));
            (!is_there).then(|| (key.clone(), Some(raw.clone())))
        });
        let deleted =
            from.iter().filter(|(key, _)| to.get(key).is_none()).map(|(key, _)| (key.clone(), None));
        Self(written.chain(deleted).collect())
    }

    /// Makes the change. Who stands under a lease goes on doing so.
    pub fn apply(&self, documents: &mut Documents, revision: u64) {
        for (key, value) in &self.0 {
            match value {
                Some(raw) => {
                    let leased = documents.get(key).is_some_and(|entry| entry.leased);
                    documents.put_as(key, raw, revision, leased);
                }
                None => documents.remove(key),
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn says_the_same(known: &Entry, new: &Entry) -> bool {
    known.source == new.source
        || matches!((&known.parsed, &new.parsed), (Ok(known), Ok(new)) if known.document == new.document)
}

#[cfg(test)]
mod tests;
