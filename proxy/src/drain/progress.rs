//! How far a drain is: the same figures for `status`, the metrics and the log.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Two lines about the same drain are at least so far apart.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Where a drain stands. Public: the `state` label of `holdfast_drains`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(usize)]
pub enum State {
    /// Nothing is left.
    Drained,
    /// Its time is over, and what is left stays.
    Deadline,
    /// Those that are left are tried again in a moment.
    Waiting,
    /// No other backend can take what is left.
    Stuck,
    Moving,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Drained, Self::Deadline, Self::Waiting, Self::Stuck, Self::Moving];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Deadline => "deadline",
            Self::Waiting => "waiting",
            Self::Stuck => "stuck",
            Self::Moving => "moving",
        }
    }
}

/// What became of those that have begun to leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub moved: u64,
    /// Waits in the proxy (the backend's own drain).
    pub parked: u64,
    /// The player left, or the game ended it, on the way.
    pub ended: u64,
    /// Came back: nobody took it, or it couldn't be frozen in time.
    pub thawed: u64,
}

/// One drain on one worker, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    /// Sessions on the backend, those included that are being frozen.
    pub left: u64,
    /// Handoffs that have begun and not ended.
    pub in_flight: u64,
    /// Of those left, found to have nowhere to go.
    pub homeless: u64,
    pub counts: Counts,
    /// In words, where it waits.
    pub waits_for: Option<&'static str>,
    pub running: Duration,
    /// Until its deadline.
    pub remaining: Duration,
}

/// Decides when the log hears of a drain: at once when nobody can take what is left, else once a second while
/// something changes.
#[derive(Debug, Default)]
pub struct Reporter {
    last: Option<(Instant, Figures)>,
    told_stuck: bool,
}

/// Those that are tried again and again come back each time: that is no news, so `thawed` isn't among these.
type Figures = (u64, u64, u64, u64);

impl Reporter {
    /// Whether this is worth a line now. That the drain begins has a line of its own.
    pub fn is_news(&mut self, progress: &Progress, now: Instant) -> bool {
        let Counts { moved, parked, ended, .. } = progress.counts;
        let figures = (progress.left, moved, parked, ended);
        let (at, before) = *self.last.get_or_insert((now, figures));
        let stuck = match progress.state {
            State::Stuck => !std::mem::replace(&mut self.told_stuck, true),
            State::Moving => {
                self.told_stuck = false;
                false
            }
            State::Waiting | State::Deadline | State::Drained => false,
        };
        let news = stuck || (figures != before && now.saturating_duration_since(at) >= REPORT_EVERY);
        if news {
            self.last = Some((now, figures));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(state: State, left: u64, moved: u64) -> Progress {
        Progress {
            state,
            left,
            in_flight: 0,
            homeless: 0,
            counts: Counts { moved, ..Counts::default() },
            waits_for: None,
            running: Duration::ZERO,
            remaining: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_log_hears_of_progress_once_a_second_and_only_while_there_is_any() {
        let begun = Instant::now();
        let mut reporter = Reporter::default();
        let lines = |reporter: &mut Reporter, from_ms: u64, to_ms: u64, moves: bool| {
            (from_ms..to_ms)
                .filter(|ms| {
                    let moved = if moves { *ms } else { from_ms };
                    let now = begun + Duration::from_millis(*ms);
                    reporter.is_news(&progress(State::Moving, 100_000 - moved, moved), now)
                })
                .count()
        };
        assert_eq!(lines(&mut reporter, 0, 5_001, true), 5);
        assert!(lines(&mut reporter, 5_001, 20_000, false) <= 1);
        assert_eq!(lines(&mut reporter, 20_000, 20_500, false), 1, "what has changed meanwhile");
    }

    #[test]
    fn that_nobody_can_take_what_is_left_is_told_at_once_and_once() {
        let now = Instant::now();
        let mut reporter = Reporter::default();
        assert!(reporter.is_news(&progress(State::Stuck, 20, 0), now));
        assert!(!reporter.is_news(&progress(State::Waiting, 20, 0), now));
        assert!(!reporter.is_news(&progress(State::Stuck, 20, 0), now + REPORT_EVERY));
        assert!(!reporter.is_news(&progress(State::Moving, 20, 0), now + REPORT_EVERY));
        assert!(reporter.is_news(&progress(State::Stuck, 20, 0), now + REPORT_EVERY), "again");
    }
}
