//! The layout of every message as data: from it come SPEC.md's tables and dumps. The tests read messages by it too,
//! sharing nothing with the codec, so that the tables can't say what the codec doesn't do.

use std::fmt::Write;

use holdfast_protocol::MessageType;

/// How a field stands on the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Magic,
    U16,
    U32,
    U64,
    Id,
    /// All zero: none.
    OptionalId,
    /// An id whose kind the GROUP flag tells.
    Subject,
    Trace,
    /// One byte, named values from 0 on.
    Choice(&'static [&'static str]),
    /// `u16` length, then UTF-8.
    Text,
    /// `u16` length, then bytes.
    ShortBytes,
    /// Everything up to the body's end.
    Rest,
    /// `attachment_count` entries of `attachment_bytes` each.
    Attachments,
}

pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub says: &'static str,
}

pub struct Flag {
    pub bit: u8,
    pub name: &'static str,
    pub says: &'static str,
}

pub struct Layout {
    pub flags: Vec<Flag>,
    pub fields: Vec<Field>,
}

impl Shape {
    /// Length in the fixed part; `None` in the variable part.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Magic | Self::U64 => Some(8),
            Self::Choice(_) => Some(1),
            Self::U16 => Some(2),
            Self::U32 => Some(4),
            Self::Id | Self::OptionalId | Self::Subject => Some(16),
            Self::Trace => Some(29),
            Self::Text | Self::ShortBytes | Self::Rest | Self::Attachments => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Magic => "`HOLDFAST`",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Id => "id",
            Self::OptionalId => "id or zeros",
            Self::Subject => "subject id",
            Self::Trace => "trace",
            Self::Choice(_) => "u8",
            Self::Text => "string",
            Self::ShortBytes => "u16 length, bytes",
            Self::Rest => "the rest",
            Self::Attachments => "entries",
        }
    }
}

/// A piece of a message: offset, bytes, what it is.
pub struct Piece<'a> {
    pub offset: usize,
    pub bytes: &'a [u8],
    pub label: String,
}

/// Cuts a valid message into its fields.
pub fn pieces<'a>(layout: &Layout, message: &'a [u8]) -> Vec<Piece<'a>> {
    let mut at = 0;
    let mut found = Vec::new();
    let mut take = |length: usize, label: String| {
        let bytes = &message[at..at + length];
        found.push(Piece { offset: at, bytes, label });
        at += length;
        bytes
    };
    take(4, "length".into());
    take(1, "type".into());
    take(1, "flags".into());
    take(2, "fixed length".into());
    let mut rest = message.len() - 8;
    let mut list_bytes = 0;
    for field in &layout.fields {
        let length = match field.shape {
            Shape::Text | Shape::ShortBytes => {
                let offset = message.len() - rest;
                2 + usize::from(u16::from_le_bytes([message[offset], message[offset + 1]]))
            }
            Shape::Rest => rest,
            Shape::Attachments => list_bytes,
            fixed => fixed.bytes().expect("a fixed field"),
        };
        let bytes = take(length, field.name.to_owned());
        match field.name {
            "attachment_count" => list_bytes = number(bytes) as usize,
            "attachment_bytes" => list_bytes *= number(bytes) as usize,
            _ => {}
        }
        rest -= length;
    }
    assert_eq!(rest, 0, "bytes that no field of the layout explains");
    found
}

/// A little-endian number of any width.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The section of SPEC.md with one table a message.
pub fn markdown() -> String {
    let mut text = String::new();
    for of in MessageType::ALL {
        let layout = crate::tables::layout(of);
        let _ = writeln!(text, "### {} (type {})\n", of.name(), of.number());
        let flags: Vec<String> = layout
            .flags
            .iter()
            .map(|flag| format!("`{:#04x}` `{}`: {}", flag.bit, flag.name, flag.says))
            .collect();
        if !flags.is_empty() {
            let _ = writeln!(text, "Flags: {}.\n", flags.join("; "));
        }
        if layout.fields.is_empty() {
            text.push_str("No fields; fixed length 0.\n\n");
            continue;
        }
        text.push_str("| offset | size | field | form | says |\n|---|---|---|---|---|\n");
        text.push_str(&rows(&layout));
        let (fixed, least) = (of.fixed_bytes(), of.least_fixed_bytes());
        let from = if least < fixed { format!("; read from {least} on") } else { String::new() };
        let _ = writeln!(text, "\nFixed length {fixed}{from}.\n");
    }
    text
}

fn rows(layout: &Layout) -> String {
    let mut text = String::new();
    let mut offset = 8;
    for field in &layout.fields {
        let (name, form, says) = (field.name, field.shape.name(), field.says);
        let (place, size) = match field.shape.bytes() {
            Some(size) => (offset.to_string(), size.to_string()),
            None => ("then".to_owned(), "var".to_owned()),
        };
        offset += field.shape.bytes().unwrap_or(0);
        let values = match field.shape {
            Shape::Choice(names) => {
                let named: Vec<String> =
                    names.iter().enumerate().map(|(value, name)| format!("{value} `{name}`")).collect();
                format!(": {}", named.join(", "))
            }
            _ => String::new(),
        };
        let _ = writeln!(text, "| {place} | {size} | `{name}` | {form} | {says}{values} |");
    }
    text
}
