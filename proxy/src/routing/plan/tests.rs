//! What is said of a change before it is written.

use super::*;
use crate::routing::document::accept::RawAccepted;

const SERVICE: &str = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;
const ROUTE: &str = r#"{"listener": "game", "service": "arena"}"#;

/// Documents that are all in force, and proxies of the newest level.
struct Scene {
    documents: Documents,
    in_force: LastGood,
    memory: Memory,
    fleet: Vec<(String, u32)>,
}

impl Scene {
    /// A service with so many backends and a route to it, and one document that is refused.
    fn new(backends: usize) -> Self {
        let mut documents = Documents::default();
        documents.put("services/arena", SERVICE.as_bytes(), 1);
        documents.put("routes/public", ROUTE.as_bytes(), 2);
        for number in 0..backends {
            documents.put(&format!("backends/arena/b{number}"), backend("1").as_bytes(), 3);
        }
        documents.put("services/broken", b"{}", 4);
        let in_force = compile(&documents, &LastGood::new(), 4).last_good;
        Self { documents, in_force, memory: Memory::default(), fleet: vec![("p".to_owned(), 2)] }
    }

    fn plan(&self, edits: &[(&str, Option<&str>)]) -> Plan {
        let value = |text: &&str| Arc::from(text.as_bytes());
        let edit = edits.iter().map(|(key, text)| (Arc::from(*key), text.as_ref().map(value)));
        let now = Now {
            documents: &self.documents,
            in_force: &self.in_force,
            memory: &self.memory,
            held: &[],
            fleet: &self.fleet,
            moment: Moment { revision: 4, at_ms: 1_000_000 },
        };
        plan(&now, Edit(edit.collect()))
    }
}

