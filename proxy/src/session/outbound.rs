//! Client frames on their way to the backend: those that a restore would need, those sent and not yet processed, then
//! those that wait.
//!
//! A seq is given when a frame is sent; after a rewind the same frame gets the same seq again, because seqs are
//! consecutive and nothing in between can be removed.

use holdfast_protocol::{Seq, TraceContext};

use super::effects::Effects;

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Frame,
    /// The client has sent its last byte, and still listens.
    CloseHalf,
    /// The client is gone.
    Close,
}

/// One client frame (or the end of the client's stream).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    pub kind: Kind,
    pub seq: Seq,
    pub trace: TraceContext,
    /// When it was received, in the caller's own unit.
    pub received: u64,
    /// An earlier attachment, or an earlier link, was given this frame already.
    pub again: bool,
    pub frame: &'a [u8],
}

const KIND_AT: usize = 0;
const LENGTH_AT: usize = 1;
const RECEIVED_AT: usize = 5;
const TRACE_ID_AT: usize = 13;
const SPAN_ID_AT: usize = 29;
const SAMPLED_AT: usize = 37;
const HEADER: usize = 38;
/// Above this many dead bytes at the front, the buffer is compacted when half of it is dead.
const COMPACT_BYTES: usize = 32 * 1024;

/// An entry on its way to another session's stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queued {
    pub kind: Kind,
    pub frame: Vec<u8>,
    pub trace: TraceContext,
    pub received: u64,
}

/// Two buffers, one after the other: what is processed and kept for a restore, and what isn't processed. The second is
/// small and always in the caches; the first is only written to, until there is a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Outbound {
    /// Entries that are acked, oldest first.
    kept: Vec<u8>,
    /// Offset in it of the oldest entry that a restore would need; it follows `base_seq`.
    base: usize,
    base_seq: Seq,
    bytes: Vec<u8>,
    /// Offset of the oldest entry that isn't acked.
    head: usize,
    /// Offset of the oldest entry that isn't sent.
    next: usize,
    acked: Seq,
    sent: Seq,
    /// The highest seq that was ever sent.
    highest: Seq,
    /// The highest seq that was ever acked.
    processed: Seq,
    /// Acked entries stay, for a restore.
    keeps: bool,
    /// Bytes in flight and queued count each entry's head, so that a flood of empty frames is bounded too.
    in_flight_bytes: usize,
    /// Bytes of entries that no attachment has been given.
    fresh_bytes: usize,
    /// Entries behind `next`.
    queued: usize,
}

impl Outbound {
    pub fn push<E: Effects>(
        &mut self,
        kind: Kind,
        frame: &[u8],
        trace: TraceContext,
        received: u64,
        env: &mut E,
    ) {
        self.push_after(kind, &[], frame, trace, received, env);
    }

    /// A frame that `head` stands before.
    pub fn push_after<E: Effects>(
        &mut self,
        kind: Kind,
        head: &[u8],
        frame: &[u8],
        trace: TraceContext,
        received: u64,
        env: &mut E,
    ) {
        if self.bytes.capacity() == 0 {
            self.bytes = env.take_buffer();
        }
        let frame_bytes = head.len() + frame.len();
        let length = u32::try_from(frame_bytes).expect("framing bounds a frame below 4 GiB");
        let mut header = [0u8; HEADER];
        header[KIND_AT] = kind as u8;
        header[LENGTH_AT..RECEIVED_AT].copy_from_slice(&length.to_le_bytes());
        header[RECEIVED_AT..TRACE_ID_AT].copy_from_slice(&received.to_le_bytes());
        header[TRACE_ID_AT..SPAN_ID_AT].copy_from_slice(&trace.trace_id);
        header[SPAN_ID_AT..SAMPLED_AT].copy_from_slice(&trace.span_id);
        header[SAMPLED_AT] = u8::from(trace.sampled);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(frame);
        self.fresh_bytes += HEADER + frame_bytes;
        self.queued += 1;
    }

