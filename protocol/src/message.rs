//! The messages of the session link, as values. Byte layouts are in `codec`; rules are in SPEC.md.
//!
//! Decoded messages borrow from the bytes they were read from: nothing is copied.

use std::num::NonZeroU32;

use crate::ids::{Epoch, GroupId, InstanceId, Seq, SessionId};
use crate::trace::TraceContext;

mod attachments;
mod kind;
mod rule;

pub(crate) use attachments::BadEntry;
pub use attachments::{
    ATTACHMENT_ENTRY_BYTES, AttachmentEntry, AttachmentPhase, Attachments, AttachmentsBuf,
};
pub use kind::MessageType;
pub use rule::Rule;

/// What a message is about: a session, or a group as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    Session(SessionId),
    Group(GroupId),
}

/// Every message that can stand on a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Message<'a> {
    Hello(Hello<'a>),
    Welcome(Welcome<'a>),
    Attach(Attach<'a>),
    Attached(Attached),
    Refused(Refused<'a>),
    Start(Start),
    Data(Data<'a>),
    Record(Record<'a>),
    Ack(Ack),
    Freeze(Freeze),
    Thaw(Thaw),
    Release(Release),
    State(State<'a>),
    Checkpoint(Checkpoint),
    Credit(Credit),
    Join(Join),
    Drain(Drain<'a>),
    Undrain,
    Close(Close<'a>),
    Ping(Ping),
    Pong(Pong),
    Fault(Fault<'a>),
}

/// First message of the proxy on a new link.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello<'a> {
    /// Lowest and highest protocol version that the proxy speaks.
    pub min_version: u16,
    pub max_version: u16,
    pub instance: InstanceId,
    /// Which worker of the proxy; (instance, worker) owns this link's attachments.
    pub worker: u16,
    /// Grows with each connection of this worker to this backend; a newer one closes the older.
    pub generation: u64,
    /// Largest frame, in bytes, that the proxy takes from the backend.
    pub max_frame_bytes: u32,
    /// How long silence may last before the proxy calls the backend gone.
    pub liveness_ms: u32,
    /// Bit set of optional abilities, see [`capability`](crate::codec::capability).
    pub capabilities: u64,
    pub proxy: &'a str,
    pub service: &'a str,
    /// Proof of a shared secret; empty where none is configured.
    pub proof: &'a [u8],
}

/// The backend's answer to [`Hello`].
#[derive(Clone, PartialEq, Debug)]
pub struct Welcome<'a> {
    /// The protocol version both will speak.
    pub version: u16,
    pub instance: InstanceId,
    /// The generation of the Hello that this answers.
    pub generation: u64,
    pub max_frame_bytes: u32,
    /// Unacknowledged client bytes that a session may have in flight towards the backend.
    pub client_window_bytes: u32,
    /// STATE bytes that each ATTACH may bring before the first CREDIT.
    pub state_credit_bytes: u64,
    /// How long the backend keeps attachments whose link is lost.
    pub orphan_deadline_ms: u32,
    pub capabilities: u64,
    /// The backend's own drain, if one runs.
    pub draining: bool,
    /// The build of the game, as the operator names it.
    pub backend_version: &'a str,
    /// What must be equal for a replay to be sure; default: the version.
    pub logic: &'a str,
    /// Name of the state format that this backend writes.
    pub writes_format: &'a str,
    /// Names of the state formats that this backend reads, separated by commas.
    pub reads_formats: &'a str,
    pub attachments: Attachments<'a>,
}

/// Take a session over.
#[derive(Clone, PartialEq, Debug)]
pub struct Attach<'a> {
    pub subject: Subject,
    pub epoch: Epoch,
    pub mode: AttachMode,
    /// An earlier attachment's state could not be kept; the game is told.
    pub lost: bool,
    /// Last client frame that the state covers; what follows comes as DATA.
    pub client_seq: Seq,
    /// Last server frame that the proxy has; the next one is this plus one.
    pub server_seq: Seq,
    /// Last record of the journal.
    pub record_seq: Seq,
    /// Size of the state that follows in STATE chunks; 0 unless mode is `State`.
    pub state_total_bytes: u64,
    /// Server bytes that may be sent before the next ACK.
    pub server_window_bytes: u32,
    pub trace: TraceContext,
    /// The group that the session belongs to.
    pub group: Option<GroupId>,
    /// What the proxy can do for it after a crash, and which records it takes.
    pub recovery: Recovery,
    /// When the session began, in microseconds of Unix time: the time that a game which opens it is told, so that
    /// opening it again is the same.
    pub opened_us: u64,
    /// Client's address as `ip:port`.
    pub client: &'a str,
    pub service: &'a str,
    /// Format of the state, as the WELCOME of its writer named it; empty unless mode is `State`.
    pub format: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AttachMode {
    /// A new session.
    Fresh = 0,
    /// STATE chunks follow.
    State = 1,
    /// The backend should still have it: go on from these seqs.
    Resume = 2,
}

impl AttachMode {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Fresh),
            1 => Some(Self::State),
            2 => Some(Self::Resume),
            _ => None,
        }
    }
}

/// How much of a session survives the crash of its backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Recovery {
    /// Nothing: it begins anew, or ends.
    #[default]
    None = 0,
    /// It goes back to the last checkpoint.
    Checkpoint = 1,
    /// All of it, from the checkpoint and every change of state since.
    Delta = 2,
    /// All of it, from the checkpoint and every input since, given once more.
    Replay = 3,
}

impl Recovery {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Checkpoint),
            2 => Some(Self::Delta),
            3 => Some(Self::Replay),
            _ => None,
        }
    }

    /// As services' documents name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Checkpoint => "checkpoint",
            Self::Delta => "delta",
            Self::Replay => "replay",
        }
    }

    /// The [`capability`](crate::codec::capability) bits that a backend needs for it.
    #[must_use]
    pub fn needs(self) -> u64 {
        use crate::codec::capability::{CHECKPOINTS, DELTA, REPLAY};
        match self {
            Self::None => 0,
            Self::Checkpoint => CHECKPOINTS,
            Self::Delta => CHECKPOINTS | DELTA,
            Self::Replay => CHECKPOINTS | REPLAY,
        }
    }
}

