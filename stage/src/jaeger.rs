//! A real Jaeger with everything in memory, and its query API.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::binaries::tool;
use crate::{Process, Stage, free_address, http};

pub struct Jaeger {
    process: Process,
    query: SocketAddr,
    otlp_grpc: SocketAddr,
    otlp_http: SocketAddr,
}

/// One trace that the query API returned.
#[derive(Debug, Clone)]
pub struct FoundTrace {
    pub id: String,
    /// (service, operation) of every span.
    pub spans: BTreeSet<(String, String)>,
    /// As Jaeger returned it.
    pub raw: Value,
}

impl Jaeger {
    /// `HOLDFAST_JAEGER` names the binary; ready when it returns.
    pub fn start(stage: &Stage) -> Result<Self> {
        let binary =
            tool("HOLDFAST_JAEGER", "", "`./dev setup` builds Jaeger and `./dev demo --jaeger` names it")?;
        let (query, otlp_grpc, otlp_http, admin) =
            (free_address()?, free_address()?, free_address()?, free_address()?);
        let mut arguments = vec![
            format!("--query.http-server.host-port={query}"),
            format!("--collector.otlp.grpc.host-port={otlp_grpc}"),
            format!("--collector.otlp.http.host-port={otlp_http}"),
            format!("--admin.http.host-port={admin}"),
        ];
        // Doors we don't use, which would take their usual ports.
        for flag in [
            "collector.grpc-server.host-port",
            "collector.http-server.host-port",
            "query.grpc-server.host-port",
            "http-server.host-port",
            "processor.jaeger-binary.server-host-port",
            "processor.jaeger-compact.server-host-port",
            "processor.zipkin-compact.server-host-port",
        ] {
            arguments.push(format!("--{flag}={}", free_address()?));
        }
        let mut process = Process::new(stage, "jaeger", binary, arguments)
            .with_environment("SPAN_STORAGE_TYPE", "memory")
            // Its own traces would go to a collector that isn't there.
            .with_environment("OTEL_TRACES_SAMPLER", "always_off");
        process.start()?;
        let admin = admin.to_string();
        process.wait_ready("its admin page", Duration::from_secs(15), || {
            http::get(&admin, "/").is_ok_and(|answer| answer.status < 400)
        })?;
        Ok(Self { process, query, otlp_grpc, otlp_http })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`, with `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`.
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.otlp_grpc)
    }

    /// The same with `OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`, the default.
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.otlp_http)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// For a browser: the trace as JSON (Jaeger built by Go has no pages of its own).
    pub fn link(&self, trace_id: &str) -> String {
        format!("http://{}/api/traces/{trace_id}?prettyPrint=true", self.query)
    }

    /// The newest traces with such a span, at most `limit`.
    pub fn traces(&self, service: &str, operation: &str, limit: usize) -> Result<Vec<FoundTrace>> {
        let plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        ensure!(
            plain(service) && plain(operation),
            "{service:?}, {operation:?}: names with no need of escapes"
        );
        let path = format!("/api/traces?service={service}&operation={operation}&limit={limit}&lookback=1h");
        let answer = http::get_json(&self.query.to_string(), &path)?;
        let traces = answer["data"].as_array().cloned().unwrap_or_default();
        Ok(traces.into_iter().map(FoundTrace::new).collect())
    }

    /// One trace, if it has arrived.
    pub fn trace(&self, id: &str) -> Result<Option<FoundTrace>> {
        let answer = http::get(&self.query.to_string(), &format!("/api/traces/{id}"))?;
        if answer.status == 404 {
            return Ok(None);
        }
        let trace = answer.json()?["data"].as_array().and_then(|data| data.first()).cloned();
        Ok(trace.map(FoundTrace::new))
    }
}

impl FoundTrace {
    fn new(raw: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spans = raw["spans"].as_array().into_iter().flatten().map(|span| {
            let process = text(&span["processID"]);
            (text(&raw["processes"][&process]["serviceName"]), text(&span["operationName"]))
        });
        Self { id: text(&raw["traceID"]), spans: spans.collect(), raw }
    }

    /// Services that have a span in it.
    pub fn services(&self) -> BTreeSet<&str> {
        self.spans.iter().map(|(service, _)| service.as_str()).collect()
    }
}
