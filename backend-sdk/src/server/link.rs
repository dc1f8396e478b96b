//! [`Link`]: a connection with what has been read but not yet decoded, and what waits to be written.

use std::io;
use std::time::{Duration, Instant};

use holdfast_protocol::message::FaultScope;
use holdfast_protocol::{DecodeError, Message, decode, encode, message};
use tokio::io::{Interest, Ready};

use super::stream::Stream;
use crate::core::{Fault, LinkEnd};

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// A larger output buffer is freed once it is written.
const KEPT_BYTES: usize = 1024 * 1024;

/// Why a link ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("closed by the proxy")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The proxy reports a fault of ours; that is never answered.
    #[error("told by the proxy: {0}")]
    Told(Fault),
}

impl From<LinkEnd> for LinkError {
    fn from(end: LinkEnd) -> Self {
        match end {
            LinkEnd::Fault(fault) => Self::Fault(fault),
            LinkEnd::Told(fault) => Self::Told(fault),
        }
    }
}

impl LinkError {
    /// The other side simply ended it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// What to tell the proxy, if the link can still carry it.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Closed | Self::Io(_) | Self::Told(_) => None,
            Self::Decode(error) => Some(Fault::new(error.rule(), error.to_string())),
            Self::Fault(fault) => Some(fault.clone()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    /// For logs.
    pub address: String,
    input: Vec<u8>,
    /// `input[..filled]` has been read.
    filled: usize,
    /// Bytes being written, and how many of them are.
    output: Vec<u8>,
    written: usize,
}

impl Link {
    pub fn new(stream: Stream, address: String) -> Self {
        Self { stream, address, input: Vec::new(), filled: 0, output: Vec::new(), written: 0 }
    }

    /// Waits until there is something to read, or, when bytes wait for it, room to write.
    pub async fn ready(&self) -> io::Result<Ready> {
        let wanted =
            if self.is_written() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        self.stream.ready(wanted).await
    }

    pub fn is_written(&self) -> bool {
        self.written == self.output.len()
    }

    /// Reads what is there, up to a batch; `false`: nothing was.
    pub fn read(&mut self) -> Result<bool, LinkError> {
        if self.input.len() < self.filled + READ_BYTES / 2 {
            self.input.resize(self.filled + READ_BYTES, 0);
        }
        match self.stream.try_read(&mut self.input[self.filled..]) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives each whole message to `take`, until that returns an error or the turn is over. `true`: messages are left.
    pub fn messages(
        &mut self,
        max_message_bytes: usize,
        turn: Duration,
        mut take: impl FnMut(&Message<'_>) -> Result<(), LinkEnd>,
    ) -> Result<bool, LinkError> {
        let ends = Instant::now() + turn;
        let (mut begin, mut over) = (0, false);
        while !over
            && let Some((message, length)) = decode(&self.input[begin..self.filled], max_message_bytes)?
        {
            begin += length;
            take(&message)?;
            over = Instant::now() >= ends;
        }
        self.consume(begin);
        Ok(over && decode(&self.input[..self.filled], max_message_bytes)?.is_some())
    }

    /// Writes a fault of the link, as far as the socket takes it: the link ends anyway.
    pub fn say_fault(&mut self, fault: &Fault) {
        let mut bytes = Vec::new();
        let (scope, rule, text) = (FaultScope::Link, fault.rule, fault.text.as_str());
        encode(&Message::Fault(message::Fault { scope, rule, text }), &mut bytes);
        // The proxy may be gone; the log has the fault in any case.
        let _ = self.write(&mut bytes);
    }

    /// The bytes read and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.input[..self.filled]
    }

    pub fn consume(&mut self, count: usize) {
        self.input.copy_within(count..self.filled, 0);
        self.filled -= count;
    }

    /// Writes as much as the socket takes, first what is left of an earlier write, then `more` (which is emptied).
    pub fn write(&mut self, more: &mut Vec<u8>) -> io::Result<()> {
        if self.is_written() {
            self.output.clear();
            self.written = 0;
            std::mem::swap(&mut self.output, more);
        } else {
            self.output.append(more);
        }
        while !self.is_written() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.is_written() {
            self.recycle(more);
        } else if self.written > self.output.len() / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// The buffer goes back to where the next batch is collected.
    fn recycle(&mut self, more: &mut Vec<u8>) {
        self.output.clear();
        self.written = 0;
        if self.output.capacity() > KEPT_BYTES {
            self.output = Vec::new();
        }
        if more.is_empty() && more.capacity() < self.output.capacity() {
            std::mem::swap(&mut self.output, more);
        }
    }
}
