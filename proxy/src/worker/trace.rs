//! Spans of a worker: frames, handoffs, sessions. Times are kept as instants and become wall-clock times at the end.

use std::time::{Duration, Instant, SystemTime};

use holdfast_protocol::TraceContext;

use crate::session::outbound::Entry;
use crate::telemetry::counters::{CloseReason, HandoffCause, HandoffResult};
use crate::telemetry::ids::Ids;
use crate::telemetry::span::{Span, Value};

/// Turns instants (and microseconds since the worker's start) into wall-clock time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now(), start_wall: SystemTime::now() }
    }

    /// Microseconds since the worker's start.
    pub fn stamp(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    pub fn wall(&self, at: Instant) -> SystemTime {
        self.start_wall + at.saturating_duration_since(self.start)
    }

    fn wall_of_stamp(&self, stamp: u64) -> SystemTime {
        self.start_wall + Duration::from_micros(stamp)
    }
}

/// Most events of one session's span; a session that moves more often keeps its first ones.
const SESSION_EVENTS: usize = 64;

/// Most phases of one handoff's trace; a session that is parked tries again and again.
const HANDOFF_PHASES: usize = 64;

/// The trace of a whole session, from its first moment: only what happens later decides whether it is told.
#[derive(Debug)]
pub struct SessionTrace {
    context: TraceContext,
    opened: Instant,
    events: Vec<(&'static str, Instant)>,
}

impl SessionTrace {
    pub fn begin(ids: &mut Ids, ratio: f64, now: Instant) -> Self {
        Self { context: ids.root(ratio), opened: now, events: vec![("opened", now)] }
    }

    pub fn event(&mut self, name: &'static str, now: Instant) {
        if self.events.len() < SESSION_EVENTS {
            self.events.push((name, now));
        }
    }

    /// A session that has moved is told, sampled or not: somebody may look for it.
    pub fn keep(&mut self) {
        self.context.sampled = true;
    }

    pub fn is_sampled(&self) -> bool {
        self.context.sampled
    }

    pub fn finish(
        self,
        session: String,
        (service, route): (&str, &str),
        reason: CloseReason,
        clock: &Clock,
        now: Instant,
    ) -> Span {
        let events = self.events.into_iter().chain([("closed", now)]);
        Span {
            name: "session",
            context: self.context,
            parent_span_id: [0; 8],
            start: clock.wall(self.opened),
            end: clock.wall(now),
            attributes: vec![
                ("holdfast.session", Value::Text(session)),
                ("holdfast.service", Value::Text(service.to_owned())),
                ("holdfast.route", Value::Text(route.to_owned())),
                ("holdfast.reason", Value::Text(reason.name().to_owned())),
            ],
            events: events.map(|(name, at)| (name, clock.wall(at))).collect(),
            error: None,
        }
    }
}

/// One phase of a handoff.
#[derive(Debug, Clone, Copy)]
struct Phase {
    name: &'static str,
    context: TraceContext,
    begun: Instant,
}

/// The trace of one handoff, while it runs. Always sampled: handoffs are rare, and each is looked for by somebody.
#[derive(Debug)]
pub struct HandoffTrace {
    root: TraceContext,
    pub cause: HandoffCause,
    pub begun: Instant,
    phase: Option<Phase>,
    spans: Vec<Span>,
    pub from: String,
    pub to: Option<String>,
    pub state_bytes: u64,
}

impl HandoffTrace {
    /// `exported`: the proxy has a collector. Without one, backends are not asked for spans whose parent never comes.
    pub fn begin(ids: &mut Ids, exported: bool, cause: HandoffCause, from: String, now: Instant) -> Self {
        let root = ids.root(if exported { 1.0 } else { 0.0 });
        Self { root, cause, begun: now, phase: None, spans: Vec::new(), from, to: None, state_bytes: 0 }
    }

    pub fn trace_id(&self) -> [u8; 16] {
        self.root.trace_id
    }

    /// Ends the running phase and begins the next; its context goes into messages.
    pub fn phase(&mut self, name: &'static str, ids: &mut Ids, clock: &Clock, now: Instant) -> TraceContext {
        self.end_phase(clock, now, None);
        let context = TraceContext { span_id: ids.span_id(), ..self.root };
        self.phase = Some(Phase { name, context, begun: now });
        context
    }

    pub fn end_phase(&mut self, clock: &Clock, now: Instant, error: Option<String>) {
        let Some(phase) = self.phase.take() else { return };
        if self.spans.len() >= HANDOFF_PHASES {
            return;
        }
        self.spans.push(Span {
            name: phase.name,
            context: phase.context,
            parent_span_id: self.root.span_id,
            start: clock.wall(phase.begun),
            end: clock.wall(now),
            attributes: Vec::new(),
            events: Vec::new(),
            error,
        });
    }

    /// All spans of the handoff, the root last.
    pub fn finish(
        mut self,
        session: String,
        result: HandoffResult,
        clock: &Clock,
        now: Instant,
    ) -> Vec<Span> {
        self.end_phase(clock, now, None);
        let mut attributes = vec![
            ("holdfast.session", Value::Text(session)),
            ("holdfast.cause", Value::Text(self.cause.name().to_owned())),
            ("holdfast.result", Value::Text(result.name().to_owned())),
            ("holdfast.from", Value::Text(self.from)),
            ("holdfast.state_bytes", Value::Int(i64::try_from(self.state_bytes).unwrap_or(i64::MAX))),
        ];
        if let Some(to) = self.to {
            attributes.push(("holdfast.to", Value::Text(to)));
        }
        self.spans.push(Span {
            name: "handoff",
            context: self.root,
            parent_span_id: [0; 8],
            start: clock.wall(self.begun),
            end: clock.wall(now),
            attributes,
            events: Vec::new(),
            error: None,
        });
        self.spans
    }
}

/// The span of a client frame: received, forwarded, processed by the game.
pub fn frame_span(entry: &Entry<'_>, session: String, clock: &Clock, now: Instant) -> Span {
    let seq = i64::try_from(entry.seq.0).unwrap_or(i64::MAX);
    let bytes = i64::try_from(entry.frame.len()).unwrap_or(i64::MAX);
    Span {
        name: "frame",
        context: TraceContext { sampled: true, ..entry.trace },
        parent_span_id: [0; 8],
        start: clock.wall_of_stamp(entry.received),
        end: clock.wall(now),
        attributes: vec![
            ("holdfast.session", Value::Text(session)),
            ("holdfast.seq", Value::Int(seq)),
            ("holdfast.bytes", Value::Int(bytes)),
        ],
        events: Vec::new(),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handoff_that_is_tried_for_hours_keeps_a_bounded_trace() {
        let (mut ids, clock, now) = (Ids::default(), Clock::new(), Instant::now());
        let mut handoff = HandoffTrace::begin(&mut ids, true, HandoffCause::Crash, "arena/a".to_owned(), now);
        for _ in 0..10_000 {
            handoff.phase("attach", &mut ids, &clock, now);
        }
        let spans = handoff.finish("session".to_owned(), HandoffResult::Moved, &clock, now);
        assert_eq!(spans.len(), HANDOFF_PHASES + 1);
        assert_eq!(spans.last().map(|span| span.name), Some("handoff"));
    }
}
