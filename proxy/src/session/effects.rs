//! What a session may do to the world, and ask of it. The worker implements this over sockets; tests and the model
//! checker implement it over vectors.

use std::time::Duration;

use holdfast_protocol::message::Rule;
use holdfast_protocol::{GroupId, Message, Seq, SessionId, TraceContext};

use super::outbound::Entry;
use super::riders::Departed;
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
    /// Another checkpoint is due.
    Checkpoint,
}

/// Whether a session's input may be what made its backend crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspicion {
    /// All that it sent had been processed.
    None,
    /// It had input that wasn't processed: it recovers after those without.
    Once,
    /// So it had at the crash before this one: it recovers with no other beside it.
    Again,
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
    /// Capabilities that the backend must have, where its link is up.
    pub needs: u64,
    /// Backends that run this logic come first.
    pub logic: Option<&'a str>,
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
        rule: Rule,
        text: &'a str,
    },
    /// A message of an attachment that isn't current was dropped.
    Stale,
    /// A checkpoint is whole in the proxy.
    CheckpointKept {
        bytes: u64,
    },
    /// The backend can't do what the service's `recovery` asks for: its crash will cost this session its state.
    Unprotected {
        link: LinkId,
    },
    /// A replay made something else than the player has seen: server frame `seq`, after record `record`.
    Diverged {
        link: LinkId,
        seq: Seq,
        record: Seq,
    },
    /// This client frame is the first of the input that brought its backends down.
    Poison {
        seq: Seq,
        hash: u64,
    },
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
    /// Abilities that this backend has, of those that the proxy offered.
    fn capabilities(&self, link: LinkId) -> u64;
    /// The longest frame that the backend takes; as long as any before WELCOME.
    fn max_frame_bytes(&self, link: LinkId) -> u32;
    /// What must be equal for a sure replay, as this backend names it.
    fn logic(&self, link: LinkId) -> String;
    /// The session's backend has crashed; its turn comes by `Session::recover`.
    fn await_recovery(&mut self, suspicion: Suspicion);
    /// The attempt that `Session::recover` began is over, well or not: the next may have its turn.
    fn recovery_over(&mut self);
    /// A backend for this session, now. The link is dialled if it isn't up.
    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId>;
    /// The session's attachment is now on this link, or on none.
    fn settled(&mut self, link: Option<LinkId>);
    /// Room for a state on its way in, which frees `frees` bytes of what is held when it is whole. `false`: not now.
    fn reserve(&mut self, bytes: u64, frees: u64) -> bool;
    fn unreserve(&mut self, bytes: u64);
    /// STATE chunks are to be sent; the link takes them in turn through `Session::send_chunk`.
    fn has_chunks(&mut self, link: LinkId);
    /// Bytes for the client. `Err`: the frame can't stand in this service's framing.
    ///
    /// # Errors
    /// The backend's frame breaks the framing.
    fn deliver(&mut self, seq: Seq, frame: &[u8], trace: &TraceContext) -> Result<(), Rule>;
    fn read_client(&mut self, on: bool);
    /// Of a group: bytes for a member's client.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    fn deliver_to(&mut self, member: SessionId, frame: &[u8], trace: &TraceContext) -> Result<(), Rule>;
    fn read_member(&mut self, member: SessionId, on: bool);
    /// A member goes on alone; see [`Session::disembark`](super::Session::disembark).
    fn member_departs(&mut self, member: SessionId, departed: Departed);
    /// A member is in the group no more, and nowhere else; see [`Session::part`](super::Session::part).
    fn member_is_over(&mut self, member: SessionId, reason: CloseReason);
    /// Of a session: its game wants it in a group.
    fn joins(&mut self, group: GroupId);
    /// Of a session: it is the group's from here on; see [`Session::take_luggage`](super::Session::take_luggage).
    fn boards(&mut self);
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
