//! What a change of documents would do, before it is written: the difference, what would be refused, what held.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diff::{Change, difference};
use super::document::accept::Fingerprint;
use super::document::schema::{Newer, newer_than};
use super::document::{Document, Key, MAX_DOCUMENT_BYTES, RawAccept};
use super::edit::Edit;
use super::slips::{self, Held, Memory, Moment};
use super::{Documents, LastGood, Refusal, compile};
use crate::config::FieldError;

/// What there is when somebody wants to write.
#[derive(Debug)]
pub struct Now<'a> {
    /// As they stand in the source.
    pub documents: &'a Documents,
    pub in_force: &'a LastGood,
    pub memory: &'a Memory,
    pub held: &'a [Held],
    /// Live proxies, and the level of documents that each reads.
    pub fleet: &'a [(String, u32)],
    pub moment: Moment,
}

/// What would become of it.
#[derive(Debug, Default)]
pub struct Plan {
    pub edit: Edit,
    pub changes: Vec<Change>,
    /// Documents that the change would put out of force, or never into it.
    pub refused: Vec<Refusal>,
    pub warnings: Vec<String>,
    /// What would be held, beyond what is.
    pub held: Vec<Held>,
}

/// Plans a change: nothing is written.
#[must_use]
pub fn plan(now: &Now<'_>, edit: Edit) -> Plan {
    let mut after = now.documents.clone();
    edit.apply(&mut after, now.moment.revision);
    let (old, new) = (compile(now.documents, now.in_force, 0), compile(&after, now.in_force, 0));
    let known: BTreeSet<_> = old.refused.iter().map(|old| (&old.key, &old.field, &old.value)).collect();
    let is_new = |refusal: &&Refusal| {
        edit.0.contains_key(&*refusal.key) || !known.contains(&(&refusal.key, &refusal.field, &refusal.value))
    };
    let mut refused: Vec<_> = new.refused.iter().filter(is_new).cloned().collect();
    refused.extend(unreadable(now.documents, &edit, now.fleet));
    let warnings = new.warnings.iter().filter(|warning| !old.warnings.contains(warning));
    let judgement = slips::judge(now.memory, &after, now.in_force, now.moment);
    let is_held = |held: &Held| {
        // Who writes one of its keys is told, whatever was held there before.
        let is_written = held.keys.iter().any(|key| edit.0.contains_key(key));
        let known = now.held.iter().find(|known| known.service == held.service);
        !is_written && known.is_some_and(|known| held.keys.iter().all(|key| known.keys.contains(key)))
    };
    Plan {
        changes: difference(&old.table, &new.table),
        refused,
        warnings: warnings.map(|warning| format!("{}: {}", warning.key, warning.text)).collect(),
        held: judgement.held.into_iter().filter(|held| !is_held(held)).collect(),
        edit,
    }
}

impl Plan {
    /// Says yes to what would be held: with the same transaction, so that nothing is held for a moment.
    ///
    /// # Errors
    /// The yes itself isn't a good document.
    pub fn accept(&mut self, documents: &Documents, reason: &str) -> Result<(), FieldError> {
        for held in &self.held {
            let raw = RawAccept { reason: reason.to_owned(), ..held.accept.clone() };
            let (key, value) = accept_document(documents, &held.service, &raw)?;
            self.edit.0.insert(key, Some(value));
        }
        Ok(())
    }
}

/// The document that says yes, also to what the one that stands there says yes to: a proxy that was away may need it.
///
/// # Errors
/// It would be refused: it is too large, for one.
pub fn accept_document(
    documents: &Documents,
    service: &str,
    raw: &RawAccept,
) -> Result<(Arc<str>, Arc<[u8]>), FieldError> {
    let key = Key::Accept(service.into());
    let text = |raw: &RawAccept| serde_json::to_vec(raw).expect("texts and numbers can be written as JSON");
    let said = documents.get(&key.to_string()).and_then(|entry| entry.source.as_ref().ok());
    let said = said.and_then(|said| serde_json::from_slice::<RawAccept>(said).ok());
    let mut merged = raw.clone();
    for (key, accepted) in said.into_iter().flat_map(|said| said.changes) {
        let now = documents.get(&key).and_then(|entry| entry.source.as_ref().ok());
        if accepted.to == now.map(|now| Fingerprint::of(now).to_string()) {
            merged.changes.entry(key).or_insert(accepted);
        }
    }
    let merged = text(&merged);
    // The older ones go first where there are too many.
    let text = if merged.len() <= MAX_DOCUMENT_BYTES { merged } else { text(raw) };
    let in_document = |error: FieldError| FieldError { field: format!("{key}: {}", error.field), ..error };
    Document::parse(&key, &text).map_err(in_document)?;
    Ok((key.to_string().into(), text.into()))
}

/// A proxy that doesn't know a field refuses the whole document. One that it refuses already may be written on.
fn unreadable(documents: &Documents, edit: &Edit, fleet: &[(String, u32)]) -> Vec<Refusal> {
    let Some((proxy, level)) = fleet.iter().min_by_key(|(_, level)| level) else { return Vec::new() };
    let mut refused = Vec::new();
    for (key, raw) in edit.0.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        let Ok(parsed) = Key::parse(key) else { continue };
        let now = documents.get(key).and_then(|entry| entry.source.as_ref().ok());
        let known = now.map_or_else(Vec::new, |now| newer_than(*level, &parsed, now));
        let is_new = |newer: &Newer| !known.iter().any(|known| known.field == newer.field);
        let newer = newer_than(*level, &parsed, raw).into_iter().filter(is_new);
        refused.extend(newer.map(|newer| Refusal {
            key: key.to_string(),
            field: newer.field,
            value: newer.value,
            expected: format!(
                "nothing that proxy {proxy} can't read: it reads documents up to schema level {level}, this is \
                 of level {}; upgrade it first",
                newer.since
            ),
            since: 0,
            last_good: false,
        }));
    }
    refused
}

#[cfg(test)]
mod tests;
