//! `[telemetry]`: logs and traces. Where traces go is said by the standard `OTEL_*` variables.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::reader::{Section, text_that};

/// How this proxy tells what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    pub logs: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`, known to parse.
    pub log_filter: String,
    /// Share of frames that are sampled where a service's document doesn't say, 0 to 1.
    pub ratio: f64,
    /// Finished spans that may wait for export; beyond it they are dropped and counted.
    pub span_queue: usize,
    /// How long the last spans may take to be exported when the proxy stops.
    pub flush_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Telemetry {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let logs = section.optional("logs", "\"text\" or \"json\"", |value| match value.as_str()? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let filter =
            "levels (error, warn, info, debug, trace, off), for all or by module: \"info,holdfast=debug\"";
        let log_filter = section.optional("log_filter", filter, text_that(is_filter));
        let ratio = section.optional("ratio", "a number from 0 to 1", |value| {
            let text = value.as_float().map(|float| float.as_str());
            let number: f64 =
                text.or_else(|| value.as_integer().map(|integer| integer.as_str()))?.parse().ok()?;
            (0.0..=1.0).contains(&number).then_some(number)
        });
        let telemetry = Self {
            logs: logs.unwrap_or(LogFormat::Text),
            log_filter: log_filter.unwrap_or_else(|| "info".to_owned()),
            ratio: ratio.unwrap_or(0.01),
            span_queue: usize::try_from(section.number("span_queue", 16_384, 1..=1_048_576))
                .unwrap_or(usize::MAX),
            flush_timeout: section.seconds("flush_timeout_s", 5, 1..=60),
        };
        section.finish();
        telemetry
    }
}

/// A lone word would be taken for a module's name: it has to be a level here, so that a slip in one is noticed.
fn is_filter(text: &str) -> bool {
    let lone_words_are_levels = text.split(',').all(|directive| {
        directive.contains(['=', '['])
            || directive.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    });
    lone_words_are_levels && EnvFilter::try_new(text).is_ok()
}
