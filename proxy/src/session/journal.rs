//! What the proxy keeps so that a session can go on after a crash: the last complete state, the records after it, and
//! how it is taken anew from time to time. The client frames after it are in `outbound`, the hashes in `inbound`.

use holdfast_protocol::Seq;
use holdfast_protocol::message::Recovery;

use super::records::Records;
use super::state::{Incoming, KeptState};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Journal {
    /// What holds for the current attachment, which may be less than the service wants.
    pub level: Recovery,
    /// A state with which a backend can continue.
    pub state: Option<KeptState>,
    /// Where a session without a state begins.
    pub origin: Origin,
    /// What must be equal for a sure replay: the logic of the backend that had it last.
    pub logic: Option<String>,
    pub records: Records,
    pub checkpoint: Option<Checkpoint>,
    /// The checkpoint timer runs.
    pub clock_runs: bool,
    /// Its state is too large to be taken: no more are asked for until the next attachment.
    pub too_large: bool,
    /// Nor is there room for more input and output without one: nothing is kept until the next attachment.
    pub gave_up: bool,
    /// Crashes since the last new state, and since the session last got on.
    pub recoveries: u32,
    /// The last client frame that any backend had processed at the last crash.
    pub processed: Seq,
    /// At the last crash there was input that hadn't been processed.
    pub suspect: bool,
}

/// The positions at which a session was opened with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    pub client_seq: Seq,
    pub server_seq: Seq,
    pub record_seq: Seq,
}

/// CHECKPOINT is on the link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Room that is held for it: none while it waits for more than it was expected to take.
    pub reserved_bytes: u64,
    /// STATE bytes that the backend may send.
    pub credit_bytes: u64,
    pub incoming: Option<Incoming>,
}

impl Checkpoint {
    /// Nothing on this side keeps the backend from sending it whole.
    #[must_use]
    pub fn may_be_sent(&self) -> bool {
        self.incoming.as_ref().is_none_or(|incoming| self.credit_bytes >= incoming.total_bytes())
    }
}

impl Journal {
    /// Whether input and output since the last state are kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.level != Recovery::None && !self.gave_up
    }

    /// Where a restore begins.
    #[must_use]
    pub fn base(&self) -> Origin {
        match &self.state {
            Some(state) => Origin {
                client_seq: state.client_seq,
                server_seq: state.server_seq,
                record_seq: state.record_seq,
            },
            None => self.origin,
        }
    }

    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.bytes.len() as u64)
    }
}
