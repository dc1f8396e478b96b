//! The framing of a service's document: what it says when a field is wrong.

use super::super::{Framing, RawFraming};

fn check(json: &str) -> Result<Framing, String> {
    let raw: RawFraming = serde_json::from_str(json).unwrap();
    raw.check().map_err(|error| error.to_string())
}

#[test]
fn what_is_not_said_has_its_default() {
    let full = r#"{"kind":"length","width":4,"order":"big","offset":0,"counts":"body","adjust":0,
                   "keep_header":false,"max_bytes":65536}"#;
    assert_eq!(check(r#"{"kind":"length"}"#), check(full));
    assert_eq!(
        check(r#"{"kind":"varint"}"#),
        check(r#"{"kind":"varint","keep_header":false,"max_bytes":65536}"#)
    );
    let full =
        r#"{"kind":"lines","delimiter":"\n","keep_delimiter":false,"strip_cr":false,"max_bytes":65536}"#;
    assert_eq!(check(r#"{"kind":"lines"}"#), check(full));
    assert_eq!(check(r#"{"kind":"lines"}"#).unwrap().max_frame_bytes(), 65536);
}

#[test]
fn a_wrong_field_is_named_with_its_value_and_what_was_expected() {
    for (json, error) in [
        (r#"{"kind":"frames"}"#, r#"framing.kind: got "frames", expected "length", "varint" or "lines""#),
        (r#"{"kind":"length","width":5}"#, "framing.width: got 5, expected 1, 2, 3, 4 or 8"),
        (
            r#"{"kind":"length","order":"network"}"#,
            r#"framing.order: got "network", expected "big" or "little""#,
        ),
        (
            r#"{"kind":"length","counts":"header"}"#,
            r#"framing.counts: got "header", expected "body" or "all""#,
        ),
        (r#"{"kind":"length","offset":1025}"#, "framing.offset: got 1025, expected 0 to 1024"),
        (r#"{"kind":"length","adjust":-1025}"#, "framing.adjust: got -1025, expected -1024 to 1024"),
        (r#"{"kind":"length","max_bytes":0}"#, "framing.max_bytes: got 0, expected 1 to 16777216"),
        (
            r#"{"kind":"varint","max_bytes":16777217}"#,
            "framing.max_bytes: got 16777217, expected 1 to 16777216",
        ),
        (
            r#"{"kind":"length","offset":2}"#,
            "framing.keep_header: got false, expected true, because the 2 bytes before the length field can't be \
             made anew for a server frame",
        ),
        (
            r#"{"kind":"length","keep_header":true,"max_bytes":3}"#,
            "framing.max_bytes: got 3, expected room for the smallest frame that offset, width, counts and adjust \
             allow",
        ),
        (r#"{"kind":"lines","delimiter":""}"#, "framing.delimiter: got 0 bytes, expected 1 to 16 bytes"),
        (
            r#"{"kind":"lines","delimiter":"ab","keep_delimiter":true,"max_bytes":1}"#,
            "framing.max_bytes: got 1, expected room for the delimiter, which is kept",
        ),
        (
            r#"{"kind":"lines","strip_cr":true,"keep_delimiter":true}"#,
            "framing.strip_cr: got true, expected false, because keep_delimiter passes the end of the line on as it \
             is",
        ),
        (
            r#"{"kind":"lines","strip_cr":true,"delimiter":"\r\n"}"#,
            "framing.strip_cr: got true, expected false, because the delimiter has a \\r of its own",
        ),
    ] {
        assert_eq!(check(json), Err(error.into()), "{json}");
    }
}

#[test]
fn a_field_of_another_kind_is_refused_by_name() {
    for (json, field) in [
        (r#"{"kind":"length","delimiter":"x"}"#, "delimiter"),
        (r#"{"kind":"length","strip_cr":true}"#, "strip_cr"),
        (r#"{"kind":"varint","width":4}"#, "width"),
        (r#"{"kind":"varint","keep_delimiter":true}"#, "keep_delimiter"),
        (r#"{"kind":"lines","keep_header":true}"#, "keep_header"),
        (r#"{"kind":"lines","order":"big"}"#, "order"),
    ] {
        let error = check(json).unwrap_err();
        assert!(error.starts_with(&format!("framing.{field}: got ")), "{error}");
        assert!(error.ends_with("has no such field"), "{error}");
    }
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let error = serde_json::from_str::<RawFraming>(r#"{"kind":"length","with":4}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `with`"), "{error}");
}
