//! What a session may do to the world, and ask of it. The worker implements this over sockets; tests and the model
//! checker implement it over vectors.

use std::time::Duration;

use holdfast_protocol::message::Rule;
use holdfast_protocol::{Message, Seq, TraceContext};

use super::outbound::Entry;
use crate::telemetry::counters::{CloseReason, HandoffCause, HandoffResult};

/// One of the worker's links, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// The waits of a session. Setting one again replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// An answer from a backend is due.
    Answer,
    /// The stay in the proxy ends.
    Park,
    /// The wait for its own backend ends.
    Home,
    /// The end of the session is due.
    Close,
}

/// Which backend a session can go to.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Links that have failed in this attempt.
    pub tried: &'a [LinkId],
    /// State format that the backend must read.
    pub format: Option<&'a str>,
    /// Only this backend will do.
    pub home: Option<LinkId>,
}

/// Steps of a handoff whose messages carry a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Freeze,
    Attach,
    Thaw,
}

/// What happened, for metrics, logs and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note<'a> {
    /// FREEZE is on its way.
    Freezing(HandoffCause),
    /// The first chunk of the state is here.
    StateBegins,
    /// The state is whole in the proxy.
    StateKept {
        bytes: u64,
    },
    /// ATTACH is on its way.
    Attaching {
        link: LinkId,
    },
    /// The target has loaded the session.
    Attached {
        link: LinkId,
    },
    /// Live input goes to the backend (again).
    Live {
        link: LinkId,
    },
    /// A handoff is over; after `Parked`, another result follows when a backend takes the session.
    HandoffDone(HandoffResult),
    Refused {
        link: LinkId,
        reason: &'a str,
    },
    /// The backend didn't answer in time.
    Late {
        link: LinkId,
    },
    /// The backend's process is gone.
    Lost {
        link: LinkId,
    },
    /// The backend broke a rule; its attachment ends.
    Fault {
        link: LinkId,
        rule: Rule,
    },
    /// The state is over the service's limit; the session stays where it is.
    StateTooLarge {
        link: LinkId,
        total_bytes: u64,
        max_bytes: u64,
    },
    /// The backend says that this attachment failed.
    Failed {
        link: LinkId,
        text: &'a str,
    },
    /// A message of an attachment that isn't current was dropped.
    Stale,
    /// Client frames that went down with a backend.
    FramesLost(u64),
    /// State that nobody took.
    StateDropped {
        bytes: u64,
    },
}

/// The session's world.
pub trait Effects {
    /// Puts a message on the link. On a link that is down it is dropped: what matters is sent again at the resume.
    fn send(&mut self, link: LinkId, message: &Message<'_>);
    fn link_is_up(&self, link: LinkId) -> bool;
    /// Client bytes that a session may have in flight to that backend.
    fn client_window_bytes(&self, link: LinkId) -> u32;
    /// STATE bytes that an ATTACH may bring to that backend unasked.
    fn state_credit_bytes(&self, link: LinkId) -> u64;
    /// Name of the state format that this backend writes.
    fn state_format(&self, link: LinkId) -> String;
    /// A backend for this session, now. The link is dialled if it isn't up.
    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId>;
    /// The session's attachment is now on this link, or on none.
    fn settled(&mut self, link: Option<LinkId>);
    /// Room for a state on its way in. `false`: not now.
    fn reserve(&mut self, bytes: u64) -> bool;
    fn unreserve(&mut self, bytes: u64);
    /// STATE chunks are to be sent; the link takes them in turn through `Session::send_chunk`.
    fn has_chunks(&mut self, link: LinkId);
    /// Bytes for the client. `Err`: the frame can't stand in this service's framing.
    ///
    /// # Errors
    /// The backend's frame breaks the framing.
    fn deliver(&mut self, seq: Seq, frame: &[u8], trace: &TraceContext) -> Result<(), Rule>;
    fn read_client(&mut self, on: bool);
    /// Close the client's connection when all that was delivered has been written.
    fn finish_client(&mut self);
    /// An ack is owed; it may wait for company.
    fn owe_ack(&mut self);
    fn timer(&mut self, timer: Timer, after: Option<Duration>);
    /// The trace context for a message of this step.
    fn trace(&mut self, step: Step) -> TraceContext;
    /// The game has processed a client frame.
    fn processed(&mut self, entry: &Entry<'_>);
    fn note(&mut self, note: Note<'_>);
    /// The last effect of a session.
    fn ended(&mut self, reason: CloseReason);
    /// An empty buffer with capacity, and its return.
    fn take_buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }
    fn give_buffer(&mut self, _buffer: Vec<u8>) {}
}
