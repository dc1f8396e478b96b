//! A proxy's life, in order: read the config, bind, follow the documents, serve, stop.
//!
//! The control plane (documents, servers, export, signals) runs on this thread's runtime; each worker has its own.

mod descriptors;
mod drain_store;
mod listeners;
mod numbers;
mod registration;
mod reload;
mod table_store;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use holdfast_protocol::InstanceId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, HookDesk, Surface};
use crate::cli::Exit;
use crate::config::{AdminBind, Config, Source as SourceConfig};
use crate::events::Newsroom;
use crate::health::{Health, Monitor};
use crate::hooks;
use crate::source::etcd::{self, Affairs, BackendRegistrar, Proxy, RegistrarHandle};
use crate::source::history::History;
use crate::source::memory::MemoryFile;
use crate::source::{Identity, Origin, Publisher, Source, files};
use crate::telemetry::export::{Export, ExportSettings};
use crate::telemetry::logs;
use crate::telemetry::metrics::{ControlView, Metrics, MetricsSources};
use workers::Workers;

const SOURCE_ENDED: &str = "the task that follows the documents ended";
/// Tasks of the control plane get this long to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the proxy until SIGTERM. The exit code says whether it ended as it should.
#[must_use]
pub fn run(config_file: &Path) -> Exit {
    let config = match Config::load(config_file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("holdfast: {errors}");
            return Exit::Failed;
        }
    };
    if let Err(error) = logs::init(config.telemetry.logs, Some(&config.telemetry.log_filter)) {
        eprintln!("holdfast: {error}");
        return Exit::Failed;
    }
    log_panics();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdfast: the runtime can't start: {error}");
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(serve(config));
    runtime.shutdown_timeout(END_TIMEOUT);
    exit.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        eprintln!("holdfast: {error:#}");
        Exit::Failed
    })
}

/// A panic is our fault, and stands in the log like every other failure.
fn log_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place,
            thread = thread.name(),
            "panic: {}",
            panic.payload_as_str().unwrap_or("no text")
        );
        print(panic);
    }));
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let started_at = SystemTime::now();
    let mut signals = Signals::new()?;
    let instance = InstanceId(fastrand::u128(..).to_be_bytes());
    descriptors::raise_limit(&config);
    let identity = Arc::new(Identity::open(&config.proxy.data_dir, instance)?);
    let bound = listeners::bind(&config)?;
    let export = start_export(&config)?;
    let mut news = Newsroom::new(&config.events, &config.proxy.id);
    let listeners = bound.names_and_addresses();
    let mut workers = Workers::new(&config, instance, &export, news.notices.clone(), listeners);
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (publisher, source) = Publisher::new();
    workers.read_table_from(&source);
    let proxy = Proxy::new(&config.proxy.id, identity);
    let registration = registration::prepare(&config, &proxy, &workers, &source, &tasks, &shutdown);
    let (registrar, registration) = registration.unzip();
    let local = config.local.as_ref().map(|local| (local.backend.clone(), local.address.clone()));
    let (monitor, health) = Monitor::new(&config.proxy.id, local, &source, workers.commands());
    news.open(&source, &health, &tasks, &shutdown);
    let state =
        admin_state(&config, &workers, &source, (health, &news), &export, registration.clone(), started_at);
    let state = Arc::new(state);
    start_servers(&config, &state, &tasks, &shutdown).await?;
    let holding = (proxy, registrar);
    let following = follow_documents(&config, holding, &mut workers, publisher, &source, &tasks, &shutdown);
    let followed = tokio::select! {
        followed = following => followed.map(|()| true)?,
        () = signals.stop() => false,
    };
    tracing::info!(id = %config.proxy.id, %instance, version = env!("CARGO_PKG_VERSION"), "proxy starts");
    let mut tls = bound.tls();
    let served = if followed && wait_for_table(&source, &mut signals).await? {
        workers.start(bound)?;
        state.set_listeners_bound();
        tasks.spawn(monitor.run(shutdown.clone()));
        tracing::info!(revision = source.table.load().revision, "ready");
        supervise(&config, &mut workers, &source, &mut signals, &mut tls).await
    } else {
        Ok(())
    };
    state.set_stopping();
    if let Some(registration) = registration {
        // Nobody is to come any more before those who are here are told to go.
        registration.withdraw().await;
    }
    // With a part of the proxy gone, what is left ends at once; games still get to save.
    let deadline = if served.is_ok() { config.limits.shutdown_deadline } else { Duration::ZERO };
    if let Err(error) = &served {
        tracing::error!("{error:#}: the proxy ends");
    }
    let stopped = workers.stop(deadline, &mut signals).await;
    shutdown.cancel();
    tasks.close();
    if tokio::time::timeout(END_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks of the control plane didn't end in time");
    }
    export.shutdown(config.telemetry.flush_timeout).await;
    served?;
    let dropped = stopped?;
    if dropped > 0 {
        tracing::error!(sessions = dropped, "stopped; state that no backend took was dropped");
        return Ok(Exit::Failed);
    }
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

/// The signals that the proxy listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

fn start_export(config: &Config) -> anyhow::Result<Export> {
    let settings = ExportSettings::from_env(None, &config.proxy.id)?;
    Ok(match settings {
        Some(mut settings) => {
            settings.worker_queue_spans = config.telemetry.span_queue;
            Export::start(&settings)?
        }
        None => Export::disabled(),
    })
}

