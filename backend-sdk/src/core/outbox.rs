//! [`Outbox`]: a session's server frames from `send` to the proxy's ack.
//!
//! The first `sent` frames have been written to the link and wait for their ack; the others wait for room in the
//! window and have no sequence number yet. Invariant: a frame leaves only by an ack or with the session.

use holdfast_protocol::message::{Close, Data, Subject};
use holdfast_protocol::{Epoch, Message, Seq, TraceContext, encode};

use super::fault::Fault;
use super::frames::{Entry, FrameQueue, Kind, Pool, cost, footprint};
use holdfast_protocol::message::Rule;

/// What each DATA says besides its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub subject: Subject,
    pub epoch: Epoch,
    /// Last client frame that the game has processed.
    pub ack: Seq,
    /// Last record before it.
    pub record: Seq,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Option<Box<FrameQueue>>,
    /// Frames at the front that have been written to a link.
    sent: usize,
    /// Their bytes.
    sent_bytes: usize,
    /// What those after `base` count in the window.
    sent_cost: usize,
    /// What all frames here take in memory, about.
    footprint: usize,
    /// Last server seq that the proxy has acked.
    acked: Seq,
    /// The window is for frames after this one: the proxy had it when it last told the window.
    base: Seq,
    window: usize,
    /// Frames with which a member leaves a group, not acked: the seq that each has or will have, and the client seq
    /// after which it leaves.
    departures: Vec<(Seq, Seq)>,
}

impl Outbox {
    /// `last` is the last server seq that the proxy has.
    pub fn new(last: Seq, window_bytes: u32) -> Self {
        let window = window_bytes as usize;
        Self {
            queue: None,
            sent: 0,
            sent_bytes: 0,
            sent_cost: 0,
            footprint: 0,
            acked: last,
            base: last,
            window,
            departures: Vec::new(),
        }
    }

    /// Last server seq that was given.
    pub fn last_sent(&self) -> Seq {
        Seq(self.acked.0.saturating_add(self.sent as u64))
    }

    pub fn footprint(&self) -> usize {
        self.footprint
    }

    pub fn push(&mut self, pool: &mut Pool, kind: Kind, trace: TraceContext, frame: &[u8]) {
        self.footprint += footprint(frame.len());
        self.queue.get_or_insert_with(|| pool.take()).push(kind, trace, frame);
    }

    /// Counts a frame that leaves inside a record: it has its number and its place in the window at once.
    pub fn push_recorded(&mut self, pool: &mut Pool, trace: TraceContext, frame_bytes: usize) {
        self.footprint += footprint(0);
        let kind = Kind::Recorded { frame_bytes };
        self.queue.get_or_insert_with(|| pool.take()).push(kind, trace, &[]);
        self.sent += 1;
        self.sent_cost += cost(frame_bytes);
    }

    /// The frame that was pushed last takes a member out of its group, after that client frame.
    pub fn mark_departure(&mut self, after: Seq) {
        let count = self.queue.as_ref().map_or(0, |queue| queue.len());
        self.departures.push((Seq(self.acked.0.saturating_add(count as u64)), after));
    }

    /// Whether a departure has never been on a link.
    pub fn has_unwritten_departure(&self) -> bool {
        self.departures.last().is_some_and(|&(seq, _)| seq > self.last_sent())
    }

    /// The client frame that no ack may pass, until its departure is acked.
    pub fn ack_limit(&self) -> Option<Seq> {
        self.departures.first().map(|&(_, after)| after)
    }

    /// Whether one more input may begin that sends inside a record.
    pub fn has_window(&self) -> bool {
        self.sent_cost == 0 || self.sent_cost < self.window
    }

