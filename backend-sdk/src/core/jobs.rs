//! [`Jobs`]: the async work that sessions have begun, by number. The core never runs it: its driver does, and tells
//! the core what came back.

use std::collections::HashMap;

use holdfast_protocol::SessionId;

use crate::context::Work;
use crate::game::Tag;

/// Pieces of work that one session may have under way.
pub(crate) const MAX_JOBS: usize = 1024;

/// A piece of work, named for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId(u64);

/// An order to whoever drives the core.
pub enum JobOrder {
    Begin(JobId, Work),
    /// Nobody waits for it any more.
    Abort(JobId),
}

#[derive(Default)]
pub(crate) struct Jobs {
    owners: HashMap<JobId, (SessionId, Tag)>,
    orders: Vec<JobOrder>,
    numbers: u64,
}

impl Jobs {
    pub fn begin(&mut self, session: SessionId, tag: Tag, work: Work) -> JobId {
        self.numbers += 1;
        let id = JobId(self.numbers);
        self.owners.insert(id, (session, tag));
        self.orders.push(JobOrder::Begin(id, work));
        id
    }

    pub fn abort(&mut self, id: JobId) {
        if self.owners.remove(&id).is_some() {
            self.orders.push(JobOrder::Abort(id));
        }
    }

    /// Whose it was.
    pub fn ended(&mut self, id: JobId) -> Option<(SessionId, Tag)> {
        self.owners.remove(&id)
    }

    pub fn orders(&mut self) -> std::vec::Drain<'_, JobOrder> {
        self.orders.drain(..)
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}
