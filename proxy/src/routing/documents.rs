//! The set of documents as their source has it: each read once, when it arrives.

use std::collections::BTreeMap;
use std::ops::Bound;
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
    /// It stands under a lease: a registrar wrote it, and it goes with the registrar.
    pub leased: bool,
}

/// For each key the newest version that was in force. What outlives a bad write, and what is kept on disk.
pub type LastGood = BTreeMap<Arc<str>, Good>;

/// One document as it stands in the source now.
#[derive(Debug, Clone)]
pub struct Entry {
    pub revision: u64,
    /// The bytes as they came, or why they could not be had.
    pub source: Result<Arc<[u8]>, FieldError>,
    /// It stands under a lease, whether it can be read or not.
    pub leased: bool,
    pub parsed: Result<Good, FieldError>,
}

/// Key below `config/` -> document.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    entries: BTreeMap<Arc<str>, Entry>,
}

impl Documents {
    /// Takes a new version of a document. One with the same bytes keeps what was made of them.
    pub fn put(&mut self, key: &str, raw: &[u8], revision: u64) {
        self.put_as(key, raw, revision, false);
    }

    /// As [`Documents::put`], and says whether it stands under a lease.
    pub fn put_as(&mut self, key: &str, raw: &[u8], revision: u64, leased: bool) {
        let known = self.entries.get_mut(key);
        if let Some(entry) = known.filter(|entry| entry.source.as_ref().is_ok_and(|known| **known == *raw)) {
            entry.revision = revision;
            entry.leased = leased;
            if let Ok(good) = &mut entry.parsed {
                good.revision = revision;
                good.leased = leased;
            }
            return;
        }
        let raw: Arc<[u8]> = raw.into();
        let parsed = parse(key, &raw, revision, leased);
        self.entries.insert(key.into(), Entry { revision, source: Ok(raw), leased, parsed });
    }

    /// Notes a document whose bytes could not be had.
    pub fn put_fault(&mut self, key: &str, fault: FieldError, revision: u64) {
        let entry = Entry { revision, source: Err(fault.clone()), leased: false, parsed: Err(fault) };
        self.entries.insert(key.into(), entry);
    }

    /// Puts a version that was good before (from disk) in place.
    pub fn put_good(&mut self, key: Arc<str>, good: Good) {
        let entry = Entry {
            revision: good.revision,
            source: Ok(good.raw.clone()),
            leased: good.leased,
            parsed: Ok(good),
        };
        self.entries.insert(key, entry);
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

    /// Those whose keys begin so.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        below(&self.entries, prefix)
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

/// What stands under keys that begin so.
pub fn below<'a, T>(
    map: &'a BTreeMap<Arc<str>, T>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    map.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix))
}

fn parse(key: &str, raw: &Arc<[u8]>, revision: u64, leased: bool) -> Result<Good, FieldError> {
    let document = Document::parse(&Key::parse(key)?, raw)?;
    Ok(Good { document, raw: raw.clone(), revision, leased })
}
