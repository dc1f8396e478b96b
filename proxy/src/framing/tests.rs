//! Promises of framing as a whole. Wire bytes come from an encoder of the tests' own, written from the spec alone.

mod shapes;
mod spec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Framing, FramingError, RawFraming};

/// Feeds the pieces through an accumulate-and-cut loop, as a worker does.
fn cut_all(framing: &Framing, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<FramingError>) {
    let (mut kept, mut seen, mut frames) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            match framing.cut_resumed(&kept, seen) {
                Ok(Some(cut)) => {
                    frames.push(kept[cut.frame].to_vec());
                    kept.drain(..cut.consumed);
                    seen = 0;
                }
                Ok(None) => {
                    seen = kept.len();
                    assert!(seen < framing.max_wire_bytes(), "a whole frame must fit into max_wire_bytes");
                    break;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// What `body` is on the wire, and in the link's frame.
fn encode(raw: &RawFraming, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut wire = match raw.kind.as_str() {
        "length" => {
            let (width, offset) = (raw.width.unwrap() as usize, raw.offset.unwrap() as usize);
            let all = raw.counts.as_deref() == Some("all");
            let counted = body.len() + if all { offset + width } else { 0 };
            let length = (counted as i64 - raw.adjust.unwrap()).cast_unsigned();
            let mut wire = vec![0xee; offset];
            for index in 0..width {
                let shift = if raw.order.as_deref() == Some("big") { width - 1 - index } else { index };
                wire.push((length >> (8 * shift)) as u8);
            }
            wire
        }
        "varint" => {
            let low = (body.len() & 0x7f) as u8;
            if body.len() < 128 { vec![low] } else { vec![low | 0x80, (body.len() >> 7) as u8] }
        }
        _ => Vec::new(),
    };
    wire.extend_from_slice(body);
    if raw.strip_cr == Some(true) {
        wire.push(b'\r');
    }
    wire.extend_from_slice(raw.delimiter.as_deref().unwrap_or_default().as_bytes());
    let kept = raw.keep_header == Some(true) || raw.keep_delimiter == Some(true);
    let frame = if kept { wire.clone() } else { body.to_vec() };
    (wire, frame)
}

fn any_length() -> impl Strategy<Value = RawFraming> {
    let shape = (prop::sample::select(vec![1u64, 2, 3, 4, 8]), any::<bool>(), 0u64..5, any::<bool>());
    (shape, -20i64..20, any::<bool>(), 1u64..9000).prop_map(|(shape, adjust, keep, max)| {
        let (width, big, offset, all) = shape;
        RawFraming {
            kind: "length".into(),
            max_bytes: Some(max),
            width: Some(width),
            order: Some(if big { "big" } else { "little" }.into()),
            offset: Some(offset),
            counts: Some(if all { "all" } else { "body" }.into()),
            adjust: Some(adjust),
            keep_header: Some(keep),
            ..RawFraming::default()
        }
    })
}

fn any_varint() -> impl Strategy<Value = RawFraming> {
    (1u64..9000, any::<bool>()).prop_map(|(max, keep)| RawFraming {
        kind: "varint".into(),
        max_bytes: Some(max),
        keep_header: Some(keep),
        ..RawFraming::default()
    })
}

fn any_lines() -> impl Strategy<Value = RawFraming> {
    let delimiter = prop::sample::select(vec!["\n", "\r\n", "aa", "aab", "\0", "é"]);
    (delimiter, 1u64..9000, any::<bool>(), any::<bool>()).prop_map(|(delimiter, max, keep, strip)| {
        RawFraming {
            kind: "lines".into(),
            max_bytes: Some(max),
            delimiter: Some(delimiter.into()),
            keep_delimiter: Some(keep),
            strip_cr: Some(strip),
            ..RawFraming::default()
        }
    })
}

/// Every framing that the check takes, with what it was made of.
fn any_framing() -> impl Strategy<Value = (RawFraming, Framing)> {
    prop_oneof![any_length(), any_varint(), any_lines()]
        .prop_filter_map("not a valid framing", |raw| raw.check().ok().map(|framing| (raw, framing)))
}

/// Bytes in which delimiters, and parts of them, are frequent.
fn any_body(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"\r\nab\0\xc3\xa9".to_vec()), any::<u8>()];
    vec(byte, 0..max)
}

/// A wire frame that decodes alone, to what was put in, may stand in a stream.
fn stands_alone(framing: &Framing, wire: &[u8], frame: &[u8]) -> bool {
    matches!(framing.cut(wire), Ok(Some(cut)) if cut.consumed == wire.len() && wire[cut.frame.clone()] == *frame)
}

fn split(wire: &[u8], mut at: Vec<prop::sample::Index>) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut cuts: Vec<usize> = at.drain(..).map(|index| index.index(wire.len() + 1)).collect();
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts {
        pieces.push(&wire[from..to]);
        from = to;
    }
    pieces.push(&wire[from..]);
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        (raw, framing) in any_framing(),
        bodies in vec(any_body(300), 1..12),
        at in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let encoded = bodies.iter().map(|body| encode(&raw, body));
        let (wires, frames): (Vec<_>, Vec<_>) =
            encoded.filter(|(wire, frame)| stands_alone(&framing, wire, frame)).unzip();
        let wire = wires.concat();
        prop_assert_eq!(cut_all(&framing, &split(&wire, at)), (frames.clone(), None));
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        prop_assert_eq!(cut_all(&framing, &bytes), (frames, None));
    }

    #[test]
    fn any_split_of_garbage_gives_the_same_frames_and_the_same_end(
        (_, framing) in any_framing(),
        garbage in any_body(2000),
        at in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (frames, error) = cut_all(&framing, &[&garbage]);
        let (again, error_again) = cut_all(&framing, &split(&garbage, at));
        prop_assert_eq!(frames, again);
        prop_assert_eq!(error.is_some(), error_again.is_some());
    }

    #[test]
    fn a_body_that_fits_is_taken_and_one_that_does_not_is_refused(
        (raw, framing) in any_framing(),
        size in 0usize..9000,
    ) {
        // No delimiter of the strategy is in it, nor begins in it.
        let (wire, frame) = encode(&raw, &vec![b'x'; size]);
        let fits = frame.len() <= framing.max_frame_bytes() && (raw.kind != "length" || wire_length_fits(&raw, size));
        prop_assert_eq!(stands_alone(&framing, &wire, &frame), fits);
    }

    #[test]
    fn what_is_written_is_cut_to_the_same_frame(
        (raw, framing) in any_framing(),
        body in any_body(600),
        before in any_body(10),
    ) {
        let (_, frame) = encode(&raw, &body);
        let mut out = before.clone();
        match framing.write(&frame, &mut out) {
            Ok(()) => {
                prop_assert_eq!(&out[..before.len()], &before[..]);
                let wire = &out[before.len()..];
                let cut = framing.cut(wire).unwrap().unwrap();
                prop_assert_eq!(cut.consumed, wire.len());
                prop_assert_eq!(&wire[cut.frame], &frame[..]);
                prop_assert!(wire.len() <= framing.max_wire_bytes());
            }
            Err(_) => prop_assert_eq!(out, before),
        }
    }

    #[test]
    fn what_can_be_cut_can_be_written(
        (raw, framing) in any_framing(),
        body in any_body(600),
    ) {
        let (wire, frame) = encode(&raw, &body);
        // A dropped \r may have stood between a line and a delimiter that its end would otherwise change.
        if stands_alone(&framing, &wire, &frame) && raw.strip_cr != Some(true) {
            prop_assert_eq!(framing.write(&frame, &mut Vec::new()), Ok(()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic((_, framing) in any_framing(), bytes in vec(any::<u8>(), 0..64), seen in 0usize..80) {
        let _ = framing.cut(&bytes);
        let _ = framing.cut_resumed(&bytes, seen);
        let mut out = Vec::new();
        if framing.write(&bytes, &mut out).is_err() {
            prop_assert!(out.is_empty());
        }
    }
}

/// The length field can say the size, and what it says isn't below zero or short of the header.
fn wire_length_fits(raw: &RawFraming, body: usize) -> bool {
    let header = raw.offset.unwrap() + raw.width.unwrap();
    let counted = body as i64 + if raw.counts.as_deref() == Some("all") { header.cast_signed() } else { 0 };
    let length = counted - raw.adjust.unwrap();
    length >= 0 && (raw.width.unwrap() == 8 || length < 1 << (8 * raw.width.unwrap()))
}