fn backend(version: &str) -> String {
    format!(r#"{{"address": "127.0.0.1:7100", "version": "{version}"}}"#)
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_change_is_a_difference_and_nothing_else() {
    let plan = Scene::new(2).plan(&[("backends/arena/b1", Some(&backend("2")))]);
    assert_eq!(texts(&plan.changes), ["changed backends/arena/b1: version 1 -> 2"]);
    assert_eq!((plan.refused, plan.warnings, plan.held), (vec![], vec![], vec![]));
}

#[test]
fn a_bad_document_is_refused_and_one_that_was_bad_before_is_not_held_against_it() {
    let scene = Scene::new(2);
    let plan = scene.plan(&[("backends/arena/b1", Some(r#"{"address": "127.0.0.1:1"}"#))]);
    let [refused] = &*plan.refused else { panic!("{:?}", plan.refused) };
    assert_eq!((&*refused.key, &*refused.field), ("backends/arena/b1", "version"));
    // Who writes the bad one itself is told.
    let plan = scene.plan(&[("services/broken", Some(r#"{"protocol": "link"}"#))]);
    assert_eq!(plan.refused.len(), 1);
    assert_eq!(plan.refused[0].key, "services/broken");
}

#[test]
fn what_others_would_lose_by_it_is_refused() {
    let plan = Scene::new(2).plan(&[("services/arena", None)]);
    let keys: BTreeSet<_> = plan.refused.iter().map(|refusal| &*refusal.key).collect();
    assert!(keys.contains("routes/public"), "{:?}", plan.refused);
}

#[test]
fn a_version_without_backends_is_a_warning_that_is_told_once() {
    let mut scene = Scene::new(2);
    let shares = r#"{"listener": "game", "service": "arena", "versions": {"1": 95, "2": 5}}"#;
    let plan = scene.plan(&[("routes/public", Some(shares))]);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    scene.documents.put("routes/public", shares.as_bytes(), 5);
    scene.in_force = compile(&scene.documents, &scene.in_force, 5).last_good;
    assert_eq!(scene.plan(&[("backends/arena/b1", None)]).warnings, [""; 0]);
}

#[test]
fn a_document_that_a_live_proxy_cannot_read_is_refused_by_its_name() {
    let mut scene = Scene::new(2);
    scene.fleet = vec![("new".to_owned(), 2), ("old".to_owned(), 1)];
    let plan = scene.plan(&[("ejections/arena/b1", Some("{}"))]);
    let [refused] = &*plan.refused else { panic!("{:?}", plan.refused) };
    assert_eq!(
        refused.to_string(),
        "ejections/arena/b1: document: got {}, expected nothing that proxy old can't read: it reads documents \
         up to schema level 1, this is of level 2; upgrade it first"
    );
    // One that it doesn't read anyhow may be changed: a rollout is given up, whoever lags behind.
    scene.documents.put("ejections/arena/b1", b"{}", 5);
    let reason = r#"{"reason": "hot"}"#;
    assert_eq!(scene.plan(&[("ejections/arena/b1", Some(reason))]).refused, []);
    scene.fleet = vec![("new".to_owned(), 2)];
    assert_eq!(scene.plan(&[("ejections/arena/b0", Some("{}"))]).refused, []);
}

#[test]
fn a_slip_is_told_and_goes_through_with_the_yes_in_the_same_edit() {
    let scene = Scene::new(3);
    let slip = [("backends/arena/b0", None), ("backends/arena/b1", None)];
    let mut plan = scene.plan(&slip);
    assert_eq!(
        plan.held.iter().map(Held::text).collect::<Vec<_>>(),
        ["arena: 2 of 3 backends would be gone within 60 s"]
    );
    plan.accept(&scene.documents, "the old hall is closed").unwrap();
    assert!(plan.edit.0.contains_key("accepts/arena"));
    let mut after = scene.documents.clone();
    plan.edit.apply(&mut after, 5);
    let moment = Moment { revision: 5, at_ms: 1_000_000 };
    assert_eq!(slips::judge(&scene.memory, &after, &scene.in_force, moment).held, []);
    // Without it, it would be held.
    after.remove("accepts/arena");
    assert_eq!(slips::judge(&scene.memory, &after, &scene.in_force, moment).held.len(), 1);
}

#[test]
fn what_is_held_already_is_not_held_against_another_change() {
    let mut scene = Scene::new(3);
    (0..2).for_each(|number| scene.documents.remove(&format!("backends/arena/b{number}")));
    let moment = Moment { revision: 5, at_ms: 1_000_000 };
    let judgement = slips::judge(&scene.memory, &scene.documents, &scene.in_force, moment);
    scene.memory = judgement.memory;
    let now = Now {
        documents: &scene.documents,
        in_force: &scene.in_force,
        memory: &scene.memory,
        held: &judgement.held,
        fleet: &scene.fleet,
        moment,
    };
    let put = Edit([("backends/arena/new".into(), Some(Arc::from(backend("1").as_bytes())))].into());
    assert_eq!(plan(&now, put).held, []);
    let delete = Edit([("backends/arena/b2".into(), None)].into());
    assert_eq!(plan(&now, delete).held.len(), 1);
}

#[test]
fn who_writes_a_key_that_is_held_is_told_that_it_would_be_again() {
    let mut scene = Scene::new(2);
    let versions = |version: &str| {
        format!(r#"{{"listener": "game", "service": "arena", "versions": {{"{version}": 100}}}}"#)
    };
    scene.documents.put("routes/public", versions("1.6").as_bytes(), 5);
    let moment = Moment { revision: 5, at_ms: 1_000_000 };
    let judgement = slips::judge(&scene.memory, &scene.documents, &scene.in_force, moment);
    assert_eq!(judgement.held.len(), 1);
    let now = Now {
        documents: &scene.documents,
        in_force: &scene.in_force,
        memory: &judgement.memory,
        held: &judgement.held,
        fleet: &scene.fleet,
        moment,
    };
    let put = |text: String| Edit([("routes/public".into(), Some(Arc::from(text.as_bytes())))].into());
    assert_eq!(plan(&now, put(versions("1.7"))).held.len(), 1);
    assert_eq!(plan(&now, put(versions("1"))).held, []);
}

fn yes(keys: impl IntoIterator<Item = String>) -> RawAccept {
    let changes = keys.into_iter().map(|key| (key, RawAccepted { from: 3, to: None }));
    RawAccept { changes: changes.collect(), reason: String::new() }
}

#[test]
fn a_second_yes_leaves_the_first_to_those_who_were_away() {
    let mut documents = Scene::new(1).documents;
    let gone = |number: usize| format!("backends/arena/gone{number}");
    let there = "backends/arena/b0".to_owned();
    let (key, first) = accept_document(&documents, "arena", &yes([gone(0), there])).unwrap();
    documents.put(&key, &first, 6);
    let (_, second) = accept_document(&documents, "arena", &yes([gone(1)])).unwrap();
    let said: RawAccept = serde_json::from_slice(&second).unwrap();
    assert_eq!(said, yes([gone(0), gone(1)]), "what came again since is left out");
    // The older ones go where there are too many of them, and what is too large by itself is said to be.
    let many = |from: usize, count: usize| yes((from..from + count).map(gone));
    let (_, full) = accept_document(&Documents::default(), "arena", &many(10_000, 5_000)).unwrap();
    documents.put(&key, &full, 7);
    let (_, third) = accept_document(&documents, "arena", &many(20_000, 5_000)).unwrap();
    assert!(serde_json::from_slice::<RawAccept>(&third).unwrap() == many(20_000, 5_000));
    let error = accept_document(&documents, "arena", &many(30_000, 20_000)).unwrap_err().to_string();
    assert!(error.starts_with("accepts/arena: document: got "), "{error}");
}
