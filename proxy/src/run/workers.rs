//! The worker threads: started together, told things together, ended together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast_protocol::InstanceId;
use tokio::sync::mpsc;

use super::Signals;
use super::listeners::Bound;
use crate::admin::ListenerInfo;
use crate::config::Config;
use crate::routing::Table;
use crate::source::Source;
use crate::telemetry::counters::Counters;
use crate::telemetry::export::Export;
use crate::telemetry::tracer::Tracer;
use crate::worker::command::Command;
use crate::worker::{self, WorkerConfig};

/// Commands that a worker may have waiting.
const COMMANDS: usize = 64;
/// How long a worker waits for games to save, after the shutdown's deadline.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

pub struct Workers {
    config: Config,
    instance: InstanceId,
    tracer: Tracer,
    forced_ratio: Option<f64>,
    table: Arc<ArcSwap<Table>>,
    counters: Vec<Arc<Counters>>,
    senders: Vec<mpsc::Sender<Command>>,
    receivers: Vec<mpsc::Receiver<Command>>,
    listeners: Vec<(Arc<str>, SocketAddr)>,
    threads: Vec<JoinHandle<()>>,
    ended_sender: mpsc::Sender<u16>,
    ended: mpsc::Receiver<u16>,
}

impl Workers {
    pub fn new(
        config: &Config,
        instance: InstanceId,
        export: &Export,
        listeners: Vec<(Arc<str>, SocketAddr)>,
    ) -> Self {
        let count = usize::from(config.proxy.workers);
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(COMMANDS)).unzip();
        let (ended_sender, ended) = mpsc::channel(count);
        Self {
            config: config.clone(),
            instance,
            tracer: export.tracer(),
            forced_ratio: export.ratio(),
            table: Arc::new(ArcSwap::from_pointee(Table::empty())),
            counters: (0..count).map(|_| Arc::default()).collect(),
            senders,
            receivers,
            listeners,
            threads: Vec::new(),
            ended_sender,
            ended,
        }
    }

    /// The slot in which the source swaps tables.
    pub fn read_table_from(&mut self, source: &Source) {
        self.table = Arc::clone(&source.table);
    }

    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.counters.clone()
    }

    pub fn commands(&self) -> Vec<mpsc::Sender<Command>> {
        self.senders.clone()
    }

    pub fn listener_infos(&self) -> Vec<ListenerInfo> {
        let info = |(name, address): &(Arc<str>, SocketAddr)| ListenerInfo {
            name: name.to_string(),
            address: *address,
        };
        self.listeners.iter().map(info).collect()
    }

    /// Starts a thread for each worker; from here on clients are accepted.
    ///
    /// # Errors
    /// The system has no thread for one.
    pub fn start(&mut self, mut bound: Bound) -> std::io::Result<()> {
        for (index, commands) in std::mem::take(&mut self.receivers).into_iter().enumerate() {
            let index = u16::try_from(index).expect("the config bounds the workers");
            let config = self.worker_config(index);
            let listeners = bound.take_for_worker();
            let ended = self.ended_sender.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _tell = TellEnd { index, ended };
                if let Err(error) = worker::run(config, listeners, commands) {
                    tracing::error!(index, %error, "worker failed");
                }
            })?;
            self.threads.push(thread);
        }
        Ok(())
    }

    fn worker_config(&self, index: u16) -> WorkerConfig {
        WorkerConfig {
            index,
            proxy_id: self.config.proxy.id.to_string(),
            instance: self.instance,
            zone: self.config.proxy.zone.clone(),
            local: self.config.local.as_ref().map(|local| (local.backend.clone(), local.address.clone())),
            table: Arc::clone(&self.table),
            counters: Arc::clone(&self.counters[usize::from(index)]),
            tracer: self.tracer.clone(),
            ratio: self.config.telemetry.ratio,
            forced_ratio: self.forced_ratio,
            max_sessions: u64::from(self.config.limits.max_sessions),
            kept_bytes: self.config.limits.kept_bytes,
            transfer_pool_bytes: self.config.limits.transfer_pool_bytes,
            close_deadline: CLOSE_DEADLINE,
        }
    }

    pub async fn tell_table_changed(&self) {
        for sender in &self.senders {
            // A worker that has ended is noticed by `ended`.
            let _ = sender.send(Command::TableChanged).await;
        }
    }

    /// The number of a worker that has ended.
    pub async fn ended(&mut self) -> u16 {
        self.ended.recv().await.unwrap_or(u16::MAX)
    }

    /// Ends all workers: sessions go on until `deadline`; a second signal ends them at once. Returns how many states
    /// had to be dropped.
    pub async fn stop(&mut self, deadline: Duration, signals: &mut Signals) -> u64 {
        self.tell_shutdown(deadline).await;
        let mut left = self.threads.len();
        while left > 0 {
            tokio::select! {
                _ = self.ended.recv() => left -= 1,
                () = signals.stop() => {
                    tracing::warn!("told to stop again: sessions end now");
                    self.tell_shutdown(Duration::ZERO).await;
                }
            }
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.counters.iter().map(|counters| counters.states_dropped.get()).sum()
    }

    async fn tell_shutdown(&self, deadline: Duration) {
        for sender in &self.senders {
            let _ = sender.send(Command::Shutdown { deadline }).await;
        }
    }
}

/// Tells the control plane that a worker's thread is over, even if it panicked.
struct TellEnd {
    index: u16,
    ended: mpsc::Sender<u16>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        // The channel holds one entry for each worker, so there is always room.
        let _ = self.ended.try_send(self.index);
    }
}
