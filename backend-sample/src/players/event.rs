//! What an event did to the players: computed after the run, over their timelines.

use std::ops::RangeInclusive;

use crate::players::report::{EventReport, millis, percentile};
use crate::players::timeline::Timeline;

/// A window of interest, in microseconds since the bots' start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    /// It concerns those whom this backend serves at its begin. None: those who move.
    pub at: Option<usize>,
    pub begin_us: u64,
    /// None while it runs.
    pub end_us: Option<u64>,
}

/// Measures each event over all timelines. `until_us` is the end of the run.
pub fn measure(events: &[Event], timelines: &[&Timeline], until_us: u64) -> Vec<EventReport> {
    let next_begins = events.iter().skip(1).map(|next| next.begin_us).chain([until_us]);
    let mut quiet_since_us = 0;
    let mut reports = Vec::with_capacity(events.len());
    for (event, next_begin_us) in events.iter().zip(next_begins) {
        // A move that came after `end` still belongs to its event.
        let moved_at = |timeline: &Timeline| timeline.moved_within(event.begin_us, next_begin_us);
        let (concerned, bystanders) = event.divide(timelines, moved_at);
        let mut moves: Vec<u64> = concerned.iter().filter_map(|timeline| moved_at(timeline)).collect();
        moves.sort_unstable();
        let last_move_us = moves.last().copied().unwrap_or(0);
        let end_us = event.end_us.unwrap_or(until_us).max(last_move_us);
        let windows = Windows {
            quiet: event.begin_us.saturating_sub(end_us - event.begin_us).max(quiet_since_us)
                ..=event.begin_us.saturating_sub(1),
            event: event.begin_us..=end_us,
        };
        reports.push(event.report(&concerned, &bystanders, &moves, &windows));
        quiet_since_us = end_us;
    }
    reports
}

/// The event's, and an equally long one just before it.
struct Windows {
    quiet: RangeInclusive<u64>,
    event: RangeInclusive<u64>,
}

impl Windows {
    /// Each player's longest reply time, sorted.
    fn pauses(&self, players: &[&Timeline]) -> Vec<u64> {
        sorted(players, |timeline| timeline.longest_us(*self.event.start(), *self.event.end()))
    }

    /// A reply that is still under way when the event begins is the event's.
    fn quiet(&self, players: &[&Timeline]) -> Vec<u64> {
        sorted(players, |timeline| timeline.longest_done_us(*self.quiet.start(), *self.quiet.end()))
    }
}

fn sorted(players: &[&Timeline], longest: impl Fn(&Timeline) -> Option<u64>) -> Vec<u64> {
    let mut all: Vec<u64> = players.iter().filter_map(|timeline| longest(timeline)).collect();
    all.sort_unstable();
    all
}

impl Event {
    /// Those concerned, and the bystanders.
    fn divide<'a>(
        &self,
        timelines: &[&'a Timeline],
        moved_at: impl Fn(&Timeline) -> Option<u64>,
    ) -> (Vec<&'a Timeline>, Vec<&'a Timeline>) {
        let is_concerned = |timeline: &&Timeline| match self.at {
            Some(backend) => timeline.backend_at(self.begin_us) == Some(backend),
            None => moved_at(timeline).is_some(),
        };
        let (concerned, others): (Vec<_>, Vec<_>) = timelines.iter().copied().partition(is_concerned);
        match concerned.is_empty() && self.at.is_none() {
            true => (others, Vec::new()),
            false => (concerned, others),
        }
    }

