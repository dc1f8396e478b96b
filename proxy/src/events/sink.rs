//! A receiver of events: it takes them from the queue at its own pace, and counts what became of them.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Written};
use super::{Stats, add, post};
use crate::config::EventWebhook;
use crate::source::etcd::Backoff;

/// Events of one post.
const BATCH: usize = 64;
/// For what is left when the proxy ends.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

pub struct Sink {
    queue: Receiver<Arc<Event>>,
    proxy: Arc<str>,
    stats: Arc<Stats>,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    events: Vec<Written<'a>>,
}

impl Sink {
    pub fn new(queue: Receiver<Arc<Event>>, proxy: &Arc<str>, stats: &Arc<Stats>) -> Self {
        Self { queue, proxy: Arc::clone(proxy), stats: Arc::clone(stats) }
    }

    /// The next event and those behind it; `None` when there will be no more.
    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Vec<Arc<Event>>> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            tokio::select! {
                biased;
                first = self.queue.recv() => match first {
                    Ok(event) => batch.push(event),
                    Err(RecvError::Lagged(lost)) => add(&self.stats.dropped, lost),
                    Err(RecvError::Closed) => return None,
                },
                () = shutdown.cancelled() => return None,
            }
        }
        while batch.len() < BATCH {
            match self.queue.try_recv() {
                Ok(event) => batch.push(event),
                Err(TryRecvError::Lagged(lost)) => add(&self.stats.dropped, lost),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(batch)
    }

    /// A line each on stdout. Whoever reads that slowly holds up the thread that writes, which is none of the proxy's.
    pub async fn print(mut self, shutdown: CancellationToken) {
        while let Some(batch) = self.next(&shutdown).await {
            let mut text = Vec::new();
            for event in &batch {
                // Writing to memory, of texts and numbers alone, doesn't fail.
                let _ = serde_json::to_writer(&mut text, &event.written(&self.proxy));
                text.push(b'\n');
            }
            let written = tokio::task::spawn_blocking(move || {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&text).and_then(|()| stdout.flush())
            });
            let count = batch.len() as u64;
            match written.await {
                Ok(Ok(())) => add(&self.stats.sent, count),
                _ => add(&self.stats.failed, count),
            }
        }
    }

    /// Posts until it is taken; meanwhile the queue fills, and loses its oldest.
    pub async fn post(mut self, webhook: EventWebhook, shutdown: CancellationToken) {
        while let Some(batch) = self.next(&shutdown).await {
            self.send(&webhook, &batch, &shutdown).await;
        }
        // Others end, too, and may tell of it.
        while let Some(batch) = self.rest() {
            self.try_last(&webhook, &batch).await;
        }
    }

    fn rest(&mut self) -> Option<Vec<Arc<Event>>> {
        let batch: Vec<_> = std::iter::from_fn(|| self.queue.try_recv().ok()).take(BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    }

    async fn send(&self, webhook: &EventWebhook, batch: &[Arc<Event>], shutdown: &CancellationToken) {
        let body = self.body(batch);
        let mut backoff = Backoff::default();
        let mut complained = false;
        loop {
            let posted = tokio::select! {
                posted = post::post(webhook, body.clone()) => posted,
                () = shutdown.cancelled() => return self.try_last(webhook, batch).await,
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

    /// The proxy ends: it is tried once more.
    async fn try_last(&self, webhook: &EventWebhook, batch: &[Arc<Event>]) {
        let posted = timeout(LAST_WORDS_WITHIN, post::post(webhook, self.body(batch))).await;
        let count = if matches!(posted, Ok(Ok(()))) { &self.stats.sent } else { &self.stats.failed };
        add(count, batch.len() as u64);
    }

    fn body(&self, batch: &[Arc<Event>]) -> bytes::Bytes {
        let events = batch.iter().map(|event| event.written(&self.proxy)).collect();
        serde_json::to_vec(&Body { events }).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests;
