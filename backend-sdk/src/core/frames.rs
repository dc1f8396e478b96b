//! [`FrameQueue`]: frames one after the other in a single buffer, and the [`Pool`] that empty queues go back to.
//!
//! A session takes a queue when it has something to keep, and gives it back when it has not: an idle session holds no
//! buffer, and a busy one allocates nothing per frame.

use std::collections::VecDeque;

use holdfast_protocol::message::RecordKind;
use holdfast_protocol::{Seq, TraceContext};

/// What waits in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A frame. `again`: sent before, to this attachment or an earlier one.
    Data {
        again: bool,
    },
    Close {
        half: bool,
    },
    /// A server frame that travels inside a record: only its size is kept here.
    Recorded {
        frame_bytes: usize,
    },
    Record {
        kind: RecordKind,
        seq: Seq,
        after: Seq,
    },
    /// START, behind what was given before it.
    Start,
}

impl Kind {
    pub const NEW: Self = Self::Data { again: false };
}

/// One frame, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub bytes: usize,
    pub trace: TraceContext,
}

impl Entry {
    /// What it counts in a window.
    pub fn cost(&self) -> usize {
        match self.kind {
            Kind::Recorded { frame_bytes } => cost(frame_bytes),
            Kind::Data { .. } | Kind::Close { .. } => cost(self.bytes),
            Kind::Record { .. } | Kind::Start => 0,
        }
    }
}

/// What a frame counts in a window: an empty one isn't free.
pub(crate) fn cost(bytes: usize) -> usize {
    bytes.max(1)
}

/// What a frame takes in memory, about.
pub(crate) fn footprint(bytes: usize) -> usize {
    bytes + size_of::<Entry>()
}

/// Frames in order, their bytes in one buffer.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    bytes: Vec<u8>,
    /// Where the first frame begins: what lies before has been taken.
    head: usize,
    entries: VecDeque<Entry>,
}

impl FrameQueue {
    pub fn push(&mut self, kind: Kind, trace: TraceContext, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.entries.push_back(Entry { kind, bytes: frame.len(), trace });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The frame at `index`, whose bytes begin `offset` bytes after the first frame's.
    pub fn at(&self, index: usize, offset: usize) -> Option<(Entry, &[u8])> {
        let entry = *self.entries.get(index)?;
        let begin = self.head + offset;
        Some((entry, &self.bytes[begin..begin + entry.bytes]))
    }

    /// All frames from `index` on, `offset` as in [`Self::at`].
    pub fn from(&self, index: usize, offset: usize) -> impl Iterator<Item = (Entry, &[u8])> {
        let mut begin = self.head + offset;
        self.entries.iter().skip(index).map(move |entry| {
            let frame = &self.bytes[begin..begin + entry.bytes];
            begin += entry.bytes;
            (*entry, frame)
        })
    }

    /// Takes the first frame off.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.head += entry.bytes;
        if self.entries.is_empty() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head > self.bytes.len() / 2 && self.head > COMPACT_BYTES {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        Some(entry)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.head = 0;
    }

    fn is_small(&self) -> bool {
        self.bytes.capacity() <= POOLED_BYTES && self.entries.capacity() <= POOLED_ENTRIES
    }
}

/// Below this, moving bytes to the front isn't worth it.
const COMPACT_BYTES: usize = 4 * 1024;
/// Larger queues are freed, not kept.
const POOLED_BYTES: usize = 64 * 1024;
const POOLED_ENTRIES: usize = 1024;
/// How many empty queues are kept.
const POOLED_QUEUES: usize = 256;

/// Empty queues, for whoever needs one next.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "a queue moves to a session and back as one pointer, which keeps sessions small"
    )]
    free: Vec<Box<FrameQueue>>,
}

impl Pool {
    pub fn take(&mut self) -> Box<FrameQueue> {
        self.free.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut queue: Box<FrameQueue>) {
        if self.free.len() < POOLED_QUEUES && queue.is_small() {
            queue.clear();
            self.free.push(queue);
        }
    }
}
