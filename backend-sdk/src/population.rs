//! How many attachments a process has, over all its peers: what PONG tells, and what a drain waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// The count. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Population {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU32,
    emptied: Notify,
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
        Headcount { shared: Arc::clone(&self.shared) }
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
}

impl Drop for Headcount {
    fn drop(&mut self) {
        if self.shared.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.emptied.notify_waiters();
        }
    }
}
