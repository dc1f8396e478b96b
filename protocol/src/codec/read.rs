//! Bytes -> values. Field order here is field order on the link.

mod fields;

use std::num::NonZeroU32;

use super::header::Header;
use super::{DecodeError, NOT_TOLD, flags};
use crate::message::{
    Ack, Attach, AttachMode, Attached, Attachments, BadEntry, Checkpoint, Close, Credit, Data, Drain, Fault,
    FaultScope, Freeze, Hello, Join, Message, Ping, Pong, Record, RecordKind, Recovery, Refused, Release,
    Rule, Start, State, Thaw, Welcome,
};
use fields::Fields;

use crate::message::MessageType as Type;

/// Reads the message of a checked header from its two parts.
#[inline]
pub fn read<'a>(header: &Header, fixed: &'a [u8], variable: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let mut fields = Fields::new(header, fixed, variable);
    let fields = &mut fields;
    match header.message_type {
        Type::Data => read_data(fields).map(Message::Data),
        Type::Ack => read_ack(fields).map(Message::Ack),
        Type::Hello => read_hello(fields).map(Message::Hello),
        Type::Welcome => read_welcome(fields).map(Message::Welcome),
        Type::Attach => read_attach(fields).map(Message::Attach),
        Type::Attached => read_attached(fields).map(Message::Attached),
        Type::Refused => read_refused(fields).map(Message::Refused),
        Type::Start => {
            let (subject, epoch) = (fields.subject()?, fields.epoch("epoch")?);
            Ok(Message::Start(Start { subject, epoch }))
        }
        Type::Record => read_record(fields).map(Message::Record),
        Type::Freeze => read_freeze(fields).map(Message::Freeze),
        Type::Thaw => read_thaw(fields).map(Message::Thaw),
        Type::Release => {
            let (subject, epoch) = (fields.subject()?, fields.epoch("epoch")?);
            Ok(Message::Release(Release { subject, epoch }))
        }
        Type::State => read_state(fields).map(Message::State),
        Type::Checkpoint => read_checkpoint(fields).map(Message::Checkpoint),
        Type::Credit => read_credit(fields).map(Message::Credit),
        Type::Join => read_join(fields).map(Message::Join),
        Type::Drain => read_drain(fields).map(Message::Drain),
        Type::Undrain => Ok(Message::Undrain),
        Type::Close => read_close(fields).map(Message::Close),
        Type::Ping => Ok(Message::Ping(Ping { nonce: fields.u64("nonce")? })),
        Type::Pong => Ok(Message::Pong(Pong {
            nonce: fields.u64("nonce")?,
            attachments: fields.u32("attachments")?,
            capacity: fields.later().map(u32::from_le_bytes).and_then(NonZeroU32::new),
            load_permille: fields.later().map(u16::from_le_bytes).filter(|&load| load != NOT_TOLD),
        })),
        Type::Fault => read_fault(fields).map(Message::Fault),
    }
}

#[inline]
fn read_data<'a>(fields: &mut Fields<'a, '_>) -> Result<Data<'a>, DecodeError> {
    Ok(Data {
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        seq: fields.seq("seq")?,
        ack: fields.seq("ack")?,
        record: fields.seq("record")?,
        trace: fields.trace("trace")?,
        again: fields.has(flags::AGAIN),
        frame: fields.rest(),
    })
}

#[inline]
fn read_ack(fields: &mut Fields<'_, '_>) -> Result<Ack, DecodeError> {
    Ok(Ack {
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        data: fields.seq("data")?,
        record: fields.seq("record")?,
    })
}

fn read_hello<'a>(fields: &mut Fields<'a, '_>) -> Result<Hello<'a>, DecodeError> {
    // The magic was checked before the message was whole.
    fields.skip_magic()?;
    Ok(Hello {
        min_version: fields.u16("min_version")?,
        max_version: fields.u16("max_version")?,
        instance: fields.instance("instance")?,
        worker: fields.u16("worker")?,
        generation: fields.u64("generation")?,
        max_frame_bytes: fields.u32("max_frame_bytes")?,
        liveness_ms: fields.u32("liveness_ms")?,
        capabilities: fields.u64("capabilities")?,
        proxy: fields.string("proxy")?,
        service: fields.string("service")?,
        proof: fields.short_bytes("proof")?,
    })
}

fn read_welcome<'a>(fields: &mut Fields<'a, '_>) -> Result<Welcome<'a>, DecodeError> {
    fields.skip_magic()?;
    let mut welcome = Welcome {
        draining: fields.has(flags::DRAINING),
        version: fields.u16("version")?,
        instance: fields.instance("instance")?,
        generation: fields.u64("generation")?,
        max_frame_bytes: fields.u32("max_frame_bytes")?,
        client_window_bytes: fields.u32("client_window_bytes")?,
        state_credit_bytes: fields.u64("state_credit_bytes")?,
        orphan_deadline_ms: fields.u32("orphan_deadline_ms")?,
        capabilities: fields.u64("capabilities")?,
        backend_version: "",
        logic: "",
        writes_format: "",
        reads_formats: "",
        attachments: Attachments::default(),
    };
    let (count, entry_bytes) = (fields.u32("attachment_count")?, fields.u16("attachment_bytes")?);
    welcome.backend_version = fields.string("backend_version")?;
    welcome.logic = fields.string("logic")?;
    welcome.writes_format = fields.string("writes_format")?;
    welcome.reads_formats = fields.string("reads_formats")?;
    let (bytes, entry_bytes) = fields.list("attachments", count, entry_bytes)?;
    welcome.attachments = Attachments::checked(bytes, entry_bytes)
        .map_err(|BadEntry { field, value }| fields.bad_enum(field, value.into()))?;
    Ok(welcome)
}

