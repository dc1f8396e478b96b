//! JSON Schema of every kind of document, made from the types that read them, and the schema level of each field.
//!
//! A field that a later release brings says so where it stands: `#[schemars(extend("x-since" = 2))]`. Who writes for a
//! fleet asks [`newer_than`] before, since a proxy that doesn't know a field refuses the whole document.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{Key, RawAccept, RawBackend, RawDrain, RawEjection, RawHook, RawRollout, RawRoute, RawService};

/// Level of the documents that this version reads: the highest `x-since` of all.
pub const LEVEL: u32 = 2;

const SINCE: &str = "x-since";

/// One kind of document.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// First part of its keys.
    pub name: &'static str,
    /// Shape of its keys below `config/`.
    pub key: &'static str,
    /// What it says, in a sentence.
    pub about: &'static str,
    schema: fn() -> Schema,
}

/// Every kind that is acted on.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "services",
        key: "services/SERVICE",
        about: "How a game's byte stream is cut into frames, what a crash costs, its bounds and its pace.",
        schema: of::<RawService>,
    },
    Kind {
        name: "backends",
        key: "backends/SERVICE/BACKEND",
        about: "Where a game server listens, its version and its share of new sessions.",
        schema: of::<RawBackend>,
    },
    Kind {
        name: "routes",
        key: "routes/ROUTE",
        about: "Which clients of a listener go to which service, in which shares by version.",
        schema: of::<RawRoute>,
    },
    Kind {
        name: "drains",
        key: "drains/SERVICE/BACKEND",
        about: "While the key stands, the backend takes no new sessions and gives up those it has. Deleting it \
                lifts the drain.",
        schema: of::<RawDrain>,
    },
    Kind {
        name: "ejections",
        key: "ejections/SERVICE/BACKEND",
        about: "While the key stands, the backend gets no new sessions as long as others can take them.",
        schema: of::<RawEjection>,
    },
    Kind {
        name: "rollouts",
        key: "rollouts/SERVICE",
        about: "How players are brought from one version to another, and when that is given up.",
        schema: of::<RawRollout>,
    },
    Kind {
        name: "accepts",
        key: "accepts/SERVICE",
        about: "The yes to changes of a service that are held, or would be: see Slips.",
        schema: of::<RawAccept>,
    },
    Kind {
        name: "hooks",
        key: "hooks/HOOK",
        about: "What is done on an alert: a backend is drained or ejected, or a rollout aborted.",
        schema: of::<RawHook>,
    },
];

/// The schema of a type that is read or written as JSON.
#[must_use]
pub fn of<T: JsonSchema>() -> Schema {
    // References are resolved in place: whoever walks a schema along a document needs no second look-up.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

impl Kind {
    #[must_use]
    pub fn of_name(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Its documents' JSON Schema.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = (self.schema)();
        // The names of our types are nobody's business.
        schema.insert("title".to_owned(), self.key.into());
        schema.insert("description".to_owned(), self.about.into());
        schema.to_value()
    }

    /// Level of the kind as a whole.
    #[must_use]
    pub fn since(&self) -> u64 {
        since(&self.schema())
    }
}

/// A field that is newer than whoever is to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newer {
    /// Its path; `document` for a kind as a whole.
    pub field: String,
    pub value: String,
    pub since: u32,
}

/// The fields of a document that a reader of `level` doesn't know.
#[must_use]
pub fn newer_than(level: u32, key: &Key, raw: &[u8]) -> Vec<Newer> {
    let mut newer = Vec::new();
    if level >= LEVEL {
        return newer;
    }
    if let (Some(kind), Ok(document)) = (Kind::of_name(key.kind()), serde_json::from_slice::<Value>(raw)) {
        walk(&kind.schema(), &document, "", level, &mut newer);
    }
    newer
}

/// Level of a field (or kind) by its schema.
#[must_use]
pub fn since(schema: &Value) -> u64 {
    schema.get(SINCE).and_then(Value::as_u64).unwrap_or(1)
}

fn walk(schema: &Value, found: &Value, path: &str, level: u32, newer: &mut Vec<Newer>) {
    let since = u32::try_from(since(schema)).unwrap_or(u32::MAX);
    if since > level {
        let field = if path.is_empty() { "document" } else { path };
        newer.push(Newer { field: field.to_owned(), value: super::excerpt(&found.to_string()), since });
        return;
    }
    for inner in alternatives(schema) {
        // A value of a list (`oneOf` of constants) may be newer than the field.
        if inner.get("const").is_none_or(|value| value == found) {
            walk(inner, found, path, level, newer);
        }
    }
    let Some(fields) = found.as_object() else {
        for item in found.as_array().into_iter().flatten() {
            schema.get("items").into_iter().for_each(|schema| walk(schema, item, path, level, newer));
        }
        return;
    };
    for (name, value) in fields {
        let field = schema.get("properties").and_then(|known| known.get(name));
        if let Some(schema) = field.or(schema.get("additionalProperties")) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(schema, value, &path, level, newer);
        }
    }
}

/// What `anyOf`, `oneOf` and `allOf` hold.
pub(super) fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|name| schema.get(name)?.as_array());
    lists.flatten()
}

#[cfg(test)]
mod tests;
