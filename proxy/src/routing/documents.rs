//! The set of documents as their source has it: each read once, when it arrives.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Document, Key};
use crate::config::FieldError;

/// More keys than this are a source gone wrong, not a configuration.
pub const MAX_DOCUMENTS: usize = 100_000;

/// A document that is right by itself, with what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Good {
    pub document: Document,
    pub raw: Arc<[u8]>,
    /// Revision of its last change.
    pub revision: u64,
}

/// For each key the newest version that was in force. What outlives a bad write, and what is kept on disk.
pub type LastGood = BTreeMap<Arc<str>, Good>;

/// One document as it stands in the source now.
#[derive(Debug, Clone)]
pub struct Entry {
    pub revision: u64,
    pub parsed: Result<Good, FieldError>,
}

/// Key below `config/` -> document.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    entries: BTreeMap<Arc<str>, Entry>,
}

impl Documents {
    /// Takes a new version of a document.
    pub fn put(&mut self, key: &str, raw: &[u8], revision: u64) {
        self.put_parsed(key, parse(key, raw, revision), revision);
    }

    /// Notes a document whose bytes could not be had.
    pub fn put_fault(&mut self, key: &str, fault: FieldError, revision: u64) {
        self.put_parsed(key, Err(fault), revision);
    }

    fn put_parsed(&mut self, key: &str, parsed: Result<Good, FieldError>, revision: u64) {
        self.entries.insert(key.into(), Entry { revision, parsed });
    }

    /// Puts a version that was good before (from disk) in place.
    pub fn put_good(&mut self, key: Arc<str>, good: Good) {
        self.entries.insert(key, Entry { revision: good.revision, parsed: Ok(good) });
    }

    /// Forgets a document.
    pub fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Keeps only the keys that `stays` says yes to.
    pub fn retain(&mut self, mut stays: impl FnMut(&str) -> bool) {
        self.entries.retain(|key, _| stays(key));
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn parse(key: &str, raw: &[u8], revision: u64) -> Result<Good, FieldError> {
    let document = Document::parse(&Key::parse(key)?, raw)?;
    Ok(Good { document, raw: raw.into(), revision })
}
