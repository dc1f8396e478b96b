//! Spans for sampled traces, with the proxy's span as their parent. What isn't sampled costs nothing.

use holdfast_protocol::{SessionId, TraceContext};
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The span around a handler; `None` when the frame isn't sampled.
pub(crate) fn handle(session: SessionId, seq: u64, parent: TraceContext) -> Option<Span> {
    sampled(parent, || tracing::info_span!("handle", %session, seq))
}

/// The span from FREEZE to the last chunk of state.
pub(crate) fn snapshot(session: SessionId, parent: TraceContext) -> Option<Span> {
    sampled(parent, || tracing::info_span!("snapshot", %session, bytes = tracing::field::Empty))
}

/// The span from ATTACH with a state to ATTACHED.
pub(crate) fn restore(session: SessionId, parent: TraceContext) -> Option<Span> {
    sampled(parent, || tracing::info_span!("restore", %session, bytes = tracing::field::Empty))
}

fn sampled(parent: TraceContext, make: impl FnOnce() -> Span) -> Option<Span> {
    if !parent.sampled {
        return None;
    }
    let span = make();
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    // No OpenTelemetry layer: the span is then only a log span, and the incoming context is passed on.
    let _ = span.set_parent(OtelContext::new().with_remote_span_context(remote));
    Some(span)
}

/// The context that names `span`, or `incoming` when nothing exports it.
pub(crate) fn context_of(span: Option<&Span>, incoming: TraceContext) -> TraceContext {
    let Some(span) = span else { return incoming };
    let context = span.context();
    let own = context.span();
    let own = own.span_context();
    if !own.is_valid() {
        return incoming;
    }
    TraceContext {
        trace_id: own.trace_id().to_bytes(),
        span_id: own.span_id().to_bytes(),
        sampled: own.is_sampled(),
    }
}
