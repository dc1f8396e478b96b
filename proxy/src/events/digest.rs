//! Many workers notice one happening: their words are put together, so that it is one event. Pure; told the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::event::{Event, Kind};
use super::notice::{Notice, Noticed};
use crate::routing::BackendId;

/// The other workers get so long to say the same.
const SETTLE: Duration = Duration::from_millis(250);
/// A bound that is reached again and again is told so often.
const TRIPPED_EVERY: Duration = Duration::from_secs(60);

/// What is known of happenings that aren't over.
#[derive(Debug, Default)]
pub struct Digest {
    drains: BTreeMap<BackendId, Drain>,
    /// Players on it, and when that is told.
    crashes: BTreeMap<BackendId, (u64, Instant)>,
    /// By backend, worker and bound.
    tripped: BTreeMap<(BackendId, u16, &'static str), Instant>,
}

#[derive(Debug, Default)]
struct Drain {
    reason: String,
    workers: BTreeMap<u16, Part>,
    /// All have come to an end: when that is told.
    due: Option<Instant>,
    told: bool,
    left: u64,
}

/// How far it is on one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Running,
    Done { moved: u64, parked: u64, ended: u64 },
    Overdue { left: u64 },
}

impl Digest {
    /// What is to be told at once.
    pub fn take(&mut self, notice: Notice, now: Instant) -> Vec<Event> {
        let Notice { worker, backend, what } = notice;
        match what {
            Noticed::DrainBegan { causes, reason } => self.began(worker, backend, &causes, reason),
            Noticed::Drained { moved, parked, ended } => {
                self.part(worker, &backend, Part::Done { moved, parked, ended }, now)
            }
            Noticed::DrainOverdue { left } => self.part(worker, &backend, Part::Overdue { left }, now),
            Noticed::DrainEnded { left } => self.ended(worker, &backend, left),
            Noticed::Crashed { sessions } => {
                self.crashes.entry(backend).or_insert((0, now + SETTLE)).0 += sessions;
                Vec::new()
            }
            Noticed::Tripped { breaker } => {
                self.tripped.retain(|_, at| now.saturating_duration_since(*at) < TRIPPED_EVERY);
                let event = Event::new(Kind::BreakerTripped, "it takes no more until it is below".to_owned());
                let event = event.backend(&backend.to_string());
                let is_news = !self.tripped.contains_key(&(backend.clone(), worker, breaker.name()));
                self.tripped.entry((backend, worker, breaker.name())).or_insert(now);
                let event = event.detail("breaker", breaker.name()).detail("worker", worker);
                if is_news { vec![event] } else { Vec::new() }
            }
        }
    }

    /// When there is something to tell.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let drains = self.drains.values().filter_map(|drain| drain.due);
        drains.chain(self.crashes.values().map(|(_, due)| *due)).min()
    }

    pub fn due(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        self.crashes.retain(|backend, (sessions, due)| {
            let waits = *due > now;
            if !waits {
                let event = Event::new(Kind::BackendCrashed, "its process is gone".to_owned());
                events.push(event.backend(&backend.to_string()).detail("sessions", *sessions));
            }
            waits
        });
        for (backend, drain) in &mut self.drains {
            if drain.due.is_some_and(|due| due <= now) {
                events.extend(drain.tell_end(backend));
            }
        }
        events
    }

    fn began(&mut self, worker: u16, backend: BackendId, causes: &str, reason: String) -> Vec<Event> {
        let name = backend.to_string();
        // Who begins twice has ended between, and that word was lost: what is known is of a drain that is over.
        if self.drains.get(&backend).is_some_and(|drain| drain.workers.contains_key(&worker)) {
            self.drains.remove(&backend);
        }
        let is_news = !self.drains.contains_key(&backend);
        let drain = self.drains.entry(backend).or_default();
        drain.workers.insert(worker, Part::Running);
        drain.due = None;
        if !is_news {
            return Vec::new();
        }
        drain.reason.clone_from(&reason);
        vec![Event::new(Kind::DrainBegan, reason).backend(&name).detail("causes", causes)]
    }

    fn part(&mut self, worker: u16, backend: &BackendId, part: Part, now: Instant) -> Vec<Event> {
        if let Some(drain) = self.drains.get_mut(backend) {
            drain.workers.insert(worker, part);
            let is_over = drain.workers.values().all(|part| *part != Part::Running);
            drain.due = (is_over && !drain.told).then_some(now + SETTLE);
        }
        Vec::new()
    }

    fn ended(&mut self, worker: u16, backend: &BackendId, left: u64) -> Vec<Event> {
        let Some(drain) = self.drains.get_mut(backend) else { return Vec::new() };
        // Who ended it may have ended it on time: that is told first.
        let mut events: Vec<_> =
            if drain.due.is_some() { drain.tell_end(backend) } else { None }.into_iter().collect();
        drain.workers.remove(&worker);
        drain.left += left;
        if drain.workers.is_empty() {
            let event = Event::new(Kind::DrainEnded, drain.reason.clone()).backend(&backend.to_string());
            events.push(event.detail("left", drain.left));
            self.drains.remove(backend);
        }
        events
    }
}

