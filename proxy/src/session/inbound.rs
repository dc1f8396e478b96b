//! Server frames on their way to the client: which have arrived, which the client's socket has, which are acked; and
//! at `replay`, what they were, so that an attachment that makes them once more can be held to it.

use std::collections::VecDeque;

use holdfast_protocol::Seq;
use holdfast_protocol::message::Rule;
use xxhash_rust::xxh3::xxh3_64;

/// What an arriving server frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    New,
    /// Had already from this attachment; ack it again.
    Again,
    /// Had already from an earlier attachment, and the same: the player isn't shown it twice.
    Echo,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Inbound {
    had: Seq,
    /// What the current attachment has sent of it. Behind `had` while a replay makes once more what the player has.
    echo: Seq,
    handed: Seq,
    /// Hashes of the frames after `hashed_from`, as far as they are kept.
    hashes: VecDeque<u64>,
    hashed_from: Seq,
    keeps_hashes: bool,
    acked: Seq,
    /// What the current attachment may have in flight.
    window_bytes: u32,
    /// Frame bytes of earlier attachments that aren't in the client's socket.
    carried_bytes: u32,
    /// Frame bytes of this attachment that aren't in the client's socket.
    unhanded_bytes: u32,
    /// Frame bytes in the client's socket that aren't acked.
    unacked_bytes: u32,
    /// A frame came again: its sender waits for an ack it has missed.
    repeat_ack: bool,
    hurried: bool,
}

impl Inbound {
    /// Takes note of a server message.
    ///
    /// # Errors
    /// The backend skipped a seq, sent more than the window, or made something else than it had made before.
    pub fn arrive(&mut self, seq: Seq, frame: &[u8]) -> Result<Arrival, Rule> {
        if seq <= self.echo {
            self.repeat_ack = true;
            return Ok(Arrival::Again);
        }
        if seq != self.echo.next() {
            return Err(Rule::OutOfSequence);
        }
        if seq <= self.had {
            return self.compare(seq, frame);
        }
        self.take(seq, frame, true)?;
        Ok(Arrival::New)
    }

    /// Takes note of a CLOSE, which no window keeps back.
    ///
    /// # Errors
    /// The backend skipped a seq, or closes where it had gone on before.
    pub fn arrive_close(&mut self, seq: Seq) -> Result<Arrival, Rule> {
        if seq <= self.echo {
            self.repeat_ack = true;
            return Ok(Arrival::Again);
        }
        if seq != self.echo.next() {
            return Err(Rule::OutOfSequence);
        }
        if seq <= self.had {
            return Err(Rule::Diverged);
        }
        (self.had, self.echo) = (seq, seq);
        Ok(Arrival::New)
    }

    /// Takes note of a frame that came inside a record, whose first may begin while any window is left.
    ///
    /// # Errors
    /// The frame isn't the next, is too large to be counted, or the window was used up when the record began.
    pub fn arrive_in_record(&mut self, seq: Seq, frame: &[u8], is_first: bool) -> Result<(), Rule> {
        if seq != self.had.next() || self.echo != self.had {
            return Err(Rule::OutOfSequence);
        }
        let in_flight = self.in_flight_bytes();
        if is_first && in_flight > 0 && in_flight >= self.window_bytes {
            return Err(Rule::WindowExceeded);
        }
        self.take(seq, frame, false)
    }

    fn take(&mut self, seq: Seq, frame: &[u8], within_window: bool) -> Result<(), Rule> {
        // An empty frame isn't free: it takes its place in the client's outbox.
        let length = u32::try_from(frame.len().max(1)).map_err(|_| Rule::FrameTooLarge)?;
        let in_flight = self.in_flight_bytes();
        let fits = in_flight == 0 || in_flight.saturating_add(length) <= self.window_bytes;
        if within_window && !fits {
            return Err(Rule::WindowExceeded);
        }
        self.had = seq;
        self.echo = seq;
        self.unhanded_bytes = self.unhanded_bytes.saturating_add(length);
        if self.keeps_hashes {
            self.hashes.push_back(xxh3_64(frame));
        }
        Ok(())
    }

    fn in_flight_bytes(&self) -> u32 {
        self.unhanded_bytes.saturating_add(self.unacked_bytes)
    }