    /// Whether acked entries are to stay until `trim`.
    pub fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
        if !keeps {
            self.trim(self.acked);
        }
    }

    /// The next entry to send, if the window has room. One frame may exceed the window when nothing is in flight, so
    /// that no frame waits for ever.
    #[must_use]
    pub fn next(&self, window_bytes: usize) -> Option<Entry<'_>> {
        let entry = self.entry_at(self.next, self.sent.next())?;
        let fits =
            self.in_flight_bytes == 0 || self.in_flight_bytes + HEADER + entry.frame.len() <= window_bytes;
        fits.then_some(entry)
    }

    /// The entry that `next` gave is on the link.
    pub fn mark_sent(&mut self) {
        let Some(length) = self.length_at(self.next) else { return };
        self.next += HEADER + length;
        self.in_flight_bytes += HEADER + length;
        self.queued -= 1;
        self.sent = self.sent.next();
        if self.sent > self.highest {
            self.highest = self.sent;
            self.fresh_bytes -= HEADER + length;
        }
    }

    /// Entries up to and with `seq`, which must have been sent, are processed: they leave the window, and the buffer
    /// too unless they are kept.
    pub fn release<E: Effects>(&mut self, seq: Seq, env: &mut E) {
        let begin = self.head;
        while self.acked < seq && self.acked < self.sent {
            let Some(entry) = self.entry_at(self.head, self.acked.next()) else { break };
            let length = entry.frame.len();
            if entry.seq > self.processed {
                env.processed(&entry);
                self.processed = entry.seq;
            }
            self.head += HEADER + length;
            self.in_flight_bytes -= HEADER + length;
            self.acked = self.acked.next();
        }
        if self.keeps {
            self.kept.extend_from_slice(&self.bytes[begin..self.head]);
        } else {
            self.base_seq = self.acked;
        }
        self.tidy(env);
    }

    /// A restore wouldn't need the entries up to and with `seq`: forgets those of them that are acked.
    pub fn trim(&mut self, seq: Seq) {
        let before = self.kept.len() - self.base;
        if seq >= self.acked {
            (self.base, self.base_seq) = (self.kept.len(), self.acked);
        }
        while self.base_seq < seq && self.base_seq < self.acked {
            let Some(length) = length_at(&self.kept, self.base) else { break };
            self.base += HEADER + length;
            self.base_seq = self.base_seq.next();
        }
        if self.base == self.kept.len() {
            // As much is likely to be kept again, unless this was a peak.
            if self.kept.capacity() / 4 > before {
                self.kept = Vec::new();
            }
            self.kept.clear();
            self.base = 0;
        } else if self.base > COMPACT_BYTES && self.base > self.kept.len() / 2 {
            self.kept.drain(..self.base);
            self.base = 0;
        }
    }

    /// Nothing has come for a while: room that is empty is given back.
    pub fn rest(&mut self) {
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }

    /// Everything that isn't acked is to be sent again.
    pub fn rewind(&mut self) {
        self.queued += usize::try_from(self.sent.since(self.acked)).unwrap_or(usize::MAX);
        self.in_flight_bytes = 0;
        self.next = self.head;
        self.sent = self.acked;
    }

    /// Everything that is kept is to be sent again: the attachment to come begins where the kept state ends.
    pub fn rewind_to_base(&mut self) {
        self.queued += usize::try_from(self.sent.since(self.base_seq)).unwrap_or(usize::MAX);
        self.in_flight_bytes = 0;
        if self.base < self.kept.len() {
            let mut all = std::mem::take(&mut self.kept);
            all.drain(..self.base);
            all.extend_from_slice(&self.bytes[self.head..]);
            (self.bytes, self.head, self.base) = (all, 0, 0);
        }
        self.next = self.head;
        (self.acked, self.sent) = (self.base_seq, self.base_seq);
    }

    /// Entries up to and with `seq` have arrived, though they may not be processed: sending goes on after them.
    pub fn rewind_to(&mut self, seq: Seq) {
        self.rewind();
        while self.sent < seq && self.sent < self.highest {
            self.mark_sent();
        }
    }

    /// Gives up all that any attachment was given: it went down with its backend. Returns how many frames had not been
    /// processed.
    pub fn lose_sent<E: Effects>(&mut self, env: &mut E) -> u64 {
        self.rewind_to_base();
        let mut lost = 0;
        while self.sent < self.highest {
            let Some(entry) = self.entry_at(self.next, self.sent.next()) else { break };
            lost += u64::from(entry.kind == Kind::Frame && entry.seq > self.processed);
            self.mark_sent();
        }
        self.head = self.next;
        (self.base_seq, self.acked) = (self.sent, self.sent);
        self.in_flight_bytes = 0;
        self.processed = self.sent.max(self.processed);
        self.tidy(env);
        lost
    }

    /// Calls `each` with the entries after `seq`, of those that are here.
    pub fn for_each_after(&self, seq: Seq, mut each: impl FnMut(&Entry<'_>)) {
        let mut here = self.base_seq.next();
        for (bytes, mut at) in [(&self.kept, self.base), (&self.bytes, self.head)] {
            while let Some(entry) = entry_in(bytes, at, here, self.highest) {
                at += HEADER + entry.frame.len();
                here = here.next();
                if entry.seq > seq {
                    each(&entry);
                }
            }
        }
    }

    /// Calls `each` with the frames up to and with `seq` that none has processed before, which the present attachment
    /// is about to have processed.
    pub fn for_unprocessed(&self, seq: Seq, mut each: impl FnMut(Seq, &[u8])) {
        let (mut at, mut here) = (self.head, self.acked.next());
        while here <= seq && here <= self.sent {
            let Some(entry) = self.entry_at(at, here) else { return };
            at += HEADER + entry.frame.len();
            if here > self.processed {
                each(here, entry.frame);
            }
            here = here.next();
        }
    }

    /// Takes out all that is kept: nothing is in flight any more. Numbers go on from the highest that was given.
    pub fn take_all<E: Effects>(&mut self, env: &mut E) -> Vec<Queued> {
        let mut all = Vec::new();
        self.for_each_after(Seq::NONE, |entry| {
            all.push(Queued {
                kind: entry.kind,
                frame: entry.frame.to_vec(),
                trace: entry.trace,
                received: entry.received,
            });
        });
        let end = self.highest;
        (self.kept, self.base) = (Vec::new(), 0);
        self.head = self.bytes.len();
        (self.base_seq, self.acked, self.sent, self.processed) = (end, end, end, end);
        self.next = self.head;
        (self.in_flight_bytes, self.fresh_bytes, self.queued) = (0, 0, 0);
        self.tidy(env);
        all
    }

    /// Throws away what no attachment was given.
    #[cfg(test)]
    pub fn forget_queue(&mut self) {
        self.bytes.truncate(self.next);
        (self.queued, self.fresh_bytes) = (0, 0);
    }

    /// Last seq that the present attachment has processed.
    #[must_use]
    pub fn acked(&self) -> Seq {
        self.acked
    }

    /// Last seq that any attachment has processed.
    #[must_use]
    pub fn processed(&self) -> Seq {
        self.processed
    }

    /// Last seq given to the current attachment.
    #[must_use]
    pub fn sent(&self) -> Seq {
        self.sent
    }

    /// The seq that the last entry has or will have.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.sent.0.saturating_add(self.queued as u64))
    }

    /// Last seq that a restore would not give again.
    #[must_use]
    pub fn base_seq(&self) -> Seq {
        self.base_seq
    }

    /// Last seq that any attachment was given.
    #[must_use]
    pub fn highest(&self) -> Seq {
        self.highest
    }

    /// The oldest entry that the present attachment was given and that none has ever processed.
    #[must_use]
    pub fn first_unprocessed(&self) -> Option<Entry<'_>> {
        let (mut at, mut seq) = (self.head, self.acked.next());
        while seq <= self.processed && seq <= self.sent {
            at += HEADER + self.length_at(at)?;
            seq = seq.next();
        }
        (seq <= self.sent).then(|| self.entry_at(at, seq)).flatten()
    }

    /// Whether entries wait that an earlier attachment was given.
    #[must_use]
    pub fn has_again(&self) -> bool {
        self.sent < self.highest
    }

    /// Whether entries wait for a seq.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        self.queued > 0
    }

    /// Frames and ends of stream that aren't acked.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.sent.since(self.acked) + self.queued as u64
    }

    /// Nothing waits to be processed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    /// Bytes that no backend has been given.
    #[must_use]
    pub fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// Bytes that the present attachment hasn't processed.
    #[must_use]
    pub fn unprocessed_bytes(&self) -> usize {
        self.bytes.len() - self.head
    }

    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept.len() - self.base + self.unprocessed_bytes()
    }

    /// Bytes that the processed ones take up, filled or not.
    #[must_use]
    pub fn kept_room(&self) -> usize {
        self.kept.capacity()
    }

    /// Hands the buffer back when nothing is in it, so that an idle session holds none.
    fn tidy<E: Effects>(&mut self, env: &mut E) {
        if self.head == self.bytes.len() {
            (self.head, self.next) = (0, 0);
            let mut buffer = std::mem::take(&mut self.bytes);
            buffer.clear();
            env.give_buffer(buffer);
        } else if self.head > COMPACT_BYTES && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.next -= self.head;
            self.head = 0;
        }
    }

    fn length_at(&self, at: usize) -> Option<usize> {
        length_at(&self.bytes, at)
    }

    fn entry_at(&self, at: usize, seq: Seq) -> Option<Entry<'_>> {
        entry_in(&self.bytes, at, seq, self.highest)
    }
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at + LENGTH_AT..at + RECEIVED_AT)?;
    let length = u32::from_le_bytes(field.try_into().ok()?);
    usize::try_from(length).ok()
}

/// The entry at that place, which has (or will have) that seq.
fn entry_in(bytes: &[u8], at: usize, seq: Seq, highest: Seq) -> Option<Entry<'_>> {
    let length = length_at(bytes, at)?;
    let header: &[u8; HEADER] = bytes.get(at..at + HEADER)?.try_into().ok()?;
    let frame = bytes.get(at + HEADER..at + HEADER + length)?;
    let mut trace = TraceContext { sampled: header[SAMPLED_AT] != 0, ..TraceContext::default() };
    trace.trace_id.copy_from_slice(&header[TRACE_ID_AT..SPAN_ID_AT]);
    trace.span_id.copy_from_slice(&header[SPAN_ID_AT..SAMPLED_AT]);
    let mut received = [0u8; 8];
    received.copy_from_slice(&header[RECEIVED_AT..TRACE_ID_AT]);
    let kind = match header[KIND_AT] {
        0 => Kind::Frame,
        1 => Kind::CloseHalf,
        _ => Kind::Close,
    };
    let received = u64::from_le_bytes(received);
    Some(Entry { kind, seq, trace, received, again: seq <= highest, frame })
}
