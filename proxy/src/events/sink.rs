//! A receiver of events: it takes them from the queue at its own pace, and counts what became of them.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Written};
use super::queue::Queue;
use super::{Stats, add, post};
use crate::config::EventWebhook;
use crate::source::etcd::Backoff;

/// For what is left when the proxy ends.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

pub struct Sink {
    queue: Arc<Queue>,
    proxy: Arc<str>,
    stats: Arc<Stats>,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    events: Vec<Written<'a>>,
}

impl Sink {
    pub fn new(queue: Arc<Queue>, proxy: &Arc<str>, stats: &Arc<Stats>) -> Self {
        Self { queue, proxy: Arc::clone(proxy), stats: Arc::clone(stats) }
    }

    /// The next events; `None` when the proxy ends.
    async fn next(&self, shutdown: &CancellationToken) -> Option<Vec<Arc<Event>>> {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            batch = self.queue.next() => Some(batch),
        }
    }

    /// A line each on stdout. Whoever reads that slowly holds up a thread that does nothing else.
    pub async fn print(self, shutdown: CancellationToken) {
        while let Some(batch) = self.next(&shutdown).await {
            let written = self.write(&batch).await;
            self.count(written, &batch);
        }
        // What is left, as long as somebody reads it.
        let mut reads = true;
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return;
            }
            reads = reads && timeout(LAST_WORDS_WITHIN, self.write(&batch)).await.unwrap_or(false);
            self.count(reads, &batch);
        }
    }

    /// Says whether all of it is out.
    async fn write(&self, batch: &[Arc<Event>]) -> bool {
        let mut text = Vec::new();
        for event in batch {
            // Writing to memory, of texts and numbers alone, doesn't fail.
            let _ = serde_json::to_writer(&mut text, &event.written(&self.proxy));
            text.push(b'\n');
        }
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&text).and_then(|()| stdout.flush())
        });
        matches!(written.await, Ok(Ok(())))
    }

    fn count(&self, taken: bool, batch: &[Arc<Event>]) {
        add(if taken { &self.stats.sent } else { &self.stats.failed }, batch.len() as u64);
    }

    /// Posts until it is taken; meanwhile the queue fills, and loses its oldest.
    pub async fn post(self, webhook: EventWebhook, shutdown: CancellationToken) {
        while let Some(batch) = self.next(&shutdown).await {
            self.send(&webhook, &batch, &shutdown).await;
        }
        // What is left; a receiver that doesn't take one post doesn't get another.
        let mut takes = true;
        loop {
            let batch = self.queue.take();
            match batch.is_empty() {
                true => return,
                false if takes => takes = self.try_last(&webhook, &batch).await,
                false => add(&self.stats.failed, batch.len() as u64),
            }
        }
    }

    async fn send(&self, webhook: &EventWebhook, batch: &[Arc<Event>], shutdown: &CancellationToken) {
        let body = self.body(batch);
        let mut backoff = Backoff::default();
        let mut complained = false;
        loop {
            let posted = tokio::select! {
                posted = post::post(webhook, body.clone()) => posted,
                () = shutdown.cancelled() => {
                    self.try_last(webhook, batch).await;
                    return;
                }
            };
            match posted {
                Ok(()) => {
                    add(&self.stats.sent, batch.len() as u64);
                    if complained {
                        tracing::info!(url = %webhook.url, "events are taken again");
                    }
                    return;
                }
                Err(error) if !error.is_worth_trying_again() => {
                    add(&self.stats.failed, batch.len() as u64);
                    tracing::warn!(url = %webhook.url, %error, events = batch.len(), "events are refused");
                    return;
                }
                Err(error) if !std::mem::replace(&mut complained, true) => {
                    tracing::warn!(url = %webhook.url, %error, "events wait: their receiver doesn't take them");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// The proxy ends: it is tried once more. Says whether it was taken.
    async fn try_last(&self, webhook: &EventWebhook, batch: &[Arc<Event>]) -> bool {
        let posted = timeout(LAST_WORDS_WITHIN, post::post(webhook, self.body(batch))).await;
        let taken = matches!(posted, Ok(Ok(())));
        self.count(taken, batch);
        taken
    }

    fn body(&self, batch: &[Arc<Event>]) -> bytes::Bytes {
        let events = batch.iter().map(|event| event.written(&self.proxy)).collect();
        serde_json::to_vec(&Body { events }).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests;
