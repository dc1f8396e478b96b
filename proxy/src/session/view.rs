//! What others may see of a session.

use std::sync::Arc;

use holdfast_protocol::message::Subject;
use holdfast_protocol::{Epoch, Seq, SessionId};

use super::{Client, LinkId, Phase, Session};
use crate::routing::Service;

impl Session {
    #[must_use]
    /// Of a group: the group's.
    pub fn id(&self) -> SessionId {
        match self.subject {
            Subject::Session(id) => id,
            Subject::Group(id) => SessionId(id.0),
        }
    }

    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub fn client(&self) -> Client {
        self.client
    }

    /// A group has it.
    #[must_use]
    pub fn is_aboard(&self) -> bool {
        self.phase == Phase::Aboard
    }

    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        self.client == Client::Gone
    }

    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    #[must_use]
    pub fn client_seq(&self) -> Seq {
        self.outbound.sent()
    }

    #[must_use]
    pub fn server_seq(&self) -> Seq {
        self.inbound.had()
    }

    /// Nothing is in flight to the backend: a cheap moment to move.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbound.is_empty()
    }

    /// Bytes of frames and state that the proxy keeps for this session.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.journal_bytes() + self.state_bytes()
    }

    /// Client frames that wait, or that no backend has processed.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.outbound.unprocessed_bytes() as u64
    }

    /// What is taken up for that which a recovery would need besides them and the state.
    #[must_use]
    pub fn journal_room_bytes(&self) -> u64 {
        let room = self.outbound.kept_room() + self.journal.records.room() + self.inbound.hash_room();
        room as u64
    }

    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.journal.state_bytes() + self.riders().map_or(0, |riders| riders.departing_bytes() as u64)
    }

    /// The backend whose attachment this is, or is to be.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        match self.phase {
            Phase::Attaching { link, .. }
            | Phase::Replaying { link }
            | Phase::Active { link }
            | Phase::Freezing { link, .. }
            | Phase::Thawing { link, .. }
            | Phase::Closing { link } => Some(link),
            Phase::Parked | Phase::Aboard | Phase::Parting | Phase::Ended => None,
        }
    }

    /// A checkpoint is on its way, with room reserved for it.
    #[must_use]
    pub fn takes_checkpoint(&self) -> bool {
        self.journal.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.reserved_bytes > 0)
    }

    /// Parked until this backend is back.
    #[must_use]
    pub fn waits_for(&self) -> Option<LinkId> {
        self.home.filter(|_| self.phase == Phase::Parked)
    }

    /// On its way to a backend.
    #[must_use]
    pub fn is_attaching(&self) -> bool {
        matches!(self.phase, Phase::Attaching { .. } | Phase::Replaying { .. })
    }

    /// Whether that backend has, or is to have, anything of this session.
    #[must_use]
    pub fn concerns(&self, link: LinkId) -> bool {
        self.link() == Some(link) || self.old.is_some_and(|old| old.link == link)
    }

    #[must_use]
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Attaching { .. } if self.has_history() => "moving",
            Phase::Attaching { .. } => "attaching",
            Phase::Replaying { .. } => "replaying",
            Phase::Active { .. } if self.client != Client::Open => "closing",
            Phase::Active { .. } => "active",
            Phase::Freezing { .. } => "freezing",
            Phase::Thawing { .. } => "thawing",
            Phase::Parked => "parked",
            Phase::Closing { .. } | Phase::Parting => "closing",
            Phase::Aboard => "in a group",
            Phase::Ended => "ended",
        }
    }
}
