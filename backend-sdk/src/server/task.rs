//! [`PeerTask`]: owns one proxy worker's [`Peer`] and its link. What is readable is read in a batch, its handlers run,
//! and all that they sent leaves in one write.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use super::link::{Link, LinkError};
use super::peers::{NewLink, PeerId, Shared};
use super::work::Workers;
use crate::core::{DrainOrder, JobId, Now, Peer};
use crate::game::Game;
use crate::load::Told;

/// A proxy's liveness deadline may be shorter; a busy machine needs this much.
const MIN_LIVENESS: Duration = Duration::from_millis(500);
/// Handlers run this long at most (and the last one to its end) before what they sent is written: a game that is slow
/// for a batch of input still shows that it is alive.
const TURN: Duration = Duration::from_millis(5);
/// A proxy hears of changes of the load this far apart at least.
const LOAD_REST: Duration = Duration::from_millis(250);
/// With nothing due, the task looks around this often.
const IDLE_TICK: Duration = Duration::from_secs(60);

pub(super) struct PeerTask<G: Game> {
    id: PeerId,
    shared: Arc<Shared<G>>,
    peer: Peer<G>,
    link: Option<LiveLink>,
    links: mpsc::Receiver<NewLink>,
    drain: watch::Receiver<Option<DrainOrder>>,
    load: watch::Receiver<Told>,
    /// Until then the proxy isn't told of the load anew.
    load_rests_until: Instant,
    workers: Workers,
    sleep: Pin<Box<Sleep>>,
}

struct LiveLink {
    link: Link,
    /// Messages that were read and didn't fit the turn.
    unread: bool,
    heard: Instant,
    pinged: Instant,
    /// Longest silence; after a third of it a PING asks for a sign of life.
    liveness: Duration,
}

impl LiveLink {
    fn ping_at(&self) -> Instant {
        self.heard.max(self.pinged) + self.liveness / 3
    }

    fn lost_at(&self) -> Instant {
        self.heard + self.liveness
    }
}

enum Event {
    Ready(std::io::Result<()>),
    /// A timer is due, or there is more to write.
    Due,
    /// Messages are left from the turn before.
    Unread,
    Work(JobId, Option<Vec<u8>>),
    Link(NewLink),
    Drain,
    Load,
    Stop,
}

impl<G: Game> PeerTask<G> {
    pub fn new(shared: Arc<Shared<G>>, id: PeerId, links: mpsc::Receiver<NewLink>) -> Self {
        let (game, settings) = (Arc::clone(&shared.game), Arc::clone(&shared.settings));
        let peer = Peer::new(game, settings, shared.population.clone(), Now::real(), fastrand::u64(..));
        let mut drain = shared.drain.clone();
        // An order given before counts as news.
        drain.mark_changed();
        Self {
            id,
            peer,
            link: None,
            links,
            drain,
            load: shared.settings.load.changes(),
            load_rests_until: Instant::now(),
            workers: Workers::default(),
            sleep: Box::pin(tokio::time::sleep(IDLE_TICK)),
            shared,
        }
    }

    /// Serves until the peer has neither link nor sessions, or the server stops.
    pub async fn run(mut self, first: NewLink) {
        self.take_link(first);
        loop {
            self.push();
            match self.next_event().await {
                Event::Ready(Ok(())) => self.read(),
                Event::Ready(Err(error)) => self.lose_link(&error.into()),
                Event::Due => {}
                Event::Unread => self.take_messages(),
                Event::Work(job, result) => self.peer.finished(job, result, Now::real()),
                Event::Link(link) => self.take_link(link),
                Event::Drain => {
                    let order = *self.drain.borrow_and_update();
                    order.into_iter().for_each(|order| self.peer.drain(order, Now::real()));
                }
                Event::Load => {
                    self.load.mark_unchanged();
                    self.load_rests_until = Instant::now() + LOAD_REST;
                    self.peer.say_load();
                }
                Event::Stop => break,
            }
            self.tick();
            if self.link.is_none() && self.peer.is_idle() {
                match self.shared.peers.retire(self.id, &mut self.links) {
                    Some(link) => self.take_link(link),
                    None => return,
                }
            }
        }
        self.stop().await;
    }

