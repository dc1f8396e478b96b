//! What is typed and what is printed; the commands against a real proxy are tested end to end.

use super::*;
use crate::admin::view::PastTableView;

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

#[test]
fn an_export_never_writes_into_a_folder_that_has_something() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let document = |key: &str| DocumentView { key: key.into(), revision: 1, text: "{}".into() };
    export(&target, &[document("backends/arena/a"), document("services/arena")]).unwrap();
    assert_eq!(fs::read_to_string(target.join("backends/arena/a.json")).unwrap(), "{}");
    let error = export(&target, &[document("routes/r")]).unwrap_err();
    assert!(error.to_string().contains("expected a new or empty folder"), "{error}");
    assert!(!target.join("routes").exists());
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
