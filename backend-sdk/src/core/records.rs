//! [`Records`]: a session's records: those that this attachment has made, from the input to the proxy's ack, and how far
//! it has come with those that it was given.
//!
//! Invariant: while records are still to be given, none is made; so given and made ones are one sequence.

use holdfast_protocol::message::{Record, RecordKind, Rule, Subject};
use holdfast_protocol::{Epoch, Message, Seq, TraceContext, encode};

use super::fault::Fault;
use super::frames::{FrameQueue, Kind, Pool, footprint};

#[derive(Debug)]
pub(crate) struct Records {
    /// Made and not acked.
    queue: Option<Box<FrameQueue>>,
    /// Those at the front that have been written to a link.
    sent: usize,
    /// Their bytes.
    sent_bytes: usize,
    footprint: usize,
    /// Last record that was processed as given, or made and acked: the queue's are numbered on from here.
    done: Seq,
    /// Last one that has been given: processed, or waiting to be.
    received: Seq,
    /// Last one of the journal.
    journal_end: Seq,
}

impl Records {
    /// A journal from `base` to `end`.
    pub fn new(base: Seq, end: Seq) -> Self {
        let done = base.min(end);
        Self { queue: None, sent: 0, sent_bytes: 0, footprint: 0, done, received: done, journal_end: end }
    }

    /// The state covers all up to `base`.
    pub fn covered(&mut self, base: Seq) {
        self.done = base.min(self.journal_end);
        self.received = self.done;
    }

    /// Last record that this attachment has: processed or made.
    pub fn last(&self) -> Seq {
        let made = self.queue.as_ref().map_or(0, |queue| queue.len() as u64);
        Seq(self.done.0.saturating_add(made))
    }

    /// Last one that it has in any way.
    pub fn had(&self) -> Seq {
        self.last().max(self.received)
    }

    /// Whether the journal has records that aren't processed.
    pub fn is_replaying(&self) -> bool {
        self.done < self.journal_end
    }

    /// Whether the journal has records that haven't come.
    pub fn are_missing(&self) -> bool {
        self.received < self.journal_end
    }

    pub fn journal_end(&self) -> Seq {
        self.journal_end
    }

    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// A record is given; `false`: it was had before.
    pub fn take(&mut self, seq: Seq) -> Result<bool, Fault> {
        if seq <= self.had() {
            return Ok(false);
        }
        if seq != self.received.next() || self.queue.is_some() {
            let text = format!("record {seq}, expected {}", self.had().next());
            return Err(Fault::new(Rule::OutOfSequence, text));
        }
        self.received = seq;
        self.journal_end = self.journal_end.max(seq);
        Ok(true)
    }

    /// A given record has been processed.
    pub fn processed(&mut self, seq: Seq) {
        self.done = seq;
    }

    /// What was given and not processed is thrown away: it comes again.
    pub fn forget_waiting(&mut self) {
        self.received = self.received.min(self.done);
    }

    /// Adds one that this attachment has made.
    pub fn push(&mut self, pool: &mut Pool, kind: RecordKind, after: Seq, bytes: &[u8]) {
        self.footprint += footprint(bytes.len());
        let seq = self.last().next();
        let queue = self.queue.get_or_insert_with(|| pool.take());
        queue.push(Kind::Record { kind, seq, after }, TraceContext::NONE, bytes);
    }

    /// Writes what no link has seen; says whether there was any. Records wait for no window.
    pub fn pump(&mut self, subject: Subject, epoch: Epoch, out: &mut Vec<u8>) -> bool {
        let Some(queue) = &self.queue else { return false };
        let before = self.sent;
        while let Some((entry, bytes)) = queue.at(self.sent, self.sent_bytes) {
            write(subject, epoch, entry.kind, false, bytes, out);
            self.sent += 1;
            self.sent_bytes += entry.bytes;
        }
        self.sent > before
    }

    /// Writes once more what was written and comes after `had`.
    pub fn resend(&self, subject: Subject, epoch: Epoch, had: Seq, out: &mut Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        for (entry, bytes) in queue.from(0, 0).take(self.sent) {
            if matches!(entry.kind, Kind::Record { seq, .. } if seq > had) {
                write(subject, epoch, entry.kind, true, bytes, out);
            }
        }
    }

    /// Drops what the proxy has kept. An older ack says nothing new, nor does one of what the proxy has yet to give.
    pub fn ack(&mut self, pool: &mut Pool, seq: Seq) -> Result<(), Fault> {
        self.check(seq, "ack of record")?;
        let Some(queue) = &mut self.queue else { return Ok(()) };
        while self.done < seq && self.sent > 0 {
            let Some(entry) = queue.pop() else { break };
            self.done = self.done.next();
            self.sent -= 1;
            self.sent_bytes -= entry.bytes;
            self.footprint -= footprint(entry.bytes);
        }
        self.received = self.received.max(self.done);
        if queue.is_empty() {
            self.recycle(pool);
        }
        Ok(())
    }

    /// Whether the proxy can have that record.
    pub fn check(&self, seq: Seq, what: &str) -> Result<(), Fault> {
        let known = Seq(self.done.0.saturating_add(self.sent as u64)).max(self.journal_end);
        if seq <= known {
            return Ok(());
        }
        Err(Fault::new(Rule::AckBeyondSent, format!("{what} {seq}, the last one sent or given is {known}")))
    }

    /// Whether all that was made is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    pub fn recycle(&mut self, pool: &mut Pool) {
        if let Some(queue) = self.queue.take() {
            pool.give(queue);
        }
        (self.sent, self.sent_bytes, self.footprint) = (0, 0, 0);
    }
}

fn write(subject: Subject, epoch: Epoch, kind: Kind, again: bool, bytes: &[u8], out: &mut Vec<u8>) {
    let Kind::Record { kind, seq, after } = kind else { return };
    let record = Record { subject, epoch, seq, after_client_seq: after, kind, member: None, again, bytes };
    encode(&Message::Record(record), out);
}
