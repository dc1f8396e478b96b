use std::sync::Mutex;
use std::sync::mpsc as blocking;
use std::time::{Instant, SystemTime};

use holdfast_protocol::TraceContext;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::telemetry::span::Value;

const SHUTDOWN: Duration = Duration::from_secs(5);

fn span(number: u64) -> Span {
    let now = SystemTime::now();
    Span {
        name: "frame",
        context: TraceContext { trace_id: [7; 16], span_id: (number + 1).to_be_bytes(), sampled: false },
        parent_span_id: [9; 8],
        start: now,
        end: now + Duration::from_millis(3),
        attributes: vec![
            ("session", Value::Text("5e55".into())),
            ("seq", Value::Int(4)),
            ("again", Value::Bool(true)),
        ],
        events: vec![("forwarded", now)],
        error: Some("late".into()),
    }
}

fn settings(queue_spans: usize, endpoint: String, protocol: &str) -> ExportSettings {
    let mut settings = ExportSettings::from_env(Some("http://127.0.0.1:1"), "host-a")
        .unwrap()
        .expect("an endpoint is given");
    settings.queue_spans = queue_spans;
    settings.endpoint = endpoint;
    settings.protocol = if protocol == "grpc" { OtlpProtocol::Grpc } else { OtlpProtocol::HttpProtobuf };
    settings
}

/// Waits for a go before each batch, then takes or refuses it.
#[derive(Debug)]
struct GatedExporter {
    gate: Mutex<blocking::Receiver<bool>>,
    taken: Arc<Mutex<Vec<SpanData>>>,
}

impl SpanExporter for GatedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // A closed gate lets everything through.
        match self.gate.lock().unwrap().recv().unwrap_or(true) {
            true => {
                self.taken.lock().unwrap().extend(batch);
                Ok(())
            }
            false => Err(OTelSdkError::InternalFailure("refused".into())),
        }
    }
}

struct Gated {
    export: Export,
    gate: blocking::Sender<bool>,
    taken: Arc<Mutex<Vec<SpanData>>>,
}

fn gated(queue_spans: usize, batch_spans: usize) -> Gated {
    let (gate, receiver) = blocking::channel();
    let taken = Arc::default();
    let exporter = GatedExporter { gate: Mutex::new(receiver), taken: Arc::clone(&taken) };
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(queue_spans)
        .with_max_export_batch_size(batch_spans)
        .with_scheduled_delay(Duration::from_millis(10))
        .build();
    let settings = settings(queue_spans, String::new(), "http/protobuf");
    Gated { export: Export::start_with(exporter, batch, &settings), gate, taken }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn spans_arrive_whole() {
    let Gated { export, gate, taken } = gated(64, 8);
    drop(gate);
    export.tracer().end(span(0));
    let stats = export.stats();
    export.shutdown(SHUTDOWN).await;
    assert_eq!((stats.exported(), stats.dropped()), (1, 0));
    let taken = taken.lock().unwrap();
    let data = &taken[0];
    assert_eq!(data.span_context.trace_id().to_bytes(), [7; 16]);
    assert_eq!(data.span_context.span_id().to_bytes(), 1u64.to_be_bytes());
    assert!(data.span_context.is_sampled(), "what is exported is to be kept");
    assert_eq!(data.parent_span_id.to_bytes(), [9; 8]);
    assert_eq!(data.attributes.len(), 3);
    assert_eq!(data.events[0].name, "forwarded");
    assert_eq!(data.status, opentelemetry::trace::Status::error("late"));
}

#[tokio::test]
async fn a_slow_collector_costs_counted_drops_and_nothing_else() {
    let Gated { export, gate, taken } = gated(64, 8);
    let (tracer, stats) = (export.tracer(), export.stats());
    for number in 0..1_000 {
        tracer.end(span(number));
    }
    until("what doesn't fit is dropped", || stats.dropped() == 1_000 - 64).await;
    drop(gate);
    until("what fits is exported", || stats.exported() == 64).await;
    export.shutdown(SHUTDOWN).await;
    assert_eq!((stats.exported(), stats.dropped()), (64, 936));
    assert_eq!(taken.lock().unwrap().len(), 64);
}

#[tokio::test]
async fn a_refused_batch_is_counted_and_the_next_one_goes() {
    let Gated { export, gate, .. } = gated(64, 8);
    let (tracer, stats) = (export.tracer(), export.stats());
    gate.send(false).unwrap();
    tracer.end(span(0));
    until("the refused span is counted", || stats.dropped() == 1).await;
    gate.send(true).unwrap();
    tracer.end(span(1));
    until("the next is exported", || stats.exported() == 1).await;
    drop(gate);
    export.shutdown(SHUTDOWN).await;
    assert_eq!((stats.exported(), stats.dropped()), (1, 1));
}

#[tokio::test]
async fn a_hung_collector_does_not_hold_the_shutdown() {
    let Gated { export, gate, .. } = gated(64, 8);
    let (tracer, stats) = (export.tracer(), export.stats());
    for number in 0..10 {
        tracer.end(span(number));
    }
    let begun = Instant::now();
    export.shutdown(Duration::from_millis(100)).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!((stats.exported(), stats.dropped()), (0, 10));
    drop(gate);
}

/// A collector for one HTTP request: answers 200 and returns head and body.
async fn http_collector(listener: tokio::net::TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the exporter hung up early");
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn otlp_over_http_reaches_a_collector() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let collector = tokio::spawn(http_collector(listener));
    let export = Export::start(&settings(64, endpoint, "http/protobuf")).unwrap();
    export.tracer().end(span(0));
    let (head, body) = tokio::time::timeout(Duration::from_secs(10), collector).await.unwrap().unwrap();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    for expected in ["service.name", "holdfast", "service.instance.id", "host-a", "frame", "5e55"] {
        assert!(body.windows(expected.len()).any(|window| window == expected.as_bytes()), "{expected}");
    }
    let stats = export.stats();
    export.shutdown(SHUTDOWN).await;
    assert_eq!((stats.exported(), stats.dropped()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dead_collector_is_counted_over_both_protocols() {
    for protocol in ["grpc", "http/protobuf"] {
        // Bound and closed again: nobody listens there.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let export = Export::start(&settings(64, format!("http://{address}"), protocol)).unwrap();
        let stats = export.stats();
        export.tracer().end(span(0));
        export.shutdown(SHUTDOWN).await;
        assert_eq!((stats.exported(), stats.dropped()), (0, 1), "{protocol}");
    }
}
