//! Where spans go, out of the standard `OTEL_*` variables and the config. The variables win.
//!
//! Headers, timeout, compression and `OTEL_BSP_*` are read by the OpenTelemetry crates themselves.

use std::time::Duration;

use opentelemetry_sdk::trace::{BatchConfig, BatchConfigBuilder};

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const CONFIG_ENDPOINT: &str = "telemetry.otlp_endpoint";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const MAX_QUEUE_SIZE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SCHEDULE_DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";

const DEFAULT_QUEUE_SPANS: usize = 8_192;
const DEFAULT_WORKER_QUEUE_SPANS: usize = 16_384;
const MAX_QUEUE_SPANS: usize = 1 << 20;

/// Shorter than OpenTelemetry's 5 s, so that an operator finds a handoff's trace when they look for it.
const DEFAULT_SCHEDULE_DELAY: Duration = Duration::from_secs(1);

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

impl OtlpProtocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

/// A checked export configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportSettings {
    pub protocol: OtlpProtocol,
    /// The whole URL; for HTTP with its path.
    pub endpoint: String,
    pub service_name: String,
    pub instance_id: String,
    /// Spans that may wait for the collector.
    pub queue_spans: usize,
    /// Spans that may wait between the workers and the forwarding task; the config may say otherwise.
    pub worker_queue_spans: usize,
    /// From `OTEL_TRACES_SAMPLER`: wins over every ratio in config and documents.
    pub ratio: Option<f64>,
    schedule_delay: Option<Duration>,
}

/// The operator's fault: a variable or config field, its value, and what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("{name} is {value:?}: expected {expected}")]
    Invalid { name: &'static str, value: String, expected: &'static str },
    #[error("spans can't be exported to {endpoint:?}: {reason}")]
    Build { endpoint: String, reason: String },
}

impl ExportSettings {
    /// From the process's environment. `None`: there is no collector, so no spans are to be made.
    ///
    /// # Errors
    /// A variable or the config's endpoint with a value that can't be used.
    pub fn from_env(config_endpoint: Option<&str>, proxy_id: &str) -> Result<Option<Self>, ExportError> {
        Self::from_variables(|name| std::env::var(name).ok(), config_endpoint, proxy_id)
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        config_endpoint: Option<&str>,
        proxy_id: &str,
    ) -> Result<Option<Self>, ExportError> {
        // The specification: an empty variable is an unset one.
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || !exporter(&get)?
        {
            return Ok(None);
        }
        let protocol = protocol(&get)?;
        let Some(endpoint) = endpoint(&get, config_endpoint, protocol)? else { return Ok(None) };
        let attribute = |key: &str| resource_attribute(&get("OTEL_RESOURCE_ATTRIBUTES")?, key);
        Ok(Some(Self {
            protocol,
            endpoint,
            service_name: get("OTEL_SERVICE_NAME")
                .or_else(|| attribute("service.name"))
                .unwrap_or_else(|| "holdfast".to_owned()),
            instance_id: attribute("service.instance.id").unwrap_or_else(|| proxy_id.to_owned()),
            queue_spans: queue_spans(&get)?,
            worker_queue_spans: DEFAULT_WORKER_QUEUE_SPANS,
            ratio: sampler_ratio(&get)?,
            schedule_delay: get(SCHEDULE_DELAY).is_none().then_some(DEFAULT_SCHEDULE_DELAY),
        }))
    }

    pub(super) fn batch_config(&self) -> BatchConfig {
        // The default reads OTEL_BSP_*.
        let builder = BatchConfigBuilder::default().with_max_queue_size(self.queue_spans);
        match self.schedule_delay {
            Some(delay) => builder.with_scheduled_delay(delay).build(),
            None => builder.build(),
        }
    }
}

fn exporter(get: &impl Fn(&str) -> Option<String>) -> Result<bool, ExportError> {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    match get(NAME).as_deref() {
        None | Some("otlp") => Ok(true),
        Some("none") => Ok(false),
        Some(value) => Err(invalid(NAME, value, "\"otlp\" or \"none\"")),
    }
}

fn protocol(get: &impl Fn(&str) -> Option<String>) -> Result<OtlpProtocol, ExportError> {
    for name in [TRACES_PROTOCOL, PROTOCOL] {
        match get(name).as_deref() {
            None => {}
            Some("grpc") => return Ok(OtlpProtocol::Grpc),
            Some("http/protobuf") => return Ok(OtlpProtocol::HttpProtobuf),
            Some(value) => return Err(invalid(name, value, "\"grpc\" or \"http/protobuf\"")),
        }
    }
    Ok(OtlpProtocol::HttpProtobuf)
}

fn endpoint(
    get: &impl Fn(&str) -> Option<String>,
    config: Option<&str>,
    protocol: OtlpProtocol,
) -> Result<Option<String>, ExportError> {
    let (name, value) = match (get(TRACES_ENDPOINT), get(ENDPOINT), config) {
        (Some(value), ..) => (TRACES_ENDPOINT, value),
        (None, Some(value), _) => (ENDPOINT, value),
        (None, None, Some(value)) => (CONFIG_ENDPOINT, value.to_owned()),
        (None, None, None) => return Ok(None),
    };
    let authority = value.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    if authority.is_none_or(str::is_empty) {
        return Err(invalid(name, &value, "http://HOST:PORT (TLS to the collector isn't built in)"));
    }
    // Only the signal's own variable is a whole URL.
    let whole = protocol == OtlpProtocol::Grpc || name == TRACES_ENDPOINT;
    Ok(Some(if whole { value } else { format!("{}/v1/traces", value.trim_end_matches('/')) }))
}

