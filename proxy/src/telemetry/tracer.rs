//! The hot path's end of span export: a bounded queue that never blocks. A full queue is a counted drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::span::Span;

/// What became of every span that a worker has ended. `exported + dropped` plus what is still under way is all.
#[derive(Debug, Default)]
pub struct SpanStats {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl SpanStats {
    /// Spans that the collector has taken.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that never got there: a full queue, a failed export, or the end of the process.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn add_exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, spans: u64) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }
}

/// Takes finished spans. Cheap to clone; each worker has one.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: Option<mpsc::Sender<Span>>,
    stats: Arc<SpanStats>,
}

impl Tracer {
    /// A tracer whose spans go to the receiver, at most `capacity` of them waiting.
    #[must_use]
    pub fn new(capacity: usize, stats: Arc<SpanStats>) -> (Self, mpsc::Receiver<Span>) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        (Self { queue: Some(queue), stats }, receiver)
    }

    /// A tracer for a proxy without a collector: spans aren't even to be built.
    #[must_use]
    pub fn disabled() -> Self {
        Self { queue: None, stats: Arc::default() }
    }

    /// Whether spans go anywhere; ask before building one.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a finished span over. Never blocks: with a full (or closed) queue the span is dropped and counted.
    pub fn end(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.stats.add_dropped(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn span() -> Span {
        let now = SystemTime::now();
        Span {
            name: "frame",
            context: Default::default(),
            parent_span_id: [0; 8],
            start: now,
            end: now,
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let stats = Arc::new(SpanStats::default());
        let (tracer, mut receiver) = Tracer::new(2, Arc::clone(&stats));
        for _ in 0..5 {
            tracer.end(span());
        }
        assert_eq!(stats.dropped(), 3);
        assert!(receiver.try_recv().is_ok());
        tracer.end(span());
        assert_eq!(stats.dropped(), 3);
        drop(receiver);
        tracer.end(span());
        assert_eq!(stats.dropped(), 4, "a closed queue counts too");
    }

    #[test]
    fn a_disabled_tracer_counts_nothing() {
        let tracer = Tracer::disabled();
        assert!(!tracer.enabled());
        tracer.end(span());
        assert_eq!(tracer.stats.dropped(), 0);
    }
}
