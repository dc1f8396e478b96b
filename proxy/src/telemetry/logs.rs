//! Logs: text for people, JSON for machines, always on stderr (stdout belongs to command output).
//!
//! Events say `session` and `trace_id` as fields wherever they are about one, so that a log line leads to its trace.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// Libraries that would speak too much at `debug`. `RUST_LOG` may name them to hear them.
const QUIET: &str = "hyper=warn,hyper_util=warn,h2=warn,tonic=warn,tower=warn,reqwest=warn,rustls=warn,opentelemetry=off,\
                     opentelemetry_sdk=off,opentelemetry_otlp=off";

/// The operator's fault, each with what was expected.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error(
        "{origin} is {value:?}: {reason}; expected a level (error, warn, info, debug, trace) or directives such as \"info,holdfast=debug\""
    )]
    Filter { origin: &'static str, value: String, reason: String },
    #[error("logs are already set up in this process")]
    AlreadySet,
}

/// Starts logging for the whole process. `RUST_LOG` wins over the config's directives; without both it is `info`.
pub fn init(format: LogFormat, directives: Option<&str>) -> Result<(), LogsError> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = filter(rust_log.as_deref(), directives)?;
    let dispatch = dispatch(format, filter, std::io::stderr, std::io::stderr().is_terminal());
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogsError::AlreadySet)
}

fn filter(rust_log: Option<&str>, directives: Option<&str>) -> Result<EnvFilter, LogsError> {
    let set = |text: &&str| !text.trim().is_empty();
    let (origin, value) = match (rust_log.filter(set), directives.filter(set)) {
        (Some(value), _) => ("RUST_LOG", value),
        (None, Some(value)) => ("telemetry.log_filter", value),
        (None, None) => ("the default level", "info"),
    };
    // Later directives replace earlier ones for the same target.
    EnvFilter::builder().parse(format!("{QUIET},{value}")).map_err(|error| LogsError::Filter {
        origin,
        value: value.to_owned(),
        reason: error.to_string(),
    })
}

fn dispatch<W>(format: LogFormat, filter: EnvFilter, writer: W, colours: bool) -> tracing::Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Text => into_dispatch(builder.finish()),
        LogFormat::Json => into_dispatch(builder.json().flatten_event(true).finish()),
    }
}

fn into_dispatch(subscriber: impl Subscriber + Send + Sync + 'static) -> tracing::Dispatch {
    tracing::Dispatch::new(subscriber)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, rust_log: Option<&str>, level: Option<&str>, emit: fn()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let dispatch = dispatch(format, filter(rust_log, level).unwrap(), move || writer.clone(), false);
        tracing::dispatcher::with_default(&dispatch, emit);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_session_and_trace() {
        let text = logged(LogFormat::Json, None, None, || {
            tracing::info!(session = "5e55", trace_id = "7ace", "handed off");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["session"], "5e55");
        assert_eq!(line["trace_id"], "7ace");
        assert_eq!(line["message"], "handed off");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn rust_log_wins_over_the_config() {
        let emit = || tracing::debug!("detail");
        assert_eq!(logged(LogFormat::Text, None, Some("info"), emit), "");
        assert!(logged(LogFormat::Text, Some("debug"), Some("info"), emit).contains("detail"));
        assert!(logged(LogFormat::Text, Some(""), Some("debug"), emit).contains("detail"));
    }

    #[test]
    fn libraries_stay_quiet_until_they_are_named() {
        let emit = || tracing::debug!(target: "hyper::proto", "chatter");
        assert_eq!(logged(LogFormat::Text, Some("debug"), None, emit), "");
        assert!(logged(LogFormat::Text, Some("debug,hyper=debug"), None, emit).contains("chatter"));
    }

    #[test]
    fn a_wrong_filter_names_where_it_stands() {
        let error = filter(Some("holdfast=loud"), None).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG is \"holdfast=loud\""), "{error}");
        let error = filter(None, Some("holdfast=loud")).unwrap_err().to_string();
        assert!(error.starts_with("telemetry.log_filter is"), "{error}");
    }
}
