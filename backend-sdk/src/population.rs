//! How many attachments a process has, over all its peers: what PONG tells, and what a drain waits for; and which peer
//! has which group, for a group's members come through one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::{GroupId, InstanceId};
use tokio::sync::Notify;

/// A proxy's worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerName {
    pub proxy: String,
    /// The run of that proxy.
    pub instance: InstanceId,
    pub worker: u16,
}

impl PeerName {
    /// It is of a run that is over: there is one run of a proxy at a time.
    fn is_earlier_run_of(&self, other: &Self) -> bool {
        self.proxy == other.proxy && self.instance != other.instance
    }
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
    groups: Mutex<HashMap<GroupId, GroupSeat>>,
    /// Numbers the seats.
    entered: AtomicU64,
}

/// Where a group is.
#[derive(Debug)]
struct GroupSeat {
    peer: PeerName,
    number: u64,
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, HashMap<GroupId, GroupSeat>> {
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

    /// Likewise, for a group, which only one peer may have at a time. What an earlier run of the same proxy had is an
    /// orphan that nobody comes back for.
    ///
    /// # Errors
    /// The peer that has it.
    pub(crate) fn enter_group(&self, group: GroupId, peer: &PeerName) -> Result<Headcount, PeerName> {
        let number = self.shared.entered.fetch_add(1, Ordering::Relaxed);
        let seat = GroupSeat { peer: peer.clone(), number };
        match self.shared.groups().entry(group) {
            Entry::Occupied(mut had) if had.get().peer.is_earlier_run_of(peer) => drop(had.insert(seat)),
            Entry::Occupied(had) => return Err(had.get().peer.clone()),
            Entry::Vacant(vacant) => drop(vacant.insert(seat)),
        }
        let mut headcount = self.enter();
        headcount.group = Some((group, number));
        Ok(headcount)
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
    group: Option<(GroupId, u64)>,
}

impl Drop for Headcount {
    fn drop(&mut self) {
        if let Some((group, number)) = self.group
            && let Entry::Occupied(seat) = self.shared.groups().entry(group)
            && seat.get().number == number
        {
            seat.remove();
        }
        if self.shared.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.emptied.notify_waiters();
        }
    }
}
