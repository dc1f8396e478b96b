//! Each family's shapes, byte by byte, and what is said of bytes that break them.

use super::super::{Cut, Framing, RawFraming};

fn framing(json: &str) -> Framing {
    serde_json::from_str::<RawFraming>(json).unwrap().check().unwrap()
}

fn cut(json: &str, bytes: &[u8]) -> Result<Option<Cut>, String> {
    framing(json).cut(bytes).map_err(|error| error.to_string())
}

fn whole(frame: std::ops::Range<usize>, consumed: usize) -> Result<Option<Cut>, String> {
    Ok(Some(Cut { frame, consumed }))
}

fn write(json: &str, frame: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    framing(json).write(frame, &mut out).map(|()| out).map_err(|error| error.to_string())
}

#[test]
fn every_width_and_order_is_read_and_written() {
    for (width, order, header) in [
        (1, "big", &[2][..]),
        (2, "big", &[0, 2]),
        (2, "little", &[2, 0]),
        (3, "big", &[0, 0, 2]),
        (3, "little", &[2, 0, 0]),
        (4, "big", &[0, 0, 0, 2]),
        (4, "little", &[2, 0, 0, 0]),
        (8, "big", &[0, 0, 0, 0, 0, 0, 0, 2]),
        (8, "little", &[2, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let json = format!(r#"{{"kind":"length","width":{width},"order":"{order}"}}"#);
        let wire = [header, b"hi"].concat();
        assert_eq!(cut(&json, &[&wire[..], b"rest"].concat()), whole(width..width + 2, width + 2), "{json}");
        assert_eq!(write(&json, b"hi"), Ok(wire.clone()), "{json}");
        assert_eq!(cut(&json, &wire[..wire.len() - 1]), Ok(None), "{json}");
    }
}

#[test]
fn the_length_may_count_the_header() {
    let json = r#"{"kind":"length","width":2,"counts":"all"}"#;
    assert_eq!(cut(json, b"\0\x04hi"), whole(2..4, 4));
    assert_eq!(write(json, b"hi"), Ok(b"\0\x04hi".to_vec()));
    let error = "bad frame from the client: got 1 in the length field, expected 2 to 65535";
    assert_eq!(cut(json, b"\0\x01"), Err(error.into()), "less than its own header");
}

#[test]
fn bytes_between_length_and_body_are_an_adjustment() {
    // Type byte, two bytes of length that count the body alone, one byte of flags, the body.
    let json = r#"{"kind":"length","offset":1,"width":2,"adjust":1,"keep_header":true}"#;
    assert_eq!(cut(json, b"T\0\x02Fhirest"), whole(0..6, 6));
    assert_eq!(write(json, b"T\0\x02Fhi"), Ok(b"T\0\x02Fhi".to_vec()));
}

#[test]
fn a_kept_header_makes_the_backend_write_exactly_one_frame() {
    let json = r#"{"kind":"length","width":1,"keep_header":true,"max_bytes":10}"#;
    assert_eq!(write(json, b"\x02hi"), Ok(b"\x02hi".to_vec()));
    for (frame, error) in [
        (&b"\x02hi\x00"[..], "got 4 bytes that begin with a frame of 3, expected exactly one frame"),
        (b"\x02h", "got 2 bytes, which is only a part of a frame, expected exactly one whole frame"),
        (b"", "got 0 bytes, which is only a part of a frame, expected exactly one whole frame"),
        (b"\x0a0123456789", "got 10 in the length field, expected 0 to 9"),
    ] {
        assert_eq!(write(json, frame), Err(format!("bad frame from the backend: {error}")));
    }
}

#[test]
fn too_long_a_frame_is_refused_before_its_body_arrives() {
    let json = r#"{"kind":"length","width":8,"max_bytes":100}"#;
    assert_eq!(cut(json, &[0, 0, 0, 0, 0, 0, 0, 100]), Ok(None));
    let error = "bad frame from the client: got 101 in the length field, expected 0 to 100";
    assert_eq!(cut(json, &[0, 0, 0, 0, 0, 0, 0, 101]), Err(error.into()));
    assert!(cut(json, &[0xff; 8]).is_err(), "no overflow");

    let json = r#"{"kind":"varint","max_bytes":300}"#;
    assert_eq!(cut(json, &[0xac, 0x02]), Ok(None));
    let error = "bad frame from the client: got 301 in the length field, expected 0 to 300";
    assert_eq!(cut(json, &[0xad, 0x02]), Err(error.into()));
    assert!(cut(json, &[0xff, 0xff]).is_err(), "what is there of the length is too much already");

    let json = r#"{"kind":"lines","max_bytes":3}"#;
    assert_eq!(cut(json, b"abc"), Ok(None));
    assert_eq!(cut(json, b"abc\n"), whole(0..3, 4));
    let error = "bad frame from the client: got 4 bytes without a delimiter, expected one after at most 3";
    assert_eq!(cut(json, b"abcd"), Err(error.into()));
}

#[test]
fn no_adjustment_of_an_eight_byte_length_overflows() {
    for adjust in [-1024, -9, -8, 0, 8, 1024] {
        for counts in ["body", "all"] {
            let json = format!(r#"{{"kind":"length","width":8,"counts":"{counts}","adjust":{adjust}}}"#);
            for length in [u64::MAX, u64::MAX - 1024, 1 << 63, (1 << 63) - 1] {
                assert!(cut(&json, &length.to_be_bytes()).is_err(), "{json} {length}");
            }
        }
    }
}

#[test]
fn a_server_frame_that_the_length_field_cannot_say_is_refused() {
    let json = r#"{"kind":"length","width":1}"#;
    assert_eq!(write(json, &[7; 255]).map(|wire| wire.len()), Ok(256));
    let error = "bad frame from the backend: got a frame of 256 bytes, expected 0 to 255";
    assert_eq!(write(json, &[7; 256]), Err(error.into()));
    assert_eq!(framing(json).max_frame_bytes(), 255);
    // A length that counts one byte less than there is can't say "nothing".
    let json = r#"{"kind":"length","width":1,"adjust":1}"#;
    let error = "bad frame from the backend: got a frame of 0 bytes, expected 1 to 256";
    assert_eq!(write(json, b""), Err(error.into()));
}

#[test]
fn a_varint_is_written_short_and_read_up_to_five_bytes() {
    let json = r#"{"kind":"varint"}"#;
    assert_eq!(write(json, b"hi"), Ok(b"\x02hi".to_vec()));
    assert_eq!(write(json, &[7; 300]).map(|wire| wire[..2].to_vec()), Ok(vec![0xac, 0x02]));
    assert_eq!(cut(json, b"\x02hi"), whole(1..3, 3));
    assert_eq!(cut(json, b"\x82\x80\x80\x80\x00hi"), whole(5..7, 7));
    let error =
        "bad frame from the client: got a varint length of more than 5 bytes, expected at most 5 bytes";
    assert_eq!(cut(json, b"\x82\x80\x80\x80\x80\x00hi"), Err(error.into()));
}

#[test]
fn a_kept_varint_counts_in_the_bound() {
    let json = r#"{"kind":"varint","max_bytes":3,"keep_header":true}"#;
    assert_eq!(cut(json, b"\x02hi"), whole(0..3, 3));
    assert!(cut(json, b"\x03").is_err());
    assert!(cut(json, b"\x82\x00").is_err(), "a longer header leaves less room");
}

#[test]
fn lines_end_with_their_delimiter() {
    let json = r#"{"kind":"lines"}"#;
    assert_eq!(cut(json, b"hi\nrest"), whole(0..2, 3));
    assert_eq!(cut(json, b"\n"), whole(0..0, 1), "an empty line is an empty frame");
    assert_eq!(cut(json, b"hi\r\n"), whole(0..3, 4));
    assert_eq!(write(json, b"hi"), Ok(b"hi\n".to_vec()));

    let json = r#"{"kind":"lines","strip_cr":true,"max_bytes":2}"#;
    assert_eq!(cut(json, b"hi\r\n"), whole(0..2, 4));
    assert_eq!(cut(json, b"hi\n"), whole(0..2, 3));
    let error = "bad frame from the client: got a frame of 3 bytes, expected 0 to 2";
    assert_eq!(cut(json, b"hi!\n"), Err(error.into()));
    let error = "bad frame from the backend: got a frame that ends in \\r, expected none: strip_cr is set, \
                 so it would be lost";
    assert_eq!(write(json, b"h\r"), Err(error.into()));

    let json = r#"{"kind":"lines","delimiter":"--","keep_delimiter":true}"#;
    assert_eq!(cut(json, b"a-b--c"), whole(0..5, 5));
    assert_eq!(write(json, b"a-b--"), Ok(b"a-b--".to_vec()));
    assert!(write(json, b"a-b").unwrap_err().contains("only a part of a frame"));
    assert!(write(json, b"a--b--").unwrap_err().contains("that begin with a frame of 3"));
}

#[test]
fn a_server_line_must_not_hold_its_delimiter() {
    let error = "bad frame from the backend: got a delimiter inside the frame, or one that its end would make with \
                 the one added, expected none";
    assert_eq!(write(r#"{"kind":"lines"}"#, b"a\nb"), Err(error.into()));
    assert_eq!(write(r#"{"kind":"lines","delimiter":"aa"}"#, b"xa"), Err(error.into()));
    assert_eq!(write(r#"{"kind":"lines","delimiter":"ab"}"#, b"xa"), Ok(b"xaab".to_vec()));
}
