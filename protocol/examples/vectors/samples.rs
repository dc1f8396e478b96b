//! Valid messages of every type, and what can be wrong with each.

use std::num::NonZeroU32;

use holdfast_protocol::message::*;
use holdfast_protocol::{Epoch, GroupId, HEADER_BYTES, InstanceId, Seq, SessionId, TraceContext, encode};
use serde_json::{Value, json};

use crate::layout::{Layout, Shape, pieces};
use crate::tables::layout;
use crate::view::{hex, view};

pub const SESSION: SessionId = SessionId(*b"session-00000001");
pub const GROUP: GroupId = GroupId(*b"group-0000000001");
pub const TRACE: TraceContext =
    TraceContext { trace_id: *b"trace-0000000001", span_id: *b"span-001", sampled: true };

const ON_SESSION: Subject = Subject::Session(SESSION);
const ON_GROUP: Subject = Subject::Group(GROUP);
/// A frame of kind 0, of a member.
const ADDRESSED: &[u8] = b"\0session-00000001hello";

/// The vectors of one type, as its file holds them.
pub fn vectors(of: MessageType) -> Value {
    let valid = valid(of);
    let mut all: Vec<Value> = valid
        .iter()
        .map(|(name, bytes, view)| json!({"name": name, "hex": hex(bytes), "message": view}))
        .collect();
    let first = &valid[0].1;
    all.push(json!({"name": "header alone, one byte short", "hex": hex(&first[..7]), "incomplete": true}));
    if first.len() > HEADER_BYTES {
        let cut = &first[..first.len() - 1];
        all.push(json!({"name": "last byte still to come", "hex": hex(cut), "incomplete": true}));
    }
    all.push(grown(&valid[0]));
    all.extend(ungrown(of, valid.last().expect("a message")));
    let broken = invalid(of, first).into_iter();
    all.extend(broken.map(|(name, bytes, error)| json!({"name": name, "hex": hex(&bytes), "error": error})));
    Value::Array(all)
}

/// What is wrong before a type is known.
pub fn link_vectors() -> Value {
    let mut request = b"GET / HTTP/1.1\r\nHost: game\r\n\r\n".to_vec();
    request.truncate(24);
    let ping = &valid(MessageType::Ping)[0].1;
    let typed = |number: u8| {
        let mut bytes = ping.clone();
        bytes[4] = number;
        hex(&bytes)
    };
    json!([
        {"name": "an HTTP request as first message", "hex": hex(&request), "first": true, "error": "not_a_link"},
        {"name": "PING as first message", "hex": hex(ping), "first": true, "error": "not_a_link"},
        {"name": "an HTTP request later on", "hex": hex(&request), "error": "unknown_type"},
        {"name": "type 0", "hex": typed(0), "error": "unknown_type"},
        {"name": "type 24", "hex": typed(24), "error": "unknown_type"},
        {"name": "type 255", "hex": typed(255), "error": "unknown_type"},
        {"name": "nothing", "hex": "", "incomplete": true},
        {"name": "nothing, as first message", "hex": "", "first": true, "incomplete": true},
    ])
}

/// A later version's message: more fixed fields, unknown flags. It reads as the same values.
fn grown((_, bytes, view): &(&'static str, Vec<u8>, Value)) -> Value {
    let fixed = u16::from_le_bytes([bytes[6], bytes[7]]);
    let at = HEADER_BYTES + usize::from(fixed);
    let mut longer = bytes.clone();
    longer.splice(at..at, *b"new!");
    longer[6..8].copy_from_slice(&(fixed + 4).to_le_bytes());
    longer[5] |= 0x40;
    patch_length(&mut longer);
    json!({
        "name": "with fields and flags of a later version", "hex": hex(&longer), "message": view,
        "canonical": false,
    })
}

/// The message from before its type got its later fields, of a sender who told nothing by them.
fn ungrown(of: MessageType, (_, bytes, view): &Sample) -> Option<Value> {
    let least = of.least_fixed_bytes();
    let later = HEADER_BYTES + least..HEADER_BYTES + of.fixed_bytes();
    let mut shorter = bytes.clone();
    shorter.drain(later.clone());
    shorter[6..8].copy_from_slice(&(least as u16).to_le_bytes());
    patch_length(&mut shorter);
    (!later.is_empty()).then(|| {
        json!({
            "name": "without the fields that came later", "hex": hex(&shorter), "message": view,
            "canonical": false,
        })
    })
}

fn patch_length(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len() - HEADER_BYTES).expect("short");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
}

