//! Envoy as a TCP proxy, in front of games' plain sides: what Holdfast is compared with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::binaries::tool;
use crate::process::replace_file;
use crate::{Process, Stage, Upstream, free_address, http, until};

const READY_WITHIN: Duration = Duration::from_secs(30);
/// Its default of 1,024 connections to a cluster is no fault of TCP's.
const MAX_SESSIONS: u32 = 20_000;

/// One worker thread, least requests first, another game is tried if one refuses. Games come from a file (EDS), which
/// is replaced when their weights change.
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    endpoints: PathBuf,
}

impl Envoy {
    /// `HOLDFAST_ENVOY`. Ready when it returns.
    pub fn start(stage: &Stage, upstreams: &[Upstream]) -> Result<Self> {
        let program = tool("HOLDFAST_ENVOY", "", "`./dev setup` installs it")?;
        let (address, admin) = (free_address()?, free_address()?);
        // A folder of its own: it is watched.
        let folder = stage.path().join("envoy");
        let endpoints = folder.join("endpoints.json");
        replace_file(&endpoints, &assignment(upstreams).to_string())?;
        let config = json!({
            "node": {"id": "bench", "cluster": "bench"},
            "admin": {"address": socket_address(admin)},
            "static_resources": {"listeners": [listener(address)], "clusters": [cluster(&endpoints)]},
        });
        let config = stage.write("envoy.json", &config.to_string())?;
        let fixed =
            ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--config-path"];
        let arguments = fixed.into_iter().map(Into::into).chain([config.into_os_string()]);
        let mut process = Process::new(stage, "envoy", program, arguments);
        process.start()?;
        process.wait_ready("ready", READY_WITHIN, || {
            http::get(&admin.to_string(), "/ready").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { process, address, admin, endpoints })
    }

    /// From now on new sessions follow these weights; 0: none. Live ones stay. Returns when that is in force.
    pub fn weigh(&self, upstreams: &[Upstream]) -> Result<()> {
        let updates = "cluster.games.update_success";
        let before = self.statistic(updates)?;
        replace_file(&self.endpoints, &assignment(upstreams).to_string())?;
        until("Envoy has taken the new weights", READY_WITHIN, || {
            self.statistic(updates).is_ok_and(|now| now > before)
        })
    }

    fn statistic(&self, name: &str) -> Result<u64> {
        let page = http::get(&self.admin.to_string(), &format!("/stats?filter=^{name}$"))?.body;
        Ok(page.trim().rsplit_once(": ").and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

fn listener(address: SocketAddr) -> Value {
    json!({
        "name": "game",
        "address": socket_address(address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "game",
                "cluster": "games",
                "max_connect_attempts": 4,
            },
        }]}],
    })
}

fn cluster(endpoints: &std::path::Path) -> Value {
    let limits = json!({
        "max_connections": MAX_SESSIONS,
        "max_pending_requests": MAX_SESSIONS,
        "max_requests": MAX_SESSIONS,
    });
    json!({
        "name": "games",
        "type": "EDS",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": endpoints}}},
    })
}

/// Endpoints of weight 0 are left out.
fn assignment(upstreams: &[Upstream]) -> Value {
    let endpoint = |upstream: &Upstream| {
        json!({
            "endpoint": {"address": socket_address(upstream.address)},
            "load_balancing_weight": upstream.weight,
        })
    };
    let endpoints: Vec<Value> = upstreams.iter().filter(|it| it.weight > 0).map(endpoint).collect();
    json!({
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "games",
            "endpoints": [{"lb_endpoints": endpoints}],
        }],
    })
}
