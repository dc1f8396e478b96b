//! How many attachments a process has, over all its peers: what PONG tells, and what a drain waits for; and which peer
//! has which group, for a group's members come through one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::GroupId;
use tokio::sync::Notify;

/// A proxy's worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerName {
    pub proxy: String,
    pub worker: u16,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of proxy {}", self.worker, self.proxy)
    }
}

/// The count. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Population {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU32,
    emptied: Notify,
    /// The peer that has it.
    groups: Mutex<HashMap<GroupId, PeerName>>,
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, HashMap<GroupId, PeerName>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Population {
    #[must_use]
    pub fn get(&self) -> u32 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// Counts one more for as long as the value lives.
    #[must_use]
    pub(crate) fn enter(&self) -> Headcount {
        self.shared.count.fetch_add(1, Ordering::AcqRel);
        Headcount { shared: Arc::clone(&self.shared), group: None }
    }

    /// Likewise, for a group, which only one peer may have at a time.
    ///
    /// # Errors
    /// The peer that has it.
    pub(crate) fn enter_group(&self, group: GroupId, peer: &PeerName) -> Result<Headcount, PeerName> {
        match self.shared.groups().entry(group) {
            Entry::Occupied(seat) => Err(seat.get().clone()),
            Entry::Vacant(seat) => {
                seat.insert(peer.clone());
                let mut headcount = self.enter();
                headcount.group = Some(group);
                Ok(headcount)
            }
        }
    }

    /// Waits until there is nobody.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.shared.emptied.notified();
            if self.get() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// One attachment, counted.
#[derive(Debug)]
pub(crate) struct Headcount {
    shared: Arc<Shared>,
    group: Option<GroupId>,
}

impl Drop for Headcount {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            self.shared.groups().remove(&group);
        }
        if self.shared.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.emptied.notify_waiters();
        }
    }
}
