//! The page: how to write, each kind with its fields, the keys that proxies write, what is said of mistakes.

use std::fmt::Write;

use serde_json::Value;

use super::EXAMPLES;
use super::fields::{Group, groups};
use super::refusals::{Case, REFUSALS, WARNINGS};
use super::written::WRITTEN;
use crate::routing::address::{BACKEND_ADDRESS, NAME};
use crate::routing::document::MAX_DOCUMENT_BYTES;
use crate::routing::document::schema::{KINDS, Kind, LEVEL};

const BEGIN: &str = include_str!("begin.md");
const END: &str = include_str!("end.md");

/// The whole page as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = BEGIN.to_owned();
    index(&mut page);
    KINDS.iter().for_each(|kind| section(&mut page, kind));
    keys_of_proxies(&mut page);
    mistakes(&mut page);
    page.push('\n');
    page.push_str(END);
    page
}

/// Adds lines; writing to a text can't fail.
macro_rules! add {
    ($page:expr, $($text:tt)*) => {
        let _ = writeln!($page, $($text)*);
    };
}

fn index(page: &mut String) {
    add!(page, "\n## The keys\n\n| key below `/holdfast/config/` | says |\n|---|---|");
    for kind in KINDS {
        add!(page, "| [`{}`](#{}) | {} |", kind.key, kind.name, kind.about);
    }
    add!(
        page,
        "\nA name in capitals is {NAME}; it is the same wherever it stands, in keys, documents and the proxies' files. \
         An address is {BACKEND_ADDRESS}. A document is one JSON object of at most {} KiB; a field that isn't listed \
         here is refused, and so is one that is given twice. Proxies of this version read documents up to **schema \
         level {LEVEL}**.\n\nIn the tables, **needed** has no default. Where the default is *none*, the text says what \
         holds without the field; `null` means the same as leaving it out.",
        MAX_DOCUMENT_BYTES / 1024
    );
}

fn section(page: &mut String, kind: &Kind) {
    add!(page, "\n## {}\n\n{}", kind.name, kind.about);
    add!(page, "\nKey: `/holdfast/config/{}`. Schema level {}.", kind.key, kind.since());
    add!(page, "JSON Schema: [schema/{0}.json](schema/{0}.json).", kind.name);
    for (key, text) in EXAMPLES.iter().filter(|(key, _)| key.split('/').next() == Some(kind.name)).take(1) {
        add!(page, "\n```json {key}\n{}\n```", text.trim_end());
    }
    let schema = kind.schema();
    groups(&schema).iter().for_each(|group| table(page, group, kind));
}

fn table(page: &mut String, group: &Group<'_>, kind: &Kind) {
    if !group.path.is_empty() {
        add!(page, "\n### {}: `{}`", kind.name, group.path);
    }
    add!(page, "\n| field | may be | default | says |\n|---|---|---|---|");
    for field in &group.fields {
        let (value, default, says) = (field.value(), field.default(), field.says(kind.since()));
        add!(page, "| `{}` | {} | {} | {} |", field.path, cell(&value), cell(&default), cell(&says));
    }
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn keys_of_proxies(page: &mut String) {
    add!(
        page,
        "\n## Keys that proxies write\n\nBelow `/holdfast/status/`, at most once a second each. They are there to be \
         read: who writes or deletes one does harm and no good. Fields are only ever added. `[]` stands for each item \
         of a list."
    );
    for written in WRITTEN {
        add!(page, "\n### `/holdfast/status/{}`\n\n{}", written.key, written.about);
        if let Some(schema) = written.schema {
            let schema = schema().to_value();
            groups(&schema).iter().for_each(|group| plain_table(page, group));
        }
    }
}

fn plain_table(page: &mut String, group: &Group<'_>) {
    if !group.path.is_empty() {
        add!(page, "\nIn `{}`:", group.path);
    }
    add!(page, "\n| field | is | says |\n|---|---|---|");
    for field in &group.fields {
        add!(page, "| `{}` | {} | {} |", field.path, cell(&field.value()), cell(&field.says(u64::MAX)));
    }
}

fn mistakes(page: &mut String) {
    add!(
        page,
        "\n## What is refused, and how it reads\n\nA refused document changes nothing: its last good version stays in \
         force, and all else goes on. Each refusal names the key, the field, the value found there and what was \
         expected. These are one of each class:\n\n| mistake | is told as |\n|---|---|"
    );
    REFUSALS.iter().for_each(|case| row(page, case));
    add!(
        page,
        "\n## What is in force, and hardly meant\n\nWarnings stand in `/routes`, the status key, the log, and what \
         `holdfast table put` and `holdfast check` print.\n\n| what was written | is told as |\n|---|---|"
    );
    WARNINGS.iter().for_each(|case| row(page, case));
}

fn row(page: &mut String, case: &Case) {
    let tick = if case.message.contains('`') { "``" } else { "`" };
    let pad = if tick == "``" { " " } else { "" };
    add!(page, "| {} | {tick}{pad}{}{pad}{tick} |", cell(case.mistake), cell(case.message));
}

/// A schema that is made when it is asked for.
pub type MakeSchema = fn() -> schemars::Schema;

/// The schema of one kind, or of all by name.
#[must_use]
pub fn schema(kind: Option<&Kind>) -> Value {
    match kind {
        Some(kind) => kind.schema(),
        None => KINDS.iter().map(|kind| (kind.name.to_owned(), kind.schema())).collect(),
    }
}
