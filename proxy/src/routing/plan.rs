//! What a change of documents would do, before it is written: the difference, what would be refused, what held.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diff::{Change, difference};
use super::document::schema::newer_than;
use super::document::{Key, RawAccept};
use super::edit::Edit;
use super::slips::{self, Held, Memory, Moment};
use super::{Documents, LastGood, Refusal, compile};

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
    refused.extend(unreadable(&edit, now.fleet));
    let warnings = new.warnings.iter().filter(|warning| !old.warnings.contains(warning));
    let judgement = slips::judge(now.memory, &after, now.in_force, now.moment);
    let is_held = |held: &Held| {
        let known = now.held.iter().find(|known| known.service == held.service);
        known.is_some_and(|known| held.keys.iter().all(|key| known.keys.contains(key)))
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
    pub fn accept(&mut self, reason: &str) {
        for held in &self.held {
            let raw = RawAccept { reason: reason.to_owned(), ..held.accept.clone() };
            let (key, value) = accept_document(&held.service, &raw);
            self.edit.0.insert(key, Some(value));
        }
    }
}

/// The document that says yes.
#[must_use]
pub fn accept_document(service: &str, raw: &RawAccept) -> (Arc<str>, Arc<[u8]>) {
    let text = serde_json::to_vec(raw).expect("texts and numbers can be written as JSON");
    (format!("accepts/{service}").into(), text.into())
}

/// A proxy that doesn't know a field refuses the whole document.
fn unreadable(edit: &Edit, fleet: &[(String, u32)]) -> Vec<Refusal> {
    let Some((proxy, level)) = fleet.iter().min_by_key(|(_, level)| level) else { return Vec::new() };
    let mut refused = Vec::new();
    for (key, raw) in edit.0.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        let Ok(parsed) = Key::parse(key) else { continue };
        refused.extend(newer_than(*level, &parsed, raw).into_iter().map(|newer| Refusal {
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
