//! A schema as tables: a group for each object in it, a row for each field.

use serde_json::{Value, json};

use crate::routing::document::schema::since;

/// The fields of one object.
#[derive(Debug)]
pub struct Group<'a> {
    /// Path of the object; empty for the document itself.
    pub path: String,
    pub fields: Vec<Field<'a>>,
}

#[derive(Debug)]
pub struct Field<'a> {
    /// From the document's root, as faults name it.
    pub path: String,
    pub schema: &'a Value,
    pub is_required: bool,
}

/// The object itself, then the objects in it.
pub fn groups(schema: &Value) -> Vec<Group<'_>> {
    let mut groups = Vec::new();
    collect(schema, "", &mut groups);
    groups
}

fn collect<'a>(schema: &'a Value, path: &str, groups: &mut Vec<Group<'a>>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<_> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let field = |(name, schema): (&String, &'a Value)| Field {
        path: if path.is_empty() { name.clone() } else { format!("{path}.{name}") },
        schema: body(schema),
        is_required: required.contains(&name.as_str()),
    };
    let mut fields: Vec<_> = properties.iter().map(|(name, schema)| field((name, schema))).collect();
    // Needed ones first, sections last.
    fields.sort_by_key(|field| (!field.is_required, inner(field.schema).is_some()));
    let sections: Vec<_> =
        fields.iter().filter_map(|field| Some((field.path.clone(), inner(field.schema)?))).collect();
    groups.push(Group { path: path.to_owned(), fields });
    for (field, (suffix, schema)) in sections {
        collect(schema, &format!("{field}{suffix}"), groups);
    }
}

/// The object that a field holds, or that its items are, and what leads to it.
pub fn inner(schema: &Value) -> Option<(&'static str, &Value)> {
    let is_object = |schema: &&Value| schema.get("properties").is_some();
    let below = |name: &str| schema.get(name).map(body).filter(is_object);
    is_object(&schema)
        .then_some(("", schema))
        .or_else(|| Some((".KEY", below("additionalProperties")?)))
        .or_else(|| Some(("[]", below("items")?)))
}

/// What a schema says beside that `null` will do as well.
pub fn body(schema: &Value) -> &Value {
    let is_something = |schema: &&Value| schema.get("type").and_then(Value::as_str) != Some("null");
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    // A description beside `anyOf` is the field's own; schemas of one alternative are kept whole.
    match alternatives.and_then(|all| all.iter().find(is_something)) {
        Some(found) if schema.get("description").is_none() => found,
        _ => schema,
    }
}

impl Field<'_> {
    /// What it may be, with its range and unit.
    pub fn value(&self) -> String {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        value(name, self.schema)
    }

    pub fn default(&self) -> String {
        match self.schema.get("default") {
            _ if self.is_required => "**needed**".to_owned(),
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
            Some(Value::Object(_)) => "below".to_owned(),
            Some(Value::Array(items)) => {
                let items: Vec<_> = items.iter().map(Value::to_string).collect();
                format!("`[{}]`", items.join(", "))
            }
            Some(Value::Number(default)) => number(&json!(default)),
            Some(default) => format!("`{default}`"),
        }
    }

    /// What it means, what its words mean, and since when it is there if that is later than its kind.
    pub fn says(&self, kind_since: u64) -> String {
        let own = description(self.schema);
        let words = words(self.schema);
        let words =
            words.iter().filter(|(_, says)| !says.is_empty()).map(|(word, says)| format!("`{word}`: {says}"));
        let since = Some(since(self.schema)).filter(|&since| since > kind_since);
        let since = since.map(|since| format!("Since schema level {since}."));
        let parts = [own].into_iter().chain(words).chain(since).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("<br>")
    }
}

pub fn description(schema: &Value) -> String {
    schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The words that a field may be, with what they mean.
fn words(schema: &Value) -> Vec<(String, String)> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.map(|word| (plain(word), String::new()));
    let nested = [Some(schema), schema.get("items")].into_iter().flatten().chain(list(schema, "anyOf"));
    let explained = nested.flat_map(|schema| list(schema, "oneOf"));
    let explained = explained.filter_map(|one| Some((plain(one.get("const")?), description(one))));
    listed.chain(explained).collect()
}

fn list<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn value(name: &str, schema: &Value) -> String {
    let words: Vec<_> = words(schema).into_iter().map(|(word, _)| format!("`{word}`")).collect();
    let bound = |name: &str| schema.get(name).filter(|bound| bound.is_number()).map(number);
    match kind(schema) {
        "array" => {
            let each = schema.get("items").map(|items| value(name, items)).unwrap_or_default();
            let each = if words.is_empty() { each } else { words.join(", ") };
            format!("list{}, each: {each}", between(bound("minItems"), bound("maxItems"), "", "of "))
        }
        _ if !words.is_empty() => words.join(", "),
        "object" if schema.get("properties").is_some() => "object: below".to_owned(),
        "object" => {
            let each = schema.get("additionalProperties").map(|each| value("", each)).unwrap_or_default();
            format!("object: name -> {each}")
        }
        "integer" if bound("maximum").is_none() => format!("whole number{}", unit(name)),
        "number" if bound("maximum").is_none() => format!("number{}", unit(name)),
        "integer" | "number" => between(bound("minimum"), bound("maximum"), unit(name), "").trim().to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        _ if schema.get("pattern").is_some() => "name".to_owned(),
        _ => format!("text{}", between(bound("minLength"), bound("maxLength"), " characters", "of ")),
    }
}

/// The type that isn't `null`.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).find(|&name| name != "null"),
        Some(Value::String(name)) => Some(&**name),
        _ => None,
    }
    .unwrap_or_default()
}

fn between(least: Option<String>, most: Option<String>, unit: &str, of: &str) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!(" {of}{least} to {most}{unit}"),
        (None, Some(most)) => format!(" {of}at most {most}{unit}"),
        _ => String::new(),
    }
}

/// `5.0` is written as `5`, and a large power of two beside its round name.
fn number(value: &Value) -> String {
    const ROUND: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let plain = value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string());
    let whole = value.as_u64().filter(|&number| number >= 1 << 16).unwrap_or(0);
    match ROUND.iter().find(|(unit, _)| whole > 0 && whole.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{plain} ({} {name})", whole / unit),
        None => plain,
    }
}

/// The unit that a field's name ends with.
fn unit(name: &str) -> &'static str {
    const UNITS: [(&str, &str); 5] =
        [("_ms", " ms"), ("per_second", " a second"), ("_bytes", " bytes"), ("_percent", " %"), ("_s", " s")];
    UNITS.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| unit)
}
