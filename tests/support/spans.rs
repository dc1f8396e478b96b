//! Traces as Jaeger's query API returns them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use holdfast_stage::{FoundTrace, Jaeger, until_some};
use serde_json::Value;

use super::scene::SOON;

/// One span of a trace.
#[derive(Debug, Clone)]
pub struct FoundSpan {
    pub id: String,
    /// Empty: a root.
    pub parent: String,
    pub service: String,
    pub name: String,
    pub tags: BTreeMap<String, Value>,
    /// Names of its events, in their order.
    pub events: Vec<String>,
    pub begin_us: u64,
    pub end_us: u64,
}

pub fn spans(trace: &FoundTrace) -> Vec<FoundSpan> {
    trace.raw["spans"].as_array().into_iter().flatten().map(|raw| span(&trace.raw, raw)).collect()
}

fn span(trace: &Value, raw: &Value) -> FoundSpan {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let parent = list(&raw["references"]).into_iter().find(|reference| reference["refType"] == "CHILD_OF");
    let tags = list(&raw["tags"]).into_iter().map(|tag| (text(&tag["key"]), tag["value"].clone()));
    let mut logs = list(&raw["logs"]);
    logs.sort_by_key(|log| log["timestamp"].as_u64());
    let event =
        |log: &Value| list(&log["fields"]).iter().find(|f| f["key"] == "event").map(|f| text(&f["value"]));
    let begin_us = raw["startTime"].as_u64().unwrap_or(0);
    FoundSpan {
        id: text(&raw["spanID"]),
        parent: parent.map(|reference| text(&reference["spanID"])).unwrap_or_default(),
        service: text(&trace["processes"][&text(&raw["processID"])]["serviceName"]),
        name: text(&raw["operationName"]),
        tags: tags.collect(),
        events: logs.iter().filter_map(event).collect(),
        begin_us,
        end_us: begin_us + raw["duration"].as_u64().unwrap_or(0),
    }
}

/// The only span with this name.
pub fn named<'a>(spans: &'a [FoundSpan], name: &str) -> Result<&'a FoundSpan> {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().with_context(|| format!("no span {name:?} in {spans:#?}"))?;
    anyhow::ensure!(found.next().is_none(), "more than one span {name:?} in {spans:#?}");
    Ok(first)
}

/// Waits for a trace with such a span for which `wanted` holds.
pub fn wait_for_trace(
    jaeger: &Jaeger,
    (service, operation): (&str, &str),
    what: &str,
    wanted: impl Fn(&FoundTrace) -> bool,
) -> Result<FoundTrace> {
    let mut last = Vec::new();
    let found = until_some(&format!("{what}, as Jaeger tells"), SOON, || {
        last = jaeger.traces(service, operation, 200)?;
        Ok(last.iter().find(|trace| wanted(trace)).cloned())
    });
    found.with_context(|| format!("{} traces, one of them {:#?}", last.len(), last.first().map(spans)))
}
