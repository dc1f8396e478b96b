//! Values -> bytes. Field order here is field order on the link.

use std::num::NonZeroU32;

use super::{DATA_OVERHEAD_BYTES, HEADER_BYTES, MAGIC, NOT_TOLD, flags};
use crate::message::{
    Ack, Attach, Close, Data, Fault, FaultScope, Freeze, Hello, Message, MessageType, Record, State, Subject,
    Thaw, Welcome,
};
use crate::trace::TraceContext;

/// Appends the message's bytes.
///
/// Strings (and the proof) longer than 65,535 bytes are cut, at a character's boundary.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Data(data) => encode_data(data, out),
        Message::Ack(ack) => encode_ack(ack, out),
        Message::Hello(hello) => encode_hello(hello, out),
        Message::Welcome(welcome) => encode_welcome(welcome, out),
        Message::Attach(attach) => encode_attach(attach, out),
        Message::Record(record) => encode_record(record, out),
        Message::Freeze(freeze) => encode_freeze(freeze, out),
        Message::Thaw(thaw) => encode_thaw(thaw, out),
        Message::State(state) => encode_state(state, out),
        Message::Close(close) => encode_close(close, out),
        Message::Fault(fault) => encode_fault(fault, out),
        other => encode_short(other, out),
    }
}

/// Appends a DATA message: what `encode` does, without the detour over [`Message`].
#[inline]
pub fn encode_data(data: &Data<'_>, out: &mut Vec<u8>) {
    out.reserve(DATA_OVERHEAD_BYTES + data.frame.len());
    out.extend_from_slice(&encode_data_head(data));
    out.extend_from_slice(data.frame);
}

/// All of a DATA message but the frame, which must follow: for writers that gather.
#[must_use]
#[inline]
pub fn encode_data_head(data: &Data<'_>) -> [u8; DATA_OVERHEAD_BYTES] {
    const FIXED: usize = MessageType::Data.fixed_bytes();
    let mut head = [0; DATA_OVERHEAD_BYTES];
    head[0..4].copy_from_slice(&length_field(FIXED + data.frame.len()));
    head[4] = MessageType::Data.number();
    let (group, id) = subject_bits(data.subject);
    head[5] = flag(data.again, flags::AGAIN) | group;
    head[6..8].copy_from_slice(&(FIXED as u16).to_le_bytes());
    head[8..24].copy_from_slice(&id);
    head[24..32].copy_from_slice(&data.epoch.0.to_le_bytes());
    head[32..40].copy_from_slice(&data.seq.0.to_le_bytes());
    head[40..48].copy_from_slice(&data.ack.0.to_le_bytes());
    head[48..56].copy_from_slice(&data.record.0.to_le_bytes());
    head[56..].copy_from_slice(&data.trace.to_bytes());
    head
}

fn encode_hello(hello: &Hello<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::begin(out, MessageType::Hello, 0);
    writer.put(&MAGIC);
    writer.u16(hello.min_version);
    writer.u16(hello.max_version);
    writer.put(&hello.instance.0);
    writer.u16(hello.worker);
    writer.u64(hello.generation);
    writer.u32(hello.max_frame_bytes);
    writer.u32(hello.liveness_ms);
    writer.u64(hello.capabilities);
    writer.end_fixed();
    writer.string(hello.proxy);
    writer.string(hello.service);
    writer.short_bytes(hello.proof);
    writer.end();
}

fn encode_welcome(welcome: &Welcome<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::begin(out, MessageType::Welcome, flag(welcome.draining, flags::DRAINING));
    writer.put(&MAGIC);
    writer.u16(welcome.version);
    writer.put(&welcome.instance.0);
    writer.u64(welcome.generation);
    writer.u32(welcome.max_frame_bytes);
    writer.u32(welcome.client_window_bytes);
    writer.u64(welcome.state_credit_bytes);
    writer.u32(welcome.orphan_deadline_ms);
    writer.u64(welcome.capabilities);
    writer.u32(u32::try_from(welcome.attachments.len()).unwrap_or(u32::MAX));
    writer.u16(u16::try_from(welcome.attachments.entry_bytes()).unwrap_or(u16::MAX));
    writer.end_fixed();
    writer.string(welcome.backend_version);
    writer.string(welcome.logic);
    writer.string(welcome.writes_format);
    writer.string(welcome.reads_formats);
    writer.put(welcome.attachments.bytes());
    writer.end();
}

