//! Documents -> table: every valid document applies, every other leaves its last good version in force and says why.
//!
//! All documents are judged together at each change, so the order in which they were written doesn't matter.

mod hooks;
mod mirrors;
mod rollouts;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::documents::{Documents, Good, LastGood};
use super::table::{BackendId, Route, Table};
use crate::config::FieldError;

/// What has become of a set of documents.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub table: Table,
    pub refused: Vec<Refusal>,
    pub warnings: Vec<Warning>,
    pub last_good: LastGood,
}

/// A document that is not in force as it stands, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// Key of the document.
    pub key: String,
    /// Path of the field; `document` for the whole, `key` for the key.
    pub field: String,
    /// What was found there.
    pub value: String,
    /// What would have been right.
    pub expected: String,
    /// Revision of the refused version.
    pub since: u64,
    /// An older version of it is in force instead.
    pub last_good: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: got {}, expected {}", self.key, self.field, self.value, self.expected)
    }
}

/// A document that is in force, and probably not as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub key: String,
    pub text: String,
}

/// Makes the table of `documents`; `last_good` is what the previous compilation gave.
#[must_use]
pub fn compile(documents: &Documents, last_good: &LastGood, revision: u64) -> Compiled {
    let mut compiled = Compiled {
        table: Table::empty(),
        refused: Vec::new(),
        warnings: Vec::new(),
        last_good: LastGood::new(),
    };
    compiled.table.revision = revision;
    compiled.table.applied_at = SystemTime::now();
    for (key, entry) in documents.iter().filter(|(key, _)| !key.starts_with(routes::PREFIX)) {
        match &entry.parsed {
            Ok(good) => compiled.take(key, good),
            Err(fault) => {
                let old = last_good.get(key);
                compiled.refuse(key, fault, entry.revision, old.is_some());
                if let Some(old) = old {
                    compiled.take(key, old);
                }
            }
        }
    }
    mirrors::settle(&mut compiled, documents, last_good);
    routes::settle(&mut compiled, documents, last_good);
    warn(&mut compiled);
    compiled.refused.sort_by(|a, b| a.key.cmp(&b.key));
    compiled
}

impl Compiled {
    /// Puts a document in force.
    fn take(&mut self, key: &Arc<str>, good: &Good) {
        match &good.document {
            Document::Service(service) => {
                self.table.services.insert(service.name.to_string(), service.clone());
            }
            Document::Backend(backend) => {
                self.table.backends.insert(backend.id.clone(), backend.clone());
            }
            Document::Route(route) => {
                self.table.routes.insert(route.name.to_string(), route.clone());
            }
            Document::Drain(drain) => {
                self.table.drains.insert(drain.backend.clone(), drain.clone());
            }
            // What it lets through is judged before the table is made.
            Document::Accept(_) => {}
            Document::Ejection(ejection) => {
                self.table.ejections.insert(ejection.backend.clone(), ejection.clone());
            }
            Document::Rollout(rollout) => {
                self.table.rollouts.insert(rollout.service.to_string(), rollout.clone());
            }
            Document::Hook(hook) => {
                self.table.hooks.insert(hook.name.to_string(), hook.clone());
            }
        }
        self.last_good.insert(key.clone(), good.clone());
    }

    fn refuse(&mut self, key: &str, fault: &FieldError, since: u64, last_good: bool) {
        self.refused.push(Refusal {
            key: super::document::excerpt(key),
            field: fault.field.clone(),
            value: fault.value.clone(),
            expected: fault.expected.clone(),
            since,
            last_good,
        });
    }
}

/// What is valid and can hardly be meant.
fn warn(compiled: &mut Compiled) {
    let table = &compiled.table;
    let mut warnings = Vec::new();
    let mut add = |key: String, text: String| warnings.push(Warning { key, text });
    for id in table.backends.keys().filter(|id| !table.services.contains_key(&*id.service)) {
        add(
            format!("backends/{id}"),
            format!("there is no services/{}: this backend is not used", id.service),
        );
    }
    for id in table.drains.keys().filter(|id| !table.backends.contains_key(id)) {
        add(format!("drains/{id}"), format!("there is no backends/{id} to drain"));
    }
    for id in table.ejections.keys().filter(|id| !table.backends.contains_key(id)) {
        add(format!("ejections/{id}"), format!("there is no backends/{id} to eject"));
    }
    let present: BTreeSet<(&str, &str)> =
        table.backends.values().map(|backend| (&*backend.id.service, &*backend.version)).collect();
    for route in table.routes.values() {
        for version in absent_versions(route, &present) {
            add(
                format!("routes/{}", route.name),
                format!("versions.{version}: no backend of services/{} has this version", route.service),
            );
        }
        if !has_backends(table, &route.service) {
            add(format!("routes/{}", route.name), format!("services/{} has no backend", route.service));
        }
    }
    compiled.warnings.extend(warnings);
    rollouts::warn(compiled);
    hooks::warn(compiled);
}

fn absent_versions<'a>(
    route: &'a Route,
    present: &BTreeSet<(&str, &str)>,
) -> impl Iterator<Item = &'a Arc<str>> {
    let shares = route.versions.iter().filter(|&(_, &share)| share > 0);
    shares.map(|(version, _)| version).filter(|version| !present.contains(&(&*route.service, &***version)))
}

fn has_backends(table: &Table, service: &Arc<str>) -> bool {
    let first = BackendId { service: service.clone(), name: "".into() };
    table.backends.range(first..).next().is_some_and(|(id, _)| id.service == *service)
}
