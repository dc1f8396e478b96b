//! The fields and flags of every message, in their order on the link.

use holdfast_protocol::MessageType;

use crate::layout::Shape::*;
use crate::layout::{Field, Flag, Layout, Shape};

fn field(name: &'static str, shape: Shape, says: &'static str) -> Field {
    Field { name, shape, says }
}

fn flag(bit: u8, name: &'static str, says: &'static str) -> Flag {
    Flag { bit, name, says }
}

fn group() -> Flag {
    flag(0x80, "group", "the subject is a group")
}

fn again() -> Flag {
    flag(0x01, "again", "resent, or what an earlier attachment was given")
}

fn subject() -> Field {
    field("subject", Subject, "session, or group")
}

fn session() -> Field {
    field("session", Id, "session")
}

fn epoch() -> Field {
    field("epoch", U64, "epoch of the attachment")
}

fn trace(says: &'static str) -> Field {
    field("trace", Trace, says)
}

pub fn layout(of: MessageType) -> Layout {
    let (flags, fields) = match of {
        MessageType::Hello | MessageType::Welcome | MessageType::Attach => opening(of),
        MessageType::Data | MessageType::Record | MessageType::Ack | MessageType::Close => traffic(of),
        MessageType::Freeze | MessageType::Thaw | MessageType::State => moving(of),
        _ => short(of),
    };
    Layout { flags, fields }
}

fn opening(of: MessageType) -> (Vec<Flag>, Vec<Field>) {
    match of {
        MessageType::Hello => (vec![], hello()),
        MessageType::Welcome => (vec![flag(0x01, "draining", "the backend's own drain runs")], welcome()),
        _ => (vec![flag(0x01, "lost", "an earlier attachment's state could not be kept"), group()], attach()),
    }
}

fn hello() -> Vec<Field> {
    vec![
        field("magic", Magic, "the 8 ASCII bytes"),
        field("min_version", U16, "lowest version the proxy speaks"),
        field("max_version", U16, "highest version the proxy speaks"),
        field("instance", Id, "this run of the proxy"),
        field("worker", U16, "worker of the proxy"),
        field("generation", U64, "grows with each connection of this worker to this backend"),
        field("max_frame_bytes", U32, "largest frame taken from the backend"),
        field("liveness_ms", U32, "silence after which the proxy calls the backend gone"),
        field("capabilities", U64, "optional abilities, section 13"),
        field("proxy", Text, "the proxy's id, for logs"),
        field("service", Text, "the service whose sessions this link brings"),
        field("proof", ShortBytes, "proof of the shared secret; empty: none"),
    ]
}

fn welcome() -> Vec<Field> {
    vec![
        field("magic", Magic, "the 8 ASCII bytes"),
        field("version", U16, "the version that both speak from here on"),
        field("instance", Id, "this run of the backend"),
        field("generation", U64, "the HELLO's"),
        field("max_frame_bytes", U32, "largest frame taken from the proxy"),
        field("client_window_bytes", U32, "client window of every session, section 7"),
        field("state_credit_bytes", U64, "STATE bytes that each ATTACH may bring before a CREDIT"),
        field("orphan_deadline_ms", U32, "how long attachments outlive a lost link"),
        field("capabilities", U64, "those of the HELLO's that the backend has too"),
        field("attachment_count", U32, "entries in `attachments`"),
        field("attachment_bytes", U16, "length of one entry; 50 in version 1, never less"),
        field("backend_version", Text, "the game's build, as the operator names it"),
        field("logic", Text, "what must be equal for a sure replay; usually the version"),
        field("writes_format", Text, "name of the state format written"),
        field("reads_formats", Text, "names of the state formats read, separated by commas"),
        field("attachments", Attachments, "what this worker has here, below"),
    ]
}

fn attach() -> Vec<Field> {
    vec![
        subject(),
        epoch(),
        field("client_seq", U64, "last client frame that the state covers"),
        field("server_seq", U64, "last server frame that the proxy has; the next one is this plus one"),
        field("record_seq", U64, "last record of the journal"),
        field("state_total_bytes", U64, "size of the state that follows; 0 unless mode is `state`"),
        field("server_window_bytes", U32, "server bytes that may be sent before the next ACK"),
        trace("trace of the handoff"),
        field("group", OptionalId, "the group that the session belongs to"),
        field("mode", Choice(&["fresh", "state", "resume"]), "what it starts from"),
        field(
            "recovery",
            Choice(&["none", "checkpoint", "delta", "replay"]),
            "what the proxy can do for it after a crash: section 12",
        ),
        field("opened_us", U64, "when the session began, microseconds of Unix time"),
        field("client", Text, "the client's address, `ip:port`"),
        field("service", Text, "service"),
        field("format", Text, "format of the state, as its writer's WELCOME named it"),
    ]
}