/// The samplers are parent-based here either way: a child always follows its parent.
fn sampler_ratio(get: &impl Fn(&str) -> Option<String>) -> Result<Option<f64>, ExportError> {
    let Some(sampler) = get(SAMPLER) else { return Ok(None) };
    match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
        "always_on" => Ok(Some(1.0)),
        "always_off" => Ok(Some(0.0)),
        "traceidratio" => {
            let Some(argument) = get(SAMPLER_ARG) else { return Ok(Some(1.0)) };
            let ratio = argument.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.map(Some).ok_or_else(|| invalid(SAMPLER_ARG, &argument, "a number from 0 to 1"))
        }
        _ => {
            let expected = "always_on, always_off or traceidratio, each also with parentbased_ before it";
            Err(invalid(SAMPLER, &sampler, expected))
        }
    }
}

fn queue_spans(get: &impl Fn(&str) -> Option<String>) -> Result<usize, ExportError> {
    let Some(value) = get(MAX_QUEUE_SIZE) else { return Ok(DEFAULT_QUEUE_SPANS) };
    match value.trim().parse() {
        Ok(spans) if (1..=MAX_QUEUE_SPANS).contains(&spans) => Ok(spans),
        _ => Err(invalid(MAX_QUEUE_SIZE, &value, "a whole number from 1 to 1048576")),
    }
}

fn resource_attribute(attributes: &str, key: &str) -> Option<String> {
    attributes
        .split(',')
        .filter_map(|entry| entry.split_once('='))
        .find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
        .filter(|value| !value.is_empty())
}

fn invalid(name: &'static str, value: &str, expected: &'static str) -> ExportError {
    ExportError::Invalid { name, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        variables: &[(&str, &str)],
        config: Option<&str>,
    ) -> Result<Option<ExportSettings>, ExportError> {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        ExportSettings::from_variables(get, config, "host-a")
    }

    #[test]
    fn no_endpoint_is_no_export() {
        assert_eq!(settings(&[], None), Ok(None));
        assert_eq!(settings(&[(ENDPOINT, "")], None), Ok(None));
    }

    #[test]
    fn the_standard_switches_turn_it_off() {
        let endpoint = (ENDPOINT, "http://c:4318");
        assert_eq!(settings(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], None), Ok(None));
        assert_eq!(settings(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None), Ok(None));
    }

    #[test]
    fn variables_win_over_the_config() {
        let endpoint =
            |variables: &[_]| settings(variables, Some("http://file:1")).unwrap().unwrap().endpoint;
        assert_eq!(endpoint(&[]), "http://file:1/v1/traces");
        assert_eq!(endpoint(&[(ENDPOINT, "http://general:2/")]), "http://general:2/v1/traces");
        let both = [(ENDPOINT, "http://general:2"), (TRACES_ENDPOINT, "http://traces:3/x")];
        assert_eq!(endpoint(&both), "http://traces:3/x");
        assert_eq!(endpoint(&[(PROTOCOL, "grpc"), (ENDPOINT, "http://general:2")]), "http://general:2");
    }

    #[test]
    fn names_come_from_the_standard_variables() {
        let read = settings(&[], Some("http://c:1")).unwrap().unwrap();
        assert_eq!((read.service_name.as_str(), read.instance_id.as_str()), ("holdfast", "host-a"));
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=edge, service.instance.id=7");
        let read = settings(&[attributes], Some("http://c:1")).unwrap().unwrap();
        assert_eq!((read.service_name.as_str(), read.instance_id.as_str()), ("edge", "7"));
        let named = settings(&[attributes, ("OTEL_SERVICE_NAME", "front")], Some("http://c:1"));
        assert_eq!(named.unwrap().unwrap().service_name, "front");
    }

    #[test]
    fn a_sampler_is_a_ratio() {
        let ratio = |variables: &[_]| settings(variables, Some("http://c:1")).map(|read| read.unwrap().ratio);
        assert_eq!(ratio(&[]), Ok(None));
        assert_eq!(ratio(&[(SAMPLER, "always_off")]), Ok(Some(0.0)));
        assert_eq!(ratio(&[(SAMPLER, "parentbased_always_on")]), Ok(Some(1.0)));
        assert_eq!(ratio(&[(SAMPLER, "traceidratio")]), Ok(Some(1.0)));
        assert_eq!(ratio(&[(SAMPLER, "parentbased_traceidratio"), (SAMPLER_ARG, "0.25")]), Ok(Some(0.25)));
        for argument in ["2", "-0.1", "NaN", "some"] {
            let error = ratio(&[(SAMPLER, "traceidratio"), (SAMPLER_ARG, argument)]).unwrap_err();
            assert!(error.to_string().contains("a number from 0 to 1"), "{argument}");
        }
        assert!(ratio(&[(SAMPLER, "jaeger_remote")]).is_err());
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |variables: &[_]| settings(variables, None).unwrap_err().to_string();
        let endpoint = (ENDPOINT, "http://c:4318");
        assert_eq!(
            error(&[endpoint, (TRACES_PROTOCOL, "http/json")]),
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is \"http/json\": expected \"grpc\" or \"http/protobuf\""
        );
        for value in ["https://c:4318", "collector:4317", "http:///x", "http://"] {
            assert!(error(&[(ENDPOINT, value)]).contains("expected http://HOST:PORT"), "{value}");
        }
        assert!(error(&[endpoint, (MAX_QUEUE_SIZE, "0")]).contains("from 1 to 1048576"));
        assert!(error(&[endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")]).contains("\"otlp\" or \"none\""));
        let config = settings(&[], Some("localhost")).unwrap_err().to_string();
        assert!(config.starts_with("telemetry.otlp_endpoint is \"localhost\""), "{config}");
    }
}
