//! [`Jobs`]: the async work that sessions have begun, by number. The core never runs it: its driver does, and tells
//! the core what came back.

use std::collections::HashMap;

use holdfast_protocol::message::Subject;

use crate::context::Work;
use crate::game::Tag;

/// Pieces of work that one session may have under way.
pub(crate) const MAX_JOBS: usize = 1024;

/// Work that a handler asked for, with its number.
pub(crate) struct Spawned {
    pub ordinal: u64,
    pub tag: Tag,
    pub work: Work,
}

/// Work that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub id: JobId,
    pub ordinal: u64,
    pub tag: Tag,
}

/// Numbers of a session's work: the same when the session is replayed. What opening it begins is numbered apart, for a
/// session that is opened once more begins more of it than the one that is replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ordinals {
    pub handlers: u64,
    pub opens: u64,
}

const BY_OPEN: u64 = 1 << 63;

impl Ordinals {
    pub fn next_of_handler(&mut self) -> u64 {
        self.handlers += 1;
        self.handlers
    }

    pub fn next_of_open(&mut self) -> u64 {
        self.opens += 1;
        BY_OPEN | self.opens
    }
}

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
    owners: HashMap<JobId, (Subject, Tag)>,
    orders: Vec<JobOrder>,
    numbers: u64,
}

impl Jobs {
    pub fn begin(&mut self, subject: Subject, tag: Tag, work: Work) -> JobId {
        self.numbers += 1;
        let id = JobId(self.numbers);
        self.owners.insert(id, (subject, tag));
        self.orders.push(JobOrder::Begin(id, work));
        id
    }

    pub fn abort(&mut self, id: JobId) {
        if self.owners.remove(&id).is_some() {
            self.orders.push(JobOrder::Abort(id));
        }
    }

    /// Whose it was.
    pub fn ended(&mut self, id: JobId) -> Option<Subject> {
        self.owners.remove(&id).map(|(subject, _)| subject)
    }

    pub fn tag(&self, id: JobId) -> Option<Tag> {
        self.owners.get(&id).map(|&(_, tag)| tag)
    }

    pub fn orders(&mut self) -> std::vec::Drain<'_, JobOrder> {
        self.orders.drain(..)
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}
