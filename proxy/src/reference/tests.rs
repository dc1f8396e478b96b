//! The committed pages are what the types give, and what stands on them is true.

mod truth;

use std::path::{Path, PathBuf};

use clap::Parser;

use super::refusals::{Case, REFUSALS, WARNINGS};
use super::{EXAMPLES, files, page};
use crate::cli::Cli;
use crate::routing::document::schema::KINDS;
use crate::routing::{Compiled, Documents, LastGood, compile};

/// A table that is right, for mistakes to be made in.
const RIGHT: [(&str, &str); 5] = [
    ("services/arena", r#"{"protocol": "link", "framing": {"kind": "length"}}"#),
    ("services/empty", r#"{"protocol": "link", "framing": {"kind": "length"}}"#),
    ("backends/arena/a", r#"{"address": "10.0.0.5:7100", "version": "1.4"}"#),
    ("backends/arena/b", r#"{"address": "10.0.0.6:7100", "version": "1.5"}"#),
    ("routes/public", r#"{"listener": "game", "service": "arena", "versions": {"1.4": 100}}"#),
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Written one after the other, as the last one is.
fn written<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Compiled {
    let mut set = Documents::default();
    let mut compiled = compile(&set, &LastGood::new(), 0);
    for (revision, (key, text)) in (1..).zip(documents) {
        set.put(key, text.as_bytes(), revision);
        compiled = compile(&set, &compiled.last_good, revision);
    }
    compiled
}

#[test]
fn the_committed_reference_is_what_the_types_give() {
    for (name, text) in files() {
        let committed = std::fs::read_to_string(docs().join(&name)).unwrap_or_default();
        let first = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
        assert!(
            committed == text,
            "docs/{name} is not what the types give (first difference: {first:?}); write it anew with\n\
             cargo run -p holdfast -- table reference --write docs"
        );
    }
    let schemas = std::fs::read_dir(docs().join("schema")).unwrap().count();
    assert_eq!(schemas, KINDS.len(), "docs/schema holds what no kind has");
}

#[test]
fn each_kind_has_an_example_and_all_of_them_fit_together() {
    for kind in KINDS {
        let has_one = EXAMPLES.iter().any(|(key, _)| key.split('/').next() == Some(kind.name));
        assert!(has_one, "no example of {}", kind.name);
    }
    let compiled = written(EXAMPLES.iter().copied());
    assert_eq!((compiled.refused, compiled.warnings), (vec![], vec![]));
}

/// Code blocks of one language: what stands behind its name, and the text.
fn blocks(page: &str, language: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().map(str::trim_start);
    while let Some(line) = lines.next() {
        let Some(opened) = line.strip_prefix("```") else { continue };
        let text: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        if let Some(about) = opened.strip_prefix(language) {
            blocks.push((about.trim().to_owned(), text.join("\n")));
        }
    }
    blocks
}

#[test]
fn every_document_on_the_page_is_applied_by_the_real_reader() {
    let blocks = blocks(&page(), "json");
    assert!(blocks.len() > KINDS.len(), "{blocks:?}");
    for (key, text) in &blocks {
        let all = EXAMPLES.iter().copied().chain([(&**key, &**text)]);
        assert_eq!(written(all).refused, [], "{key}: {text}");
    }
}

#[test]
fn every_command_on_the_page_is_one_that_holdfast_takes() {
    let mut count = 0;
    for (_, text) in blocks(&page(), "sh") {
        for line in text.lines().filter(|line| line.starts_with("holdfast")) {
            let line = line.split(" #").next().unwrap_or_default();
            let line = line.split(" > ").next().unwrap_or_default();
            // Every other piece between quotes is one word.
            let pieces = line.split('\'').enumerate();
            let words = pieces.flat_map(|(index, piece)| match index % 2 {
                0 => piece.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![piece.to_owned()],
            });
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 15, "{count} commands");
}

fn with(case: &Case) -> Compiled {
    written(RIGHT.into_iter().chain([(case.key, case.text)]))
}

#[test]
fn every_class_of_mistake_is_refused_in_these_words_and_changes_nothing() {
    let before = written(RIGHT).table;
    for case in REFUSALS {
        let after = with(case);
        let told: Vec<_> = after.refused.iter().map(ToString::to_string).collect();
        assert_eq!(told, [case.message], "{}", case.mistake);
        assert_eq!(after.refused[0].last_good, RIGHT.iter().any(|(key, _)| *key == case.key));
        assert_eq!(after.table.services, before.services, "{}", case.mistake);
        assert_eq!(after.table.backends, before.backends, "{}", case.mistake);
        assert_eq!(after.table.routes, before.routes, "{}", case.mistake);
        let orders = (after.table.drains.len(), after.table.ejections.len(), after.table.rollouts.len());
        assert_eq!(orders, (0, 0, 0), "{}", case.mistake);
    }
}

#[test]
fn what_is_hardly_meant_is_in_force_and_warned_of_in_these_words() {
    let known = written(RIGHT).warnings;
    for case in WARNINGS {
        let after = with(case);
        assert_eq!(after.refused, [], "{}", case.mistake);
        let news = after.warnings.iter().filter(|warning| !known.contains(warning));
        let told: Vec<_> = news.map(|warning| format!("{}: {}", warning.key, warning.text)).collect();
        assert_eq!(told, [case.message], "{}", case.mistake);
        assert!(after.last_good.contains_key(case.key), "{}", case.mistake);
    }
}
