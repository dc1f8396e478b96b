//! [`GroupScript`]: what happens to a group, in order.

use std::time::{Duration, SystemTime};

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Arrival, parts};
use holdfast_protocol::message::Subject;
use holdfast_protocol::{GroupId, SessionId};

use super::{Script, Step};
use crate::core::lone_state;
use crate::game::Tag;

/// As [`Script`], for a group: what its members do, in the one order in which it hears of them. It begins without any.
#[derive(Debug, Clone)]
pub struct GroupScript(pub(super) Script);

impl Default for GroupScript {
    fn default() -> Self {
        let subject = Subject::Group(GroupId(*b"a-group-of-tests"));
        Self(Script { subject, steps: Vec::new() })
    }
}

impl GroupScript {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A player arrives, with what their session's `snapshot` was. They mustn't be a member.
    #[must_use]
    pub fn join(mut self, member: SessionId, state: &[u8]) -> Self {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let state = lone_state(began, state);
        let arrival = Arrival { opened_us: 1_000_000, client: "127.0.0.1:5000", format: "1", state: &state };
        for (kind, part) in parts(&arrival.to_bytes()) {
            self = self.push(kind, member, part);
        }
        self
    }

    /// A member sends a frame.
    #[must_use]
    pub fn frame(self, member: SessionId, frame: impl AsRef<[u8]>) -> Self {
        self.push(AddressedKind::Frame, member, frame.as_ref())
    }

    /// A member's connection is closed.
    #[must_use]
    pub fn left(self, member: SessionId) -> Self {
        self.push(AddressedKind::Close, member, b"gone")
    }

    /// Time passes: timers are due.
    #[must_use]
    pub fn wait(self, time: Duration) -> Self {
        Self(self.0.wait(time))
    }

    /// The oldest spawned work with that tag comes back with this result. Work itself is never run.
    #[must_use]
    pub fn finish(self, work: Tag, result: impl Into<Vec<u8>>) -> Self {
        Self(self.0.finish(work, result))
    }

    fn push(mut self, kind: AddressedKind, member: SessionId, payload: &[u8]) -> Self {
        self.0.steps.push(Step::Frame([&Addressed::head(kind, member), payload].concat()));
        self
    }
}
