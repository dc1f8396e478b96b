//! What the swarm's bots come to, on the way and at the end.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Swarm;
use crate::players::bot::Bot;
use crate::players::event::measure;
use crate::players::report::{BackendShare, Progress, Verdict, millis, percentile};
use crate::players::timeline::Timeline;

impl Swarm {
    fn in_match(&self) -> u64 {
        let is_in_match = |bot: &&Rc<Bot>| bot.is_alive() && bot.look(|it| it.checker.watch.is_in_match());
        self.bots.borrow().iter().filter(is_in_match).count() as u64
    }

    fn by_backend(&self) -> Vec<BackendShare> {
        let mut sessions: BTreeMap<usize, u64> = BTreeMap::new();
        for bot in self.bots.borrow().iter().filter(|bot| bot.is_alive()) {
            if let Some(backend) = bot.look(|it| it.timeline.backend()) {
                *sessions.entry(backend).or_default() += 1;
            }
        }
        let backends = self.backends.borrow();
        let share = |(index, sessions): (usize, u64)| {
            let (instance, version) = &backends[index];
            BackendShare { instance: format!("{instance:016x}"), version: version.clone(), sessions }
        };
        sessions.into_iter().map(share).collect()
    }

    pub fn progress(&self) -> Progress {
        let since_us = self.events.borrow().last().map(|event| event.begin_us);
        let moved = |bot: &&Rc<Bot>| {
            since_us.is_some_and(|since| bot.look(|it| it.timeline.moved_within(since, u64::MAX)).is_some())
        };
        let bots = self.bots.borrow();
        let faults = self.faults.get();
        let now_us = self.now_us();
        let waiting = bots.iter().filter(|bot| bot.is_alive());
        let longest = waiting.filter_map(|bot| bot.look(|it| it.checker.waits_since())).min();
        Progress {
            at_ms: now_us / 1000,
            connected: bots.iter().filter(|bot| bot.is_alive()).count() as u64,
            sent: self.sent.get(),
            received: self.received.get(),
            replied: self.replied.get(),
            moved: bots.iter().filter(moved).count() as u64,
            lost: faults.lost,
            repeated: faults.repeated,
            reordered: faults.reordered,
            mismatched: faults.mismatched,
            disconnects: self.disconnects.get(),
            connect_failures: self.connect_failures.get(),
            by_backend: self.by_backend(),
            left: self.left.get(),
            in_match: self.in_match(),
            joins: self.joins.get(),
            joins_refused: faults.refused,
            worlds_diverged: faults.diverged,
            longest_wait_ms: longest.map_or(0, |since| now_us.saturating_sub(since) / 1000),
            answers: None,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let until_us = self.now_us();
        let by_backend = self.by_backend();
        let bots = self.bots.borrow();
        let timelines: Vec<Timeline> =
            bots.iter().map(|bot| bot.look(|it| std::mem::take(&mut it.timeline))).collect();
        let timelines: Vec<&Timeline> = timelines.iter().collect();
        let mut latencies: Vec<u32> = Vec::with_capacity(timelines.iter().map(|it| it.len()).sum());
        timelines.iter().for_each(|timeline| latencies.extend(timeline.latencies_us()));
        latencies.sort_unstable();
        let faults = self.faults.get();
        Verdict {
            sessions: bots.len() as u64,
            frames: self.sent.get(),
            received: self.received.get(),
            lost: faults.lost,
            repeated: faults.repeated,
            reordered: faults.reordered,
            disconnects: self.disconnects.get(),
            mismatched: faults.mismatched,
            connect_failures: self.connect_failures.get(),
            in_match: self.in_match(),
            joins: self.joins.get(),
            joins_refused: faults.refused,
            worlds_diverged: faults.diverged,
            p50_ms: millis(percentile(&latencies, 0.50)),
            p99_ms: millis(percentile(&latencies, 0.99)),
            max_ms: millis(percentile(&latencies, 1.0)),
            by_backend,
            events: measure(&self.events.borrow(), &timelines, until_us),
            notes: self.notes.take(),
        }
    }
}
