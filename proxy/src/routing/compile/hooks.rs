//! What is to be said of hooks whose labels name a service or a backend that isn't there.

use super::{Compiled, Warning};
use crate::routing::document::key;
use crate::routing::table::{Hook, HookAction, Table};

pub fn warn(compiled: &mut Compiled) {
    let table = &compiled.table;
    let texts = table.hooks.values().filter_map(|hook| Some((hook, fault(table, hook)?)));
    let warnings: Vec<_> =
        texts.map(|(hook, text)| Warning { key: format!("hooks/{}", hook.name), text }).collect();
    compiled.warnings.extend(warnings);
}

fn fault(table: &Table, hook: &Hook) -> Option<String> {
    let service = hook.labels.get(&hook.service_label);
    if let Some(service) = service.filter(|service| !table.services.contains_key(*service)) {
        let label = &hook.service_label;
        return Some(format!("match.{label}: there is no services/{service}: nothing is done by this hook"));
    }
    let HookAction::TakeOut(take_out) = &hook.action else { return None };
    let label = &take_out.backend_label;
    let backend = hook.labels.get(label)?;
    let known = key::backend(backend, service.map(String::as_str))
        .map_or_else(|| !backend.contains('/'), |id| table.backends.contains_key(&id));
    (!known).then(|| format!("match.{label}: there is no backends/{backend}: nothing is done by this hook"))
}