    fn compare(&mut self, seq: Seq, frame: &[u8]) -> Result<Arrival, Rule> {
        let index = usize::try_from(seq.since(self.hashed_from).saturating_sub(1)).unwrap_or(usize::MAX);
        if seq <= self.hashed_from || self.hashes.get(index) != Some(&xxh3_64(frame)) {
            return Err(Rule::Diverged);
        }
        self.echo = seq;
        // It counts in its sender's window until it is acked, which is soon: the client isn't waited for.
        let length = u32::try_from(frame.len().max(1)).map_err(|_| Rule::FrameTooLarge)?;
        self.unacked_bytes = self.unacked_bytes.saturating_add(length);
        self.repeat_ack = true;
        Ok(Arrival::Echo)
    }

    /// From here on an attachment speaks that has sent (or is taken to have sent) all up to `server_seq`.
    pub fn attend(&mut self, server_seq: Seq) {
        self.echo = server_seq.min(self.had);
    }

    /// Whether to remember what server frames were. Not: all hashes so far are forgotten.
    pub fn set_keeps_hashes(&mut self, keeps: bool) {
        if keeps != self.keeps_hashes {
            self.keeps_hashes = keeps;
            self.hashes = VecDeque::new();
            self.hashed_from = self.had;
        }
    }

    /// A state covers the frames up to `seq`: they won't be made once more.
    pub fn trim_hashes(&mut self, seq: Seq) {
        let before = self.hashes.len();
        while self.hashed_from < seq && self.hashed_from < self.had {
            self.hashes.pop_front();
            self.hashed_from = self.hashed_from.next();
        }
        // As many are likely to be kept again, unless this was a peak.
        if self.hashes.is_empty() && self.hashes.capacity() / 4 > before {
            self.hashes = VecDeque::new();
        }
    }

    /// Nothing has come for a while: room that is empty is given back.
    pub fn rest(&mut self) {
        if self.hashes.is_empty() {
            self.hashes = VecDeque::new();
        }
    }

    #[must_use]
    pub fn hash_bytes(&self) -> usize {
        self.hashes.len() * size_of::<u64>()
    }

    /// Bytes that they take up, filled or not.
    #[must_use]
    pub fn hash_room(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }

    /// All that arrived is in the client's socket (or dropped, when it is gone). `true`: ack without delay.
    pub fn handed(&mut self) -> bool {
        self.handed = self.had;
        self.carried_bytes = 0;
        self.unacked_bytes = self.unacked_bytes.saturating_add(std::mem::take(&mut self.unhanded_bytes));
        self.is_urgent()
    }

    /// Of all that has arrived, the last alone isn't in the client's socket.
    #[must_use]
    pub fn only_last_is_unhanded(&self) -> bool {
        self.handed.next() == self.had
    }

    /// Whoever sent the last frame waits for its ack.
    pub fn hurry_ack(&mut self) {
        self.hurried = true;
    }

    /// A good part of the window waits for an ack, or somebody does.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.hurried || self.unacked_bytes > self.window_bytes / 4
    }

    /// What the current attachment may be told: no more than it has sent.
    fn done(&self) -> Seq {
        if self.echo < self.had { self.echo } else { self.handed }
    }

    #[must_use]
    pub fn owes_ack(&self) -> bool {
        self.acked < self.done() || self.repeat_ack
    }

    /// The cumulative ack to send now; nothing is owed after it.
    pub fn take_ack(&mut self) -> Seq {
        self.acked = self.done();
        self.unacked_bytes = 0;
        (self.repeat_ack, self.hurried) = (false, false);
        self.acked
    }

    /// The acks so far may have gone down with their link.
    pub fn forget_ack(&mut self) {
        self.acked = Seq::NONE;
    }

    /// The window of a new (or resumed, or thawed) attachment, for what it sends after `had`. What earlier ones sent
    /// and a slow client hasn't taken makes it smaller, so that no number of moves piles up more than two windows.
    pub fn open_window(&mut self, service_window_bytes: u32) -> u32 {
        // Of what the present attachment was allowed, this may be on its way already, sent before it hears of a THAW.
        let promised =
            self.window_bytes.saturating_sub(self.unhanded_bytes.saturating_add(self.unacked_bytes));
        self.carried_bytes = self.carried_bytes.saturating_add(std::mem::take(&mut self.unhanded_bytes));
        self.unacked_bytes = 0;
        let window_bytes = if self.carried_bytes < service_window_bytes {
            (service_window_bytes - self.carried_bytes).max(service_window_bytes / 4)
        } else {
            // One frame at a time: a window never keeps a single frame back.
            1
        };
        self.window_bytes = window_bytes.max(promised);
        self.window_bytes
    }

    /// Last server frame of any attachment.
    #[must_use]
    pub fn had(&self) -> Seq {
        self.had
    }

    /// Last server frame of the current attachment.
    #[must_use]
    pub fn echo(&self) -> Seq {
        self.echo
    }
}
