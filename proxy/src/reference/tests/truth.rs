//! What a schema says of a field is what the reader does with it: each range, default, word and length.

use serde_json::{Map, Value, json};

use super::super::EXAMPLES;
use super::super::fields::{body, groups};
use crate::config::FieldError;
use crate::routing::document::schema::{KINDS, Kind};
use crate::routing::document::{Document, Key};

/// One field, the smallest document of its kind, and what has to stand beside it.
struct Subject {
    key: Key,
    document: Value,
    path: String,
    schema: Value,
    /// The value stands in a list.
    is_item: bool,
    is_required: bool,
}

/// What else a document needs so that only the field's own range counts.
fn companions(path: &str) -> Vec<(&'static str, Value)> {
    const GIB: u64 = 1 << 30;
    let small_frames = ("framing.max_bytes", json!(1));
    match path {
        "limits.client_window_bytes" | "limits.server_window_bytes" => vec![small_frames],
        "limits.max_journal_bytes" => vec![small_frames, ("limits.client_window_bytes", json!(1))],
        "limits.state_size_bytes" => vec![("limits.max_state_bytes", json!(GIB))],
        "framing.max_bytes" => vec![
            ("limits.client_window_bytes", json!(1 << 26)),
            ("limits.server_window_bytes", json!(1 << 26)),
        ],
        "framing.offset" => vec![("framing.keep_header", json!(true))],
        "framing.delimiter" | "framing.keep_delimiter" | "framing.strip_cr" => {
            vec![("framing.kind", json!("lines"))]
        }
        "balance.key" => vec![("balance.policy", json!("hash"))],
        "health.check.timeout_ms" => {
            vec![("health.check.kind", json!("http")), ("health.check.interval_ms", json!(600_000))]
        }
        "health.outliers.max_ejection_s" => vec![("health.outliers.base_ejection_s", json!(1))],
        "versions.x" => vec![("versions.y", json!(1))],
        "changes.routes/public.to" => vec![("changes.routes/public.from", json!(7))],
        "mirror.service" => vec![("mirror.percent", json!(1))],
        path if path.starts_with("mirror.") => {
            vec![("mirror.service", json!("next")), ("mirror.percent", json!(1))]
        }
        "version_label" => vec![("action", json!("abort"))],
        "for_s" => vec![("action", json!("eject"))],
        path if path.starts_with("health.outliers.") => vec![("health.outliers", json!({}))],
        path if path.starts_with("health.check.") => vec![("health.check.kind", json!("http"))],
        _ => Vec::new(),
    }
}

/// Every field of every kind, items of lists and values of maps among them.
fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for kind in KINDS {
        let schema = kind.schema();
        for field in groups(&schema).iter().flat_map(|group| &group.fields) {
            let path = field.path.replace(".KEY", ".routes/public");
            subjects.push(subject(kind, &schema, &path, field.schema, field.is_required));
            if let Some(items) = field.schema.get("items") {
                let item = subject(kind, &schema, &path, body(items), true);
                subjects.push(Subject { is_item: true, ..item });
            }
            let values =
                field.schema.get("additionalProperties").filter(|values| values.get("maximum").is_some());
            if let Some(values) = values {
                subjects.push(subject(kind, &schema, &format!("{path}.x"), values, true));
            }
        }
    }
    subjects
}

fn subject(kind: &Kind, whole: &Value, path: &str, schema: &Value, is_required: bool) -> Subject {
    let (key, text) = EXAMPLES.iter().find(|(key, _)| key.split('/').next() == Some(kind.name)).unwrap();
    let mut document: Value = serde_json::from_str(text).unwrap();
    keep_required(&mut document, whole);
    for (path, value) in companions(path) {
        set(&mut document, path, value);
    }
    let key = Key::parse(key).unwrap();
    Subject { key, document, path: path.to_owned(), schema: schema.clone(), is_item: false, is_required }
}

fn keep_required(document: &mut Value, schema: &Value) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().cloned().collect();
    // A map has no names of its own to require.
    let is_map = schema.get("properties").is_none();
    let Some(fields) = document.as_object_mut().filter(|_| !is_map) else { return };
    fields.retain(|name, _| required.contains(&json!(name)));
    for (name, value) in fields {
        keep_required(value, &schema["properties"][name]);
    }
}

fn set(document: &mut Value, path: &str, value: Value) {
    let mut place = document;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}

impl Subject {
    fn with(&self, value: &Value) -> Result<Document, FieldError> {
        let mut document = self.document.clone();
        let value = if self.is_item { json!([value]) } else { value.clone() };
        set(&mut document, &self.path, value);
        Document::parse(&self.key, document.to_string().as_bytes())
    }