fn invalid(of: MessageType, bytes: &[u8]) -> Vec<(String, Vec<u8>, &'static str)> {
    let layout = layout(of);
    let fixed = of.least_fixed_bytes() as u16;
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let mut all = vec![("over every limit".to_owned(), with(0, &u32::MAX.to_le_bytes()), "too_large")];
    if fixed > 0 {
        let short = with(6, &(fixed - 1).to_le_bytes());
        all.push(("fixed part one byte short".to_owned(), short, "fixed_too_short"));
    }
    let body = u16::try_from(bytes.len() - HEADER_BYTES).expect("short");
    let long = with(6, &(body + 1).to_le_bytes());
    all.push(("fixed part longer than the body".to_owned(), long, "fixed_too_long"));
    all.extend(invalid_fields(&layout, bytes));
    all
}

fn invalid_fields(layout: &Layout, bytes: &[u8]) -> Vec<(String, Vec<u8>, &'static str)> {
    let pieces = pieces(layout, bytes);
    let mut all = Vec::new();
    for (field, piece) in layout.fields.iter().zip(&pieces[4..]) {
        let mut add = |what: &str, at: usize, new: u8, error| {
            let mut broken = bytes.to_vec();
            broken[piece.offset + at] = new;
            all.push((format!("{}: {what}", field.name), broken, error));
        };
        match field.shape {
            Shape::Magic => add("another letter", 7, b'!', "magic"),
            Shape::Choice(_) => add("no such value", 0, 0x63, "bad_enum"),
            Shape::Text | Shape::ShortBytes => add("longer than the body", 1, 0xff, "truncated"),
            Shape::Attachments if !piece.bytes.is_empty() => {
                add("no such kind", 48, 2, "bad_enum");
                add("no such phase", 49, 4, "bad_enum");
            }
            _ => {}
        }
        if field.shape == Shape::Text && piece.bytes.len() > 2 {
            add("not UTF-8", 2, 0xff, "bad_utf8");
        }
        if field.name == "attachment_bytes" {
            add("below an entry's length", 0, 49, "truncated");
        }
        if field.name == "attachment_count" {
            add("more than there are", 3, 1, "truncated");
        }
    }
    all
}

type Sample = (&'static str, Vec<u8>, Value);

fn valid(of: MessageType) -> Vec<Sample> {
    let mut entries = AttachmentsBuf::new();
    entries.push(entry(ON_SESSION, AttachmentPhase::Active));
    entries.push(entry(ON_GROUP, AttachmentPhase::Frozen));
    let messages = match of {
        MessageType::Hello | MessageType::Welcome | MessageType::Attach => opening(of, &entries),
        MessageType::Data | MessageType::Record | MessageType::Ack | MessageType::Close => traffic(of),
        MessageType::Freeze | MessageType::Thaw | MessageType::State | MessageType::Fault => moving(of),
        MessageType::Drain | MessageType::Undrain | MessageType::Ping | MessageType::Pong => of_link(of),
        _ => short(of),
    };
    messages
        .into_iter()
        .map(|(name, message)| {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            (name, bytes, view(&message))
        })
        .collect()
}

fn entry(subject: Subject, phase: AttachmentPhase) -> AttachmentEntry {
    let (client_seq, server_seq, record_seq) = (Seq(10), Seq(20), Seq(3));
    AttachmentEntry { subject, epoch: Epoch(7), phase, client_seq, server_seq, record_seq }
}

fn opening(of: MessageType, entries: &AttachmentsBuf) -> Vec<(&'static str, Message<'_>)> {
    match of {
        MessageType::Hello => {
            let full = hello();
            let bare = Hello { proof: &[], service: "", proxy: "", capabilities: 0, ..full.clone() };
            vec![("full", Message::Hello(full)), ("with empty strings", Message::Hello(bare))]
        }
        MessageType::Welcome => {
            let with = |draining, attachments| Message::Welcome(welcome(draining, attachments));
            vec![
                ("draining, with two attachments", with(true, entries.as_attachments())),
                ("of a new process", with(false, Attachments::default())),
            ]
        }
        _ => {
            let fresh = attach();
            let state = Attach {
                mode: AttachMode::State,
                client_seq: Seq(1234),
                server_seq: Seq(5678),
                record_seq: Seq(9),
                state_total_bytes: 4096,
                format: "arena-1",
                group: Some(GROUP),
                ..fresh.clone()
            };
            let mode = AttachMode::Resume;
            let resume = Attach { mode, subject: ON_GROUP, format: "", group: None, ..state.clone() };
            let lost = Attach { lost: true, trace: TraceContext::NONE, ..fresh.clone() };
            vec![
                ("fresh", Message::Attach(fresh)),
                ("with state, in a group", Message::Attach(state)),
                ("resumed group", Message::Attach(resume)),
                ("fresh after a loss, without trace", Message::Attach(lost)),
            ]
        }
    }
}

pub fn hello() -> Hello<'static> {
    Hello {
        min_version: 1,
        max_version: 1,
        instance: InstanceId(*b"proxy-instance-1"),
        worker: 2,
        generation: 3,
        max_frame_bytes: 65_536,
        liveness_ms: 3_000,
        capabilities: 5,
        proxy: "host-a",
        service: "arena",
        proof: b"proof",
    }
}

