//! A thousand random mutations of valid documents: each is in force, refused or held, with a reason; nothing breaks.

use std::collections::BTreeMap;

use holdfast_stage::Mutations;
use serde_json::Value;

use super::*;
use crate::reference::EXAMPLES;

const SEED: u64 = 20_261_123;
const COUNT: u64 = 1_000;

#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Outcomes {
    in_force: u64,
    refused: u64,
    held: u64,
}

fn documents() -> Vec<(String, Value)> {
    EXAMPLES.iter().map(|(key, text)| ((*key).to_owned(), serde_json::from_str(text).unwrap())).collect()
}

/// What is in force, by key.
fn texts(published: &Published) -> BTreeMap<String, String> {
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    published.documents.iter().map(|(key, good)| (key.to_string(), text(&good.raw))).collect()
}

fn assert_explained(refusal: &Refusal) {
    let parts = [&refusal.key, &refusal.field, &refusal.value, &refusal.expected];
    assert!(parts.iter().all(|part| !part.trim().is_empty()), "{refusal:?}");
    assert!(!refusal.to_string().chars().any(char::is_control), "{refusal:?}");
}

#[test]
fn each_of_a_thousand_mutations_is_in_force_or_refused_or_held_with_a_reason() {
    println!("seed {SEED}");
    let base = documents();
    let (mut publisher, source) = Publisher::new();
    let restore = |documents: &mut Documents, revision| {
        for (key, document) in &base {
            documents.put(key, document.to_string().as_bytes(), revision);
        }
    };
    publisher.apply(1, |documents| restore(documents, 1));
    let (mut mutations, mut outcomes) = (Mutations::new(SEED), Outcomes::default());
    for revision in 1..=COUNT {
        let before = source.published.borrow().clone();
        assert_eq!((before.refused.len(), before.held.len()), (0, 0), "it began with what is right");
        let mutation = mutations.of(&base);
        publisher.apply(2 * revision, |documents| {
            documents.put(&mutation.key, mutation.text.as_bytes(), 2 * revision);
        });
        let after = source.published.borrow().clone();
        after.refused.iter().for_each(assert_explained);
        let (old, new) = (texts(&before), texts(&after));
        let is_held = after.held.iter().any(|held| held.keys.iter().any(|key| **key == *mutation.key));
        let refusal = after.refused.iter().find(|refusal| refusal.key == mutation.key);
        if is_held {
            assert!(after.held.iter().all(|held| !held.why.is_empty()), "{mutation:?}");
            outcomes.held += 1;
        } else if let Some(refusal) = refusal {
            assert_eq!(refusal.last_good, old.contains_key(&mutation.key), "{mutation:?}");
            outcomes.refused += 1;
        } else {
            assert_eq!(new.get(&mutation.key), Some(&mutation.text), "{mutation:?}");
            outcomes.in_force += 1;
        }
        if is_held || refusal.is_some() {
            assert_eq!(new.get(&mutation.key), old.get(&mutation.key), "the last good version: {mutation:?}");
        }
        let others = |texts: BTreeMap<String, String>| {
            texts.into_iter().filter(|(key, _)| *key != mutation.key).collect::<Vec<_>>()
        };
        assert_eq!(others(new), others(old), "all else goes on: {mutation:?}");
        publisher.apply(2 * revision + 1, |documents| {
            documents.remove(&mutation.key);
            restore(documents, 2 * revision + 1);
        });
    }
    println!("{outcomes:?}");
    assert!(
        outcomes.in_force > COUNT / 10 && outcomes.refused > COUNT / 3 && outcomes.held > 0,
        "{outcomes:?}"
    );
}