/// Loaded and inert; also the answer to THAW.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    pub subject: Subject,
    pub epoch: Epoch,
    /// Last client frame that is part of what was loaded.
    pub client_seq: Seq,
    /// Last server frame that is part of what was loaded.
    pub server_seq: Seq,
}

/// The backend can't take the session; to the backend: a JOIN can't be met.
#[derive(Clone, PartialEq, Debug)]
pub struct Refused<'a> {
    pub subject: Subject,
    pub epoch: Epoch,
    /// Whether asking this backend again later may help.
    pub retry: bool,
    pub reason: &'a str,
}

/// All that an earlier attachment was given has been given: live input may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    pub subject: Subject,
    pub epoch: Epoch,
}

/// One application frame; on a group's stream, one [`Addressed`](crate::codec::addressed::Addressed) frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Data<'a> {
    pub subject: Subject,
    pub epoch: Epoch,
    pub seq: Seq,
    /// Cumulative ack of the other direction's DATA.
    pub ack: Seq,
    /// To the proxy: the last record that this frame depends on.
    pub record: Seq,
    /// Resent after a cut, or replayed.
    pub again: bool,
    pub trace: TraceContext,
    pub frame: &'a [u8],
}

/// An input that no client sent, or a change of state.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Record<'a> {
    pub subject: Subject,
    pub epoch: Epoch,
    pub seq: Seq,
    /// The client frame after which it stands.
    pub after_client_seq: Seq,
    pub kind: RecordKind,
    /// In a group: the member whose frame or input this is.
    pub member: Option<SessionId>,
    pub again: bool,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// The bytes of an input that no client sent (a timer, a spawned result), and its values.
    Input = 0,
    /// The values that a client frame's handler asked for.
    Values = 1,
    /// A change of state, with the server frames that go with it.
    Delta = 2,
}

impl RecordKind {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Input),
            1 => Some(Self::Values),
            2 => Some(Self::Delta),
            _ => None,
        }
    }
}

/// Cumulative acknowledgement without data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    pub subject: Subject,
    pub epoch: Epoch,
    /// To the proxy: processed by the game. To the backend: handed to the client's socket.
    pub data: Seq,
    /// To the backend: kept by the proxy.
    pub record: Seq,
}

/// Stop, and hand over the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freeze {
    pub subject: Subject,
    pub epoch: Epoch,
    /// Last client frame that the proxy has sent.
    pub client_seq: Seq,
    /// STATE bytes that the backend may send.
    pub credit_bytes: u64,
    pub trace: TraceContext,
}

/// Go on with a session that was frozen, or was asked to freeze.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thaw {
    pub subject: Subject,
    pub old_epoch: Epoch,
    pub epoch: Epoch,
    /// The proxy sends client frames after this one.
    pub client_seq: Seq,
    /// Last server frame that the proxy has.
    pub server_seq: Seq,
    /// Last record that the proxy has.
    pub record_seq: Seq,
    pub server_window_bytes: u32,
    pub trace: TraceContext,
}

/// Forget this attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Release {
    pub subject: Subject,
    pub epoch: Epoch,
}

/// A chunk of state.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct State<'a> {
    pub subject: Subject,
    pub epoch: Epoch,
    /// Answer to FREEZE; otherwise a checkpoint.
    pub is_final: bool,
    pub total_bytes: u64,
    pub offset_bytes: u64,
    pub client_seq: Seq,
    pub server_seq: Seq,
    pub record_seq: Seq,
    /// Of a group: how many member entries stand at the start of the state's bytes.
    pub members: u32,
    pub chunk: &'a [u8],
}

/// Send a STATE that is not final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub subject: Subject,
    pub epoch: Epoch,
    pub credit_bytes: u64,
}

/// So many more bytes of STATE may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credit {
    pub subject: Subject,
    pub epoch: Epoch,
    pub bytes: u64,
}

/// A request: this session is to be in the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Join {
    pub session: SessionId,
    pub epoch: Epoch,
    pub group: GroupId,
}

/// Move what you can off me before the deadline, and park the rest if I'll be back.
#[derive(Clone, PartialEq, Debug)]
pub struct Drain<'a> {
    pub deadline_ms: u32,
    /// The process expects to come back under the same name.
    pub returns: bool,
    pub reason: &'a str,
}

/// The session ends. Takes the next seq of its direction.
#[derive(Clone, PartialEq, Debug)]
pub struct Close<'a> {
    pub session: SessionId,
    pub epoch: Epoch,
    pub seq: Seq,
    pub ack: Seq,
    pub record: Seq,
    /// Only this direction ends.
    pub half: bool,
    pub again: bool,
    pub reason: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    pub nonce: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pong {
    pub nonce: u64,
    /// Attachments over all of the backend's links.
    pub attachments: u32,
    /// Attachments that the backend is to have at most, if it tells.
    pub capacity: Option<NonZeroU32>,
    /// How full the backend is, in thousandths, if it tells: at 1,000 it is full, above it is overloaded. 65,534 at
    /// most.
    pub load_permille: Option<u16>,
}

/// A rule was broken.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault<'a> {
    pub scope: FaultScope,
    pub rule: Rule,
    pub text: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultScope {
    Link,
    Attachment(Subject, Epoch),
}
