//! Each word on a rollout writes what it says, or says why not.

use super::*;
use crate::rollout::Progress;

const SERVICE: &str = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;

/// Two versions, a route with shares and one without, and whatever else.
fn documents(more: &[(&str, &str)]) -> Documents {
    let mut documents = Documents::default();
    let shared = r#"{"listener": "game", "service": "arena", "versions": {"1.3": 10, "1.4": 60, "1.5": 30}}"#;
    for (key, text) in [
        ("services/arena", SERVICE),
        ("backends/arena/a", r#"{"address": "127.0.0.1:1", "version": "1.4"}"#),
        ("backends/arena/b", r#"{"address": "127.0.0.1:2", "version": "1.5"}"#),
        ("routes/public", r#"{"listener": "game", "service": "arena", "versions": {"1.4": 100}}"#),
        ("routes/shared", &shared.replace("game", "shared")),
    ]
    .iter()
    .chain(more)
    {
        documents.put(key, text.as_bytes(), 1);
    }
    documents
}

fn under_way(state: State) -> (Documents, Progresses) {
    let documents =
        documents(&[("rollouts/arena", r#"{"from": "1.4", "to": "1.5", "steps": [10], "attempt": 2}"#)]);
    let plan = match &documents.get("rollouts/arena").unwrap().parsed.as_ref().unwrap().document {
        Document::Rollout(plan) => Arc::clone(plan),
        other => panic!("not a rollout: {other:?}"),
    };
    let mut progress = Progress::begin(&plan, 0);
    progress.state = state;
    (documents, [("arena".to_owned(), Arc::new(progress))].into())
}

fn say(of: &(Documents, Progresses), word: Word, reason: &str) -> Result<Vec<(String, Value)>, String> {
    let edit = compose(&of.0, &of.1, "arena", word, reason).map_err(|unfit| unfit.to_string())?;
    let value = |raw: &Option<Arc<[u8]>>| {
        raw.as_ref().map_or(Value::Null, |raw| serde_json::from_slice(raw).unwrap())
    };
    Ok(edit.0.iter().map(|(key, raw)| (key.to_string(), value(raw))).collect())
}

fn start(fields: Value) -> Word {
    let Value::Object(fields) = fields else { panic!("fields") };
    Word::Start(fields)
}

#[test]
fn a_start_finds_the_one_version_that_players_are_on() {
    let of = (documents(&[]), Progresses::new());
    let error = say(&of, start(json!({"to": "1.5"})), "").unwrap_err();
    assert_eq!(error, "from which version? arena has 1.3, 1.4: say --from");
    let mut of = of;
    of.0.remove("routes/shared");
    let written = say(&of, start(json!({"to": "1.5", "steps": [100]})), "hotfix").unwrap();
    let wanted = json!({"from": "1.4", "to": "1.5", "steps": [100], "reason": "hotfix"});
    assert_eq!(written, [("rollouts/arena".to_owned(), wanted)]);
    // Without shares the backends tell.
    of.0.put("routes/public", br#"{"listener": "game", "service": "arena"}"#, 2);
    assert_eq!(say(&of, start(json!({"to": "1.5"})), "").unwrap()[0].1["from"], "1.4");
    let error = say(&of, start(json!({"from": "1.4"})), "").unwrap_err();
    assert_eq!(error, "to which version? `to` isn't given");
}

#[test]
fn a_rollout_that_was_given_up_is_begun_anew_as_another_attempt() {
    let again = start(json!({"from": "1.4", "to": "1.5"}));
    for state in [State::Aborted, State::Refused, State::Checking] {
        let written = say(&under_way(state), again.clone(), "").unwrap();
        assert_eq!(written[0].1["attempt"], 3, "{state:?}");
    }
    // The document as it stands is a plan, too.
    let same = start(json!({"from": "1.4", "to": "1.5", "attempt": 2, "order": "abort"}));
    let written = say(&under_way(State::Aborted), same, "").unwrap();
    assert_eq!((&written[0].1["attempt"], written[0].1.get("order")), (&json!(3), None));
    let other = start(json!({"from": "1.4", "to": "1.6"}));
    assert!(say(&under_way(State::Aborted), other, "").unwrap()[0].1.get("attempt").is_none());
    for state in [State::Running, State::Paused, State::Aborting, State::Done] {
        let error = say(&under_way(state), again.clone(), "").unwrap_err();
        let wanted =
            format!("rollouts/arena from 1.4 to 1.5 is {}: promote it or abort it first", state.name());
        assert_eq!(error, wanted);
    }
}

#[test]
fn an_order_changes_the_documents_order_and_reason_alone() {
    let of = under_way(State::Running);
    let paused =
        json!({"from": "1.4", "to": "1.5", "steps": [10], "attempt": 2, "order": "pause", "reason": "lunch"});
    assert_eq!(say(&of, Word::Pause, "lunch").unwrap(), [("rollouts/arena".to_owned(), paused)]);
    assert_eq!(say(&of, Word::Abort, "").unwrap()[0].1["order"], "abort");
    let resumed = say(&under_way(State::Paused), Word::Resume, "").unwrap();
    assert_eq!((&resumed[0].1["order"], resumed[0].1.get("reason")), (&json!("run"), None));
}

#[test]
fn an_order_that_makes_no_sense_says_why() {
    for (state, word, wanted) in [
        (State::Done, Word::Pause, "rollouts/arena is done: there is nothing to pause"),
        (State::Aborted, Word::Pause, "rollouts/arena is aborted: there is nothing to pause"),
        (State::Running, Word::Resume, "rollouts/arena is running: there is nothing to resume"),
        (State::Aborted, Word::Resume, "rollouts/arena is aborted: `holdfast rollout start` begins it anew"),
        (State::Aborting, Word::Abort, "rollouts/arena is aborting already"),
        (
            State::Refused,
            Word::Promote { early: true },
            "rollouts/arena is refused: there is nothing to promote",
        ),
        (
            State::Running,
            Word::Promote { early: false },
            "rollouts/arena is running, its last step isn't over: --now promotes it all the same",
        ),
    ] {
        assert_eq!(say(&under_way(state), word, "").unwrap_err(), wanted);
    }
    let none = (documents(&[]), Progresses::new());
    let error = say(&none, Word::Abort, "").unwrap_err();
    assert_eq!(error, "there is no rollouts/arena: nothing is rolled out");
    let unbegun = (under_way(State::Done).0, Progresses::new());
    let error = say(&unbegun, Word::Promote { early: true }, "").unwrap_err();
    assert_eq!(error, "rollouts/arena hasn't begun: there is nothing to promote");
}

#[test]
fn promoting_gives_the_new_version_what_both_had_and_ends_the_rollout() {
    let (mut documents, progresses) = under_way(State::Done);
    documents.put("routes/plain", br#"{"listener": "plain", "service": "arena"}"#, 1);
    let none = br#"{"listener": "none", "service": "arena", "versions": null}"#;
    documents.put("routes/none", none, 1);
    documents.put("routes/old", br#"{"listener": "old", "service": "arena", "versions": {"1.3": 1}}"#, 1);
    documents.put("routes/lobby", br#"{"listener": "lobby", "service": "lobby"}"#, 1);
    let written = say(&(documents, progresses), Word::Promote { early: false }, "").unwrap();
    let route = |listener: &str, versions: Value| json!({"listener": listener, "service": "arena", "versions": versions});
    let wanted = [
        ("rollouts/arena", Value::Null),
        ("routes/none", route("none", json!({"1.5": 100}))),
        ("routes/plain", route("plain", json!({"1.5": 100}))),
        ("routes/public", route("game", json!({"1.5": 100}))),
        ("routes/shared", route("shared", json!({"1.3": 10, "1.5": 90}))),
    ];
    assert_eq!(written, wanted.map(|(key, value)| (key.to_owned(), value)));
}

#[test]
fn a_route_that_is_refused_as_it_stands_is_not_promoted_by_guessing() {
    let (mut documents, progresses) = under_way(State::Done);
    documents.put("routes/bad", br#"{"listener": "bad", "service": "arena", "versions": {"1.4": -1}}"#, 1);
    let error = say(&(documents, progresses), Word::Promote { early: false }, "").unwrap_err();
    assert!(error.starts_with("routes/bad can't be promoted as it is refused: versions"), "{error}");
}
