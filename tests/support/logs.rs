//! A proxy's JSON log, as a collector of logs would read it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use holdfast_stage::{Process, timestamps};
use serde_json::Value;

/// More of a proxy's config: JSON logs, handoffs included.
pub const JSON_LOGS: &str = "[telemetry]\nlogs = \"json\"\nlog_filter = \"info,holdfast=debug\"\n";

/// All lines whose message is this one, from `first` on.
pub fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// From a moment to a line's timestamp.
pub fn since(moment: SystemTime, line: &Value) -> Result<Duration> {
    let text = line["timestamp"].as_str().with_context(|| format!("a timestamp in {line}"))?;
    timestamps::since(moment, text)
}
