//! A proxy's JSON log, as a collector of logs would read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use holdfast_stage::Process;
use serde_json::Value;

/// More of a proxy's config: JSON logs, handoffs included.
pub const JSON_LOGS: &str = "[telemetry]\nlogs = \"json\"\nlog_filter = \"info,holdfast=debug\"\n";

const DAY: f64 = 86_400.0;

/// All lines whose message is this one, from `first` on.
pub fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// From a moment to a line's timestamp. Both clocks are this machine's; a day is longer than any test.
pub fn since(moment: SystemTime, line: &Value) -> Result<Duration> {
    let text = line["timestamp"].as_str().with_context(|| format!("a timestamp in {line}"))?;
    let logged = seconds_of_day(text).with_context(|| format!("the time of day in {text:?}"))?;
    let moment = moment.duration_since(UNIX_EPOCH)?.as_secs_f64() % DAY;
    Ok(Duration::from_secs_f64((logged - moment).rem_euclid(DAY)))
}

/// Of `2026-01-31T23:59:59.123456Z`.
fn seconds_of_day(text: &str) -> Option<f64> {
    let mut parts = text.split_once('T')?.1.strip_suffix('Z')?.split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}
