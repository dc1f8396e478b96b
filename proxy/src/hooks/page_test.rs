//! `docs/hooks.md` says what is so.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::config::Config;
use crate::events::Kind;
use crate::routing::document::{Document, Key, RawHook};

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks.md")).unwrap()
}

/// What stands between fences of that language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_rule_on_the_page_is_valid_and_every_key_is_told() {
    let page = page();
    let (rules, events): (Vec<_>, Vec<_>) =
        blocks(&page, "json").into_iter().partition(|text| text.contains("\"match\""));
    let key = Key::parse("hooks/page").unwrap();
    for rule in &rules {
        Document::parse(&key, rule.as_bytes()).unwrap_or_else(|error| panic!("{error} in {rule}"));
    }
    let event: Value = serde_json::from_str(&events[0]).unwrap();
    let fields: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    let written = ["backend", "detail", "kind", "proxy", "reason", "service", "time"];
    assert_eq!((rules.len(), events.len(), fields), (3, 1, written.to_vec()));
    let schema = schemars::schema_for!(RawHook).to_value();
    for field in schema["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{field}` |")), "{field} isn't on the page");
    }
}

#[test]
fn the_page_lists_every_kind_of_event_and_no_other() {
    let page = page();
    let rows = page.split("| kind |").nth(1).unwrap().lines().skip(2);
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split(" |").next());
    let listed: BTreeSet<_> =
        cells.flat_map(|cell| cell.split(", ")).map(|kind| kind.trim_matches('`').to_owned()).collect();
    let kinds: BTreeSet<_> = Kind::all().into_iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(listed, kinds);
}

#[test]
fn the_configs_on_the_page_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    let page = page();
    let text = format!(
        "[proxy]\nid = \"p\"\n[[listener]]\nname = \"game\"\nbind = \"0.0.0.0:7000\"\n\
         [etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n{}",
        blocks(&page, "toml").concat()
    );
    let config = Config::parse(&text, &folder.path().join("holdfast.toml"));
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.events.are_wanted() && config.hooks.token.is_some());
    assert!(page.contains("/hooks/alertmanager"));
}
