//! Valid documents, damaged at random: what a slip of the pen, a bad merge or a broken generator may write.

use fastrand::Rng;
use serde_json::{Value, json};

/// A document as somebody might write it.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub key: String,
    pub text: String,
}

/// The same seed makes the same mutations of the same documents.
pub struct Mutations {
    random: Rng,
}

impl Mutations {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Rng::with_seed(seed) }
    }

    /// Another version of one of the documents; some are valid still.
    pub fn of(&mut self, documents: &[(String, Value)]) -> Mutation {
        let (key, document) = &documents[self.random.usize(..documents.len())];
        let key = if self.random.u8(..40) == 0 { self.damaged_key(key) } else { key.clone() };
        let text = match self.random.u8(..4) {
            0 => self.damaged_text(&document.to_string()),
            _ => self.changed(document.clone()).to_string(),
        };
        Mutation { key, text }
    }

    fn damaged_key(&mut self, key: &str) -> String {
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        match self.random.u8(..4) {
            0 => format!("{key}/more"),
            1 => format!("{}/{rest}", kind.trim_end_matches('s')),
            2 => format!("{kind}/-{rest}"),
            _ => format!("{kind}/{}", "x".repeat(65)),
        }
    }

    fn damaged_text(&mut self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let at = self.random.usize(..bytes.len());
        match self.random.u8(..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, self.random.u8(b' '..=b'~')),
            3 => bytes[at] = self.random.u8(b' '..=b'~'),
            4 => return format!(r#"{{"reason": "", "reason": "", {}"#, &text[1..]),
            _ => return ["", "[]", "null", "{}", "7", "{} {}", "[[[[[[["][self.random.usize(..7)].to_owned(),
        }
        // The documents are ASCII, and so is what is put in.
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One or two of its fields are others.
    fn changed(&mut self, mut document: Value) -> Value {
        for _ in 0..self.random.u8(1..=2) {
            let mut places = Vec::new();
            objects(&document, "", &mut places);
            let place = places.swap_remove(self.random.usize(..places.len()));
            self.change_field(&mut document, &place);
        }
        document
    }

    fn change_field(&mut self, document: &mut Value, place: &str) {
        let Some(fields) = document.pointer_mut(place).and_then(Value::as_object_mut) else { return };
        let names: Vec<_> = fields.keys().cloned().collect();
        let name = match names.len() {
            0 => "reason".to_owned(),
            count => names[self.random.usize(..count)].clone(),
        };
        match self.random.u8(..8) {
            0 => drop(fields.remove(&name)),
            1 => {
                let value = fields.remove(&name).unwrap_or_default();
                fields.insert(format!("{name}{}", self.random.lowercase()), value);
            }
            2 => drop(fields.insert(name, self.of_any_type())),
            3 => drop(fields.insert(self.known_field(), self.of_any_type())),
            _ => {
                let value = fields.get(&name).cloned().unwrap_or_default();
                fields.insert(name, self.like(&value));
            }
        }
    }

    /// Another value of the same type.
    fn like(&mut self, value: &Value) -> Value {
        match value {
            Value::Number(number) => {
                let number = number.as_i64().unwrap_or(1);
                let others = [
                    0,
                    1,
                    -1,
                    number + 1,
                    number / 2,
                    100,
                    number.saturating_mul(1000),
                    i64::from(u32::MAX) + 1,
                ];
                json!(others[self.random.usize(..others.len())])
            }
            Value::String(_) => {
                const OTHERS: [&str; 16] = [
                    "",
                    " ",
                    "1.4",
                    "1.5",
                    "1.6",
                    "arena",
                    "nowhere",
                    "game",
                    "two\nlines",
                    "a b",
                    "hash",
                    "none",
                    "*.x.example",
                    "10.0.0.0/33",
                    "unix:relative",
                    "2026-11-30T18:00:00Z",
                ];
                match self.random.usize(..=OTHERS.len()) {
                    which if which < OTHERS.len() => json!(OTHERS[which]),
                    _ => json!("x".repeat(300)),
                }
            }
            Value::Bool(is) => json!(!is),
            Value::Array(items) => match self.random.u8(..3) {
                0 => json!([]),
                1 => json!(items.iter().rev().collect::<Vec<_>>()),
                _ => json!([items, items]),
            },
            _ => self.of_any_type(),
        }
    }

    fn of_any_type(&mut self) -> Value {
        let values = [
            json!(null),
            json!(true),
            json!(0),
            json!(7),
            json!(-3),
            json!(0.5),
            json!("x"),
            json!([]),
            json!({}),
            json!(1e300),
        ];
        values[self.random.usize(..values.len())].clone()
    }

    /// A field that some kind of document has.
    fn known_field(&mut self) -> String {
        const FIELDS: [&str; 12] = [
            "weight",
            "zone",
            "capacity",
            "prefer",
            "sni",
            "source",
            "versions",
            "rebalance",
            "breakers",
            "trace",
            "per_second",
            "key",
        ];
        FIELDS[self.random.usize(..FIELDS.len())].to_owned()
    }
}

/// JSON pointers to the document and to every object in it.
fn objects(value: &Value, place: &str, places: &mut Vec<String>) {
    let Some(fields) = value.as_object() else { return };
    places.push(place.to_owned());
    for (name, inner) in fields {
        objects(inner, &format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_mutations_and_hardly_any_is_the_document_itself() {
        let documents =
            [("routes/public".to_owned(), json!({"listener": "game", "versions": {"1.4": 95, "1.5": 5}}))];
        let run = |seed| {
            let mut mutations = Mutations::new(seed);
            (0..1_000).map(|_| mutations.of(&documents).text).collect::<Vec<_>>()
        };
        assert!(run(1) == run(1) && run(1) != run(2));
        let original = documents[0].1.to_string();
        let unchanged = run(1).iter().filter(|text| **text == original).count();
        assert!(unchanged < 50, "{unchanged}");
    }
}
