//! Sampled frames and moves make spans whose parents are the proxy's; the others make none.

use std::sync::{Arc, Mutex};

use holdfast_protocol::message::{Data, Freeze};
use holdfast_protocol::{Message, TraceContext};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::layer::SubscriberExt;

use super::world::*;

const PARENT: TraceContext = TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], sampled: true };

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// What the spans were that `play` made.
fn spans_of(play: impl FnOnce()) -> Vec<SpanData> {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), play);
    provider.force_flush().unwrap();
    std::mem::take(&mut *kept.0.lock().unwrap())
}

fn traced(message: Message<'_>, trace: TraceContext) -> Message<'_> {
    match message {
        Message::Data(data) => Message::Data(Data { trace, ..data }),
        Message::Freeze(freeze) => Message::Freeze(Freeze { trace, ..freeze }),
        Message::Attach(attach) => Message::Attach(holdfast_protocol::message::Attach { trace, ..attach }),
        other => other,
    }
}

fn trace_of(message: &Message<'_>) -> TraceContext {
    let Message::Data(data) = message else { panic!("expected DATA, got {message:?}") };
    data.trace
}

#[test]
fn a_sampled_frame_makes_a_handle_span_and_its_replies_carry_it() {
    let mut reply = TraceContext::NONE;
    let spans = spans_of(|| {
        let mut world = World::new();
        world.begin(1);
        reply = trace_of(&world.say(traced(data(1, 1, 1, "a"), PARENT))[0]);
    });
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!(span.name, "handle");
    assert_eq!(span.span_context.trace_id().to_bytes(), PARENT.trace_id);
    assert_eq!(span.parent_span_id.to_bytes(), PARENT.span_id);
    assert_eq!(reply.span_id, span.span_context.span_id().to_bytes());
    assert!(reply.sampled && reply.trace_id == PARENT.trace_id);
}

#[test]
fn a_frame_that_is_not_sampled_makes_no_span_and_its_replies_carry_its_context() {
    let unsampled = TraceContext { sampled: false, ..PARENT };
    let mut reply = TraceContext::NONE;
    let spans = spans_of(|| {
        let mut world = World::new();
        world.begin(1);
        reply = trace_of(&world.say(traced(data(1, 1, 1, "a"), unsampled))[0]);
    });
    assert!(spans.is_empty());
    assert_eq!(reply, unsampled);
}

#[test]
fn frames_of_a_timer_carry_no_context() {
    let mut world = World::new();
    world.begin(1);
    world.say(traced(data(1, 1, 1, "tick 5"), PARENT));
    let out = world.pass(std::time::Duration::from_millis(5));
    assert_eq!(trace_of(&out[0]), TraceContext::NONE);
}

#[test]
fn a_move_makes_a_snapshot_span_here_and_a_restore_span_there() {
    let spans = spans_of(|| {
        let mut old = World::new();
        old.begin(1);
        let state = super::world::Kept::of(&old.say(traced(freeze(1, 1, 1 << 20), PARENT)));
        let mut new = World::new();
        let [attach, chunk] = state.attach(1, 2);
        new.say_all(&[traced(attach, PARENT), chunk]);
    });
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["snapshot", "restore"]);
    for span in spans {
        assert_eq!(span.parent_span_id.to_bytes(), PARENT.span_id);
        assert!(span.attributes.iter().any(|attribute| attribute.key.as_str() == "bytes"), "{span:?}");
    }
}
