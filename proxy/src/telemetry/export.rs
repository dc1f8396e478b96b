//! Finished spans on their way out: worker queue -> forwarding task -> batch processor -> OTLP collector.
//!
//! Invariant: each span ended is counted once, as exported or as dropped; nothing is lost in silence. The batch
//! processor drops without saying so when its queue is full, so the forwarding task never lets it get there.

mod settings;
mod span_data;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfig, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::span::Span;
use super::tracer::{SpanStats, Tracer};
pub use settings::{ExportError, ExportSettings, OtlpProtocol};

/// Spans forwarded per wake-up of the task.
const FORWARD_BATCH_SPANS: usize = 256;

/// The export as it runs; disabled when no collector is configured.
#[derive(Debug)]
pub struct Export {
    tracer: Tracer,
    stats: Arc<SpanStats>,
    ratio: Option<f64>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    processor: Arc<BatchSpanProcessor>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Spans handed to the batch processor, and those of them whose export has ended, well or not.
#[derive(Debug)]
struct Progress {
    handed: AtomicU64,
    finished: AtomicU64,
    /// Set at shutdown, when what is under way has been counted as dropped.
    closed: AtomicBool,
    capacity: u64,
    stats: Arc<SpanStats>,
}

impl Export {
    /// No collector: spans aren't built.
    #[must_use]
    pub fn disabled() -> Self {
        Self { tracer: Tracer::disabled(), stats: Arc::default(), ratio: None, running: None }
    }

    /// Starts exporting, on the current runtime, which has to run until [`Export::shutdown`] is done.
    ///
    /// # Errors
    /// The operator's: an endpoint that isn't a URL. A collector that is down is no error; its spans are dropped.
    pub fn start(settings: &ExportSettings) -> Result<Self, ExportError> {
        let build = |error: opentelemetry_otlp::ExporterBuildError| ExportError::Build {
            endpoint: settings.endpoint.clone(),
            reason: error.to_string(),
        };
        let exporter = match settings.protocol {
            OtlpProtocol::Grpc => opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&settings.endpoint)
                .build(),
            OtlpProtocol::HttpProtobuf => opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(&settings.endpoint)
                .build(),
        };
        info!(endpoint = %settings.endpoint, protocol = settings.protocol.name(), "spans go to the collector");
        Ok(Self::start_with(exporter.map_err(build)?, settings.batch_config(), settings))
    }

    fn start_with<E>(exporter: E, batch: BatchConfig, settings: &ExportSettings) -> Self
    where
        E: SpanExporter + 'static,
    {
        let stats = Arc::new(SpanStats::default());
        let progress = Arc::new(Progress {
            handed: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            capacity: settings.queue_spans as u64,
            stats: Arc::clone(&stats),
        });
        let mut exporter = CountingExporter {
            inner: exporter,
            progress: Arc::clone(&progress),
            failing: AtomicBool::new(false),
        };
        exporter.set_resource(&resource(settings));
        let processor = Arc::new(BatchSpanProcessor::new(exporter, batch));
        let (tracer, receiver) = Tracer::new(settings.worker_queue_spans, Arc::clone(&stats));
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(forward(receiver, Arc::clone(&processor), Arc::clone(&progress), stop.clone()));
        Self {
            tracer,
            stats,
            ratio: settings.ratio,
            running: Some(Running { processor, progress, stop, task }),
        }
    }

    /// The share of frames that `OTEL_TRACES_SAMPLER` asks for, if it does.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.ratio
    }

    /// The workers' end.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    #[must_use]
    pub fn stats(&self) -> Arc<SpanStats> {
        Arc::clone(&self.stats)
    }

    /// Sends what is queued, for `timeout` at most; what hasn't left by then is counted as dropped.
    pub async fn shutdown(self, timeout: Duration) {
        let Some(Running { processor, progress, stop, task }) = self.running else { return };
        drop(self.tracer);
        stop.cancel();
        let flush = async {
            if let Err(error) = task.await {
                warn!(%error, "the span forwarding task failed");
            }
            // Blocks on the processor's thread; the outer timeout covers a thread that hangs.
            let blocking = tokio::task::spawn_blocking(move || processor.shutdown_with_timeout(timeout));
            !matches!(blocking.await, Ok(Ok(())))
        };
        let timed_out = tokio::time::timeout(timeout, flush).await.unwrap_or(true);
        let left = progress.close();
        if timed_out || left > 0 {
            warn!(spans = left, "the collector didn't take the last spans in time; they are dropped");
        }
    }
}

impl Progress {
    /// Makes room for one span, or counts it as dropped.
    fn hand(&self) -> bool {
        let under_way = self.handed.load(Ordering::Relaxed) - self.finished.load(Ordering::Acquire);
        if under_way >= self.capacity {
            self.stats.add_dropped(1);
            return false;
        }
        self.handed.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn finish(&self, spans: u64, taken: bool) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.finished.fetch_add(spans, Ordering::Release);
        if taken {
            self.stats.add_exported(spans);
        } else {
            self.stats.add_dropped(spans);
        }
    }

    /// Counts what is under way as dropped, and says how many spans that were.
    fn close(&self) -> u64 {
        self.closed.store(true, Ordering::Release);
        let left = self.handed.load(Ordering::Relaxed) - self.finished.load(Ordering::Acquire);
        self.stats.add_dropped(left);
        left
    }
}

async fn forward(
    mut receiver: mpsc::Receiver<Span>,
    processor: Arc<BatchSpanProcessor>,
    progress: Arc<Progress>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => receiver.close(),
        () = forward_all(&mut receiver, &processor, &progress) => {}
    }
    // What was queued when the end came.
    forward_all(&mut receiver, &processor, &progress).await;
}

/// Returns when the queue is closed and empty.
async fn forward_all(
    receiver: &mut mpsc::Receiver<Span>,
    processor: &BatchSpanProcessor,
    progress: &Progress,
) {
    let mut spans = Vec::with_capacity(FORWARD_BATCH_SPANS);
    while receiver.recv_many(&mut spans, FORWARD_BATCH_SPANS).await > 0 {
        for span in spans.drain(..) {
            if progress.hand() {
                processor.on_end(span_data::from_span(span));
            }
        }
    }
}

/// Counts what the inner exporter did, and logs when that changes.
#[derive(Debug)]
struct CountingExporter<E> {
    inner: E,
    progress: Arc<Progress>,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let spans = batch.len() as u64;
        let export = self.inner.export(batch);
        async move {
            let result = export.await;
            self.progress.finish(spans, result.is_ok());
            let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
            match &result {
                Err(error) if !was_failing => {
                    warn!(%error, spans, "the collector takes no spans; they are dropped and counted until it does");
                }
                Ok(()) if was_failing => info!("the collector takes spans again"),
                _ => {}
            }
            result
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Who we are. `OTEL_RESOURCE_ATTRIBUTES` is read by the builder; the settings have the names that win over it.
fn resource(settings: &ExportSettings) -> Resource {
    use opentelemetry::KeyValue;
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", settings.service_name.clone()),
            KeyValue::new("service.instance.id", settings.instance_id.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

#[cfg(test)]
#[path = "export/tests.rs"]
mod tests;
