//! Every metric and span name of Holdfast.

pub mod counters;
pub mod span;