pub fn welcome(draining: bool, attachments: Attachments<'_>) -> Welcome<'_> {
    Welcome {
        version: 1,
        instance: InstanceId(*b"game-instance-1!"),
        generation: 3,
        max_frame_bytes: 65_536,
        client_window_bytes: 262_144,
        state_credit_bytes: 1_048_576,
        orphan_deadline_ms: 60_000,
        capabilities: 0,
        draining,
        backend_version: "1.4",
        logic: "1.4",
        writes_format: "arena-1",
        reads_formats: "arena-0,arena-1",
        attachments,
    }
}

pub fn attach() -> Attach<'static> {
    Attach {
        subject: ON_SESSION,
        epoch: Epoch(1),
        mode: AttachMode::Fresh,
        lost: false,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
        state_total_bytes: 0,
        server_window_bytes: 262_144,
        trace: TRACE,
        group: None,
        recovery: Recovery::Replay,
        opened_us: 1_763_800_000_000_000,
        client: "203.0.113.9:50123",
        service: "arena",
        format: "",
    }
}

fn traffic(of: MessageType) -> Vec<(&'static str, Message<'static>)> {
    let (session, epoch, seq, ack, record) = (SESSION, Epoch(2), Seq(1235), Seq(5678), Seq(9));
    match of {
        MessageType::Data => {
            let subject = ON_SESSION;
            let data = Data { subject, epoch, seq, ack, record, again: false, trace: TRACE, frame: b"hello" };
            let again = Data { again: true, trace: TraceContext::NONE, frame: b"", ..data };
            let group = Data { subject: ON_GROUP, frame: ADDRESSED, ..data };
            let large = Data { seq: Seq(u64::MAX), epoch: Epoch(u64::MAX), frame: &[0x5a; 300], ..data };
            vec![
                ("one frame", Message::Data(data)),
                ("a member's frame on a group's stream", Message::Data(group)),
                ("empty frame again, without trace", Message::Data(again)),
                ("largest numbers", Message::Data(large)),
            ]
        }
        MessageType::Record => {
            let (kind, bytes) = (RecordKind::Input, b"timer 5".as_slice());
            let (after_client_seq, again) = (Seq(1234), false);
            let first = Record {
                subject: ON_SESSION,
                epoch,
                seq,
                after_client_seq,
                kind,
                member: None,
                again,
                bytes,
            };
            let (kind, member) = (RecordKind::Delta, Some(SESSION));
            let delta = Record { subject: ON_GROUP, kind, member, again: true, ..first };
            let values = Record { kind: RecordKind::Values, bytes: b"", ..first };
            vec![
                ("input", Message::Record(first)),
                ("delta of a group's member, again", Message::Record(delta)),
                ("empty values", Message::Record(values)),
            ]
        }
        MessageType::Ack => {
            let ack = Ack { subject: ON_SESSION, epoch, data: seq, record };
            let of_group = Ack { subject: ON_GROUP, data: Seq::NONE, ..ack };
            vec![("of a session", Message::Ack(ack)), ("of a group's records", Message::Ack(of_group))]
        }
        _ => {
            let (half, again, reason) = (false, false, "the match is over");
            let close = Close { session, epoch, seq, ack, record, half, again, reason };
            let half = Close { half: true, again: true, reason: "", ..close.clone() };
            vec![("whole", Message::Close(close)), ("half, again", Message::Close(half))]
        }
    }
}

