//! What is to be said of rollouts whose routes, versions or service aren't (all) there.

use std::collections::BTreeSet;

use super::{Compiled, Warning};
use crate::routing::table::{Rollout, Table};

pub fn warn(compiled: &mut Compiled) {
    let table = &compiled.table;
    let present: BTreeSet<(&str, &str)> =
        table.backends.values().map(|backend| (&*backend.id.service, &*backend.version)).collect();
    let mut warnings = Vec::new();
    for rollout in table.rollouts.values() {
        let key = format!("rollouts/{}", rollout.service);
        let texts = faults(table, rollout, &present);
        warnings.extend(texts.into_iter().map(|text| Warning { key: key.clone(), text }));
    }
    compiled.warnings.extend(warnings);
}

fn faults(table: &Table, rollout: &Rollout, present: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let service = &*rollout.service;
    if !table.services.contains_key(service) {
        return vec![format!("there is no services/{service}: nothing is rolled out")];
    }
    let mut texts = Vec::new();
    for (field, version) in [("from", &rollout.from), ("to", &rollout.to)] {
        if !present.contains(&(service, &**version)) {
            texts.push(format!("{field}: no backend of services/{service} has version {version}"));
        }
    }
    let mut routes = table.routes.values().filter(|route| *route.service == *service).peekable();
    if routes.peek().is_none() {
        texts.push(format!("no route leads to services/{service}: nobody is rolled out"));
    } else if !routes.any(|route| route.versions.is_empty() || route.versions.contains_key(&*rollout.from)) {
        let from = &rollout.from;
        texts.push(format!(
            "from: no route to services/{service} gives version {from} a share: nobody is rolled out"
        ));
    }
    texts
}