    fn without(&self) -> Result<Document, FieldError> {
        Document::parse(&self.key, self.document.to_string().as_bytes())
    }

    fn takes(&self, value: &Value) {
        let taken = self.with(value);
        assert!(taken.is_ok(), "{} {} = {value}: {}", self.key, self.path, taken.unwrap_err());
    }

    fn refuses(&self, value: &Value) {
        let refused = self.with(value);
        let field = refused.as_ref().err().map(|error| error.field.clone()).unwrap_or_default();
        assert!(field.starts_with(&self.path), "{} {} = {value}: {refused:?}", self.key, self.path);
    }

    fn is(&self, name: &str) -> bool {
        let kind = &self.schema["type"];
        kind == name || kind.as_array().is_some_and(|kinds| kinds.contains(&json!(name)))
    }
}

#[test]
fn both_ends_of_every_range_are_taken_and_one_beyond_is_refused() {
    let mut count = 0;
    for subject in subjects().iter().filter(|subject| subject.is("integer") || subject.is("number")) {
        let whole = subject.is("integer");
        for (end, step) in [("minimum", -1), ("maximum", 1)] {
            let Some(bound) = subject.schema.get(end) else { continue };
            if subject.schema.get("enum").is_some() {
                continue;
            }
            subject.takes(bound);
            let bound = bound.as_f64().unwrap();
            let beyond = if whole { json!(bound as i64 + step) } else { json!(bound + 0.01 * step as f64) };
            subject.refuses(&beyond);
            count += 1;
        }
        let is_whole_range = subject.schema.get("maximum").is_some() || subject.schema.get("enum").is_some();
        assert!(is_whole_range || subject.path.ends_with(".from"), "{} has no maximum", subject.path);
    }
    assert!(count > 100, "{count} ends of ranges");
}

#[test]
fn every_default_is_what_an_omitted_field_parses_to() {
    let mut count = 0;
    for subject in subjects().iter().filter(|subject| !subject.is_required) {
        let default = subject.schema.get("default").cloned().unwrap_or_default();
        // A section that is there has the defaults of its fields, which have their own turn.
        if default.is_null() && subject.schema.get("properties").is_some() {
            continue;
        }
        let absent = subject.without().unwrap();
        assert_eq!(subject.with(&default).unwrap(), absent, "{} {} = {default}", subject.key, subject.path);
        count += 1;
    }
    assert!(count > 60, "{count} defaults");
}

#[test]
fn every_word_of_a_list_is_taken_and_no_other() {
    let mut count = 0;
    for subject in subjects() {
        let alternatives = subject.schema.get("anyOf").and_then(|all| all.get(0)).unwrap_or(&subject.schema);
        let listed = alternatives.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
        let explained = alternatives.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
        let words: Vec<_> =
            listed.into_iter().chain(explained.iter().map(|one| one["const"].clone())).collect();
        let Some(first) = words.first() else { continue };
        subject.refuses(&if first.is_string() { json!("no-such-word") } else { json!(5) });
        words.iter().for_each(|word| subject.takes(word));
        count += 1;
    }
    assert!(count > 12, "{count} lists of words");
}

#[test]
fn texts_and_lists_may_be_as_long_as_is_said_and_no_longer() {
    for subject in subjects() {
        let bound = |name: &str| subject.schema.get(name).and_then(Value::as_u64);
        let text = |length: u64| json!("a".repeat(usize::try_from(length).unwrap()));
        if let Some(most) = bound("maxLength") {
            subject.takes(&text(most));
            subject.refuses(&text(most + 1));
        }
        if bound("minLength").is_some_and(|least| least > 0) {
            subject.refuses(&json!(""));
        }
        let list = |length: u64| json!((0..length).map(|index| index + 100).collect::<Vec<_>>());
        if let Some(most) = bound("maxItems").filter(|_| subject.path.ends_with("expect")) {
            subject.takes(&list(most));
            subject.refuses(&list(most + 1));
        }
        if bound("minItems").is_some() {
            subject.refuses(&json!([]));
        }
    }
}

#[test]
fn every_field_says_what_it_is() {
    for subject in subjects().iter().filter(|subject| !subject.is_item && !subject.path.ends_with(".x")) {
        let says = subject.schema.get("description").and_then(Value::as_str).unwrap_or_default();
        assert!(!says.is_empty(), "{} {} says nothing", subject.key, subject.path);
    }
}
