//! What happens, told to who wants to know: on stdout, or posted to a webhook.
//!
//! One event is one happening, never one a session or a frame. Whoever tells never waits: events stand in a bounded
//! queue for each receiver, of which a slow or dead one loses the oldest, counted. Workers tell what they notice (`notice`, put
//! together by `digest`); the rest is read off what the control plane publishes anyway (`observe`).

mod digest;
mod event;
mod notice;
mod observe;
mod post;
mod queue;
mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::health::Health;
use crate::source::Source;

pub use event::{Event, Kind};
pub use notice::{Notice, Noticed, Notices};
use queue::Queue;
use sink::Sink;

/// Where to tell events; a handle. The default tells nobody.
#[derive(Debug, Clone, Default)]
pub struct Events {
    queues: Arc<[Arc<Queue>]>,
}

/// What has become of events, over all receivers.
#[derive(Debug, Default)]
pub struct Stats {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What a scrape shows of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventsView {
    /// Taken by a receiver.
    pub sent: u64,
    /// Lost for newer ones.
    pub dropped: u64,
    /// Refused by a receiver, or not taken when the proxy ended.
    pub failed: u64,
}

impl Events {
    pub fn tell(&self, event: Event) {
        let event = Arc::new(event);
        self.queues.iter().for_each(|queue| queue.push(Arc::clone(&event)));
    }
}

impl Stats {
    #[must_use]
    pub fn view(&self) -> EventsView {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        EventsView { sent: get(&self.sent), dropped: get(&self.dropped), failed: get(&self.failed) }
    }
}

fn add(count: &AtomicU64, amount: u64) {
    count.fetch_add(amount, Ordering::Relaxed);
}

/// Everything of one proxy's events, before it runs.
pub struct Newsroom {
    config: config::Events,
    proxy: Arc<str>,
    pub events: Events,
    pub stats: Arc<Stats>,
    /// For workers.
    pub notices: Notices,
    noticed: Option<mpsc::Receiver<Notice>>,
}

impl Newsroom {
    /// With nobody who wants events, nothing is told and nothing runs.
    #[must_use]
    pub fn new(config: &config::Events, proxy: &str) -> Self {
        let stats = Arc::<Stats>::default();
        let wanted = config.are_wanted();
        let (notices, noticed) = if wanted { Notices::new(&stats) } else { (Notices::default(), None) };
        Self {
            config: config.clone(),
            proxy: proxy.into(),
            events: Events::default(),
            stats,
            notices,
            noticed,
        }
    }

    /// From here on events are seen and sent.
    pub fn open(
        &mut self,
        source: &Source,
        health: &Health,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let Some(noticed) = self.noticed.take() else { return };
        let mut queues = Vec::new();
        let mut sink = || {
            let queue = Arc::new(Queue::new(self.config.queue, &self.stats));
            queues.push(Arc::clone(&queue));
            Sink::new(queue, &self.proxy, &self.stats)
        };
        if self.config.stdout {
            tasks.spawn(sink().print(shutdown.clone()));
        }
        if let Some(webhook) = &self.config.webhook {
            tasks.spawn(sink().post(webhook.clone(), shutdown.clone()));
        }
        self.events = Events { queues: queues.into() };
        let observer = observe::Observer::new(&self.proxy, self.events.clone(), source, health, noticed);
        tasks.spawn(observer.run(shutdown.clone()));
    }
}