    /// Writes frames while the window has room; one may exceed it when nothing is in flight. Says whether it wrote.
    /// `departures`: only those, and what stands before them.
    pub fn pump(&mut self, head: Head, departures: bool, out: &mut Vec<u8>) -> bool {
        let Some(queue) = &self.queue else { return false };
        let before = self.sent;
        let last = self.departures.last().map_or(Seq::NONE, |&(seq, _)| seq);
        while let Some((entry, frame)) = queue.at(self.sent, self.sent_bytes) {
            if departures && Seq(self.acked.0.saturating_add(self.sent as u64)) >= last {
                break;
            }
            if self.sent_cost > 0 && self.sent_cost + entry.cost() > self.window {
                break;
            }
            self.sent += 1;
            self.sent_bytes += entry.bytes;
            self.sent_cost += entry.cost();
            let seq = Seq(self.acked.0.saturating_add(self.sent as u64));
            write(head, seq, false, entry, frame, out);
        }
        self.sent > before
    }

    /// Writes once more what is in flight after `had`.
    pub fn resend(&self, head: Head, had: Seq, out: &mut Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        for (index, (entry, frame)) in queue.from(0, 0).take(self.sent).enumerate() {
            let seq = Seq(self.acked.0.saturating_add(1 + index as u64));
            if seq > had {
                write(head, seq, true, entry, frame, out);
            }
        }
    }

    /// Drops what the proxy has handed on. An older ack says nothing new.
    pub fn ack(&mut self, pool: &mut Pool, seq: Seq) -> Result<(), Fault> {
        if seq > self.last_sent() {
            let text = format!("ack of server seq {seq}, last sent is {}", self.last_sent());
            return Err(Fault::new(Rule::AckBeyondSent, text));
        }
        let Some(queue) = &mut self.queue else { return Ok(()) };
        while self.acked < seq {
            let Some(entry) = queue.pop() else { break };
            self.acked = self.acked.next();
            self.sent -= 1;
            self.sent_bytes -= entry.bytes;
            if self.acked > self.base {
                self.sent_cost -= entry.cost();
            }
            self.footprint -= footprint(entry.bytes);
        }
        let acked = self.acked;
        self.departures.retain(|&(departure, _)| departure > acked);
        if queue.is_empty() {
            self.recycle(pool);
        }
        Ok(())
    }

    /// The proxy has told anew how much may be in flight after `had`.
    pub fn set_window(&mut self, had: Seq, window_bytes: u32) {
        self.base = had.max(self.acked);
        self.window = window_bytes as usize;
        let counted = usize::try_from(self.base.since(self.acked)).unwrap_or(usize::MAX);
        let in_flight = self.queue.iter().flat_map(|queue| queue.from(0, 0)).take(self.sent);
        self.sent_cost = in_flight.skip(counted).map(|(entry, _)| entry.cost()).sum();
    }

    /// Frames that no link has seen.
    pub fn unsent(&self) -> impl Iterator<Item = (Entry, &[u8])> {
        let (sent, offset) = (self.sent, self.sent_bytes);
        self.queue.iter().flat_map(move |queue| queue.from(sent, offset))
    }

    /// Whether all that was sent has been acked.
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    pub fn recycle(&mut self, pool: &mut Pool) {
        if let Some(queue) = self.queue.take() {
            pool.give(queue);
        }
        self.departures.clear();
        (self.sent, self.sent_bytes, self.sent_cost, self.footprint) = (0, 0, 0, 0);
    }
}

fn write(head: Head, seq: Seq, again: bool, entry: Entry, frame: &[u8], out: &mut Vec<u8>) {
    let Head { subject, epoch, ack, record } = head;
    let trace = entry.trace;
    let message = match entry.kind {
        Kind::Data { .. } => Message::Data(Data { subject, epoch, seq, ack, record, again, trace, frame }),
        Kind::Close { half } => {
            // A group has none.
            let Subject::Session(session) = subject else { return };
            let reason = "closed by the game";
            Message::Close(Close { session, epoch, seq, ack, record, half, again, reason })
        }
        // It leaves in its record, again too.
        Kind::Recorded { .. } | Kind::Record { .. } | Kind::Start => return,
    };
    encode(&message, out);
}
