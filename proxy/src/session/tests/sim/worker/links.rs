//! A link that is up: messages in go to their sessions, outboxes go out. Mirrors `worker::link_io`.

use std::time::Duration;

use holdfast_protocol::message::{Message, Pong};
use holdfast_protocol::{MAX_MESSAGE_BYTES, decode};

use super::super::io::{ConnId, Io, Read, Written};
use super::Worker;
use super::fx::brief;
use super::hub::{OwnDrain, Task};
use crate::session::LinkId;
use crate::session::message::subject_of;

const CHUNKS_BELOW_BYTES: usize = 64 * 1024;
/// The proxy's end of a link.
pub const HERE: usize = 0;

impl Worker {
    /// The connection may have something to read, or room.
    pub fn link_is_ready(&mut self, id: LinkId, conn: ConnId, io: &mut Io) {
        let link = self.hub.link_mut(id);
        if matches!(link.task, Task::Dials { conn: Some(dialled), .. } if dialled == conn) {
            return self.shake_hands(id, conn, io);
        }
        if link.conn != Some(conn) {
            return;
        }
        if !link.outbox.is_empty() {
            self.flush_link(id, io);
        }
        let most = io.rng.usize(1..=65_536);
        match io.read(conn, HERE, most) {
            Read::Nothing => {}
            Read::Bytes(bytes) => {
                let link = self.hub.link_mut(id);
                link.last_heard = io.now;
                link.pinged = None;
                self.link_bytes(id, &bytes, io);
            }
            Read::End | Read::Reset => self.link_ends(id, io),
        }
    }

    pub fn link_bytes(&mut self, id: LinkId, bytes: &[u8], io: &mut Io) {
        let mut inbox = std::mem::take(&mut self.hub.link_mut(id).inbox);
        inbox.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((message, length)) =
            decode(&inbox[at..], MAX_MESSAGE_BYTES).expect("backends say whole things")
        {
            self.message(id, &message, io);
            at += length;
        }
        self.hub.link_mut(id).inbox = inbox.split_off(at);
    }

    fn message(&mut self, id: LinkId, message: &Message<'_>, io: &mut Io) {
        let key = subject_of(message).map(|subject| self.key_of(subject));
        let numbers = [u64::from(id.0), key.flatten().map_or(u64::MAX, |key| key as u64)];
        let name = message.type_name();
        io.trace.event(io.now, name, &numbers, || {
            let of = key.map_or(String::new(), |key| key.map_or("(ended)".into(), |key| format!("s{key}")));
            format!("p{} <- b{} {of} {}", self.hub.index, id.0, brief(message))
        });
        match key {
            Some(Some(key)) => {
                self.drive(key, io, |session, fx| session.message(id, message, fx));
                return;
            }
            Some(None) => return,
            None => {}
        }
        match message {
            Message::Ping(_) if self.hub.link(id).congested => {}
            Message::Ping(ping) => {
                let attachments = u32::try_from(self.slots.len()).unwrap();
                self.hub.say(
                    id,
                    &Message::Pong(Pong {
                        nonce: ping.nonce,
                        attachments,
                        capacity: None,
                        load_permille: None,
                    }),
                );
            }
            Message::Pong(_) => {}
            Message::Drain(drain) => {
                let within = (drain.deadline_ms > 0).then(|| Duration::from_millis(drain.deadline_ms.into()));
                let own = OwnDrain { since: io.now, within, returns: drain.returns };
                self.hub.link_mut(id).own = Some(own);
                self.review_drain(id, io);
            }
            Message::Undrain => {
                self.hub.link_mut(id).own = None;
                self.review_drain(id, io);
            }
            other => panic!("p{} <- b{}: {other:?}", self.hub.index, id.0),
        }
    }

    pub fn flush_link(&mut self, id: LinkId, io: &mut Io) {
        loop {
            self.add_chunks(id, io);
            let out = self.write_link(id, io);
            if !out || self.hub.link(id).transfers.is_empty() {
                return;
            }
        }
    }

    /// `true`: all is out.
    fn write_link(&mut self, id: LinkId, io: &mut Io) -> bool {
        let now = io.now;
        let link = self.hub.link_mut(id);
        let Some(conn) = link.conn else {
            link.outbox.clear();
            return true;
        };
        let before = link.outbox.len();
        let written = io.write(conn, HERE, &mut link.outbox);
        link.stuck_since = match link.stuck_since {
            _ if written != Written::Some => None,
            Some(since) if link.outbox.len() == before => Some(since),
            _ => Some(now),
        };
        link.doomed |= written == Written::Failed;
        self.hub.was_written(id);
        written == Written::All
    }

    fn add_chunks(&mut self, id: LinkId, io: &mut Io) {
        while self.hub.link(id).outbox.len() < CHUNKS_BELOW_BYTES {
            let Some(key) = self.hub.link_mut(id).transfers.pop_front() else { return };
            let more =
                self.drive(key, io, |session, fx| session.link() == Some(id) && session.send_chunk(fx));
            if more == Some(true) {
                self.hub.link_mut(id).transfers.push_back(key);
            }
        }
    }
}
