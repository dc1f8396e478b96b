//! Every metric and span name of Holdfast, and how they leave the process.
//!
//! The hot path writes [`counters`] and hands finished [`span`]s to a [`tracer`]: neither waits, locks or allocates
//! a queue. What is slow (rendering a page, talking to a collector) runs on the control runtime.

pub mod counters;
pub mod export;
pub mod ids;
pub mod logs;
pub mod metrics;
pub mod span;
pub mod tracer;

pub use tracer::Tracer;
