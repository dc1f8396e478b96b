//! One bot: a connection, its checker and its timeline. It knows nothing of when to send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use crate::players::checker::{Checker, Faults};
use crate::players::timeline::Timeline;
use crate::players::worlds::Seen;
use crate::wire::{Ask, FromArena, MAX_FRAME_BYTES, Reply, split, with_prefix};

/// Unsent bytes beyond which a bot stops making new frames: the other side has stopped reading.
const MAX_OUTBOX_BYTES: usize = 2 * MAX_FRAME_BYTES;

pub struct Bot {
    pub index: usize,
    /// Where it connects, as that was named.
    pub target: String,
    /// None: it has left.
    writer: RefCell<Option<OwnedWriteHalf>>,
    inner: RefCell<Inner>,
    alive: Cell<bool>,
    leaving: Notify,
    /// Until then it doesn't read.
    pub deaf_until_us: Cell<u64>,
    /// When it leaves its match, or comes back to one.
    pub rematch_us: Cell<u64>,
}

/// What only changes while a frame is taken or sent.
pub struct Inner {
    pub checker: Checker,
    pub timeline: Timeline,
    /// What its next frames ask for, one each.
    pub asks: VecDeque<Ask>,
    /// Why it wasn't let into a match; not told yet.
    pub refusal: Option<String>,
    outbox: Vec<u8>,
    /// The head of a frame whose rest hasn't come.
    partial: Vec<u8>,
    /// The arena's period of ticks, as its replies tell.
    pub tick_ms: u32,
    answered: bool,
    /// Since when the player has waited when its earlier connection had ended; the next reply ends the wait.
    owed: Vec<u64>,
}

/// What a player takes along to its next connection.
pub struct Past {
    timeline: Timeline,
    owed: Vec<u64>,
}

/// What one read brought.
#[derive(Debug, Default, Clone, Copy)]
pub struct Brought {
    pub frames: u64,
    pub replies: u64,
    pub faults: Faults,
}

/// What a bot asks of the swarm.
pub trait Registry {
    /// A small number for the backend that a reply names.
    fn backend(&self, instance: u64, version: &str) -> usize;

    /// What the others have seen of a world.
    fn world(&self, name: u64) -> Rc<Seen>;
}

impl Bot {
    pub fn new(index: usize, target: &str, checker: Checker, stream: TcpStream) -> (Self, OwnedReadHalf) {
        let (reader, writer) = stream.into_split();
        let inner = Inner {
            checker,
            timeline: Timeline::default(),
            asks: VecDeque::new(),
            refusal: None,
            outbox: Vec::new(),
            partial: Vec::new(),
            tick_ms: 0,
            answered: false,
            owed: Vec::new(),
        };
        let bot = Self {
            index,
            target: target.to_owned(),
            writer: RefCell::new(Some(writer)),
            inner: RefCell::new(inner),
            alive: Cell::new(true),
            leaving: Notify::new(),
            deaf_until_us: Cell::new(0),
            rematch_us: Cell::new(u64::MAX),
        };
        (bot, reader)
    }

    pub fn is_alive(&self) -> bool {
        self.alive.get()
    }

    /// Returns whether it was alive before.
    pub fn die(&self) -> bool {
        self.alive.replace(false)
    }

    /// Closes its connection; what it is owed won't be missed.
    pub fn leave(&self) {
        self.die();
        self.writer.take();
        self.leaving.notify_one();
    }

    pub fn has_left(&self) -> bool {
        self.writer.borrow().is_none()
    }

    /// When the reader has to let go of the connection.
    pub async fn told_to_leave(&self) {
        self.leaving.notified().await;
    }