fn read_attach<'a>(fields: &mut Fields<'a, '_>) -> Result<Attach<'a>, DecodeError> {
    Ok(Attach {
        lost: fields.has(flags::LOST),
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        client_seq: fields.seq("client_seq")?,
        server_seq: fields.seq("server_seq")?,
        record_seq: fields.seq("record_seq")?,
        state_total_bytes: fields.u64("state_total_bytes")?,
        server_window_bytes: fields.u32("server_window_bytes")?,
        trace: fields.trace("trace")?,
        group: fields.optional_group("group")?,
        mode: fields.choice("mode", AttachMode::from_number)?,
        recovery: fields.choice("recovery", Recovery::from_number)?,
        opened_us: fields.u64("opened_us")?,
        client: fields.string("client")?,
        service: fields.string("service")?,
        format: fields.string("format")?,
    })
}

fn read_attached(fields: &mut Fields<'_, '_>) -> Result<Attached, DecodeError> {
    Ok(Attached {
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        client_seq: fields.seq("client_seq")?,
        server_seq: fields.seq("server_seq")?,
    })
}

fn read_refused<'a>(fields: &mut Fields<'a, '_>) -> Result<Refused<'a>, DecodeError> {
    Ok(Refused {
        retry: fields.has(flags::RETRY),
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        reason: fields.string("reason")?,
    })
}

fn read_record<'a>(fields: &mut Fields<'a, '_>) -> Result<Record<'a>, DecodeError> {
    Ok(Record {
        again: fields.has(flags::AGAIN),
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        seq: fields.seq("seq")?,
        after_client_seq: fields.seq("after_client_seq")?,
        member: fields.optional_session("member")?,
        kind: fields.choice("kind", RecordKind::from_number)?,
        bytes: fields.rest(),
    })
}

fn read_freeze(fields: &mut Fields<'_, '_>) -> Result<Freeze, DecodeError> {
    Ok(Freeze {
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        client_seq: fields.seq("client_seq")?,
        credit_bytes: fields.u64("credit_bytes")?,
        trace: fields.trace("trace")?,
    })
}

fn read_thaw(fields: &mut Fields<'_, '_>) -> Result<Thaw, DecodeError> {
    Ok(Thaw {
        subject: fields.subject()?,
        old_epoch: fields.epoch("old_epoch")?,
        epoch: fields.epoch("epoch")?,
        client_seq: fields.seq("client_seq")?,
        server_seq: fields.seq("server_seq")?,
        record_seq: fields.seq("record_seq")?,
        server_window_bytes: fields.u32("server_window_bytes")?,
        trace: fields.trace("trace")?,
    })
}

fn read_state<'a>(fields: &mut Fields<'a, '_>) -> Result<State<'a>, DecodeError> {
    Ok(State {
        is_final: fields.has(flags::FINAL),
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        total_bytes: fields.u64("total_bytes")?,
        offset_bytes: fields.u64("offset_bytes")?,
        client_seq: fields.seq("client_seq")?,
        server_seq: fields.seq("server_seq")?,
        record_seq: fields.seq("record_seq")?,
        members: fields.u32("members")?,
        chunk: fields.rest(),
    })
}

fn read_checkpoint(fields: &mut Fields<'_, '_>) -> Result<Checkpoint, DecodeError> {
    Ok(Checkpoint {
        subject: fields.subject()?,
        epoch: fields.epoch("epoch")?,
        credit_bytes: fields.u64("credit_bytes")?,
    })
}

fn read_credit(fields: &mut Fields<'_, '_>) -> Result<Credit, DecodeError> {
    Ok(Credit { subject: fields.subject()?, epoch: fields.epoch("epoch")?, bytes: fields.u64("bytes")? })
}

fn read_join(fields: &mut Fields<'_, '_>) -> Result<Join, DecodeError> {
    Ok(Join {
        session: fields.session("session")?,
        epoch: fields.epoch("epoch")?,
        group: fields.group("group")?,
    })
}

fn read_drain<'a>(fields: &mut Fields<'a, '_>) -> Result<Drain<'a>, DecodeError> {
    Ok(Drain {
        returns: fields.has(flags::RETURNS),
        deadline_ms: fields.u32("deadline_ms")?,
        reason: fields.string("reason")?,
    })
}

fn read_close<'a>(fields: &mut Fields<'a, '_>) -> Result<Close<'a>, DecodeError> {
    Ok(Close {
        half: fields.has(flags::HALF),
        again: fields.has(flags::AGAIN),
        session: fields.session("session")?,
        epoch: fields.epoch("epoch")?,
        seq: fields.seq("seq")?,
        ack: fields.seq("ack")?,
        record: fields.seq("record")?,
        reason: fields.string("reason")?,
    })
}

fn read_fault<'a>(fields: &mut Fields<'a, '_>) -> Result<Fault<'a>, DecodeError> {
    let (subject, epoch) = (fields.subject()?, fields.epoch("epoch")?);
    let scope =
        if fields.has(flags::ATTACHMENT) { FaultScope::Attachment(subject, epoch) } else { FaultScope::Link };
    Ok(Fault { scope, rule: Rule::from_number(fields.u16("rule")?), text: fields.string("text")? })
}
