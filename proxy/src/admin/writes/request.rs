//! `POST /table` and `GET /applied`: which edit is asked for, and whether the workers act by it.

use super::super::ask::{AskError, ask};
use super::super::state::AdminState;
use super::super::tables;
use super::super::view::{AppliedView, TableAnswer, TableRequest};
use super::{How, WriteError, change};
use crate::routing::document::Key;
use crate::routing::edit::Edit;
use crate::routing::{Documents, LastGood, compile};
use crate::worker::command::Command;

pub(in crate::admin) async fn write(
    state: &AdminState,
    request: TableRequest,
) -> Result<TableAnswer, WriteError> {
    let how = How { dry_run: request.dry_run, accept: request.accept, reason: String::new() };
    match &request.rollback {
        None => change(state, |documents| edited(documents, &request), how).await,
        Some(which) => {
            let (table, past) = tables::named(state, which.parse()?).await?;
            let answer = change(state, |now| Ok(rolled_back(now, &past)), how).await?;
            Ok(TableAnswer { rolled_back_to: Some(table), ..answer })
        }
    }
}

/// What the puts, deletes and prunes make of the documents.
fn edited(documents: &Documents, request: &TableRequest) -> Result<Edit, WriteError> {
    let mut after = documents.clone();
    after.retain(|key| {
        let kind = key.split('/').next().unwrap_or_default();
        let pruned = request.prune.iter().any(|pruned| pruned == kind);
        !pruned || request.put.contains_key(key) || is_others(documents, key)
    });
    for key in &request.delete {
        if documents.get(key).is_none() {
            return Err(WriteError::Invalid(format!(
                "there is no {key} (`holdfast table list` has all keys)"
            )));
        }
        after.remove(key);
    }
    for (key, text) in &request.put {
        Key::parse(key)?;
        if request.folder && is_others(documents, key) {
            continue;
        }
        after.put_as(key, text.as_bytes(), 0, is_leased(documents, key));
    }
    Ok(Edit::between(documents, &after))
}

/// What leads back to a table of the history.
fn rolled_back(documents: &Documents, past: &LastGood) -> Edit {
    let mut after = documents.clone();
    after.retain(|key| is_others(documents, key) || past.contains_key(key));
    // What was in force then by a last good version alone is no document to write: it would be refused.
    let mut whole = Documents::default();
    past.iter().for_each(|(key, good)| whole.put_good(key.clone(), good.clone()));
    for (key, good) in &compile(&whole, &LastGood::new(), 0).last_good {
        if !good.leased && !is_others(documents, key) {
            after.put(key, &good.raw, 0);
        }
    }
    Edit::between(documents, &after)
}

/// Nobody's to take away, or to bring back, but who ordered or registered it.
fn is_others(documents: &Documents, key: &str) -> bool {
    Key::parse(key).is_ok_and(|key| key.is_order()) || is_leased(documents, key)
}

fn is_leased(documents: &Documents, key: &str) -> bool {
    documents.get(key).is_some_and(|entry| entry.leased)
}

/// How far this proxy is.
pub(in crate::admin) async fn applied(state: &AdminState) -> Result<AppliedView, AskError> {
    let workers = ask(state.running_workers(), |answer| Command::Drains { answer }).await?;
    let revision = state.published().table.revision;
    let applied = workers.iter().map(|worker| worker.revision).min().unwrap_or(revision);
    Ok(AppliedView { revision, applied })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const BACKEND: &str = r#"{"address": "127.0.0.1:1", "version": "1"}"#;

    /// A registration, two backends of people's own, and a drain.
    fn documents() -> Documents {
        let mut documents = Documents::default();
        documents.put_as("backends/arena/registered", BACKEND.as_bytes(), 3, true);
        documents.put("backends/arena/a", BACKEND.as_bytes(), 4);
        documents.put("backends/arena/b", BACKEND.as_bytes(), 5);
        documents.put("drains/arena/a", b"{}", 6);
        documents.put("services/arena", br#"{"protocol": "link", "framing": {"kind": "length"}}"#, 7);
        documents
    }

    fn keys(edit: &Edit) -> Vec<(&str, bool)> {
        edit.0.iter().map(|(key, value)| (&**key, value.is_some())).collect()
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn pruning_takes_what_the_folder_lacks_of_its_kinds_but_orders_and_registrations() {
        let request = TableRequest {
            put: BTreeMap::from([("backends/arena/b".into(), text(BACKEND))]),
            prune: vec!["backends".into(), "drains".into()],
            ..TableRequest::default()
        };
        assert_eq!(keys(&edited(&documents(), &request).unwrap()), [("backends/arena/a", false)]);
    }

    #[test]
    fn a_folder_writes_nothing_that_is_ordered_or_registered() {
        let other = BACKEND.replace("127.0.0.1:1", "127.0.0.1:2");
        let keys_of = ["backends/arena/a", "backends/arena/registered", "drains/arena/b"];
        let put = keys_of.map(|key| (key.to_owned(), other.clone()));
        let request = TableRequest { put: put.into(), folder: true, ..TableRequest::default() };
        assert_eq!(keys(&edited(&documents(), &request).unwrap()), [("backends/arena/a", true)]);
        let request = TableRequest { folder: false, ..request };
        assert_eq!(keys(&edited(&documents(), &request).unwrap()).len(), 3);
    }

    #[test]
    fn a_change_that_says_the_same_in_other_words_is_none() {
        let same = r#"{"version":"1","address":"127.0.0.1:1"}"#;
        let put = BTreeMap::from([("backends/arena/a".into(), text(same))]);
        let request = TableRequest { put, ..TableRequest::default() };
        assert!(edited(&documents(), &request).unwrap().is_empty());
    }

    #[test]
    fn what_is_deleted_must_be_there_and_what_is_put_must_have_a_place() {
        let deleting = TableRequest { delete: vec!["backends/arena/x".into()], ..TableRequest::default() };
        let error = edited(&documents(), &deleting).unwrap_err().to_string();
        assert_eq!(error, "there is no backends/arena/x (`holdfast table list` has all keys)");
        let put = BTreeMap::from([("backend/arena/x".into(), text(BACKEND))]);
        let error = edited(&documents(), &TableRequest { put, ..TableRequest::default() }).unwrap_err();
        assert!(
            error.to_string().starts_with("key: got backend/arena/x, expected services/<service>"),
            "{error}"
        );
    }

    #[test]
    fn a_rollback_brings_people_s_documents_back_and_nobody_else_s() {
        let mut past = Documents::default();
        past.put("backends/arena/a", BACKEND.replace("127.0.0.1:1", "127.0.0.1:2").as_bytes(), 1);
        past.put("backends/arena/c", BACKEND.as_bytes(), 1);
        past.put_as("backends/arena/gone", BACKEND.as_bytes(), 1, true);
        past.put("drains/arena/c", b"{}", 1);
        past.put("routes/r", br#"{"listener": "game", "service": "nowhere"}"#, 1);
        let past: LastGood = past
            .iter()
            .map(|(key, entry)| (key.clone(), entry.parsed.clone().expect("a good document")))
            .collect();
        let edit = rolled_back(&documents(), &past);
        let wanted = [
            ("backends/arena/a", true),
            ("backends/arena/b", false),
            ("backends/arena/c", true),
            ("services/arena", false),
        ];
        assert_eq!(keys(&edit), wanted);
    }
}
