//! [`Workers`]: runs the async work that sessions spawn, each piece as a task, and gives back what it made.

use std::collections::HashMap;

use tokio::task::{AbortHandle, Id, JoinSet};

use crate::core::{JobId, JobOrder};

#[derive(Default)]
pub(super) struct Workers {
    tasks: JoinSet<Vec<u8>>,
    jobs: HashMap<Id, JobId>,
    handles: HashMap<JobId, AbortHandle>,
}

impl Workers {
    pub fn obey(&mut self, order: JobOrder) {
        match order {
            JobOrder::Begin(job, work) => {
                let handle = self.tasks.spawn(work);
                self.jobs.insert(handle.id(), job);
                self.handles.insert(job, handle);
            }
            JobOrder::Abort(job) => {
                if let Some(handle) = self.handles.remove(&job) {
                    self.jobs.remove(&handle.id());
                    handle.abort();
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Waits for the next piece that ends; `None` as a result: it panicked. Never ends while there is none.
    pub async fn next(&mut self) -> (JobId, Option<Vec<u8>>) {
        loop {
            let (id, result) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, result))) => (id, Some(result)),
                Some(Err(error)) => (error.id(), None),
                None => std::future::pending().await,
            };
            // Aborted ones have no job any more.
            if let Some(job) = self.jobs.remove(&id) {
                self.handles.remove(&job);
                return (job, result);
            }
        }
    }
}