    async fn next_event(&mut self) -> Event {
        self.set_alarm();
        let more = self.peer.has_more() && self.link.as_ref().is_some_and(|live| live.link.is_written());
        let link = self.link.as_ref();
        let unread = link.is_some_and(|live| live.unread);
        let may_tell_load = link.is_some() && self.load_rests_until <= Instant::now();
        tokio::select! {
            ready = ready(link), if link.is_some() && !unread => Event::Ready(ready),
            () = tokio::task::yield_now(), if unread => Event::Unread,
            () = tokio::task::yield_now(), if more => Event::Due,
            () = self.sleep.as_mut() => Event::Due,
            (job, result) = self.workers.next(), if !self.workers.is_empty() => Event::Work(job, result),
            Some(link) = self.links.recv() => Event::Link(link),
            Ok(()) = self.drain.changed() => Event::Drain,
            Ok(()) = self.load.changed(), if may_tell_load => Event::Load,
            () = self.shared.stop.cancelled() => Event::Stop,
        }
    }

    /// An alarm that comes too early does no harm, so it is only ever put forward.
    fn set_alarm(&mut self) {
        let silent_at = self.link.as_ref().map(|live| live.ping_at().min(live.lost_at()));
        let load_may_be_told = Some(self.load_rests_until).filter(|until| *until > Instant::now());
        let due = [self.peer.next_due(), silent_at, load_may_be_told].into_iter().flatten().min();
        let due = due.map_or_else(|| tokio::time::Instant::now() + IDLE_TICK, tokio::time::Instant::from_std);
        if due < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(due);
        }
    }

    fn take_link(&mut self, new: NewLink) {
        let NewLink { mut link, hello } = new;
        if let Err(fault) = self.peer.link_up(&hello.as_hello(), Now::real()) {
            tracing::warn!(address = link.address, %fault, "link refused");
            link.say_fault(&fault);
            return;
        }
        let sessions = self.peer.attachments();
        let (proxy, worker, generation) = (&hello.proxy, hello.peer.worker, hello.generation);
        tracing::info!(address = link.address, proxy, worker, generation, sessions, "link up");
        let liveness = Duration::from_millis(hello.liveness_ms.into()).max(MIN_LIVENESS);
        let now = Instant::now();
        self.link = Some(LiveLink { link, unread: false, heard: now, pinged: now, liveness });
        self.take_messages();
    }

    fn read(&mut self) {
        let Some(live) = &mut self.link else { return };
        match live.link.read() {
            Ok(true) => self.take_messages(),
            Ok(false) => {}
            Err(error) => self.lose_link(&error),
        }
    }

    fn take_messages(&mut self) {
        let Some(live) = &mut self.link else { return };
        let now = Now::real();
        let max = self.shared.settings.max_message_bytes();
        match live.link.messages(max, TURN, |message| self.peer.receive(message, now)) {
            Ok(unread) => {
                live.unread = unread;
                // Bytes that wait here are a sign of life, however long they wait.
                live.heard = Instant::now();
            }
            Err(error) => self.lose_link(&error),
        }
    }

    fn lose_link(&mut self, error: &LinkError) {
        let Some(LiveLink { mut link, .. }) = self.link.take() else { return };
        if let Some(fault) = error.fault() {
            self.peer.flush(false);
            let _ = link.write(self.peer.output());
            link.say_fault(&fault);
        }
        let sessions = self.peer.attachments();
        tracing::info!(address = link.address, reason = %error, sessions, "link lost");
        self.peer.link_lost(Now::real());
    }

    fn tick(&mut self) {
        let now = Now::real();
        if self.peer.next_due().is_some_and(|due| due <= now.at) {
            self.peer.tick(now);
        }
        let Some(live) = &mut self.link else { return };
        if live.lost_at() <= now.at {
            let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the proxy is silent");
            self.lose_link(&silent.into());
        } else if live.ping_at() <= now.at {
            live.pinged = now.at;
            self.peer.ping();
        }
    }

    /// Ends the batch: begins work, and writes what there is.
    fn push(&mut self) {
        for order in self.peer.job_orders() {
            self.workers.obey(order);
        }
        let Some(live) = &mut self.link else { return };
        self.peer.flush(live.link.is_written());
        if let Err(error) = live.link.write(self.peer.output()) {
            self.lose_link(&error.into());
        }
    }

    /// Work that a session's end began is let finish; the server bounds how long.
    async fn stop(mut self) {
        self.push();
        while !self.workers.is_empty() {
            tokio::select! {
                (job, result) = self.workers.next() => self.peer.finished(job, result, Now::real()),
                () = self.shared.halt.cancelled() => return,
            }
            self.push();
        }
    }
}

async fn ready(link: Option<&LiveLink>) -> std::io::Result<()> {
    match link {
        Some(live) => live.link.ready().await.map(drop),
        None => std::future::pending().await,
    }
}
