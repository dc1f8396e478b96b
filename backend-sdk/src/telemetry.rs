//! Logs and spans of a game server with one call.
//!
//! The standard variables hold: `RUST_LOG` for logs (default `info`), `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_PROTOCOL` (`grpc`, or `http/protobuf`, the default) and their `_TRACES_` forms,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`. Without an endpoint nothing is exported.
//!
//! Export never blocks a handler: spans go to a bounded queue, and a full queue drops them.

use std::env;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, filter};

/// How long the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(2);
/// Spans that may wait for export, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const QUEUE_SPANS: usize = 16 * 1024;

/// What is exported must not come from the exporter's own machinery, or a dead collector would feed itself.
const EXPORTER_TARGETS: [&str; 7] = ["opentelemetry", "tonic", "h2", "hyper", "tower", "reqwest", "rustls"];

/// Flushes what is still to be exported when it is dropped, for two seconds at most.
#[derive(Debug)]
#[must_use = "dropping it stops the export"]
pub struct Guard {
    export: Option<Export>,
}

#[derive(Debug)]
struct Export {
    provider: SdkTracerProvider,
    /// The gRPC exporter's connection lives on a runtime of its own, so that it outlives the game's.
    runtime: Runtime,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(Export { provider, runtime }) = self.export.take() else { return };
        // On a thread of its own: the caller may be a task, which mustn't block a runtime's machinery.
        let flush = std::thread::spawn(move || provider.shutdown_with_timeout(FLUSH));
        match flush.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last spans not exported"),
            Err(_) => tracing::warn!("last spans not exported: the exporter panicked"),
        }
        runtime.shutdown_background();
    }
}

/// Logs to stderr, and spans over OTLP if an endpoint is set. Call it once, first thing in `main`, and keep the guard
/// to the end. If a subscriber is set already, that one stays and nothing is exported.
pub fn init(service_name: &str) -> Guard {
    let built = if has_endpoint() { Some(build(service_name)) } else { None };
    let (export, error) = match built {
        Some(Ok(export)) => (Some(export), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let logs = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    let spans = export.as_ref().map(|export| spans(export.provider.tracer("holdfast-backend")));
    let set = tracing_subscriber::registry()
        .with(spans)
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours).with_filter(logs))
        .try_init();
    if let Err(error) = set {
        tracing::warn!(%error, "telemetry not set up");
        return Guard { export: None };
    }
    if let Some(error) = error {
        tracing::error!(error, "spans are not exported");
    }
    Guard { export }
}

fn has_endpoint() -> bool {
    [opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, opentelemetry_otlp::OTEL_EXPORTER_OTLP_ENDPOINT]
        .iter()
        .any(|name| env::var(name).is_ok_and(|value| !value.trim().is_empty()))
}

fn spans<S>(tracer: SdkTracer) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_filter(
        filter::filter_fn(|metadata| {
            let is_exporters = EXPORTER_TARGETS.iter().any(|target| metadata.target().starts_with(target));
            *metadata.level() <= Level::INFO && !is_exporters
        }),
    )
}

fn build(service_name: &str) -> Result<Export, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mut resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").is_err() {
        resource = resource.with_service_name(service_name.to_owned());
    }
    let exporter = exporter(&runtime).map_err(|error| error.to_string())?;
    let mut batch = BatchConfigBuilder::default();
    if env::var("OTEL_BSP_MAX_QUEUE_SIZE").is_err() {
        batch = batch.with_max_queue_size(QUEUE_SPANS);
    }
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
    let provider =
        SdkTracerProvider::builder().with_resource(resource.build()).with_span_processor(processor).build();
    Ok(Export { provider, runtime })
}

fn exporter(runtime: &Runtime) -> Result<SpanExporter, ExporterBuildError> {
    let protocol = env::var(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_PROTOCOL)
        .or_else(|_| env::var(opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL));
    if protocol.is_ok_and(|protocol| protocol == opentelemetry_otlp::OTEL_EXPORTER_OTLP_PROTOCOL_GRPC) {
        let _entered = runtime.enter();
        return SpanExporter::builder().with_tonic().build();
    }
    // The blocking client makes a runtime of its own and refuses to do so inside another.
    std::thread::scope(|scope| {
        let build = scope.spawn(|| SpanExporter::builder().with_http().build());
        build.join().unwrap_or_else(|_| {
            Err(ExporterBuildError::InternalFailure("the HTTP exporter panicked at its start".into()))
        })
    })
}