fn encode_attach(attach: &Attach<'_>, out: &mut Vec<u8>) {
    let bits = flag(attach.lost, flags::LOST);
    let mut writer = Writer::begin_subject(out, MessageType::Attach, bits, attach.subject);
    writer.u64(attach.epoch.0);
    writer.u64(attach.client_seq.0);
    writer.u64(attach.server_seq.0);
    writer.u64(attach.record_seq.0);
    writer.u64(attach.state_total_bytes);
    writer.u32(attach.server_window_bytes);
    writer.trace(&attach.trace);
    writer.put(&attach.group.unwrap_or_default().0);
    writer.u8(attach.mode as u8);
    writer.u8(attach.recovery as u8);
    writer.u64(attach.opened_us);
    writer.end_fixed();
    writer.string(attach.client);
    writer.string(attach.service);
    writer.string(attach.format);
    writer.end();
}

fn encode_record(record: &Record<'_>, out: &mut Vec<u8>) {
    let bits = flag(record.again, flags::AGAIN);
    let mut writer = Writer::begin_subject(out, MessageType::Record, bits, record.subject);
    writer.u64(record.epoch.0);
    writer.u64(record.seq.0);
    writer.u64(record.after_client_seq.0);
    writer.put(&record.member.unwrap_or_default().0);
    writer.u8(record.kind as u8);
    writer.end_fixed();
    writer.put(record.bytes);
    writer.end();
}

#[inline]
fn encode_ack(ack: &Ack, out: &mut Vec<u8>) {
    let mut writer = Writer::begin_subject(out, MessageType::Ack, 0, ack.subject);
    writer.u64s(&[ack.epoch.0, ack.data.0, ack.record.0]);
    writer.end();
}

fn encode_freeze(freeze: &Freeze, out: &mut Vec<u8>) {
    let mut writer = Writer::begin_subject(out, MessageType::Freeze, 0, freeze.subject);
    writer.u64s(&[freeze.epoch.0, freeze.client_seq.0, freeze.credit_bytes]);
    writer.trace(&freeze.trace);
    writer.end();
}

fn encode_thaw(thaw: &Thaw, out: &mut Vec<u8>) {
    let mut writer = Writer::begin_subject(out, MessageType::Thaw, 0, thaw.subject);
    let seqs = [thaw.client_seq.0, thaw.server_seq.0, thaw.record_seq.0];
    writer.u64s(&[thaw.old_epoch.0, thaw.epoch.0]);
    writer.u64s(&seqs);
    writer.u32(thaw.server_window_bytes);
    writer.trace(&thaw.trace);
    writer.end();
}

fn encode_state(state: &State<'_>, out: &mut Vec<u8>) {
    let bits = flag(state.is_final, flags::FINAL);
    let mut writer = Writer::begin_subject(out, MessageType::State, bits, state.subject);
    writer.u64s(&[state.epoch.0, state.total_bytes, state.offset_bytes]);
    writer.u64s(&[state.client_seq.0, state.server_seq.0, state.record_seq.0]);
    writer.u32(state.members);
    writer.end_fixed();
    writer.put(state.chunk);
    writer.end();
}

fn encode_close(close: &Close<'_>, out: &mut Vec<u8>) {
    let bits = flag(close.again, flags::AGAIN) | flag(close.half, flags::HALF);
    let mut writer = Writer::begin(out, MessageType::Close, bits);
    writer.put(&close.session.0);
    writer.u64s(&[close.epoch.0, close.seq.0, close.ack.0, close.record.0]);
    writer.end_fixed();
    writer.string(close.reason);
    writer.end();
}

fn encode_fault(fault: &Fault<'_>, out: &mut Vec<u8>) {
    let mut writer = match fault.scope {
        FaultScope::Link => {
            let mut writer = Writer::begin(out, MessageType::Fault, 0);
            writer.put(&[0; 24]);
            writer
        }
        FaultScope::Attachment(subject, epoch) => {
            let mut writer = Writer::begin_subject(out, MessageType::Fault, flags::ATTACHMENT, subject);
            writer.u64(epoch.0);
            writer
        }
    };
    writer.u16(fault.rule.number());
    writer.end_fixed();
    writer.string(fault.text);
    writer.end();
}

