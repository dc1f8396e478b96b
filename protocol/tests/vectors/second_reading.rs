//! Messages read by SPEC.md's layout tables alone: what the codec says must be the same.

use holdfast_protocol::MessageType;
use serde_json::{Map, Value, json};

use crate::layout::{Field, Shape, number, pieces};
use crate::view;

const PHASES: [&str; 4] = ["loading", "inert", "active", "frozen"];

/// The message as JSON, read by the layout alone.
pub fn read(of: MessageType, message: &[u8]) -> Value {
    let layout = crate::tables::layout(of);
    let mut fields = Map::from_iter([("type".to_owned(), json!(of.name()))]);
    for flag in layout.flags.iter().filter(|flag| flag.name != "group") {
        fields.insert(flag.name.to_owned(), json!(message[5] & flag.bit != 0));
    }
    for (piece, field) in pieces(&layout, message)[4..].iter().zip(&layout.fields) {
        if let Some(value) = read_field(field, piece.bytes, message[5]) {
            fields.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(fields)
}

fn read_field(field: &Field, bytes: &[u8], flags: u8) -> Option<Value> {
    let value = match field.shape {
        Shape::U16 if field.name == "attachment_bytes" => return None,
        Shape::U32 if field.name == "attachment_count" => return None,
        Shape::Magic => return None,
        Shape::U16 | Shape::U32 => json!(number(bytes)),
        Shape::U64 => json!(number(bytes).to_string()),
        Shape::Id => json!(view::hex(bytes)),
        Shape::OptionalId if bytes.iter().all(|byte| *byte == 0) => Value::Null,
        Shape::OptionalId => json!(view::hex(bytes)),
        Shape::Subject if flags & 0x80 != 0 => json!({"group": view::hex(bytes)}),
        Shape::Subject => json!({"session": view::hex(bytes)}),
        Shape::Trace => {
            let (trace, span) = (view::hex(&bytes[2..18]), view::hex(&bytes[19..27]));
            json!(format!("00-{trace}-{span}-{:02x}", bytes[28]))
        }
        Shape::Choice(names) => json!(names[usize::from(bytes[0])]),
        Shape::Text => json!(String::from_utf8(bytes[2..].to_vec()).expect("UTF-8")),
        Shape::ShortBytes => json!(view::hex(&bytes[2..])),
        Shape::Rest => json!(view::hex(bytes)),
        Shape::Attachments => bytes.chunks(50).map(read_entry).collect(),
    };
    Some(value)
}

fn read_entry(entry: &[u8]) -> Value {
    let kind = if entry[48] == 1 { "group" } else { "session" };
    json!({
        "subject": {kind: view::hex(&entry[..16])},
        "epoch": number(&entry[16..24]).to_string(),
        "client_seq": number(&entry[24..32]).to_string(),
        "server_seq": number(&entry[32..40]).to_string(),
        "record_seq": number(&entry[40..48]).to_string(),
        "phase": PHASES[usize::from(entry[49])],
    })
}
