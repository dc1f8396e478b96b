//! Client frames on their way to the backend: those sent and not yet processed, then those that wait.
//!
//! Both stand in one buffer in their order. A seq is given when a frame is sent; after a rewind the same frame gets
//! the same seq again, because seqs are consecutive and nothing in between can be removed.

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    /// Offset of the oldest entry that isn't acked.
    head: usize,
    /// Offset of the oldest entry that isn't sent.
    next: usize,
    acked: Seq,
    sent: Seq,
    /// The highest seq that was ever sent.
    highest: Seq,
    /// Bytes in flight and queued count each entry's head, so that a flood of empty frames is bounded too.
    in_flight_bytes: usize,
    queued_bytes: usize,
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
        if self.bytes.capacity() == 0 {
            self.bytes = env.take_buffer();
        }
        let length = u32::try_from(frame.len()).expect("framing bounds a frame below 4 GiB");
        let mut header = [0u8; HEADER];
        header[KIND_AT] = kind as u8;
        header[LENGTH_AT..RECEIVED_AT].copy_from_slice(&length.to_le_bytes());
        header[RECEIVED_AT..TRACE_ID_AT].copy_from_slice(&received.to_le_bytes());
        header[TRACE_ID_AT..SPAN_ID_AT].copy_from_slice(&trace.trace_id);
        header[SPAN_ID_AT..SAMPLED_AT].copy_from_slice(&trace.span_id);
        header[SAMPLED_AT] = u8::from(trace.sampled);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(frame);
        self.queued_bytes += HEADER + frame.len();
        self.queued += 1;
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
        self.queued_bytes -= HEADER + length;
        self.queued -= 1;
        self.sent = self.sent.next();
        self.highest = self.highest.max(self.sent);
    }

    /// Forgets every entry up to and with `seq`, which must have been sent.
    pub fn release<E: Effects>(&mut self, seq: Seq, env: &mut E) {
        while self.acked < seq && self.acked < self.sent {
            let Some(entry) = self.entry_at(self.head, self.acked.next()) else { break };
            let length = entry.frame.len();
            env.processed(&entry);
            self.head += HEADER + length;
            self.in_flight_bytes -= HEADER + length;
            self.acked = self.acked.next();
        }
        self.tidy(env);
    }

    /// Everything that isn't acked is to be sent again.
    pub fn rewind(&mut self) {
        self.queued_bytes += self.in_flight_bytes;
        self.queued += usize::try_from(self.sent.since(self.acked)).unwrap_or(usize::MAX);
        self.in_flight_bytes = 0;
        self.next = self.head;
        self.sent = self.acked;
    }

    /// Entries up to and with `seq` have arrived, though they may not be processed: sending goes on after them.
    pub fn rewind_to(&mut self, seq: Seq) {
        self.rewind();
        while self.sent < seq && self.sent < self.highest {
            self.mark_sent();
        }
    }

    /// Gives up what was sent and not acked: it went down with its backend. Returns how many frames.
    pub fn lose_sent<E: Effects>(&mut self, env: &mut E) -> u64 {
        let mut lost = 0;
        while self.head < self.next {
            let Some(entry) = self.entry_at(self.head, self.acked.next()) else { break };
            lost += u64::from(entry.kind == Kind::Frame);
            self.head += HEADER + entry.frame.len();
        }
        self.in_flight_bytes = 0;
        self.acked = self.sent;
        self.tidy(env);
        lost
    }

    /// Throws away what no attachment was given.
    #[cfg(test)]
    pub fn forget_queue(&mut self) {
        self.bytes.truncate(self.next);
        (self.queued, self.queued_bytes) = (0, 0);
    }

    /// Last seq that the game has processed.
    #[must_use]
    pub fn acked(&self) -> Seq {
        self.acked
    }

    /// Last seq given to the current attachment.
    #[must_use]
    pub fn sent(&self) -> Seq {
        self.sent
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

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Hands the buffer back when nothing is in it, so that an idle session holds none.
    fn tidy<E: Effects>(&mut self, env: &mut E) {
        if self.is_empty() {
            self.head = 0;
            self.next = 0;
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
        let field = self.bytes.get(at + LENGTH_AT..at + RECEIVED_AT)?;
        let length = u32::from_le_bytes(field.try_into().ok()?);
        usize::try_from(length).ok()
    }

    fn entry_at(&self, at: usize, seq: Seq) -> Option<Entry<'_>> {
        let length = self.length_at(at)?;
        let header: &[u8; HEADER] = self.bytes.get(at..at + HEADER)?.try_into().ok()?;
        let frame = self.bytes.get(at + HEADER..at + HEADER + length)?;
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
        Some(Entry { kind, seq, trace, received, again: seq <= self.highest, frame })
    }
}
