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
use crate::events::Notices;
use crate::rollout::Progresses;
use crate::routing::Table;
use crate::source::Source;
use crate::telemetry::counters::Counters;
use crate::telemetry::export::Export;
use crate::telemetry::tracer::Tracer;
use crate::worker::command::Command;
use crate::worker::groups::claims::{self, Inquiry};
use crate::worker::groups::directory::Directory;
use crate::worker::groups::traveller::{Door, Traveller};
use crate::worker::{self, WorkerConfig};

/// Commands that a worker may have waiting.
const COMMANDS: usize = 64;
/// How long a worker waits for games to save, after the shutdown's deadline.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// A worker that hasn't ended so long after all its deadlines never will.
const HUNG_AFTER: Duration = Duration::from_secs(10);

pub struct Workers {
    config: Config,
    instance: InstanceId,
    tracer: Tracer,
    notices: Notices,
    forced_ratio: Option<f64>,
    table: Arc<ArcSwap<Table>>,
    rollouts: Arc<ArcSwap<Progresses>>,
    counters: Vec<Arc<Counters>>,
    senders: Vec<mpsc::Sender<Command>>,
    receivers: Vec<mpsc::Receiver<Command>>,
    listeners: Vec<(Arc<str>, SocketAddr)>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    groups: Arc<Directory>,
    doors: Vec<Door>,
    arrivals: Vec<mpsc::UnboundedReceiver<Traveller>>,
    running: usize,
    ended_sender: mpsc::Sender<u16>,
    ended: mpsc::Receiver<u16>,
}

impl Workers {
    pub fn new(
        config: &Config,
        instance: InstanceId,
        export: &Export,
        notices: Notices,
        listeners: Vec<(Arc<str>, SocketAddr)>,
    ) -> Self {
        let count = usize::from(config.proxy.workers);
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(COMMANDS)).unzip();
        let (doors, arrivals) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let (ended_sender, ended) = mpsc::channel(count);
        Self {
            config: config.clone(),
            instance,
            tracer: export.tracer(),
            notices,
            forced_ratio: export.ratio(),
            table: Arc::new(ArcSwap::from_pointee(Table::empty())),
            rollouts: Arc::default(),
            counters: (0..count).map(|_| Arc::default()).collect(),
            senders,
            receivers,
            listeners,
            threads: Vec::new(),
            groups: Arc::default(),
            doors,
            arrivals,
            running: 0,
            ended_sender,
            ended,
        }
    }

    /// The slot in which the source swaps tables.
    pub fn read_table_from(&mut self, source: &Source) {
        self.table = Arc::clone(&source.table);
    }

    /// From here on no group is formed that another proxy has; who answers that is to be found at what is returned.
    pub fn claim_groups(&mut self) -> Inquiry {
        let inquiry = claims::in_cluster();
        self.groups = Arc::clone(&inquiry.directory);
        inquiry
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
        let arrivals = std::mem::take(&mut self.arrivals);
        let inlets = std::mem::take(&mut self.receivers).into_iter().zip(arrivals);
        for (index, (commands, arrivals)) in inlets.enumerate() {
            let index = u16::try_from(index).expect("the config bounds the workers");
            let config = self.worker_config(index);
            let listeners = bound.take_for_worker();
            let ended = self.ended_sender.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _tell = TellEnd { index, ended };
                worker::run(config, listeners, commands, arrivals)
                    .inspect_err(|error| tracing::error!(index, %error, "worker failed"))
            })?;
            self.threads.push(thread);
            self.running += 1;
        }
        Ok(())
    }

    fn worker_config(&self, index: u16) -> WorkerConfig {
        WorkerConfig {
            index,
            proxy_id: self.config.proxy.id.to_string(),
            instance: self.instance,
            zone: self.config.proxy.zone.clone(),
            registers_local: self.config.register.is_some(),
            local: self.config.local.as_ref().map(|local| (local.backend.clone(), local.address.clone())),
            table: Arc::clone(&self.table),
            rollouts: Arc::clone(&self.rollouts),
            counters: Arc::clone(&self.counters[usize::from(index)]),
            notices: self.notices.clone(),
            tracer: self.tracer.clone(),
            ratio: self.config.telemetry.ratio,
            forced_ratio: self.forced_ratio,
            max_sessions: u64::from(self.config.limits.max_sessions),
            kept_bytes: self.config.limits.kept_bytes,
            link_outbox_bytes: self.config.limits.link_outbox_bytes,
            transfer_pool_bytes: self.config.limits.transfer_pool_bytes,
            close_deadline: CLOSE_DEADLINE,
            max_groups: self.config.limits.max_groups as usize,
            groups: Arc::clone(&self.groups),
            doors: self.doors.clone(),
        }
    }

    /// From the next `tell_table_changed` on the workers act by these.
    pub fn set_rollouts(&self, progresses: Arc<Progresses>) {
        self.rollouts.store(progresses);
    }

    pub async fn tell_table_changed(&self) {
        for sender in &self.senders {
            // A worker that has ended is noticed by `ended`.
            let _ = sender.send(Command::TableChanged).await;
        }
    }

    /// The number of a worker that has ended.
    pub async fn ended(&mut self) -> u16 {
        let index = self.ended.recv().await.unwrap_or(u16::MAX);
        self.running = self.running.saturating_sub(1);
        index
    }

    /// Ends all workers: sessions go on until `deadline`; a second signal ends them at once. Returns how many states
    /// had to be dropped.
    ///
    /// # Errors
    /// A worker panicked, or didn't end.
    pub async fn stop(&mut self, deadline: Duration, signals: &mut Signals) -> anyhow::Result<u64> {
        self.tell_shutdown(deadline).await;
        let last = tokio::time::sleep(deadline + CLOSE_DEADLINE + HUNG_AFTER);
        tokio::pin!(last);
        while self.running > 0 {
            tokio::select! {
                _ = self.ended() => {}
                () = signals.stop() => {
                    tracing::warn!("told to stop again: sessions end now");
                    self.tell_shutdown(Duration::ZERO).await;
                }
                () = &mut last => anyhow::bail!("{} workers didn't end in time", self.running),
            }
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(self.counters.iter().map(|counters| counters.states_dropped.get()).sum())
    }

    async fn tell_shutdown(&self, deadline: Duration) {
        for sender in &self.senders {
            // One that has ended, or doesn't listen any more, is noticed by the wait for its end.
            let _ = sender.send_timeout(Command::Shutdown { deadline }, TELL_WITHIN).await;
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