impl Drain {
    fn tell_end(&mut self, backend: &BackendId) -> Option<Event> {
        self.due = None;
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let (mut counts, mut left, mut overdue) = ([0; 3], 0, false);
        for part in self.workers.values() {
            match *part {
                Part::Running => {}
                Part::Done { moved, parked, ended } => {
                    counts = [counts[0] + moved, counts[1] + parked, counts[2] + ended];
                }
                Part::Overdue { left: more } => (left, overdue) = (left + more, true),
            }
        }
        let kind = if overdue { Kind::DrainOverdue } else { Kind::DrainDone };
        let event = Event::new(kind, self.reason.clone()).backend(&backend.to_string());
        let [moved, parked, ended] = counts;
        Some(match overdue {
            true => event.detail("left", left),
            false => event.detail("moved", moved).detail("parked", parked).detail("ended", ended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::Breaker;

    struct Story {
        digest: Digest,
        now: Instant,
        told: Vec<(&'static str, String)>,
    }

    impl Story {
        fn new() -> Self {
            Self { digest: Digest::default(), now: Instant::now(), told: Vec::new() }
        }

        fn notice(&mut self, worker: u16, what: Noticed) -> &mut Self {
            let backend = BackendId { service: "arena".into(), name: "a".into() };
            let events = self.digest.take(Notice { worker, backend, what }, self.now);
            self.tell(events)
        }

        fn pass(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            let events = self.digest.due(self.now);
            self.tell(events)
        }

        fn tell(&mut self, events: Vec<Event>) -> &mut Self {
            let word = |event: &Event| (event.kind.name(), serde_json::to_string(&event.details).unwrap());
            self.told.extend(events.iter().map(word));
            self
        }

        fn kinds(&self) -> Vec<&'static str> {
            self.told.iter().map(|(kind, _)| *kind).collect()
        }
    }

    fn began() -> Noticed {
        Noticed::DrainBegan { causes: "key".to_owned(), reason: "deploy".to_owned() }
    }

    fn drained(moved: u64) -> Noticed {
        Noticed::Drained { moved, parked: 0, ended: 1 }
    }

    #[test]
    fn a_drain_of_all_workers_is_one_story() {
        let mut story = Story::new();
        // The second has nobody there, and is done before the first has begun.
        story.notice(1, began()).notice(1, drained(0)).notice(0, began()).pass(SETTLE);
        assert_eq!(story.kinds(), ["drain_began"]);
        story.notice(0, drained(7)).pass(SETTLE).pass(SETTLE);
        story.notice(0, Noticed::DrainEnded { left: 0 }).notice(1, Noticed::DrainEnded { left: 0 });
        assert_eq!(story.kinds(), ["drain_began", "drain_done", "drain_ended"]);
        assert_eq!(story.told[1].1, r#"{"ended":2,"moved":7,"parked":0}"#);
        assert_eq!(story.digest.next_due(), None);
        story.notice(0, began());
        assert_eq!(story.kinds().len(), 4, "the next one is another story");
    }

    #[test]
    fn a_deadline_and_a_quick_end_are_told_in_their_order() {
        let mut story = Story::new();
        story.notice(0, began()).notice(0, Noticed::DrainOverdue { left: 3 }).pass(SETTLE);
        story.notice(0, Noticed::DrainEnded { left: 3 });
        story.notice(0, began()).notice(0, drained(1)).notice(0, Noticed::DrainEnded { left: 0 });
        let kinds =
            ["drain_began", "drain_overdue", "drain_ended", "drain_began", "drain_done", "drain_ended"];
        assert_eq!(story.kinds(), kinds);
    }

    #[test]
    fn a_lost_end_silences_no_later_drain() {
        let mut story = Story::new();
        story.notice(0, began()).notice(1, began()).notice(0, drained(1)).notice(1, drained(1)).pass(SETTLE);
        // The second worker's end is lost.
        story.notice(0, Noticed::DrainEnded { left: 0 }).told.clear();
        for _ in 0..2 {
            story
                .notice(1, began())
                .notice(0, began())
                .notice(0, drained(3))
                .notice(1, drained(4))
                .pass(SETTLE);
            assert_eq!(story.kinds(), ["drain_began", "drain_done"]);
            assert_eq!(story.told[1].1, r#"{"ended":2,"moved":7,"parked":0}"#);
            story.told.clear();
        }
        story.notice(0, Noticed::DrainEnded { left: 0 }).notice(1, Noticed::DrainEnded { left: 0 });
        assert_eq!(story.kinds(), ["drain_ended"]);
    }

    #[test]
    fn a_crash_is_one_event_with_the_players_of_all_workers() {
        let mut story = Story::new();
        story.notice(0, Noticed::Crashed { sessions: 4 }).notice(1, Noticed::Crashed { sessions: 5 });
        assert_eq!(story.digest.next_due(), Some(story.now + SETTLE));
        story.pass(SETTLE).pass(SETTLE);
        assert_eq!(story.told, [("backend_crashed", r#"{"sessions":9}"#.to_owned())]);
    }

    #[test]
    fn a_bound_reached_again_and_again_is_told_once_a_minute() {
        let mut story = Story::new();
        let tripped = || Noticed::Tripped { breaker: Breaker::MaxSessions };
        story.notice(0, tripped()).notice(0, tripped()).pass(TRIPPED_EVERY).notice(0, tripped());
        assert_eq!(story.kinds(), ["breaker_tripped", "breaker_tripped"]);
    }
}
