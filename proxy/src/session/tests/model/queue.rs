//! One direction of a link: whole messages, as they are on the wire, in their order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use holdfast_protocol::message::Message;
use holdfast_protocol::{MAX_MESSAGE_BYTES, decode, encode};

#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Queue(VecDeque<Arc<[u8]>>);

pub fn parse(bytes: &[u8]) -> Message<'_> {
    decode(bytes, MAX_MESSAGE_BYTES).unwrap().unwrap().0
}

impl Queue {
    pub fn push(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::with_capacity(128);
        encode(message, &mut bytes);
        self.0.push_back(bytes.into());
    }

    pub fn pop(&mut self) -> Option<Arc<[u8]>> {
        self.0.pop_front()
    }

    pub fn front(&self) -> Option<Message<'_>> {
        self.0.front().map(|bytes| parse(bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|bytes| Brief(parse(bytes)))).finish()
    }
}

/// A message in a few words.
pub struct Brief<'a>(pub Message<'a>);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Message::Attach(m) => {
                write!(f, "ATTACH {:?} e{} c{} s{}", m.mode, m.epoch, m.client_seq, m.server_seq)
            }
            Message::Attached(m) => write!(f, "ATTACHED e{} c{} s{}", m.epoch, m.client_seq, m.server_seq),
            Message::Refused(m) => write!(f, "REFUSED e{} retry={}", m.epoch, m.retry),
            Message::Start(m) => write!(f, "START e{}", m.epoch),
            Message::Data(m) => write!(f, "DATA e{} {} ack{} again={}", m.epoch, m.seq, m.ack, m.again),
            Message::Ack(m) => write!(f, "ACK e{} {}", m.epoch, m.data),
            Message::Freeze(m) => write!(f, "FREEZE e{} c{}", m.epoch, m.client_seq),
            Message::Thaw(m) => {
                write!(f, "THAW e{}->e{} c{} s{}", m.old_epoch, m.epoch, m.client_seq, m.server_seq)
            }
            Message::Release(m) => write!(f, "RELEASE e{}", m.epoch),
            Message::State(m) => {
                write!(f, "STATE e{} c{} s{} {:?}", m.epoch, m.client_seq, m.server_seq, m.chunk)
            }
            Message::Record(m) => write!(
                f,
                "RECORD e{} {} {:?} after{} {:?}",
                m.epoch, m.seq, m.kind, m.after_client_seq, m.bytes
            ),
            Message::Credit(m) => write!(f, "CREDIT e{} {}", m.epoch, m.bytes),
            Message::Close(m) => {
                write!(f, "CLOSE e{} {} ack{} half={} again={}", m.epoch, m.seq, m.ack, m.half, m.again)
            }
            other => other.fmt(f),
        }
    }
}
