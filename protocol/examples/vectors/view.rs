//! A message as JSON: ids and bytes in hexadecimal, 64-bit numbers as decimal strings (some languages' JSON numbers
//! hold 53 bits), a trace as a `traceparent`.

use std::num::NonZeroU32;

use holdfast_protocol::message::*;
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId};
use serde_json::{Map, Value, json};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn view(message: &Message<'_>) -> Value {
    let fields = match message {
        Message::Hello(_) | Message::Welcome(_) | Message::Attach(_) => opening(message),
        Message::Data(_) | Message::Record(_) | Message::Ack(_) | Message::Close(_) => traffic(message),
        Message::Freeze(_) | Message::Thaw(_) | Message::State(_) => moving(message),
        Message::Drain(_) | Message::Undrain | Message::Ping(_) | Message::Pong(_) => of_link(message),
        _ => short(message),
    };
    let mut all = Map::from_iter([("type".to_owned(), json!(message.type_name()))]);
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

fn subject(subject: Subject) -> Value {
    match subject {
        Subject::Session(id) => json!({"session": id.to_string()}),
        Subject::Group(id) => json!({"group": id.to_string()}),
    }
}

fn big(number: u64) -> Value {
    json!(number.to_string())
}

fn epoch(epoch: Epoch) -> Value {
    big(epoch.0)
}

fn seq(seq: Seq) -> Value {
    big(seq.0)
}

fn group(id: GroupId) -> Value {
    json!(id.to_string())
}

fn session(id: SessionId) -> Value {
    json!(id.to_string())
}

fn opening(message: &Message<'_>) -> Value {
    match message {
        Message::Hello(m) => json!({
            "min_version": m.min_version, "max_version": m.max_version, "instance": m.instance.to_string(),
            "worker": m.worker, "generation": big(m.generation), "max_frame_bytes": m.max_frame_bytes,
            "liveness_ms": m.liveness_ms, "capabilities": big(m.capabilities), "proxy": m.proxy,
            "service": m.service, "proof": hex(m.proof),
        }),
        Message::Welcome(m) => json!({
            "draining": m.draining, "version": m.version, "instance": m.instance.to_string(),
            "generation": big(m.generation), "max_frame_bytes": m.max_frame_bytes,
            "client_window_bytes": m.client_window_bytes, "state_credit_bytes": big(m.state_credit_bytes),
            "orphan_deadline_ms": m.orphan_deadline_ms, "capabilities": big(m.capabilities),
            "backend_version": m.backend_version, "logic": m.logic, "writes_format": m.writes_format,
            "reads_formats": m.reads_formats,
            "attachments": m.attachments.iter().map(|entry| attachment(&entry)).collect::<Value>(),
        }),
        Message::Attach(m) => json!({
            "lost": m.lost, "subject": subject(m.subject), "epoch": epoch(m.epoch),
            "client_seq": seq(m.client_seq), "server_seq": seq(m.server_seq), "record_seq": seq(m.record_seq),
            "state_total_bytes": big(m.state_total_bytes), "server_window_bytes": m.server_window_bytes,
            "trace": m.trace.to_string(), "group": m.group.map(group),
            "mode": format!("{:?}", m.mode).to_lowercase(), "client": m.client, "service": m.service,
            "recovery": m.recovery.name(), "opened_us": big(m.opened_us), "format": m.format,
        }),
        _ => Value::Null,
    }
}

fn attachment(entry: &AttachmentEntry) -> Value {
    json!({
        "subject": subject(entry.subject), "epoch": epoch(entry.epoch),
        "phase": format!("{:?}", entry.phase).to_lowercase(), "client_seq": seq(entry.client_seq),
        "server_seq": seq(entry.server_seq), "record_seq": seq(entry.record_seq),
    })
}

fn traffic(message: &Message<'_>) -> Value {
    match message {
        Message::Data(m) => json!({
            "again": m.again, "subject": subject(m.subject), "epoch": epoch(m.epoch), "seq": seq(m.seq),
            "ack": seq(m.ack), "record": seq(m.record), "trace": m.trace.to_string(), "frame": hex(m.frame),
        }),
        Message::Record(m) => json!({
            "again": m.again, "subject": subject(m.subject), "epoch": epoch(m.epoch), "seq": seq(m.seq),
            "after_client_seq": seq(m.after_client_seq), "member": m.member.map(session),
            "kind": format!("{:?}", m.kind).to_lowercase(), "bytes": hex(m.bytes),
        }),
        Message::Ack(m) => json!({
            "subject": subject(m.subject), "epoch": epoch(m.epoch), "data": seq(m.data),
            "record": seq(m.record),
        }),
        Message::Close(m) => json!({
            "again": m.again, "half": m.half, "session": session(m.session), "epoch": epoch(m.epoch),
            "seq": seq(m.seq), "ack": seq(m.ack), "record": seq(m.record), "reason": m.reason,
        }),
        _ => Value::Null,
    }
}

fn moving(message: &Message<'_>) -> Value {
    match message {
        Message::Freeze(m) => json!({
            "subject": subject(m.subject), "epoch": epoch(m.epoch), "client_seq": seq(m.client_seq),
            "credit_bytes": big(m.credit_bytes), "trace": m.trace.to_string(),
        }),
        Message::Thaw(m) => json!({
            "subject": subject(m.subject), "old_epoch": epoch(m.old_epoch), "epoch": epoch(m.epoch),
            "client_seq": seq(m.client_seq), "server_seq": seq(m.server_seq), "record_seq": seq(m.record_seq),
            "server_window_bytes": m.server_window_bytes, "trace": m.trace.to_string(),
        }),
        Message::State(m) => json!({
            "final": m.is_final, "subject": subject(m.subject), "epoch": epoch(m.epoch),
            "total_bytes": big(m.total_bytes), "offset_bytes": big(m.offset_bytes),
            "client_seq": seq(m.client_seq), "server_seq": seq(m.server_seq), "record_seq": seq(m.record_seq),
            "members": m.members, "chunk": hex(m.chunk),
        }),
        _ => Value::Null,
    }
}

fn of_link(message: &Message<'_>) -> Value {
    match message {
        Message::Drain(m) => {
            json!({"deadline_ms": m.deadline_ms, "returns": m.returns, "reason": m.reason})
        }
        Message::Ping(m) => json!({"nonce": big(m.nonce)}),
        Message::Pong(m) => json!({
            "nonce": big(m.nonce),
            "attachments": m.attachments,
            "capacity": m.capacity.map_or(0, NonZeroU32::get),
            "load_permille": m.load_permille.unwrap_or(u16::MAX),
        }),
        _ => Value::Null,
    }
}

fn short(message: &Message<'_>) -> Value {
    match message {
        Message::Attached(m) => json!({
            "subject": subject(m.subject), "epoch": epoch(m.epoch), "client_seq": seq(m.client_seq),
            "server_seq": seq(m.server_seq),
        }),
        Message::Refused(m) => json!({
            "retry": m.retry, "subject": subject(m.subject), "epoch": epoch(m.epoch), "reason": m.reason,
        }),
        Message::Start(m) => json!({"subject": subject(m.subject), "epoch": epoch(m.epoch)}),
        Message::Release(m) => json!({"subject": subject(m.subject), "epoch": epoch(m.epoch)}),
        Message::Checkpoint(m) => json!({
            "subject": subject(m.subject), "epoch": epoch(m.epoch), "credit_bytes": big(m.credit_bytes),
        }),
        Message::Credit(m) => json!({
            "subject": subject(m.subject), "epoch": epoch(m.epoch), "bytes": big(m.bytes),
        }),
        Message::Join(m) => json!({
            "session": session(m.session), "epoch": epoch(m.epoch), "group": group(m.group),
        }),
        Message::Fault(m) => {
            let (about, of) = match m.scope {
                FaultScope::Attachment(subject, epoch) => (subject, epoch),
                FaultScope::Link => (Subject::Session(SessionId::default()), Epoch::default()),
            };
            json!({
                "attachment": m.scope != FaultScope::Link, "subject": subject(about), "epoch": epoch(of),
                "rule": m.rule.number(), "text": m.text,
            })
        }
        _ => Value::Null,
    }
}