fn moving(of: MessageType) -> Vec<(&'static str, Message<'static>)> {
    let (client_seq, server_seq, record_seq) = (Seq(1234), Seq(5678), Seq(9));
    match of {
        MessageType::Freeze => {
            let (epoch, credit_bytes) = (Epoch(2), 8192);
            let freeze = Freeze { subject: ON_SESSION, epoch, client_seq, credit_bytes, trace: TRACE };
            let of_group = Freeze { subject: ON_GROUP, ..freeze };
            vec![("a session", Message::Freeze(freeze)), ("a group", Message::Freeze(of_group))]
        }
        MessageType::Thaw => {
            let thaw = Thaw {
                subject: ON_SESSION,
                old_epoch: Epoch(2),
                epoch: Epoch(3),
                client_seq,
                server_seq,
                record_seq,
                server_window_bytes: 1000,
                trace: TRACE,
            };
            vec![("a session", Message::Thaw(thaw))]
        }
        MessageType::Fault => {
            let scope = FaultScope::Attachment(ON_SESSION, Epoch(2));
            let fault = Fault { scope, rule: Rule::OutOfSequence, text: "expected seq 4, got 6" };
            let link = Fault { scope: FaultScope::Link, rule: Rule::Version, text: "" };
            let other = Fault { rule: Rule::Other(999), ..fault.clone() };
            vec![
                ("of an attachment", Message::Fault(fault)),
                ("of the link", Message::Fault(link)),
                ("a rule of a later version", Message::Fault(other)),
            ]
        }
        _ => {
            let state = State {
                subject: ON_SESSION,
                epoch: Epoch(2),
                is_final: true,
                total_bytes: 11,
                offset_bytes: 0,
                client_seq,
                server_seq,
                record_seq,
                members: 0,
                chunk: b"hello state",
            };
            let checkpoint = State {
                subject: ON_GROUP,
                is_final: false,
                members: 2,
                offset_bytes: 5,
                chunk: b" state",
                ..state
            };
            let empty = State { total_bytes: 0, chunk: b"", ..state };
            vec![
                ("final, in one chunk", Message::State(state)),
                ("last chunk of a group's checkpoint", Message::State(checkpoint)),
                ("an empty state", Message::State(empty)),
            ]
        }
    }
}

fn of_link(of: MessageType) -> Vec<(&'static str, Message<'static>)> {
    match of {
        MessageType::Drain => {
            let drain = Drain { deadline_ms: 60_000, returns: true, reason: "deploy 1.5" };
            let for_good = Drain { returns: false, reason: "", deadline_ms: 0 };
            vec![("to return", Message::Drain(drain)), ("for good", Message::Drain(for_good))]
        }
        MessageType::Undrain => vec![("no fields", Message::Undrain)],
        MessageType::Ping => vec![("nonce", Message::Ping(Ping { nonce: 0x0102_0304_0506_0708 }))],
        _ => {
            let pong = Pong {
                nonce: 0x0102_0304_0506_0708,
                attachments: 200,
                capacity: NonZeroU32::new(800),
                load_permille: Some(250),
            };
            let silent = Pong { capacity: None, load_permille: None, ..pong };
            vec![
                ("200 attachments, a quarter full", Message::Pong(pong)),
                ("neither capacity nor load told", Message::Pong(silent)),
            ]
        }
    }
}

fn short(of: MessageType) -> Vec<(&'static str, Message<'static>)> {
    let make = |subject| {
        let (session, epoch, group) = (SESSION, Epoch(2), GROUP);
        let (client_seq, server_seq) = (Seq(1234), Seq(5678));
        match of {
            MessageType::Attached => Message::Attached(Attached { subject, epoch, client_seq, server_seq }),
            MessageType::Refused => {
                Message::Refused(Refused { subject, epoch, retry: true, reason: "800 of 800 sessions" })
            }
            MessageType::Start => Message::Start(Start { subject, epoch }),
            MessageType::Release => Message::Release(Release { subject, epoch }),
            MessageType::Checkpoint => Message::Checkpoint(Checkpoint { subject, epoch, credit_bytes: 8192 }),
            MessageType::Credit => Message::Credit(Credit { subject, epoch, bytes: 16_384 }),
            _ => Message::Join(Join { session, epoch, group }),
        }
    };
    if of == MessageType::Join {
        return vec![("a session", make(ON_SESSION))];
    }
    vec![("a session", make(ON_SESSION)), ("a group", make(ON_GROUP))]
}
