//! What the codec promises about any bytes at all.

mod any_message;

use any_message::{any_encoded, any_parts, with_message};
use holdfast_protocol::message::{Data, Drain, Message, Pong, Subject};
use holdfast_protocol::{
    DATA_OVERHEAD_BYTES, Epoch, HEADER_BYTES, MAX_MESSAGE_BYTES, MessageType, Seq, SessionId, TraceContext,
    decode, decode_first, encode, encode_data, encode_data_head,
};
use proptest::prelude::*;

fn decoded(bytes: &[u8]) -> (Message<'_>, usize) {
    decode(bytes, MAX_MESSAGE_BYTES).expect("a message").expect("a whole message")
}

proptest! {
    #[test]
    fn every_message_survives_a_round_trip(parts in any_parts(), after in any::<[u8; 3]>()) {
        for of in MessageType::ALL {
            with_message(of, &parts, |message| {
                let mut bytes = vec![0xAA];
                encode(message, &mut bytes);
                let length = bytes.len() - 1;
                bytes.extend_from_slice(&after);
                let (read, taken) = decoded(&bytes[1..]);
                assert_eq!(&read, message);
                assert_eq!(taken, length);
                assert_eq!(read.message_type(), of);
            });
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_are_read_beyond(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for read in [decode(&bytes, MAX_MESSAGE_BYTES), decode_first(&bytes, MAX_MESSAGE_BYTES)] {
            if let Ok(Some((_, taken))) = read {
                prop_assert!(taken <= bytes.len());
            }
        }
    }

    #[test]
    fn arbitrary_bodies_of_every_type_neither_panic_nor_are_read_beyond(
        flags in any::<u8>(),
        extra in 0usize..20,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        for of in MessageType::ALL {
            let fixed = of.fixed_bytes() + extra;
            let mut message = (bytes.len() as u32).to_le_bytes().to_vec();
            message.extend_from_slice(&[of.number(), flags]);
            message.extend_from_slice(&(fixed as u16).to_le_bytes());
            message.extend_from_slice(&bytes);
            if let Ok(Some((_, taken))) = decode(&message, MAX_MESSAGE_BYTES) {
                prop_assert_eq!(taken, message.len());
            }
        }
    }

    #[test]
    fn a_message_cut_short_is_not_whole_yet(bytes in any_encoded()) {
        for end in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..end], MAX_MESSAGE_BYTES), Ok(None));
        }
    }

    #[test]
    fn a_body_cut_short_under_an_honest_header_never_reads_beyond_it(bytes in any_encoded()) {
        for end in HEADER_BYTES..bytes.len() {
            let mut cut = bytes.clone();
            cut[..4].copy_from_slice(&((end - HEADER_BYTES) as u32).to_le_bytes());
            if let Ok(Some((_, taken))) = decode(&cut, MAX_MESSAGE_BYTES) {
                prop_assert_eq!(taken, end);
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic(mut bytes in any_encoded(), flips in proptest::collection::vec(any::<(u16, u8)>(), 1..6)) {
        for (at, bit) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            if let Ok(Some((_, taken))) = decode(&bytes, MAX_MESSAGE_BYTES) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored(bytes in any_encoded(), extra in proptest::collection::vec(any::<u8>(), 1..40)) {
        let fixed = u16::from_le_bytes([bytes[6], bytes[7]]);
        let at = HEADER_BYTES + usize::from(fixed);
        let mut longer = bytes.clone();
        longer.splice(at..at, extra.iter().copied());
        let length = (longer.len() - HEADER_BYTES) as u32;
        longer[..4].copy_from_slice(&length.to_le_bytes());
        longer[6..8].copy_from_slice(&(fixed + extra.len() as u16).to_le_bytes());
        prop_assert_eq!(decoded(&longer).0, decoded(&bytes).0);
    }

    #[test]
    fn a_pong_of_any_length_between_the_first_and_todays_reads_as_what_it_has(parts in any_parts(), cut in 0usize..=6) {
        let mut bytes = Vec::new();
        with_message(MessageType::Pong, &parts, |message| encode(message, &mut bytes));
        let Message::Pong(whole) = decoded(&bytes).0 else { panic!("a PONG") };
        let fixed = MessageType::Pong.fixed_bytes() - cut;
        bytes.truncate(HEADER_BYTES + fixed);
        bytes[..4].copy_from_slice(&(fixed as u32).to_le_bytes());
        bytes[6..8].copy_from_slice(&(fixed as u16).to_le_bytes());
        let load_permille = whole.load_permille.filter(|_| cut == 0);
        let capacity = whole.capacity.filter(|_| cut <= 2);
        prop_assert_eq!(decoded(&bytes).0, Message::Pong(Pong { capacity, load_permille, ..whole }));
    }

    #[test]
    fn a_message_over_the_bound_is_refused_as_soon_as_its_header_is_there(bytes in any_encoded()) {
        let error = decode(&bytes[..HEADER_BYTES], bytes.len() - 1).unwrap_err();
        prop_assert_eq!(error.name(), "too_large");
        prop_assert!(decode(&bytes, bytes.len()).unwrap().is_some());
    }
}

#[test]
fn a_stray_http_request_is_told_apart_from_a_link() {
    let error = decode_first(b"GET / HTTP/1.1", MAX_MESSAGE_BYTES).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a Holdfast link: it should begin with HELLO or WELCOME, got \"GET / HT\""
    );
    assert_eq!(decode_first(b"GET /", MAX_MESSAGE_BYTES), Ok(None));
}

#[test]
fn a_string_too_long_for_its_length_is_cut_at_a_character() {
    let reason = "\u{e9}".repeat(40_000);
    let mut bytes = Vec::new();
    encode(&Message::Drain(Drain { deadline_ms: 0, returns: false, reason: &reason }), &mut bytes);
    let Message::Drain(drain) = decoded(&bytes).0 else { panic!("a DRAIN") };
    assert_eq!(drain.reason.len(), 65_534);
    assert!(reason.starts_with(drain.reason));
}

#[test]
fn a_data_head_and_its_frame_are_a_whole_data() {
    let mut data = any_data();
    data.frame = b"frame";
    let mut whole = Vec::new();
    encode_data(&data, &mut whole);
    let gathered = [encode_data_head(&data).as_slice(), data.frame].concat();
    assert_eq!(gathered, whole);
    assert_eq!(whole.len(), DATA_OVERHEAD_BYTES + data.frame.len());
    assert_eq!(decoded(&whole).0, Message::Data(data));
}

fn any_data() -> Data<'static> {
    Data {
        subject: Subject::Session(SessionId([7; 16])),
        epoch: Epoch(1),
        seq: Seq(2),
        ack: Seq(3),
        record: Seq(4),
        again: true,
        trace: TraceContext { trace_id: [1; 16], span_id: [2; 8], sampled: true },
        frame: b"",
    }
}