/// The messages that are a few numbers, and at most one string.
fn encode_short(message: &Message<'_>, out: &mut Vec<u8>) {
    let kind = message.message_type();
    let subject = |out, bits, subject, numbers: &[u64], text: Option<&str>| {
        let mut writer = Writer::begin_subject(out, kind, bits, subject);
        writer.u64s(numbers);
        writer.end_fixed();
        text.into_iter().for_each(|text| writer.string(text));
        writer.end();
    };
    match message {
        Message::Attached(m) => {
            subject(out, 0, m.subject, &[m.epoch.0, m.client_seq.0, m.server_seq.0], None);
        }
        Message::Refused(m) => {
            subject(out, flag(m.retry, flags::RETRY), m.subject, &[m.epoch.0], Some(m.reason));
        }
        Message::Start(m) => subject(out, 0, m.subject, &[m.epoch.0], None),
        Message::Release(m) => subject(out, 0, m.subject, &[m.epoch.0], None),
        Message::Checkpoint(m) => subject(out, 0, m.subject, &[m.epoch.0, m.credit_bytes], None),
        Message::Credit(m) => subject(out, 0, m.subject, &[m.epoch.0, m.bytes], None),
        other => encode_bare(other, out),
    }
}

/// The messages that have no subject, or always a session.
fn encode_bare(message: &Message<'_>, out: &mut Vec<u8>) {
    let bits = match message {
        Message::Drain(drain) => flag(drain.returns, flags::RETURNS),
        _ => 0,
    };
    let mut writer = Writer::begin(out, message.message_type(), bits);
    match message {
        Message::Join(m) => {
            writer.put(&m.session.0);
            writer.u64(m.epoch.0);
            writer.put(&m.group.0);
        }
        Message::Drain(m) => {
            writer.u32(m.deadline_ms);
            writer.end_fixed();
            writer.string(m.reason);
        }
        Message::Ping(m) => writer.u64(m.nonce),
        Message::Pong(m) => {
            writer.u64(m.nonce);
            writer.u32(m.attachments);
            writer.u32(m.capacity.map_or(0, NonZeroU32::get));
            writer.u16(m.load_permille.unwrap_or(NOT_TOLD));
        }
        _ => {}
    }
    writer.end();
}

#[inline]
fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// The flag and the id of a subject.
#[inline]
fn subject_bits(subject: Subject) -> (u8, [u8; 16]) {
    match subject {
        Subject::Session(id) => (0, id.0),
        Subject::Group(id) => (flags::GROUP, id.0),
    }
}

/// A length that doesn't fit is written as the largest, which every receiver refuses as too large.
#[inline]
fn length_field(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Appends one message; lengths are patched in at the end.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fixed_bytes: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    fn begin(out: &'a mut Vec<u8>, message: MessageType, bits: u8) -> Self {
        let start = out.len();
        let fixed_bytes = message.fixed_bytes();
        out.reserve(HEADER_BYTES + fixed_bytes);
        let [f0, f1] = (fixed_bytes as u16).to_le_bytes();
        out.extend_from_slice(&[0, 0, 0, 0, message.number(), bits, f0, f1]);
        Self { out, start, fixed_bytes }
    }

    #[inline]
    fn begin_subject(out: &'a mut Vec<u8>, message: MessageType, bits: u8, subject: Subject) -> Self {
        let (group, id) = subject_bits(subject);
        let mut writer = Self::begin(out, message, bits | group);
        writer.put(&id);
        writer
    }

    /// Every byte of the fixed part has been written.
    fn end_fixed(&self) {
        debug_assert_eq!(self.out.len() - self.start, HEADER_BYTES + self.fixed_bytes, "fixed part");
    }

    #[inline]
    fn end(self) {
        let length = length_field(self.out.len() - self.start - HEADER_BYTES);
        debug_assert!(self.out.len() - self.start >= HEADER_BYTES + self.fixed_bytes, "fixed part");
        self.out[self.start..self.start + 4].copy_from_slice(&length);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn u8(&mut self, number: u8) {
        self.out.push(number);
    }

    fn u16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    #[inline]
    fn u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    #[inline]
    fn u64s(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|&number| self.u64(number));
    }

    fn trace(&mut self, trace: &TraceContext) {
        self.put(&trace.to_bytes());
    }

    fn string(&mut self, text: &str) {
        let end = text.floor_char_boundary(usize::from(u16::MAX));
        self.short_bytes(&text.as_bytes()[..end]);
    }

    fn short_bytes(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(length);
        self.put(&bytes[..usize::from(length)]);
    }
}
