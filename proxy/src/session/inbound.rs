//! Server frames on their way to the client: which have arrived, which the client's socket has, which are acked.

use holdfast_protocol::Seq;
use holdfast_protocol::message::Rule;

/// What an arriving server frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    New,
    /// Had already; ack it again.
    Again,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Inbound {
    had: Seq,
    handed: Seq,
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
}

impl Inbound {
    /// Takes note of a server message of `length` frame bytes.
    ///
    /// # Errors
    /// The backend skipped a seq, or sent more than the window.
    pub fn arrive(&mut self, seq: Seq, length: usize) -> Result<Arrival, Rule> {
        if seq <= self.had {
            self.repeat_ack = true;
            return Ok(Arrival::Again);
        }
        if seq != self.had.next() {
            return Err(Rule::OutOfSequence);
        }
        let length = u32::try_from(length).map_err(|_| Rule::FrameTooLarge)?;
        let in_flight = self.unhanded_bytes.saturating_add(self.unacked_bytes);
        if length > 0 && in_flight > 0 && in_flight.saturating_add(length) > self.window_bytes {
            return Err(Rule::WindowExceeded);
        }
        self.had = seq;
        self.unhanded_bytes += length;
        Ok(Arrival::New)
    }

    /// All that arrived is in the client's socket (or dropped, when it is gone). `true`: ack without delay.
    pub fn handed(&mut self) -> bool {
        self.handed = self.had;
        self.carried_bytes = 0;
        self.unacked_bytes += std::mem::take(&mut self.unhanded_bytes);
        self.unacked_bytes > self.window_bytes / 4
    }

    #[must_use]
    pub fn owes_ack(&self) -> bool {
        self.acked < self.handed || self.repeat_ack
    }

    /// The cumulative ack to send now; nothing is owed after it.
    pub fn take_ack(&mut self) -> Seq {
        self.acked = self.handed;
        self.unacked_bytes = 0;
        self.repeat_ack = false;
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

    #[must_use]
    pub fn had(&self) -> Seq {
        self.had
    }
}
