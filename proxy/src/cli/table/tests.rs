//! What is typed and what is printed; the commands against a real proxy are tested end to end.

use std::collections::BTreeMap;

use super::*;
use crate::admin::view::{HeldView, HeldsView, PastTableView};

#[test]
fn a_table_to_compare_is_a_number_now_or_a_folder() {
    for (text, which) in [
        ("now", Which::Now),
        ("41", Which::Number(41)),
        ("routing/", Which::Folder("routing/".into())),
        ("./41", Which::Folder("./41".into())),
    ] {
        assert_eq!(text.parse::<Which>(), Ok(which), "{text}");
    }
}

#[test]
fn the_history_says_since_when_each_table_was_in_force() {
    let past = |number, revision, applied_ms| PastTableView { number, revision, applied_ms };
    let view = TablesView { tables: vec![past(9, 118, 1_000), past(10, 121, 3_600_000)] };
    assert_eq!(
        render_history(&view, 3_630_000, None),
        "\
TABLE  REVISION  IN FORCE SINCE
    9       118  1h 0m ago
   10       121  30s ago
"
    );
    assert_eq!(render_history(&TablesView { tables: Vec::new() }, 0, None), "no table yet\n");
}

fn document(key: &str, text: &str, leased: bool) -> DocumentView {
    DocumentView { key: key.into(), revision: 1, text: text.into(), leased }
}

#[test]
fn an_export_is_what_people_write_not_what_is_ordered_or_registered() {
    let documents = || {
        vec![
            document("accepts/arena", "{}", false),
            document("backends/arena/a", "{}", false),
            document("backends/arena/registered", "{}", true),
            document("drains/arena/a", "{}", false),
            document("services/arena", "{}", false),
        ]
    };
    let mut own = documents();
    own.retain(is_configuration);
    let keys: Vec<_> = own.iter().map(|document| &*document.key).collect();
    assert_eq!(keys, ["backends/arena/a", "services/arena"]);
}

#[test]
fn a_table_of_a_proxy_is_compared_even_if_some_of_it_would_not_hold_by_itself() {
    let route = r#"{"listener": "game", "service": "nowhere"}"#;
    let service = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;
    let documents = [document("routes/r", route, false), document("services/arena", service, false)];
    let table = compiled(&documents);
    assert_eq!((table.services.len(), table.routes.len()), (1, 0));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    export(&target, &documents).unwrap();
    let error = read_folder(&target).unwrap_err().to_string();
    assert!(error.contains("routes/r: service: got"), "{error}");
}

#[test]
fn an_export_never_writes_into_a_folder_that_has_something() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let document = |key: &str| document(key, "{}", false);
    export(&target, &[document("backends/arena/a"), document("services/arena")]).unwrap();
    assert_eq!(fs::read_to_string(target.join("backends/arena/a.json")).unwrap(), "{}");
    let error = export(&target, &[document("routes/r")]).unwrap_err();
    assert!(error.to_string().contains("expected a new or empty folder"), "{error}");
    assert!(!target.join("routes").exists());
}

#[test]
fn of_what_was_written_that_is_named_which_is_held() {
    let held = HeldView {
        service: "arena".into(),
        since: 7,
        since_ms: 0,
        why: Vec::new(),
        keys: vec!["routes/a".into(), "routes/b".into()],
        keys_unlisted: 0,
    };
    let view = HeldsView { held: vec![held], accepts: BTreeMap::new(), proxies: Vec::new() };
    let written = ["routes/b".to_owned(), "routes/c".to_owned()];
    assert_eq!(write::held_of(&view, &written).collect::<Vec<_>>(), ["routes/b"]);
    assert_eq!(write::held_of(&view, &[]).count(), 0);
}

#[test]
fn a_key_that_is_not_there_is_answered_with_those_that_are() {
    let keys = ["backends/arena/a", "backends/arena/b", "services/arena"];
    assert_eq!(
        nearest("backends/arena/c", &keys),
        "of backends there are backends/arena/a, backends/arena/b"
    );
    assert_eq!(nearest("route/public", &keys), "`holdfast table list` has all keys");
}
