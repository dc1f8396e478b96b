//! Records: what a replay can't derive from client frames. Kept from the last complete state on, and given again at
//! their places among the client frames.

use holdfast_protocol::message::{Record, RecordKind, Rule};
use holdfast_protocol::{Seq, SessionId};

use super::inbound::Arrival;

const KIND_AT: usize = 0;
const AFTER_AT: usize = 1;
const MEMBER_AT: usize = 9;
const LENGTH_AT: usize = 25;
const HEADER: usize = 29;
/// Above this many dead bytes at the front, the buffer is compacted when half of it is dead.
const COMPACT_BYTES: usize = 32 * 1024;

/// One record that is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    pub seq: Seq,
    pub kind: RecordKind,
    pub after_client_seq: Seq,
    pub member: Option<SessionId>,
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Offset of the oldest record that is kept; it follows `base_seq`.
    base: usize,
    base_seq: Seq,
    /// Offset of the next record for the current attachment; it follows `given`.
    next: usize,
    given: Seq,
    /// The last record that the current attachment is to be given: those after it are its own.
    last_to_give: Seq,
    /// The last record that is kept.
    had: Seq,
    /// The place of the last record, see `place`.
    last_place: u64,
    acked: Seq,
    repeat_ack: bool,
}

/// Where a record stands: the values of frame k before the other records after frame k.
fn place(kind: RecordKind, after: Seq) -> u64 {
    after.0.saturating_mul(2).saturating_add(u64::from(kind != RecordKind::Values))
}

impl Records {
    /// Keeps a record. `sent`: the last client frame that its sender was given.
    ///
    /// # Errors
    /// It isn't the next, or stands where it can't.
    pub fn keep(&mut self, record: &Record<'_>, sent: Seq) -> Result<Arrival, Rule> {
        if record.seq <= self.had {
            self.repeat_ack = true;
            return Ok(Arrival::Again);
        }
        let place = place(record.kind, record.after_client_seq);
        let in_order = match record.kind {
            RecordKind::Values => place > self.last_place && record.after_client_seq > Seq::NONE,
            RecordKind::Input | RecordKind::Delta => place >= self.last_place,
        };
        if record.seq != self.had.next() || !in_order || record.after_client_seq > sent {
            return Err(Rule::OutOfSequence);
        }
        let length = u32::try_from(record.bytes.len()).map_err(|_| Rule::FrameTooLarge)?;
        let mut header = [0; HEADER];
        header[KIND_AT] = record.kind as u8;
        header[AFTER_AT..MEMBER_AT].copy_from_slice(&record.after_client_seq.0.to_le_bytes());
        header[MEMBER_AT..LENGTH_AT].copy_from_slice(&record.member.unwrap_or_default().0);
        header[LENGTH_AT..].copy_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(record.bytes);
        self.had = record.seq;
        self.last_place = place;
        Ok(Arrival::New)
    }

    /// The next record for the current attachment, if its place has come: `sent` is the last client frame given.
    #[must_use]
    pub fn next(&self, sent: Seq) -> Option<Entry<'_>> {
        if !self.has_again() {
            return None;
        }
        let entry = self.entry_at(self.next, self.given.next())?;
        let due = match entry.kind {
            RecordKind::Values => entry.after_client_seq <= sent.next(),
            RecordKind::Input => entry.after_client_seq <= sent,
            // It stands for the frames that it covers: they aren't given any more.
            RecordKind::Delta => true,
        };
        due.then_some(entry)
    }

    /// The record that `next` gave is on the link.
    pub fn mark_given(&mut self) {
        self.next += self.entry_at(self.next, self.given).map_or(0, |entry| HEADER + entry.bytes.len());
        self.given = self.given.next();
    }

    /// Whether records wait that an earlier attachment made.
    #[must_use]
    pub fn has_again(&self) -> bool {
        self.given < self.last_to_give
    }

    /// An attachment begins that has none of them, or one goes on that may have thrown away what it was given.
    pub fn rewind(&mut self, last_to_give: Seq) {
        self.next = self.base;
        self.given = self.base_seq;
        self.last_to_give = last_to_give;
    }

    /// The current attachment has all up to `seq`.
    pub fn rewind_to(&mut self, seq: Seq) {
        self.rewind(self.last_to_give);
        while self.given < seq && self.has_again() {
            self.mark_given();
        }
    }

    /// A state covers the records up to `seq`.
    pub fn trim(&mut self, seq: Seq) {
        let before = self.kept_bytes();
        while self.base_seq < seq && self.base_seq < self.had {
            let Some(entry) = self.entry_at(self.base, self.base_seq.next()) else { break };
            self.base += HEADER + entry.bytes.len();
            self.base_seq = self.base_seq.next();
        }
        if self.given < self.base_seq {
            (self.next, self.given) = (self.base, self.base_seq);
        }
        if self.base == self.bytes.len() {
            // As much is likely to be kept again, unless this was a peak.
            if self.bytes.capacity() / 4 > before {
                self.bytes = Vec::new();
            }
            self.bytes.clear();
            (self.base, self.next) = (0, 0);
        } else if self.base > COMPACT_BYTES && self.base > self.bytes.len() / 2 {
            self.bytes.drain(..self.base);
            self.next -= self.base;
            self.base = 0;
        }
    }

    /// Nothing has come for a while: room that is empty is given back.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// The state that they led to is lost.
    pub fn forget(&mut self) {
        self.trim(self.had);
        self.rewind(self.had);
    }

    #[must_use]
    pub fn had(&self) -> Seq {
        self.had
    }

    #[must_use]
    pub fn base_seq(&self) -> Seq {
        self.base_seq
    }

    #[must_use]
    pub fn last_to_give(&self) -> Seq {
        self.last_to_give
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base_seq == self.had
    }

    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.bytes.len() - self.base
    }

    /// Bytes that they take up, filled or not.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    #[must_use]
    pub fn owes_ack(&self) -> bool {
        self.acked < self.had || self.repeat_ack
    }

    /// The cumulative ack to send now; nothing is owed after it.
    pub fn take_ack(&mut self) -> Seq {
        self.repeat_ack = false;
        self.acked = self.had;
        self.acked
    }

    /// The acks so far may have gone down with their link. That of what a checkpoint covers, too: nothing else tells it.
    pub fn forget_ack(&mut self) {
        self.acked = Seq::NONE;
    }

    fn entry_at(&self, at: usize, seq: Seq) -> Option<Entry<'_>> {
        let header: &[u8; HEADER] = self.bytes.get(at..)?.first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*header[LENGTH_AT..].first_chunk()?)).ok()?;
        let member = SessionId(*header[MEMBER_AT..].first_chunk()?);
        Some(Entry {
            seq,
            kind: RecordKind::from_number(header[KIND_AT])?,
            after_client_seq: Seq(u64::from_le_bytes(*header[AFTER_AT..].first_chunk()?)),
            member: (member != SessionId::default()).then_some(member),
            bytes: self.bytes.get(at + HEADER..)?.get(..length)?,
        })
    }
}
