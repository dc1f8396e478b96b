//! [`Schedule`]: when which session's timer is due, over all sessions of a peer; and a session's own [`Timers`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::context::TimerChange;
use crate::game::Tag;
use holdfast_protocol::message::{Rule, Subject};

/// Shortest period: a shorter one would starve the other sessions.
const MIN_PERIOD: Duration = Duration::from_millis(1);
/// Timers that one session may have.
pub(crate) const MAX_TIMERS: usize = 256;
/// Longest delay, so that adding it to a time can't overflow: about 30 years.
const MAX_DELAY: Duration = Duration::from_secs(1 << 30);

/// A place in the schedule; the number tells timers apart that are due together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub at: Instant,
    number: u64,
}

/// Timers in the order in which they are due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: BTreeMap<Due, Subject>,
    numbers: u64,
}

impl Schedule {
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(due, _)| due.at)
    }

    /// Takes the first timer that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<(Due, Subject)> {
        let entry = self.due.first_entry()?;
        (entry.key().at <= now).then(|| entry.remove_entry())
    }

    fn arm(&mut self, subject: Subject, at: Instant) -> Due {
        self.numbers += 1;
        let due = Due { at, number: self.numbers };
        self.due.insert(due, subject);
        due
    }

    fn disarm(&mut self, due: Due) {
        self.due.remove(&due);
    }
}

#[derive(Debug)]
struct Timer {
    tag: Tag,
    period: Option<Duration>,
    wait: Wait,
}

#[derive(Debug, Clone, Copy)]
enum Wait {
    /// The session isn't active: what is left until it is due.
    Stopped(Duration),
    Armed(Due),
}

/// One session's timers: armed while it is active, stopped with what was left otherwise.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    timers: Vec<Timer>,
}

impl Timers {
    /// Does what a handler asked for; new timers begin stopped.
    pub fn change(&mut self, change: TimerChange, schedule: &mut Schedule) -> Result<(), Fault> {
        let (tag, period, delay) = match change {
            TimerChange::Every(tag, period) => (tag, Some(period.clamp(MIN_PERIOD, MAX_DELAY)), period),
            TimerChange::After(tag, delay) => (tag, None, delay),
            TimerChange::Cancel(tag) => {
                self.remove(tag, schedule);
                return Ok(());
            }
        };
        self.remove(tag, schedule);
        if self.timers.len() >= MAX_TIMERS {
            return Err(Fault::new(Rule::Handler, format!("more than {MAX_TIMERS} timers")));
        }
        let wait = Wait::Stopped(period.unwrap_or(delay).min(MAX_DELAY));
        self.timers.push(Timer { tag, period, wait });
        Ok(())
    }

    fn remove(&mut self, tag: Tag, schedule: &mut Schedule) {
        let Some(at) = self.timers.iter().position(|timer| timer.tag == tag) else { return };
        if let Wait::Armed(due) = self.timers.swap_remove(at).wait {
            schedule.disarm(due);
        }
    }

    /// Arms what is stopped.
    pub fn start(&mut self, subject: Subject, now: Instant, schedule: &mut Schedule) {
        for timer in &mut self.timers {
            if let Wait::Stopped(left) = timer.wait {
                timer.wait = Wait::Armed(schedule.arm(subject, now + left));
            }
        }
    }

    pub fn stop(&mut self, now: Instant, schedule: &mut Schedule) {
        for timer in &mut self.timers {
            if let Wait::Armed(due) = timer.wait {
                schedule.disarm(due);
                timer.wait = Wait::Stopped(due.at.saturating_duration_since(now));
            }
        }
    }

    pub fn clear(&mut self, schedule: &mut Schedule) {
        for timer in self.timers.drain(..) {
            if let Wait::Armed(due) = timer.wait {
                schedule.disarm(due);
            }
        }
    }

    /// The timer that was due has been taken off the schedule: says which it was, and arms a periodic one for its next
    /// turn after `now`.
    pub fn fired(
        &mut self,
        fired: Due,
        subject: Subject,
        now: Instant,
        schedule: &mut Schedule,
    ) -> Option<Tag> {
        let at =
            self.timers.iter().position(|timer| matches!(timer.wait, Wait::Armed(due) if due == fired))?;
        let timer = &mut self.timers[at];
        let tag = timer.tag;
        if let Some(period) = timer.period {
            let next = fired.at + period;
            let next = if next > now { next } else { now + period };
            timer.wait = Wait::Armed(schedule.arm(subject, next));
        } else {
            self.timers.swap_remove(at);
        }
        Some(tag)
    }

    /// The timer was due in the process before, and its handler runs once more: that was its turn. A periodic one has a
    /// whole period before it.
    pub fn fired_before(&mut self, tag: Tag) {
        self.timers.retain(|timer| timer.tag != tag || timer.period.is_some());
    }

    /// Puts a timer that was due but can't run now off until `at`.
    pub fn postpone(&mut self, due: Due, subject: Subject, at: Instant, schedule: &mut Schedule) {
        for timer in &mut self.timers {
            if matches!(timer.wait, Wait::Armed(armed) if armed == due) {
                timer.wait = Wait::Armed(schedule.arm(subject, at));
            }
        }
    }
}
