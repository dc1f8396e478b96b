//! A cursor over the two parts of a message; each read is checked against what is left.

use crate::codec::header::Header;
use crate::codec::{DecodeError, MAGIC, flags};
use crate::ids::{Epoch, GroupId, InstanceId, Seq, SessionId};
use crate::message::{ATTACHMENT_ENTRY_BYTES, Subject};
use crate::trace::TraceContext;

pub struct Fields<'a, 'h> {
    header: &'h Header,
    fixed: &'a [u8],
    variable: &'a [u8],
}

impl<'a, 'h> Fields<'a, 'h> {
    #[inline]
    pub fn new(header: &'h Header, fixed: &'a [u8], variable: &'a [u8]) -> Self {
        Self { header, fixed, variable }
    }

    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.header.has(flag)
    }

    #[inline]
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.fixed.split_first_chunk::<N>() else {
            return Err(self.truncated(field, N, self.fixed.len()));
        };
        self.fixed = rest;
        Ok(*taken)
    }

    /// A field that a shorter fixed part lacks, or has a part of; then it lacks those that follow, too.
    pub fn later<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.fixed.split_at_checked(N).unwrap_or_default();
        self.fixed = rest;
        taken.try_into().ok()
    }

    pub fn skip_magic(&mut self) -> Result<(), DecodeError> {
        self.take::<{ MAGIC.len() }>("magic").map(drop)
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.take(field).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.take(field).map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.take(field).map(u64::from_le_bytes)
    }

    #[inline]
    pub fn epoch(&mut self, field: &'static str) -> Result<Epoch, DecodeError> {
        self.u64(field).map(Epoch)
    }

    #[inline]
    pub fn seq(&mut self, field: &'static str) -> Result<Seq, DecodeError> {
        self.u64(field).map(Seq)
    }

    #[inline]
    pub fn session(&mut self, field: &'static str) -> Result<SessionId, DecodeError> {
        self.take(field).map(SessionId)
    }

    pub fn group(&mut self, field: &'static str) -> Result<GroupId, DecodeError> {
        self.take(field).map(GroupId)
    }

    pub fn instance(&mut self, field: &'static str) -> Result<InstanceId, DecodeError> {
        self.take(field).map(InstanceId)
    }

    /// All zero says "none".
    pub fn optional_group(&mut self, field: &'static str) -> Result<Option<GroupId>, DecodeError> {
        self.group(field).map(|id| (id != GroupId::default()).then_some(id))
    }

    /// All zero says "none".
    pub fn optional_session(&mut self, field: &'static str) -> Result<Option<SessionId>, DecodeError> {
        self.session(field).map(|id| (id != SessionId::default()).then_some(id))
    }

    #[inline]
    pub fn subject(&mut self) -> Result<Subject, DecodeError> {
        let id = self.take("subject")?;
        Ok(if self.has(flags::GROUP) { Subject::Group(GroupId(id)) } else { Subject::Session(SessionId(id)) })
    }

    #[inline]
    pub fn trace(&mut self, field: &'static str) -> Result<TraceContext, DecodeError> {
        self.take(field).map(|bytes| TraceContext::from_bytes(&bytes))
    }

    pub fn choice<T>(&mut self, field: &'static str, of: fn(u8) -> Option<T>) -> Result<T, DecodeError> {
        let [number] = self.take(field)?;
        of(number).ok_or_else(|| self.bad_enum(field, number.into()))
    }

    /// A `u16` length and as many bytes.
    pub fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((length, rest)) = self.variable.split_first_chunk() else {
            return Err(self.truncated(field, 2, self.variable.len()));
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let Some((bytes, rest)) = rest.split_at_checked(length) else {
            return Err(self.truncated(field, length, rest.len()));
        };
        self.variable = rest;
        Ok(bytes)
    }

    pub fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.short_bytes(field)?;
        let message = self.header.message_type;
        str::from_utf8(bytes).map_err(|error| DecodeError::BadUtf8 {
            message,
            field,
            at: error.valid_up_to(),
        })
    }

    /// `count` entries of `entry_bytes` each; also the length of one.
    pub fn list(
        &mut self,
        field: &'static str,
        count: u32,
        entry_bytes: u16,
    ) -> Result<(&'a [u8], usize), DecodeError> {
        let entry_bytes = usize::from(entry_bytes);
        if count > 0 && entry_bytes < ATTACHMENT_ENTRY_BYTES {
            return Err(self.truncated(field, ATTACHMENT_ENTRY_BYTES, entry_bytes));
        }
        let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(entry_bytes);
        let Some((bytes, rest)) = self.variable.split_at_checked(length) else {
            return Err(self.truncated(field, length, self.variable.len()));
        };
        self.variable = rest;
        Ok((bytes, entry_bytes))
    }

    /// Everything after the fixed part.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.variable)
    }

    pub fn bad_enum(&self, field: &'static str, value: u64) -> DecodeError {
        DecodeError::BadEnum { message: self.header.message_type, field, value }
    }

    #[cold]
    fn truncated(&self, field: &'static str, expected: usize, left: usize) -> DecodeError {
        DecodeError::Truncated { message: self.header.message_type, field, expected, left }
    }
}
