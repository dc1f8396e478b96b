//! How many attachments a process has, over all its peers: what PONG tells, and what a drain waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The count. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Population {
    count: Arc<AtomicU32>,
}

impl Population {
    #[must_use]
    pub fn get(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one more for as long as the value lives.
    #[must_use]
    pub(crate) fn enter(&self) -> Headcount {
        self.count.fetch_add(1, Ordering::Relaxed);
        Headcount { count: Arc::clone(&self.count) }
    }
}

/// One attachment, counted.
#[derive(Debug)]
pub(crate) struct Headcount {
    count: Arc<AtomicU32>,
}

impl Drop for Headcount {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
