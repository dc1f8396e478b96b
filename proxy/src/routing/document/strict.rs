//! Strict JSON: an unknown field, a field given twice, a wrong type and trailing text are faults with a place.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::{MAX_DOCUMENT_BYTES, fault};
use crate::config::FieldError;

/// The field that a fault of the whole document is put on.
const DOCUMENT: &str = "document";

/// Longest excerpt of a document that a fault quotes, in characters.
const EXCERPT_CHARS: usize = 80;

/// Reads one JSON document, or says where it is wrong.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FieldError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        let expected = format!("at most {MAX_DOCUMENT_BYTES} bytes");
        return Err(fault(DOCUMENT, format!("{} bytes", bytes.len()), expected));
    }
    let value = read_value(bytes)?;
    if !value.is_object() {
        return Err(fault(DOCUMENT, excerpt(Some(&value)), "a JSON object"));
    }
    serde_path_to_error::deserialize(&value)
        .map_err(|error| describe(&value, error.path(), &error.inner().to_string()))
}

/// JSON with no key twice in one object. `serde_json` alone would keep the last one in silence.
fn read_value(bytes: &[u8]) -> Result<Value, FieldError> {
    let twice = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let seed = Unique { path: String::new(), twice: &twice };
    seed.deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value))
        .map_err(|error| twice.take().unwrap_or_else(|| fault(DOCUMENT, error, "well-formed JSON")))
}

struct Unique<'a> {
    path: String,
    twice: &'a RefCell<Option<FieldError>>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, array.len());
            match items.next_element_seed(Unique { path, twice: self.twice })? {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let path = join(&self.path, &key);
            if object.contains_key(&key) {
                *self.twice.borrow_mut() = Some(fault(&path, "it twice", "each field once"));
                return Err(A::Error::custom("a field is given twice"));
            }
            let value = fields.next_value_seed(Unique { path, twice: self.twice })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Turns serde's message at `path` into field, value and expectation.
fn describe(document: &Value, path: &Path, message: &str) -> FieldError {
    let (place, found) = locate(document, path);
    let whole = if place.is_empty() { DOCUMENT } else { &place };
    if let Some(name) = quoted_after(message, "missing field `") {
        return FieldError::missing(join(&place, name), "a value: this field has no default");
    }
    if let Some(name) = quoted_after(message, "unknown field `") {
        let expected = match message.split_once("expected ") {
            Some((_, known)) => {
                format!("no such field; known: {}", known.replace('`', "").replace("one of ", ""))
            }
            None => "no such field".to_owned(),
        };
        // Some deserializers count the unknown field into the path, some do not.
        let (parent, value) = match found.and_then(|found| found.get(name)) {
            Some(value) => (join(&place, name), Some(value)),
            None if last_name(path) == Some(name) => (place.clone(), found),
            None => (join(&place, name), None),
        };
        // A field may have an empty name; the fault of it not.
        let field = if parent.is_empty() { "\"\"" } else { &parent };
        return fault(field, excerpt(value), expected);
    }
    match message.rsplit_once("expected ") {
        Some((_, expected)) => fault(whole, excerpt(found), plain(expected, found)),
        None => fault(whole, excerpt(found), message),
    }
}

/// Rust's names of types, in words. What a number must be beyond its type is said when it is one.
fn plain(expected: &str, found: Option<&Value>) -> String {
    let is_large = found.and_then(Value::as_f64).is_some_and(|found| found > f64::from(u32::MAX));
    match expected {
        "u32" if is_large => format!("a whole number of at most {}", u32::MAX),
        "u32" | "u64" => "a whole number, 0 or more".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "string" | "string or map" | "map with a single key" | "unit" => "a text".to_owned(),
        "a map" => "an object".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other if other.starts_with("internally tagged enum") => "an object with a kind".to_owned(),
        other => other.replace('`', ""),
    }
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').next()
}

/// The path as text, and what stands there.
fn locate<'a>(document: &'a Value, path: &Path) -> (String, Option<&'a Value>) {
    let mut place = String::new();
    let mut found = Some(document);
    for segment in path {
        match segment {
            Segment::Map { key } => {
                place = join(&place, key);
                found = found.and_then(|value| value.get(key));
            }
            Segment::Seq { index } => {
                place = format!("{place}[{index}]");
                found = found.and_then(|value| value.get(index));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (place, found)
}

fn last_name(path: &Path) -> Option<&str> {
    path.iter().next_back().and_then(|segment| match segment {
        Segment::Map { key } => Some(key.as_str()),
        _ => None,
    })
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() { shorten(name) } else { format!("{place}.{}", shorten(name)) }
}

fn excerpt(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| shorten(&value.to_string()))
}

/// A text as a fault quotes it: in quotes where it couldn't be told from the words around it.
pub fn shown(text: &str) -> String {
    let is_plain = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
    if is_plain { shorten(text) } else { shorten(&format!("{text:?}")) }
}

/// The start of a text that may be long, with nothing in it that could break a log line.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|char| !char.is_control()).take(EXCERPT_CHARS).collect();
    if text.chars().nth(EXCERPT_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types matter")]
    struct Sample {
        name: String,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        shares: BTreeMap<String, u32>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        count: u32,
    }

    fn refused(text: &str) -> (String, String, String) {
        let error = read::<Sample>(text.as_bytes()).unwrap_err();
        (error.field, error.value, error.expected)
    }

    fn triple(field: &str, value: &str, expected: &str) -> (String, String, String) {
        (field.to_owned(), value.to_owned(), expected.to_owned())
    }

    #[test]
    fn a_wrong_type_names_field_value_and_expectation() {
        assert_eq!(refused(r#"{"name": 5}"#), triple("name", "5", "a text"));
        assert_eq!(
            refused(r#"{"name": "x", "inner": {"count": -1}}"#),
            triple("inner.count", "-1", "a whole number, 0 or more")
        );
        assert_eq!(
            refused(r#"{"name": "x", "shares": {"1.4": "half"}}"#),
            triple("shares.1.4", "\"half\"", "a whole number, 0 or more")
        );
        assert_eq!(refused(r#"{"name": "x", "inner": 1}"#), triple("inner", "1", "an object"));
    }

    #[test]
    fn an_unknown_field_is_named_with_the_known_ones() {
        assert_eq!(
            refused(r#"{"name": "x", "nam": 1}"#),
            triple("nam", "1", "no such field; known: name, inner, shares")
        );
        assert_eq!(
            refused(r#"{"name": "x", "": 1}"#),
            triple("\"\"", "1", "no such field; known: name, inner, shares")
        );
        let (field, value, _) = refused(r#"{"name": "x", "inner": {"cuont": 7}}"#);
        assert_eq!((field.as_str(), value.as_str()), ("inner.cuont", "7"));
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(refused("{}").0, "name");
    }

    #[test]
    fn a_field_given_twice_is_named_at_any_depth() {
        assert_eq!(refused(r#"{"name": "x", "name": "x"}"#).0, "name");
        assert_eq!(refused(r#"{"name": "x", "shares": {"a": 1, "a": 1}}"#).0, "shares.a");
    }

    #[test]
    fn what_is_no_json_object_is_refused_whole() {
        for text in
            ["", "{", "[]", "null", r#"{"name": "x"} {}"#, "{\"name\": \"\u{1}\"}", &"[".repeat(5_000)]
        {
            assert_eq!(refused(text).0, "document", "{text:?}");
        }
        assert!(read::<Sample>(&[b' '; MAX_DOCUMENT_BYTES + 1]).is_err());
        assert!(read::<Sample>(b"{\"name\": \"\xff\"}").is_err());
    }
}
