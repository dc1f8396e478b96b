//! A link that is up: messages in go to their sessions, outboxes go out at the end of the poll.

use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_protocol::message::{Fault, FaultScope, Message, Ping, Pong, Rule, Subject};
use holdfast_protocol::{Epoch, GroupId, codec, decode};
use tokio::io::ReadBuf;

use super::Worker;
use super::link::{LinkState, OwnDrain};
use crate::session::LinkId;
use crate::session::message::{epoch_of, subject_of};

/// Reads of one link before others get their turn.
const READS_A_TURN: usize = 2;
/// STATE chunks join an outbox only while it holds less than this, so that DATA never waits behind many of them.
const CHUNKS_BELOW_BYTES: usize = 64 * 1024;

impl Worker {
    /// The turn of a link's task. Ready: the connection is over, for this reason.
    pub(super) fn poll_link(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<String> {
        let link = self.hub.link_mut(id);
        if !link.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            link.waker = Some(cx.waker().clone());
        }
        if !link.outbox.is_empty() {
            self.flush_link(id);
        }
        for _ in 0..READS_A_TURN {
            if let Some(reason) = self.hub.link_mut(id).doomed.take() {
                return Poll::Ready(reason);
            }
            match self.read_link(id, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read_link(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut buffer = ReadBuf::new(&mut scratch);
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        let Some(stream) = &mut link.stream else {
            self.scratch = scratch;
            return Poll::Ready(Err("no stream".to_owned()));
        };
        let read = stream.poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        let outcome = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(format!("read: {error}"))),
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(Err("closed by the backend".to_owned())),
            Poll::Ready(Ok(())) => {
                link.last_heard = now;
                link.pinged = None;
                Poll::Ready(self.link_bytes(id, &scratch[..count]))
            }
        };
        self.scratch = scratch;
        outcome
    }

    pub(super) fn link_bytes(&mut self, id: LinkId, bytes: &[u8]) -> Result<(), String> {
        let mut inbox = std::mem::take(&mut self.hub.link_mut(id).inbox);
        let result = if inbox.is_empty() {
            self.messages(id, bytes).map(|consumed| inbox.extend_from_slice(&bytes[consumed..]))
        } else {
            inbox.extend_from_slice(bytes);
            self.messages(id, &inbox).map(|consumed| {
                inbox.drain(..consumed);
            })
        };
        if inbox.is_empty() && inbox.capacity() > 1024 * 1024 {
            inbox = Vec::new();
        }
        self.hub.link_mut(id).inbox = inbox;
        self.hub.account_link(id);
        result
    }

    /// Acts on every whole message. Returns the bytes consumed.
    fn messages(&mut self, id: LinkId, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        loop {
            match decode(&bytes[at..], codec::MAX_MESSAGE_BYTES) {
                Ok(Some((message, length))) => {
                    self.message(id, &message)?;
                    at += length;
                }
                Ok(None) => return Ok(at),
                Err(error) => return Err(self.link_fault(id, Rule::Malformed, &error.to_string())),
            }
        }
    }

    fn message(&mut self, id: LinkId, message: &Message<'_>) -> Result<(), String> {
        if let Some(subject) = subject_of(message) {
            match self.key_of(subject) {
                Some(key) => {
                    if matches!(message, Message::Record(_)) {
                        self.hub.counters.records.add(1);
                    }
                    self.drive(key, |session, fx| session.message(id, message, fx));
                }
                None => self.unowned(id, subject, message),
            }
            return Ok(());
        }
        match message {
            // Who asks and doesn't read the answers gets no more of them.
            Message::Ping(_) if self.hub.link(id).congested => {}
            Message::Ping(ping) => {
                let attachments = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                let pong = Pong { nonce: ping.nonce, attachments, capacity: None, load_permille: None };
                self.send_on_link(id, &Message::Pong(pong));
            }
            Message::Pong(pong) => self.heard(id, pong),
            Message::Drain(drain) => {
                let own = OwnDrain {
                    since: self.hub.now,
                    within: (drain.deadline_ms > 0).then(|| Duration::from_millis(drain.deadline_ms.into())),
                    returns: drain.returns,
                    reason: drain.reason.to_owned(),
                };
                self.hub.link_mut(id).causes.own = Some(own);
                self.review_drain(id);
            }
            Message::Undrain => {
                self.hub.link_mut(id).causes.own = None;
                self.review_drain(id);
            }
            Message::Fault(fault) => {
                let now = self.hub.now;
                self.hub.link_mut(id).faults.add(now);
                self.hub.counters.link_faults.add(fault.rule);
                return Err(format!("the backend says: {:?}: {}", fault.rule, fault.text));
            }
            Message::Hello(_) | Message::Welcome(_) => {
                return Err(self.link_fault(id, Rule::Handshake, "a second handshake"));
            }
            other => {
                let text = format!("{} is not for a proxy, or not of a session", other.type_name());
                return Err(self.link_fault(id, Rule::Unexpected, &text));
            }
        }
        Ok(())
    }

    /// What isn't here (any more) is spoken for.
    fn unowned(&mut self, id: LinkId, subject: Subject, message: &Message<'_>) {
        match (subject, epoch_of(message)) {
            (Subject::Group(group), Some(epoch))
                if !matches!(message, Message::Fault(_)) && !self.was_released(group) =>
            {
                self.group_fault(id, group, epoch);
            }
            // It has ended here; its RELEASE is on the way.
            _ => self.hub.counters.stale_messages.add(1),
        }
    }

    /// No group of this proxy's is on that link: the peer is told, and nobody's session suffers.
    fn group_fault(&mut self, id: LinkId, group: GroupId, epoch: Epoch) {
        self.hub.counters.session_faults.add(Rule::Group);
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        if link.may_warn(now) {
            tracing::warn!(backend = %link.backend.id, %group, rule = ?Rule::Group,
                "the backend broke a rule of the link: it speaks for a group that it doesn't own");
        }
        if !link.congested {
            let scope = FaultScope::Attachment(Subject::Group(group), epoch);
            self.send_on_link(id, &Message::Fault(Fault { scope, rule: Rule::Group, text: "" }));
        }
    }

    /// The peer broke a rule of the link as a whole: it is told, and the connection ends.
    fn link_fault(&mut self, id: LinkId, rule: Rule, text: &str) -> String {
        let now = self.hub.now;
        self.hub.link_mut(id).faults.add(now);
        self.hub.counters.link_faults.add(rule);
        self.send_on_link(id, &Message::Fault(Fault { scope: FaultScope::Link, rule, text }));
        self.hub.write_link(id);
        format!("the backend broke the link's rule {rule:?}: {text}")
    }

    pub(super) fn send_on_link(&mut self, id: LinkId, message: &Message<'_>) {
        let link = self.hub.link_mut(id);
        if link.state == LinkState::Up && link.stream.is_some() {
            codec::encode(message, &mut link.outbox.bytes);
            self.hub.mark_link(id);
        }
    }

    pub(super) fn ping(&mut self, id: LinkId) {
        let now = self.hub.now;
        self.hub.link_mut(id).pinged = Some(now);
        self.send_on_link(id, &Message::Ping(Ping { nonce: 0 }));
    }

    /// Everything for links goes out: DATA and control first, STATE chunks in turn behind them.
    pub(super) fn flush_links(&mut self) {
        let mut dirty = std::mem::take(&mut self.hub.dirty_links);
        for id in dirty.drain(..) {
            self.hub.link_mut(id).dirty = false;
            self.flush_link(id);
        }
        dirty.append(&mut self.hub.dirty_links);
        self.hub.dirty_links = dirty;
    }

    fn flush_link(&mut self, id: LinkId) {
        loop {
            self.add_chunks(id);
            let out = self.hub.write_link(id);
            if !out || self.hub.link(id).transfers.is_empty() {
                return;
            }
        }
    }

    fn add_chunks(&mut self, id: LinkId) {
        while self.hub.link(id).outbox.waiting() < CHUNKS_BELOW_BYTES {
            let Some(key) = self.hub.link_mut(id).transfers.pop_front() else { return };
            let more = self.drive(key, |session, fx| session.link() == Some(id) && session.send_chunk(fx));
            if more == Some(true) {
                self.hub.link_mut(id).transfers.push_back(key);
            }
        }
    }
}