fn admin_state(
    config: &Config,
    workers: &Workers,
    source: &Source,
    (health, news): (Health, &Newsroom),
    export: &Export,
    registration: Option<RegistrarHandle>,
    started_at: SystemTime,
) -> AdminState {
    let kind = match config.source {
        SourceConfig::Etcd(_) => "etcd",
        SourceConfig::Files { .. } => "files",
    };
    let (published, rollouts, shown) = (source.published.clone(), source.rollouts.clone(), health.clone());
    let (hooks, stats) = (Arc::<hooks::Counts>::default(), Arc::clone(&news.stats));
    let hook_counts = Arc::clone(&hooks);
    let control = move || ControlView {
        health: shown.view(),
        hooks: hook_counts.all(),
        events: stats.view(),
        ..admin::control_view(&published.borrow(), &rollouts.borrow(), started_at)
    };
    let metrics = Metrics::new(MetricsSources {
        workers: workers.counters(),
        spans: export.stats(),
        control: Box::new(control),
        started_at,
        version: env!("CARGO_PKG_VERSION"),
    });
    AdminState {
        proxy_id: config.proxy.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        workers: workers.commands(),
        counters: workers.counters(),
        source: kind,
        published: source.published.clone(),
        rollouts: source.rollouts.clone(),
        fitness: health.fitness,
        listeners: workers.listener_infos(),
        metrics,
        drains: drain_store::of(&config.source),
        hooks: HookDesk {
            token: config.hooks.token.clone(),
            orders: drain_store::of_hooks(&config.source),
            counts: hooks,
            events: news.events.clone(),
        },
        tables: table_store::of(&config.source),
        history: history(config),
        registration,
        listeners_bound: false.into(),
        stopping: false.into(),
    }
}

async fn start_servers(
    config: &Config,
    state: &Arc<AdminState>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let health = admin::Listener::bind(&admin::Address::Tcp(config.health.to_string())).await?;
    let address = match &config.admin {
        AdminBind::Tcp(address) => admin::Address::Tcp(address.to_string()),
        AdminBind::Unix(path) => admin::Address::Unix(path.clone()),
    };
    let orders = admin::Listener::bind(&address).await?;
    if let Some(bind) = config.hooks.bind {
        let alerts = admin::Listener::bind(&admin::Address::Tcp(bind.to_string())).await?;
        tasks.spawn(admin::serve(alerts, Surface::Hooks, Arc::clone(state), shutdown.clone()));
    }
    tasks.spawn(admin::serve(health, Surface::Health, Arc::clone(state), shutdown.clone()));
    tasks.spawn(admin::serve(orders, Surface::Admin, Arc::clone(state), shutdown.clone()));
    Ok(())
}

/// The tables that this proxy had from its source, on disk.
fn history(config: &Config) -> History {
    History::new(&config.proxy.data_dir, origin(config))
}

/// What tells this proxy's source from others that it may have had.
fn origin(config: &Config) -> String {
    match &config.source {
        SourceConfig::Etcd(etcd) => format!("etcd:{}", etcd.root),
        SourceConfig::Files { path } => format!("files:{}", path.display()),
    }
}

async fn follow_documents(
    config: &Config,
    (proxy, registrar): (Proxy, Option<BackendRegistrar>),
    workers: &mut Workers,
    mut publisher: Publisher,
    source: &Source,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let history = history(config);
    let memory = MemoryFile::new(&config.proxy.data_dir, &origin(config));
    let latest = history.latest();
    if let Some(latest) = &latest {
        publisher.start_from(latest, memory.read());
    }
    tasks.spawn(memory.keep(publisher.memories(), shutdown.clone()));
    tasks.spawn(history.keep(latest, publisher.snapshots(), shutdown.clone()));
    match &config.source {
        SourceConfig::Files { path } => {
            tasks.spawn(files::run(path.clone(), publisher, shutdown.clone()));
        }
        SourceConfig::Etcd(etcd) => {
            let numbers = numbers::tell(workers, Arc::clone(&source.table), tasks, shutdown);
            let etcd = Arc::new((**etcd).clone());
            let (groups, workers) = (workers.claim_groups(), workers.commands());
            let affairs = Affairs { numbers, groups, rollouts: publisher.rollouts(), workers, registrar };
            etcd::start(etcd, proxy, affairs, publisher, source, tasks, shutdown).await?;
        }
    }
    Ok(())
}

/// Clients wait in the listeners' backlog until it is known where they go. `false`: told to stop first.
async fn wait_for_table(source: &Source, signals: &mut Signals) -> anyhow::Result<bool> {
    let mut published = source.published.clone();
    let known = published.wait_for(|published| published.origin != Origin::Nothing);
    tokio::select! {
        known = known => known.map(|_| true).context(SOURCE_ENDED),
        () = signals.stop() => Ok(false),
    }
}

/// Passes on table changes and signals until it is time to stop.
async fn supervise(
    config: &Config,
    workers: &mut Workers,
    source: &Source,
    signals: &mut Signals,
    tls: &mut listeners::LiveTls,
) -> anyhow::Result<()> {
    let (mut published, mut rollouts) = (source.published.clone(), source.rollouts.clone());
    let mut config = config.clone();
    loop {
        tokio::select! {
            Ok(()) = rollouts.changed() => {
                workers.set_rollouts(rollouts.borrow_and_update().clone());
                workers.tell_table_changed().await;
            }
            changed = published.changed() => match changed {
                Ok(()) => workers.tell_table_changed().await,
                Err(_) => anyhow::bail!(SOURCE_ENDED),
            },
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(()),
                Asked::Reload => reload::reload(&mut config, tls),
            },
            worker = workers.ended() => anyhow::bail!("worker {worker} ended unexpectedly"),
        }
    }
}
