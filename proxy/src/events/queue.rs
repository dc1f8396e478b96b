//! Events that wait for one receiver: a bounded number, of which the oldest make room for newer ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::event::Event;
use super::{Stats, add};

/// Events that are taken together.
const BATCH: usize = 64;

#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<VecDeque<Arc<Event>>>,
    room: usize,
    news: Notify,
    stats: Arc<Stats>,
}

impl Queue {
    pub fn new(room: usize, stats: &Arc<Stats>) -> Self {
        Self { waiting: Mutex::default(), room, news: Notify::new(), stats: Arc::clone(stats) }
    }

    /// Never waits for the receiver.
    pub fn push(&self, event: Arc<Event>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.room {
            waiting.pop_front();
            add(&self.stats.dropped, 1);
        }
        waiting.push_back(event);
        drop(waiting);
        self.news.notify_one();
    }

    /// The oldest that wait, at least one. Nothing is lost if the caller stops waiting.
    pub async fn next(&self) -> Vec<Arc<Event>> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.news.notified().await;
        }
    }

    /// The oldest that wait, if any do.
    pub fn take(&self) -> Vec<Arc<Event>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }
}
