//! The list of attachments in a WELCOME: borrowed when read, built in a buffer when written.
//!
//! A list's bytes are checked when it is made, so going through it can't fail.

use super::Subject;
use crate::ids::{Epoch, GroupId, Seq, SessionId};

/// Length of one entry as this version writes it.
pub const ATTACHMENT_ENTRY_BYTES: usize = 50;

const KIND_SESSION: u8 = 0;
const KIND_GROUP: u8 = 1;

/// The attachments that a backend still has for this worker: a borrowed list, decoded on the way.
#[derive(Clone, Copy, Default)]
pub struct Attachments<'a> {
    /// Whole entries, each checked.
    bytes: &'a [u8],
    /// Length of an entry, never below `ATTACHMENT_ENTRY_BYTES` unless the list is empty.
    entry_bytes: usize,
}

/// One entry of [`Attachments`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttachmentEntry {
    pub subject: Subject,
    pub epoch: Epoch,
    pub phase: AttachmentPhase,
    /// Last client frame that has arrived.
    pub client_seq: Seq,
    /// Last server frame that has been sent.
    pub server_seq: Seq,
    pub record_seq: Seq,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AttachmentPhase {
    Loading = 0,
    Inert = 1,
    Active = 2,
    Frozen = 3,
}

impl AttachmentPhase {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Loading),
            1 => Some(Self::Inert),
            2 => Some(Self::Active),
            3 => Some(Self::Frozen),
            _ => None,
        }
    }
}

/// A value in an entry that means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadEntry {
    pub field: &'static str,
    pub value: u8,
}

impl<'a> Attachments<'a> {
    /// Checks each entry of `bytes`, whose length is a multiple of `entry_bytes`, itself no less than
    /// `ATTACHMENT_ENTRY_BYTES`.
    pub(crate) fn checked(bytes: &'a [u8], entry_bytes: usize) -> Result<Self, BadEntry> {
        if entry_bytes < ATTACHMENT_ENTRY_BYTES {
            return Ok(Self::default());
        }
        bytes.chunks_exact(entry_bytes).try_for_each(|entry| read_entry(entry).map(drop))?;
        Ok(Self { bytes, entry_bytes })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.entry_bytes).unwrap_or(0)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = AttachmentEntry> + 'a {
        let entry_bytes = self.entry_bytes.max(ATTACHMENT_ENTRY_BYTES);
        self.bytes.chunks_exact(entry_bytes).filter_map(|entry| read_entry(entry).ok())
    }

    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes.max(ATTACHMENT_ENTRY_BYTES)
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// By what the entries say: an entry may be longer on one side.
impl PartialEq for Attachments<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Attachments<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A list of attachments under construction.
#[derive(Clone, Default, Debug)]
pub struct AttachmentsBuf {
    bytes: Vec<u8>,
}

impl AttachmentsBuf {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, entry: AttachmentEntry) {
        let (kind, id) = match entry.subject {
            Subject::Session(id) => (KIND_SESSION, id.0),
            Subject::Group(id) => (KIND_GROUP, id.0),
        };
        self.bytes.extend_from_slice(&id);
        for number in [entry.epoch.0, entry.client_seq.0, entry.server_seq.0, entry.record_seq.0] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.extend_from_slice(&[kind, entry.phase as u8]);
    }

    #[must_use]
    pub fn as_attachments(&self) -> Attachments<'_> {
        Attachments { bytes: &self.bytes, entry_bytes: ATTACHMENT_ENTRY_BYTES }
    }
}

fn read_entry(entry: &[u8]) -> Result<AttachmentEntry, BadEntry> {
    let Some((known, _)) = entry.split_first_chunk::<ATTACHMENT_ENTRY_BYTES>() else {
        return Err(BadEntry { field: "entry", value: 0 });
    };
    let mut id = [0; 16];
    id.copy_from_slice(&known[..16]);
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&known[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let subject = match known[48] {
        KIND_SESSION => Subject::Session(SessionId(id)),
        KIND_GROUP => Subject::Group(GroupId(id)),
        value => return Err(BadEntry { field: "attachment kind", value }),
    };
    let phase = AttachmentPhase::from_number(known[49])
        .ok_or(BadEntry { field: "attachment phase", value: known[49] })?;
    Ok(AttachmentEntry {
        subject,
        epoch: Epoch(number(16)),
        phase,
        client_seq: Seq(number(24)),
        server_seq: Seq(number(32)),
        record_seq: Seq(number(40)),
    })
}
