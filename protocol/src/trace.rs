//! A W3C trace context in 29 bytes, after the binary-format draft (https://w3c.github.io/trace-context-binary/):
//! version 0, then field 0 (trace id, 16 bytes), field 1 (parent span id, 8 bytes), field 2 (flags, 1 byte).

/// The trace of one frame, handoff or session. All zero says "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    /// The span that the receiver's span is a child of.
    pub span_id: [u8; 8],
    pub sampled: bool,
}

/// Length of an encoded trace context in bytes.
pub const TRACE_CONTEXT_BYTES: usize = 29;
