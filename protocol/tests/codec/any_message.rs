//! Every message that a peer may send, as proptest strategies.

use std::num::NonZeroU32;

use holdfast_protocol::message::*;
use holdfast_protocol::{Epoch, GroupId, InstanceId, Seq, SessionId, TraceContext, encode};
use proptest::collection::vec;
use proptest::prelude::*;

/// A message that owns nothing but its bytes: what encoding any message gives.
pub fn any_encoded() -> impl Strategy<Value = Vec<u8>> {
    (0..MessageType::ALL.len(), any_parts()).prop_map(|(index, parts)| {
        let mut bytes = Vec::new();
        with_message(MessageType::ALL[index], &parts, |message| encode(message, &mut bytes));
        bytes
    })
}

/// Raw values from which a message of any type is made.
#[derive(Clone, Debug)]
pub struct Parts {
    ids: [[u8; 16]; 2],
    group: bool,
    numbers: [u64; 8],
    flags: [bool; 2],
    choice: u8,
    trace: TraceContext,
    texts: [String; 4],
    bytes: Vec<u8>,
    entries: Vec<AttachmentEntry>,
}

pub fn any_parts() -> impl Strategy<Value = Parts> {
    let texts = [any_text(), any_text(), any_text(), any_text()];
    let entries = vec(any_entry(), 0..4);
    let small = (any::<[[u8; 16]; 2]>(), any::<bool>(), any::<[u64; 8]>(), any::<[bool; 2]>(), any::<u8>());
    (small, any_trace(), texts, vec(any::<u8>(), 0..300), entries).prop_map(
        |((ids, group, numbers, flags, choice), trace, texts, bytes, entries)| Parts {
            ids,
            group,
            numbers,
            flags,
            choice,
            trace,
            texts,
            bytes,
            entries,
        },
    )
}

fn any_text() -> BoxedStrategy<String> {
    prop_oneof![Just(String::new()), "\\PC{0,40}"].boxed()
}

fn any_trace() -> impl Strategy<Value = TraceContext> {
    let some = (1u128.., any::<[u8; 8]>(), any::<bool>()).prop_map(|(id, span_id, sampled)| TraceContext {
        trace_id: id.to_be_bytes(),
        span_id,
        sampled,
    });
    prop_oneof![Just(TraceContext::NONE), some]
}

fn any_entry() -> impl Strategy<Value = AttachmentEntry> {
    (any::<[u8; 16]>(), any::<bool>(), any::<[u64; 4]>(), 0u8..4).prop_map(|(id, group, n, phase)| {
        AttachmentEntry {
            subject: subject(id, group),
            epoch: Epoch(n[0]),
            phase: AttachmentPhase::from_number(phase).expect("in range"),
            client_seq: Seq(n[1]),
            server_seq: Seq(n[2]),
            record_seq: Seq(n[3]),
        }
    })
}

fn subject(id: [u8; 16], group: bool) -> Subject {
    if group { Subject::Group(GroupId(id)) } else { Subject::Session(SessionId(id)) }
}