    pub fn look<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.borrow_mut())
    }

    /// Makes the next frame, which asks for this or else what the bot has in mind, and sends what the socket takes; false
    /// if the bot had to hold back.
    pub fn send(&self, frame_bytes: usize, now_us: u64, ask: Option<Ask>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if inner.outbox.len() > MAX_OUTBOX_BYTES {
            self.flush_outbox(&mut inner.outbox);
            return false;
        }
        let ask = ask.or_else(|| inner.asks.pop_front()).unwrap_or_default();
        let input = inner.checker.next_input(now_us, ask);
        with_prefix(&mut inner.outbox, |out| input.encode(frame_bytes, out));
        self.flush_outbox(&mut inner.outbox);
        true
    }

    /// Bytes that the other side hasn't taken.
    pub fn unsent_bytes(&self) -> usize {
        self.inner.borrow().outbox.len()
    }

    pub fn flush(&self) {
        self.flush_outbox(&mut self.inner.borrow_mut().outbox);
    }

    /// A write error is left to the reader, which sees the same end with its reason.
    fn flush_outbox(&self, outbox: &mut Vec<u8>) {
        let writer = self.writer.borrow();
        let Some(writer) = &*writer else { return };
        let mut written = 0;
        while written < outbox.len() {
            match writer.try_write(&outbox[written..]) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => written += bytes,
            }
        }
        outbox.drain(..written);
        if outbox.is_empty() && outbox.capacity() > 4096 {
            *outbox = Vec::new();
        }
    }

    /// Waits for bytes and takes all frames in them. `scratch` is shared by all bots: none holds a buffer while idle.
    pub async fn receive(
        &self,
        reader: &mut OwnedReadHalf,
        scratch: &RefCell<Vec<u8>>,
        now_us: impl Fn() -> u64,
        registry: &impl Registry,
    ) -> io::Result<Brought> {
        poll_fn(|context| self.poll_receive(reader, scratch, &now_us, registry, context)).await
    }

    fn poll_receive(
        &self,
        reader: &mut OwnedReadHalf,
        scratch: &RefCell<Vec<u8>>,
        now_us: &impl Fn() -> u64,
        registry: &impl Registry,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Brought>> {
        let scratch = &mut *scratch.borrow_mut();
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed by the other side",
            )));
        }
        Poll::Ready(self.inner.borrow_mut().take(bytes, now_us(), registry))
    }
}

impl Inner {
    fn take(&mut self, bytes: &[u8], now_us: u64, registry: &impl Registry) -> io::Result<Brought> {
        let mut brought = Brought::default();
        let mut wrong = None;
        let mut partial = std::mem::take(&mut self.partial);
        let mut on_frame = |frame: &[u8]| {
            brought.frames += 1;
            match FromArena::decode(frame) {
                Ok(FromArena::Reply(reply)) => {
                    brought.replies += u64::from(self.reply(&reply, now_us, registry));
                }
                Ok(FromArena::Tick(tick)) => self.checker.tick(&tick),
                Ok(FromArena::Turn(turn)) => self.checker.turn(&turn),
                Ok(FromArena::Joined(joined)) => {
                    let seen = registry.world(joined.world.name);
                    self.checker.joined(joined, seen);
                }
                Ok(FromArena::Refused(refused)) => {
                    self.checker.refused(&refused);
                    self.refusal = Some(refused.reason.to_owned());
                }
                Err(error) => wrong = Some(error),
            }
        };
        let result = if partial.is_empty() {
            split(bytes, &mut on_frame).map(|used| partial.extend_from_slice(&bytes[used..]))
        } else {
            partial.extend_from_slice(bytes);
            split(&partial, &mut on_frame).map(|used| drop(partial.drain(..used)))
        };
        self.partial = partial;
        result.map_err(io::Error::other)?;
        match wrong {
            Some(error) => Err(io::Error::other(error)),
            None => Ok(Brought { faults: self.checker.faults(), ..brought }),
        }
    }

    fn reply(&mut self, reply: &Reply<'_>, now_us: u64, registry: &impl Registry) -> bool {
        self.tick_ms = reply.tick_ms;
        self.answered = true;
        for since_us in self.owed.drain(..) {
            self.timeline.record(since_us, now_us);
        }
        // The game's first replies may come before it knows.
        if reply.instance != 0 {
            self.timeline.served_by(registry.backend(reply.instance, reply.version), now_us);
        }
        match self.checker.reply(reply) {
            Some(sent_us) => {
                self.timeline.record(sent_us, now_us);
                true
            }
            None => false,
        }
    }

    /// On this connection.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The connection has ended: from now on the player waits, whether a frame is under way or not.
    pub fn cut_off(&mut self, now_us: u64) {
        self.owed.push(now_us);
    }

    /// The player goes on elsewhere: what isn't answered by now never will be.
    pub fn leave(&mut self) -> Past {
        self.owed.extend(self.checker.unanswered());
        self.checker.finish();
        Past { timeline: std::mem::take(&mut self.timeline), owed: std::mem::take(&mut self.owed) }
    }

    /// The same player's earlier life.
    pub fn follow(&mut self, past: Past) {
        (self.timeline, self.owed) = (past.timeline, past.owed);
    }

    /// The run is over: what is still owed has been waited for until now.
    pub fn finish(&mut self, now_us: u64) -> Faults {
        self.owed.extend(self.checker.unanswered());
        for sent_us in self.owed.drain(..) {
            self.timeline.record(sent_us, now_us);
        }
        self.checker.finish()
    }
}
