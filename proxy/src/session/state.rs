//! A session's state while the proxy holds it: an opaque blob and the positions it stands for.

use holdfast_protocol::message::{Rule, State};
use holdfast_protocol::{Epoch, Seq};

/// A complete state with which a backend can continue the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeptState {
    pub bytes: Vec<u8>,
    /// As the writer's WELCOME named it.
    pub format: String,
    /// Last client frame, server frame and record that it covers.
    pub client_seq: Seq,
    pub server_seq: Seq,
    pub record_seq: Seq,
    /// The attachment that is to prove it has taken the state over, once there is one.
    pub given_to: Option<Epoch>,
}

/// A STATE whose chunks are arriving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incoming {
    bytes: Vec<u8>,
    total_bytes: u64,
    client_seq: Seq,
    server_seq: Seq,
    record_seq: Seq,
}

impl Incoming {
    /// Begins with the first chunk's head; its bytes are still to be added.
    #[must_use]
    pub fn begin(first: &State<'_>) -> Self {
        Self::begin_in(Vec::new(), first)
    }

    /// The same, in a buffer that there is already.
    #[must_use]
    pub fn begin_in(mut buffer: Vec<u8>, first: &State<'_>) -> Self {
        if (buffer.capacity() - buffer.capacity() / 4) as u64 > first.total_bytes {
            // Most of it would be room for nothing.
            buffer = Vec::new();
        }
        buffer.clear();
        Self {
            bytes: buffer,
            total_bytes: first.total_bytes,
            client_seq: first.client_seq,
            server_seq: first.server_seq,
            record_seq: first.record_seq,
        }
    }

    /// Adds a chunk. `true`: the state is whole.
    ///
    /// # Errors
    /// The chunk is out of place, of another state, or over the credit.
    pub fn add(&mut self, chunk: &State<'_>, credit_bytes: u64) -> Result<bool, Rule> {
        let same = chunk.total_bytes == self.total_bytes
            && chunk.client_seq == self.client_seq
            && chunk.server_seq == self.server_seq
            && chunk.record_seq == self.record_seq;
        let end = self.bytes.len() as u64 + chunk.chunk.len() as u64;
        if !same
            || chunk.offset_bytes != self.bytes.len() as u64
            || end > self.total_bytes
            || end > credit_bytes
        {
            return Err(Rule::StateOverrun);
        }
        if chunk.chunk.is_empty() && self.total_bytes > 0 {
            return Ok(false);
        }
        if self.bytes.capacity() < chunk.chunk.len() + self.bytes.len() {
            // All that may come, at once: room for it is reserved.
            let whole = usize::try_from(self.total_bytes.min(credit_bytes)).unwrap_or(0);
            self.bytes.reserve_exact(whole.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend_from_slice(chunk.chunk);
        Ok(end == self.total_bytes)
    }

    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    #[must_use]
    pub fn into_kept(self, format: String) -> KeptState {
        KeptState {
            bytes: self.bytes,
            format,
            client_seq: self.client_seq,
            server_seq: self.server_seq,
            record_seq: self.record_seq,
            given_to: None,
        }
    }
}