/// Calls `f` with the message of type `of` that `parts` make.
pub fn with_message(of: MessageType, parts: &Parts, mut f: impl FnMut(&Message<'_>)) {
    let mut list = AttachmentsBuf::new();
    parts.entries.iter().for_each(|entry| list.push(*entry));
    let message = match of {
        MessageType::Hello | MessageType::Welcome | MessageType::Attach => opening(of, parts, &list),
        MessageType::Drain | MessageType::Undrain | MessageType::Ping | MessageType::Pong => {
            of_link(of, parts)
        }
        MessageType::Data | MessageType::Record | MessageType::State | MessageType::Close => {
            traffic(of, parts)
        }
        _ => control(of, parts),
    };
    f(&message);
}

fn opening<'a>(of: MessageType, p: &'a Parts, list: &'a AttachmentsBuf) -> Message<'a> {
    let n = p.numbers;
    let [a, b, c, d] = p.texts.each_ref().map(String::as_str);
    match of {
        MessageType::Hello => Message::Hello(Hello {
            min_version: n[0] as u16,
            max_version: n[1] as u16,
            instance: InstanceId(p.ids[0]),
            worker: n[2] as u16,
            generation: n[3],
            max_frame_bytes: n[4] as u32,
            liveness_ms: n[5] as u32,
            capabilities: n[6],
            proxy: a,
            service: b,
            proof: &p.bytes,
        }),
        MessageType::Welcome => Message::Welcome(Welcome {
            version: n[0] as u16,
            instance: InstanceId(p.ids[0]),
            generation: n[1],
            max_frame_bytes: n[2] as u32,
            client_window_bytes: n[3] as u32,
            state_credit_bytes: n[4],
            orphan_deadline_ms: n[5] as u32,
            capabilities: n[6],
            draining: p.flags[0],
            backend_version: a,
            logic: b,
            writes_format: c,
            reads_formats: d,
            attachments: list.as_attachments(),
        }),
        _ => Message::Attach(Attach {
            subject: subject(p.ids[0], p.group),
            epoch: Epoch(n[0]),
            mode: AttachMode::from_number(p.choice % 3).expect("in range"),
            lost: p.flags[0],
            client_seq: Seq(n[1]),
            server_seq: Seq(n[2]),
            record_seq: Seq(n[3]),
            state_total_bytes: n[4],
            server_window_bytes: n[5] as u32,
            trace: p.trace,
            group: p.flags[1].then_some(GroupId(p.ids[1])).filter(|id| *id != GroupId::default()),
            recovery: Recovery::from_number(p.choice % 4).expect("in range"),
            opened_us: n[6],
            client: a,
            service: b,
            format: c,
        }),
    }
}

fn traffic(of: MessageType, p: &Parts) -> Message<'_> {
    let n = p.numbers;
    let (session, epoch, seq) = (SessionId(p.ids[0]), Epoch(n[0]), Seq(n[1]));
    let (ack, record, again) = (Seq(n[2]), Seq(n[3]), p.flags[0]);
    match of {
        MessageType::Data => Message::Data(Data {
            subject: subject(p.ids[0], p.group),
            epoch,
            seq,
            ack,
            record,
            again,
            trace: p.trace,
            frame: &p.bytes,
        }),
        MessageType::Close => {
            let (half, reason) = (p.flags[1], p.texts[0].as_str());
            Message::Close(Close { session, epoch, seq, ack, record, half, again, reason })
        }
        MessageType::Record => Message::Record(Record {
            subject: subject(p.ids[0], p.group),
            epoch,
            seq,
            after_client_seq: ack,
            kind: RecordKind::from_number(p.choice % 3).expect("in range"),
            member: p.flags[1].then_some(SessionId(p.ids[1])).filter(|id| *id != SessionId::default()),
            again,
            bytes: &p.bytes,
        }),
        _ => Message::State(State {
            subject: subject(p.ids[0], p.group),
            epoch,
            is_final: p.flags[0],
            total_bytes: n[1],
            offset_bytes: n[2],
            client_seq: Seq(n[3]),
            server_seq: Seq(n[4]),
            record_seq: Seq(n[5]),
            members: n[6] as u32,
            chunk: &p.bytes,
        }),
    }
}

fn of_link(of: MessageType, p: &Parts) -> Message<'_> {
    let n = p.numbers;
    match of {
        MessageType::Drain => {
            Message::Drain(Drain { deadline_ms: n[0] as u32, returns: p.flags[0], reason: &p.texts[0] })
        }
        MessageType::Undrain => Message::Undrain,
        MessageType::Ping => Message::Ping(Ping { nonce: n[0] }),
        _ => Message::Pong(Pong {
            nonce: n[0],
            attachments: n[1] as u32,
            capacity: NonZeroU32::new(n[2] as u32).filter(|_| p.flags[0]),
            load_permille: (p.flags[1] && n[3] as u16 != u16::MAX).then_some(n[3] as u16),
        }),
    }
}

fn control(of: MessageType, p: &Parts) -> Message<'_> {
    let n = p.numbers;
    let (subject, epoch, trace) = (subject(p.ids[0], p.group), Epoch(n[0]), p.trace);
    let (session, group) = (SessionId(p.ids[0]), GroupId(p.ids[1]));
    let (client_seq, server_seq, record_seq) = (Seq(n[1]), Seq(n[2]), Seq(n[3]));
    match of {
        MessageType::Attached => Message::Attached(Attached { subject, epoch, client_seq, server_seq }),
        MessageType::Refused => {
            Message::Refused(Refused { subject, epoch, retry: p.flags[0], reason: &p.texts[0] })
        }
        MessageType::Start => Message::Start(Start { subject, epoch }),
        MessageType::Ack => Message::Ack(Ack { subject, epoch, data: client_seq, record: record_seq }),
        MessageType::Freeze => {
            Message::Freeze(Freeze { subject, epoch, client_seq, credit_bytes: n[2], trace })
        }
        MessageType::Thaw => Message::Thaw(Thaw {
            subject,
            old_epoch: Epoch(n[4]),
            epoch,
            client_seq,
            server_seq,
            record_seq,
            server_window_bytes: n[5] as u32,
            trace,
        }),
        MessageType::Release => Message::Release(Release { subject, epoch }),
        MessageType::Checkpoint => Message::Checkpoint(Checkpoint { subject, epoch, credit_bytes: n[1] }),
        MessageType::Credit => Message::Credit(Credit { subject, epoch, bytes: n[1] }),
        MessageType::Join => Message::Join(Join { session, epoch, group }),
        _ => {
            let scope = if p.flags[0] { FaultScope::Attachment(subject, epoch) } else { FaultScope::Link };
            Message::Fault(Fault { scope, rule: Rule::from_number(n[1] as u16 % 40), text: &p.texts[0] })
        }
    }
}
