//! Events that are read off what the control plane publishes anyway: each is a difference between two looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Events;
use super::digest::Digest;
use super::event::{Event, Kind};
use super::notice::Notice;
use crate::health::Health;
use crate::rollout::{Progress, Progresses};
use crate::routing::Fitness;
use crate::routing::diff::difference;
use crate::routing::slips::Held;
use crate::source::{Published, Source};

/// Tables that follow each other faster are one event.
const TABLES_EVERY: Duration = Duration::from_secs(1);
/// Changes that one event lists.
const LISTED_CHANGES: usize = 20;
/// Without a due time the digest is looked at so often.
const SELDOM: Duration = Duration::from_secs(3_600);

pub struct Observer {
    proxy: Arc<str>,
    events: Events,
    published: watch::Receiver<Arc<Published>>,
    fitness: watch::Receiver<Arc<Fitness>>,
    rollouts: watch::Receiver<Arc<Progresses>>,
    noticed: mpsc::Receiver<Notice>,
    digest: Digest,
    seen: Seen,
}

/// As it was at the last look.
struct Seen {
    published: Arc<Published>,
    fitness: Arc<Fitness>,
    rollouts: Arc<Progresses>,
}

impl Observer {
    pub fn new(
        proxy: &Arc<str>,
        events: Events,
        source: &Source,
        health: &Health,
        noticed: mpsc::Receiver<Notice>,
    ) -> Self {
        let (published, rollouts) = (source.published.clone(), source.rollouts.clone());
        let fitness = health.fitness.clone();
        let seen = Seen {
            published: Arc::clone(&published.borrow()),
            fitness: Arc::clone(&fitness.borrow()),
            rollouts: Arc::clone(&rollouts.borrow()),
        };
        let proxy = Arc::clone(proxy);
        Self { proxy, events, published, fitness, rollouts, noticed, digest: Digest::default(), seen }
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut look = interval(TABLES_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.digest.next_due().unwrap_or_else(|| Instant::now() + SELDOM);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = look.tick() => self.look_at_table(),
                Ok(()) = self.fitness.changed() => self.look_at_fitness(),
                Ok(()) = self.rollouts.changed() => self.look_at_rollouts(),
                Some(notice) = self.noticed.recv() => {
                    // What it followed from is told first.
                    self.look_at_table();
                    let events = self.digest.take(notice, Instant::now());
                    events.into_iter().for_each(|event| self.events.tell(event));
                }
                () = sleep_until(due.into()) => {
                    let events = self.digest.due(Instant::now());
                    events.into_iter().for_each(|event| self.events.tell(event));
                }
            }
        }
    }

    fn look_at_table(&mut self) {
        if self.published.has_changed().unwrap_or(false) {
            let now = Arc::clone(&self.published.borrow_and_update());
            let before = std::mem::replace(&mut self.seen.published, Arc::clone(&now));
            of_tables(&before, &now).into_iter().for_each(|event| self.events.tell(event));
        }
    }

    fn look_at_fitness(&mut self) {
        let now = Arc::clone(&self.fitness.borrow_and_update());
        let before = std::mem::replace(&mut self.seen.fitness, Arc::clone(&now));
        of_fitness(&before, &now).into_iter().for_each(|event| self.events.tell(event));
    }

    fn look_at_rollouts(&mut self) {
        let now = Arc::clone(&self.rollouts.borrow_and_update());
        let before = std::mem::replace(&mut self.seen.rollouts, Arc::clone(&now));
        of_rollouts(&self.proxy, &before, &now).into_iter().for_each(|event| self.events.tell(event));
    }
}

fn of_tables(before: &Published, now: &Published) -> Vec<Event> {
    let mut events = Vec::new();
    let known: BTreeSet<_> = before.refused.iter().map(|refusal| (&refusal.key, refusal.since)).collect();
    if !Arc::ptr_eq(&before.table, &now.table) {
        let changes = difference(&before.table, &now.table);
        let listed: Vec<_> = changes.iter().take(LISTED_CHANGES).map(ToString::to_string).collect();
        if !changes.is_empty() {
            let event = Event::new(Kind::TableApplied, format!("{} changes", changes.len()));
            let (revision, origin) = (now.table.revision, format!("{:?}", now.origin).to_lowercase());
            let event = event.detail("revision", revision).detail("origin", origin);
            events.push(event.detail("changes", listed));
        }
    }
    for refusal in now.refused.iter().filter(|refusal| !known.contains(&(&refusal.key, refusal.since))) {
        let event = Event::new(Kind::DocumentRefused, refusal.to_string()).detail("key", &*refusal.key);
        events.push(event.detail("revision", refusal.since).detail("last_good", refusal.last_good));
    }
    let is_known = |held: &&Held| {
        before.held.iter().any(|known| known.service == held.service && known.keys == held.keys)
    };
    for held in now.held.iter().filter(|held| !is_known(held)) {
        let mut event = Event::new(Kind::ChangeHeld, held.why.join("; "));
        event.service = Some(held.service.to_string());
        events.push(event.detail("revision", held.since).detail("documents", held.keys.len()));
    }
    if before.connected && !now.connected {
        events.push(Event::new(Kind::SourceLost, now.source_error.clone().unwrap_or_default()));
    } else if now.connected && !before.connected && before.last_contact.is_some() {
        events.push(Event::new(Kind::SourceBack, "documents are followed again".to_owned()));
    }
    events
}

fn of_fitness(before: &Fitness, now: &Fitness) -> Vec<Event> {
    let ejected = now.beyond(before).map(|(backend, unfit)| {
        let event = Event::new(Kind::BackendEjected, unfit.reason.clone()).backend(&backend.to_string());
        let event = event.detail("cause", unfit.cause.name());
        match unfit.until.map(crate::routing::document::ejection::written) {
            Some(until) => event.detail("until", until),
            None => event,
        }
    });
    let unejected = before.beyond(now).map(|(backend, unfit)| {
        let event = Event::new(Kind::BackendUnejected, unfit.reason.clone()).backend(&backend.to_string());
        event.detail("cause", unfit.cause.name()).detail("fit", now.is_fit(backend))
    });
    ejected.chain(unejected).collect()
}

/// Only of those that this proxy controls: all proxies see them, and one is to tell.
fn of_rollouts(proxy: &str, before: &Progresses, now: &Progresses) -> Vec<Event> {
    let is_own = |progress: &Progress| progress.controller == proxy;
    let mut events = Vec::new();
    for (service, progress) in now.iter().filter(|(_, progress)| is_own(progress)) {
        let known = before.get(service);
        let place =
            |progress: &Progress| (progress.state, progress.step, progress.to.clone(), progress.attempt);
        if known.is_none_or(|known| place(known) != place(progress)) {
            let event = Event::new(Kind::Rollout(progress.state), progress.reason.clone()).rollout(service);
            let event = event.detail("from", &*progress.from).detail("to", &*progress.to);
            events.push(event.detail("step", progress.step + 1).detail("percent", progress.percent));
        }
    }
    for (service, progress) in before.iter().filter(|(service, _)| !now.contains_key(*service)) {
        if is_own(progress) {
            let reason = format!("its document is gone; it was {}", progress.state.name());
            events.push(Event::new(Kind::RolloutEnded, reason).rollout(service));
        }
    }
    events
}

#[cfg(test)]
mod tests;
