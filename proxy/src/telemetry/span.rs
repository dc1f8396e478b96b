//! Finished spans, as data. Workers make them and give them to a bounded queue; a full queue is a counted drop.

use std::time::SystemTime;

use holdfast_protocol::TraceContext;

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: &'static str,
    /// Trace id, this span's own id, and whether it was sampled.
    pub context: TraceContext,
    /// All zero: a root.
    pub parent_span_id: [u8; 8],
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    pub events: Vec<(&'static str, SystemTime)>,
    /// Set: the span's status is an error with this text.
    pub error: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
}
