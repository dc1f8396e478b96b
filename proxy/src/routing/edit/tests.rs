//! What leads from one set of documents to another, leads there.

use proptest::prelude::*;

use super::*;
use crate::routing::diff::difference;
use crate::routing::{Compiled, LastGood, compile};

/// Good documents, bad ones and ones that say the same in other words, under a few keys of each kind.
fn documents() -> impl Strategy<Value = Documents> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let service = name().prop_flat_map(|name| {
        (
            Just(format!("services/{name}")),
            prop::sample::select(vec![
                r#"{"protocol": "link", "framing": {"kind": "length"}}"#,
                r#"{"framing":{"kind":"length"},"protocol":"link"}"#,
                r#"{"protocol": "link", "framing": {"kind": "varint"}, "recovery": "replay"}"#,
                r#"{"protocol": "udp"}"#,
            ])
            .prop_map(str::to_owned),
        )
    });
    let backend = (name(), name(), 0..3u32).prop_map(|(service, name, weight)| {
        let text = format!(r#"{{"address": "127.0.0.1:1", "version": "1", "weight": {weight}}}"#);
        (format!("backends/{service}/{name}"), text)
    });
    let route = (name(), name(), name()).prop_map(|(name, listener, service)| {
        (format!("routes/{name}"), format!(r#"{{"listener": "{listener}", "service": "{service}"}}"#))
    });
    let drain =
        (name(), name()).prop_map(|(service, name)| (format!("drains/{service}/{name}"), "{}".to_owned()));
    let document = prop_oneof![service, backend, route, drain];
    prop::collection::vec(document, 0..20).prop_map(|all| {
        let mut documents = Documents::default();
        all.iter().for_each(|(key, text)| documents.put(key, text.as_bytes(), 1));
        documents
    })
}

fn compiled(documents: &Documents) -> Compiled {
    compile(documents, &LastGood::new(), 1)
}

proptest! {
    #[test]
    fn a_difference_that_is_applied_leads_to_the_other_table(a in documents(), b in documents()) {
        let mut there = a.clone();
        Edit::between(&a, &b).apply(&mut there, 1);
        prop_assert_eq!(Edit::between(&there, &b), Edit::default());
        let keys = |documents: &Documents| documents.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        prop_assert_eq!(keys(&there), keys(&b));
        let (there, b) = (compiled(&there), compiled(&b));
        prop_assert_eq!(difference(&there.table, &b.table), []);
        prop_assert_eq!(there.refused, b.refused);
        prop_assert_eq!(there.warnings, b.warnings);
        // And the lines that people read are none exactly when the tables are the same.
        let a = compiled(&a);
        let same = a.table.services == b.table.services
            && a.table.backends == b.table.backends
            && a.table.routes == b.table.routes
            && a.table.drains == b.table.drains;
        prop_assert_eq!(difference(&a.table, &b.table).is_empty(), same);
    }
}