    fn report(
        &self,
        concerned: &[&Timeline],
        bystanders: &[&Timeline],
        moves: &[u64],
        windows: &Windows,
    ) -> EventReport {
        let (pauses, quiet) = (windows.pauses(concerned), windows.quiet(concerned));
        let resumed: Vec<u64> = moves.iter().map(|at| at - self.begin_us).collect();
        let at = |values: &[u64], share| millis(percentile(values, share));
        EventReport {
            name: self.name.clone(),
            moved: moves.len() as u64,
            took_ms: at(&resumed, 1.0),
            pause_p50_ms: at(&pauses, 0.50),
            pause_p99_ms: at(&pauses, 0.99),
            pause_max_ms: at(&pauses, 1.0),
            quiet_p50_ms: at(&quiet, 0.50),
            quiet_p99_ms: at(&quiet, 0.99),
            quiet_max_ms: at(&quiet, 1.0),
            resumed_p50_ms: at(&resumed, 0.50),
            resumed_p99_ms: at(&resumed, 0.99),
            concerned: concerned.len() as u64,
            bystanders: bystanders.len() as u64,
            bystanders_pause_p99_ms: at(&windows.pauses(bystanders), 0.99),
            bystanders_quiet_p99_ms: at(&windows.quiet(bystanders), 0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(begin_us: u64, end_us: u64) -> Event {
        Event { name: "drain".into(), at: None, begin_us, end_us: Some(end_us) }
    }

    /// Served by backend 0 from the start, with round trips (sent, answered).
    fn player<const N: usize>(trips: [(u64, u64); N]) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.served_by(0, 0);
        trips.iter().for_each(|(sent_us, now_us)| timeline.record(*sent_us, *now_us));
        timeline
    }

    #[test]
    fn pauses_are_over_the_sessions_moved_beside_their_own_quiet_window() {
        // Quiet: 2 ms; in the event: 40 ms. The bystander's 90 ms don't count.
        let mut moved = player([(960_000, 962_000), (1_008_000, 1_048_000)]);
        moved.served_by(1, 1_048_000);
        let still = player([(960_000, 963_000), (1_008_000, 1_098_000)]);
        let reports = measure(&[event(1_000_000, 1_100_000)], &[&moved, &still], 2_000_000);
        let expected = EventReport {
            name: "drain".into(),
            moved: 1,
            took_ms: 48.0,
            pause_p50_ms: 40.0,
            pause_p99_ms: 40.0,
            pause_max_ms: 40.0,
            quiet_p50_ms: 2.0,
            quiet_p99_ms: 2.0,
            quiet_max_ms: 2.0,
            resumed_p50_ms: 48.0,
            resumed_p99_ms: 48.0,
            concerned: 1,
            bystanders: 1,
            bystanders_pause_p99_ms: 90.0,
            bystanders_quiet_p99_ms: 3.0,
        };
        assert_eq!(reports, [expected]);
    }

    #[test]
    fn an_event_of_one_backend_concerns_its_players_though_nobody_moves() {
        let here = player([(960_000, 961_000), (1_008_000, 1_028_000)]);
        let mut elsewhere = player([(1_008_000, 1_098_000)]);
        elsewhere.served_by(1, 500_000);
        let cut = Event { at: Some(0), ..event(1_000_000, 1_100_000) };
        let report = measure(&[cut], &[&here, &elsewhere], 2_000_000).remove(0);
        assert_eq!((report.moved, report.concerned, report.bystanders), (0, 1, 1));
        assert_eq!((report.quiet_max_ms, report.pause_max_ms), (1.0, 20.0));
        assert_eq!(report.bystanders_pause_p99_ms, 90.0);
    }

    #[test]
    fn a_frame_under_way_when_the_event_begins_is_the_events() {
        let struck = player([(960_000, 961_000), (999_000, 1_400_000)]);
        let report = measure(&[event(1_000_000, 1_500_000)], &[&struck], 2_000_000).remove(0);
        assert_eq!((report.quiet_max_ms, report.pause_max_ms), (1.0, 401.0));
    }

    #[test]
    fn a_move_after_the_end_belongs_to_the_event_before_it() {
        let mut late = player([(1_200_000, 1_500_000)]);
        late.served_by(1, 1_500_000);
        let events = [event(1_000_000, 1_100_000), event(3_000_000, 3_100_000)];
        let reports = measure(&events, &[&late], 4_000_000);
        assert_eq!((reports[0].moved, reports[0].pause_max_ms), (1, 300.0));
        assert_eq!(reports[1].moved, 0);
    }
}