fn traffic(of: MessageType) -> (Vec<Flag>, Vec<Field>) {
    let ack = || field("ack", U64, "cumulative ack of the other direction, section 6");
    let record = || field("record", U64, "to the proxy: the last record this depends on; else 0");
    match of {
        MessageType::Data => (
            vec![again(), group()],
            vec![
                subject(),
                epoch(),
                field("seq", U64, "of this direction, from 1"),
                ack(),
                record(),
                trace("trace of this frame"),
                field("frame", Rest, "one application frame, which may be empty; of a group, section 12"),
            ],
        ),
        MessageType::Record => (
            vec![again(), group()],
            vec![
                subject(),
                epoch(),
                field("seq", U64, "of the records, from 1"),
                field("after_client_seq", U64, "the client frame after which it stands"),
                field("member", OptionalId, "in a group: the member whose frame or input this is"),
                field("kind", Choice(&["input", "values", "delta"]), "section 12"),
                field("bytes", Rest, "opaque to the proxy"),
            ],
        ),
        MessageType::Ack => (
            vec![group()],
            vec![
                subject(),
                epoch(),
                field("data", U64, "last DATA or CLOSE done with, section 6; 0: none"),
                field("record", U64, "to the backend: last record kept; else 0"),
            ],
        ),
        _ => (
            vec![again(), flag(0x02, "half", "only this direction ends")],
            vec![
                session(),
                epoch(),
                field("seq", U64, "the next of this direction, as a frame's"),
                ack(),
                record(),
                field("reason", Text, "for logs and the player's support"),
            ],
        ),
    }
}

fn moving(of: MessageType) -> (Vec<Flag>, Vec<Field>) {
    match of {
        MessageType::Freeze => (
            vec![group()],
            vec![
                subject(),
                epoch(),
                field("client_seq", U64, "N: the last client frame sent"),
                field("credit_bytes", U64, "STATE bytes that may be sent"),
                trace("trace of the handoff"),
            ],
        ),
        MessageType::Thaw => (
            vec![group()],
            vec![
                subject(),
                field("old_epoch", U64, "epoch that was frozen, or asked to freeze"),
                field("epoch", U64, "epoch from here on"),
                field("client_seq", U64, "client frames are sent after this one"),
                field("server_seq", U64, "last server frame that the proxy has"),
                field("record_seq", U64, "last record that the proxy has"),
                field("server_window_bytes", U32, "server bytes that may be sent before the next ACK"),
                trace("trace of the handoff"),
            ],
        ),
        _ => (
            vec![flag(0x01, "final", "the answer to FREEZE, or its copy; else a checkpoint"), group()],
            vec![
                subject(),
                epoch(),
                field("total_bytes", U64, "size of the whole state, the same in each chunk"),
                field("offset_bytes", U64, "where this chunk stands in it"),
                field("client_seq", U64, "last client frame processed"),
                field("server_seq", U64, "last server frame sent"),
                field("record_seq", U64, "last record sent"),
                field("members", U32, "of a group: member entries at the state's start; else 0"),
                field("chunk", Rest, "at most 16,384 bytes; empty: section 7"),
            ],
        ),
    }
}

fn short(of: MessageType) -> (Vec<Flag>, Vec<Field>) {
    match of {
        MessageType::Attached => (
            vec![group()],
            vec![
                subject(),
                epoch(),
                field("client_seq", U64, "last client frame that is part of what was loaded"),
                field("server_seq", U64, "last server frame that is part of what was loaded"),
            ],
        ),
        MessageType::Refused => (
            vec![flag(0x01, "retry", "asking this backend again later may help"), group()],
            vec![subject(), epoch(), field("reason", Text, "why, for the log")],
        ),
        MessageType::Start | MessageType::Release => (vec![group()], vec![subject(), epoch()]),
        MessageType::Checkpoint => (
            vec![group()],
            vec![subject(), epoch(), field("credit_bytes", U64, "STATE bytes that may be sent")],
        ),
        MessageType::Credit => {
            (vec![group()], vec![subject(), epoch(), field("bytes", U64, "so many more STATE bytes")])
        }
        MessageType::Join => (vec![], vec![session(), epoch(), field("group", Id, "group")]),
        MessageType::Drain => (
            vec![flag(0x01, "returns", "the process comes back under the same name")],
            vec![field("deadline_ms", U32, "from now on"), field("reason", Text, "for logs")],
        ),
        MessageType::Ping => (vec![], vec![field("nonce", U64, "comes back in the PONG")]),
        MessageType::Pong => (
            vec![],
            vec![
                field("nonce", U64, "the PING's; 0: nobody asked"),
                field("attachments", U32, "backend: attachments over all its links; proxy: 0"),
                field("capacity", U32, "attachments that it is to have at most; 0: not told"),
                field("load_permille", U16, "how full it is, 1000: full, above: overloaded; 65535: not told"),
            ],
        ),
        MessageType::Fault => (
            vec![flag(0x01, "attachment", "about the attachment named; else about the link"), group()],
            vec![
                field("subject", Subject, "zeros for the link"),
                field("epoch", U64, "0 for the link"),
                field("rule", U16, "which rule was broken, section 11"),
                field("text", Text, "what was expected, and what came"),
            ],
        ),
        _ => (vec![], vec![]),
    }
}
