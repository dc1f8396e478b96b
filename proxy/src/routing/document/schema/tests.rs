//! Levels of fields.

use serde::Deserialize;

use super::*;

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
struct Sample {
    old: u32,
    #[schemars(extend("x-since" = 3))]
    new: Option<u32>,
    #[serde(default)]
    list: Vec<Inner>,
    inner: Option<Inner>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
struct Inner {
    #[schemars(extend("x-since" = 2))]
    fresh: Option<bool>,
}

fn newer(level: u32, text: &str) -> Vec<(String, u32)> {
    let mut newer = Vec::new();
    walk(&of::<Sample>().to_value(), &serde_json::from_str(text).unwrap(), "", level, &mut newer);
    newer.into_iter().map(|newer| (newer.field, newer.since)).collect()
}

#[test]
fn a_field_says_its_level_where_it_stands_and_only_a_reader_below_it_is_shielded() {
    let text = r#"{"old": 1, "new": 2, "list": [{"fresh": true}], "inner": {"fresh": false}}"#;
    let name = |name: &str, since| (name.to_owned(), since);
    assert_eq!(newer(1, text), [name("inner.fresh", 2), name("list.fresh", 2), name("new", 3)]);
    assert_eq!(newer(2, text), [name("new", 3)]);
    assert_eq!(newer(3, text), []);
    assert_eq!(newer(1, r#"{"old": 1}"#), []);
}

#[test]
fn a_whole_kind_may_be_newer() {
    let key = Key::parse("accepts/arena").unwrap();
    let newer = newer_than(1, &key, br#"{"changes": {}}"#);
    assert_eq!(newer, [Newer { field: "document".into(), value: r#"{"changes":{}}"#.into(), since: 2 }]);
    assert_eq!(newer_than(2, &key, br#"{"changes": {}}"#), []);
}

/// The highest level of all kinds is what status keys say.
#[test]
fn the_level_is_that_of_the_newest_field() {
    fn highest(schema: &Value) -> u64 {
        let own = schema.get(SINCE).and_then(Value::as_u64).unwrap_or(1);
        let inner = match schema {
            Value::Object(fields) => fields.values().map(highest).max(),
            Value::Array(items) => items.iter().map(highest).max(),
            _ => None,
        };
        own.max(inner.unwrap_or(1))
    }
    let newest = KINDS.iter().map(|kind| highest(&kind.schema())).max();
    assert_eq!(newest, Some(u64::from(LEVEL)));
}
