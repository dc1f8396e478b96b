//! Whom this proxy checks: the backend beside it, and a bounded number of each service's others. Which ones those are is
//! up to rendezvous hashing on the proxy's id, so that a fleet's proxies share the work and a change moves few.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::routing::table::CheckPolicy;
use crate::routing::{BackendAddress, BackendId, Table};

/// A backend to check, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: BackendAddress,
    pub policy: CheckPolicy,
}

/// The backend beside a proxy, and where the proxy finds it.
pub type Local = Option<(BackendId, BackendAddress)>;

#[must_use]
pub fn targets(table: &Table, proxy_id: &str, local: &Local) -> BTreeMap<BackendId, Target> {
    let mut targets = BTreeMap::new();
    let seed = xxh3_64(proxy_id.as_bytes());
    for service in table.services.values() {
        let Some(policy) = &service.health.check else { continue };
        let first = BackendId { service: service.name.clone(), name: "".into() };
        let listed = table.backends.range(first..).take_while(|(id, _)| id.service == service.name);
        let mut others = Vec::new();
        for (id, backend) in listed {
            match local {
                Some((beside, address)) if beside == id => {
                    targets.insert(id.clone(), Target { address: address.clone(), policy: policy.clone() });
                }
                _ => others.push((xxh3_64_with_seed(id.name.as_bytes(), seed), id, backend)),
            }
        }
        others.sort_unstable_by_key(|(score, id, _)| (*score, *id));
        for (_, id, backend) in others.into_iter().take(policy.subset as usize) {
            targets.insert(id.clone(), Target { address: backend.address.clone(), policy: policy.clone() });
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::document::{Document, Key};

    fn table(backends: usize, subset: usize) -> Table {
        let mut table = Table::empty();
        let text = format!(
            r#"{{"protocol": "link", "framing": {{"kind": "length"}}, "health": {{"check": {{"kind": "tcp", "subset": {subset}}}}}}}"#
        );
        let parse =
            |key: &str, text: &str| Document::parse(&Key::parse(key).unwrap(), text.as_bytes()).unwrap();
        let Document::Service(service) = parse("services/arena", &text) else { panic!("a service") };
        table.services.insert("arena".into(), service);
        for number in 0..backends {
            let text = format!(r#"{{"address": "127.0.0.1:{}", "version": "1"}}"#, 1000 + number);
            let Document::Backend(backend) = parse(&format!("backends/arena/b{number}"), &text) else {
                panic!("a backend")
            };
            table.backends.insert(backend.id.clone(), Arc::clone(&backend));
        }
        table
    }

    #[test]
    fn the_local_one_is_checked_at_its_own_address_beside_the_subset() {
        let id = BackendId { service: "arena".into(), name: "b7".into() };
        let local = Some((id.clone(), BackendAddress::Unix("/run/b7".into())));
        let chosen = targets(&table(50, 10), "host-a", &local);
        assert_eq!(chosen.len(), 11);
        assert_eq!(chosen[&id].address, BackendAddress::Unix("/run/b7".into()));
        assert_eq!(targets(&table(5, 10), "host-a", &None).len(), 5);
        assert_eq!(targets(&table(5, 0), "host-a", &local).len(), 0);
    }

    #[test]
    fn every_proxy_has_others_and_a_backend_that_joins_displaces_one_at_most() {
        let names = |backends, proxy: &str| {
            targets(&table(backends, 10), proxy, &None).into_keys().collect::<std::collections::BTreeSet<_>>()
        };
        assert_ne!(names(50, "host-a"), names(50, "host-b"));
        for backends in 10..50 {
            let (before, after) = (names(backends, "host-a"), names(backends + 1, "host-a"));
            assert!(before.difference(&after).count() <= 1, "{backends}");
        }
    }
}
