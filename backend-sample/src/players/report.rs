//! What the bots say at the end, and on the way. Field names are public: scripts read them.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::players::timeline::Timeline;

/// The last line of `players --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub sessions: u64,
    /// Frames that the players sent.
    pub frames: u64,
    /// Replies and ticks that came.
    pub received: u64,
    pub lost: u64,
    pub repeated: u64,
    pub reordered: u64,
    /// Established connections that ended before we closed them.
    pub disconnects: u64,
    pub mismatched: u64,
    pub connect_failures: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub by_backend: Vec<BackendShare>,
    pub events: Vec<EventReport>,
    /// The first faults, in words.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Nothing lost, repeated, out of order or wrong, nobody disconnected, and everybody was let in.
    pub fn is_clean(&self) -> bool {
        let counts = [self.lost, self.repeated, self.reordered, self.mismatched, self.disconnects];
        counts.iter().all(|&count| count == 0) && self.connect_failures == 0
    }
}

/// How many sessions one run of a backend serves now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendShare {
    /// 16 hexadecimal digits.
    pub instance: String,
    pub version: String,
    pub sessions: u64,
}

/// One `begin` .. `end`. Pauses are over the sessions moved; if none moved, over all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    pub name: String,
    pub moved: u64,
    /// From `begin` until the last moved session's first reply from its new backend; 0 if none moved.
    pub took_ms: f64,
    pub pause_p50_ms: f64,
    pub pause_p99_ms: f64,
    pub pause_max_ms: f64,
    /// The same sessions' figure for an equally long window just before `begin`.
    pub quiet_p99_ms: f64,
}

/// What `--json` prints on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Progress(Progress),
    /// `begin` or `end` is taken.
    Event {
        name: String,
        phase: Phase,
        at_ms: u64,
    },
    /// An `add` is done.
    Added {
        connected: u64,
        failed: u64,
    },
    /// So many players do what they were told.
    Mischief {
        players: u64,
    },
    Error(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Begin,
    End,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub at_ms: u64,
    pub connected: u64,
    pub sent: u64,
    pub received: u64,
    /// Frames that have their reply.
    pub replied: u64,
    /// Sessions moved in the event that runs, else in the last one.
    pub moved: u64,
    pub lost: u64,
    pub repeated: u64,
    pub reordered: u64,
    pub mismatched: u64,
    pub disconnects: u64,
    pub connect_failures: u64,
    pub by_backend: Vec<BackendShare>,
    /// Told to leave, and left.
    #[serde(default)]
    pub left: u64,
    /// How long the frame has waited for its reply that waits longest.
    #[serde(default)]
    pub longest_wait_ms: u64,
    /// Answers the `stats` line with this number; absent when nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
}

/// A window of interest, in microseconds since the bots' start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
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
        let moves: Vec<(&Timeline, u64)> = timelines
            .iter()
            .filter_map(|timeline| Some((*timeline, timeline.moved_within(event.begin_us, next_begin_us)?)))
            .collect();
        let last_move_us = moves.iter().map(|(_, at)| *at).max();
        let end_us = event.end_us.unwrap_or(until_us).max(last_move_us.unwrap_or(0));
        let quiet_us = event.begin_us.saturating_sub(end_us - event.begin_us).max(quiet_since_us);
        let concerned: Vec<&Timeline> = match moves.is_empty() {
            true => timelines.to_vec(),
            false => moves.iter().map(|(timeline, _)| *timeline).collect(),
        };
        let longest = |begin_us, end_us| {
            let mut all: Vec<u64> =
                concerned.iter().filter_map(|timeline| timeline.longest_us(begin_us, end_us)).collect();
            all.sort_unstable();
            all
        };
        let pauses = longest(event.begin_us, end_us);
        reports.push(EventReport {
            name: event.name.clone(),
            moved: moves.len() as u64,
            took_ms: last_move_us.map_or(0.0, |at| millis(at - event.begin_us)),
            pause_p50_ms: millis(percentile(&pauses, 0.50)),
            pause_p99_ms: millis(percentile(&pauses, 0.99)),
            pause_max_ms: millis(percentile(&pauses, 1.0)),
            quiet_p99_ms: millis(percentile(&longest(quiet_us, event.begin_us.saturating_sub(1)), 0.99)),
        });
        quiet_since_us = end_us;
    }
    reports
}

/// Nearest rank, of sorted values; 0 of none.
pub fn percentile<T: Copy + Into<u64>>(sorted: &[T], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).map_or(0, |&value| value.into())
}

/// With three decimals, as it is printed.
pub fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The verdict for a person.
pub fn table(verdict: &Verdict) -> String {
    let mut out = String::new();
    let rows = [
        ("sessions", verdict.sessions),
        ("frames", verdict.frames),
        ("lost", verdict.lost),
        ("repeated", verdict.repeated),
        ("reordered", verdict.reordered),
        ("mismatched", verdict.mismatched),
        ("disconnects", verdict.disconnects),
        ("connect failures", verdict.connect_failures),
    ];
    for (name, count) in rows {
        let _ = writeln!(out, "  {name:<17} {count:>12}");
    }
    let (p50, p99, max) = (verdict.p50_ms, verdict.p99_ms, verdict.max_ms);
    let _ = writeln!(out, "  reply time        p50 {p50:.2} ms   p99 {p99:.2} ms   max {max:.2} ms");
    for share in &verdict.by_backend {
        let _ = writeln!(out, "  {:>6} sessions at {} ({})", share.sessions, share.instance, share.version);
    }
    out.push_str(&event_table(&verdict.events));
    for note in &verdict.notes {
        let _ = writeln!(out, "  ! {note}");
    }
    out
}

fn event_table(events: &[EventReport]) -> String {
    let mut out = String::new();
    if !events.is_empty() {
        let _ = writeln!(
            out,
            "\n  {:<22} {:>6} {:>10} {:>11} {:>11} {:>11} {:>11}",
            "event", "moved", "took", "pause p50", "pause p99", "pause max", "quiet p99"
        );
    }
    for event in events {
        let _ = writeln!(
            out,
            "  {:<22} {:>6} {:>7.1} ms {:>8.2} ms {:>8.2} ms {:>8.2} ms {:>8.2} ms",
            event.name,
            event.moved,
            event.took_ms,
            event.pause_p50_ms,
            event.pause_p99_ms,
            event.pause_max_ms,
            event.quiet_p99_ms
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(begin_us: u64, end_us: u64) -> Event {
        Event { name: "drain".into(), begin_us, end_us: Some(end_us) }
    }

    #[test]
    fn pauses_are_over_the_sessions_moved_beside_their_own_quiet_window() {
        let (mut moved, mut still) = (Timeline::default(), Timeline::default());
        moved.served_by(0, 0);
        still.served_by(0, 0);
        // Quiet: 2 ms; in the event: 40 ms. The bystander's 90 ms don't count.
        moved.record(960_000, 962_000);
        moved.record(1_008_000, 1_048_000);
        moved.served_by(1, 1_048_000);
        still.record(1_008_000, 1_098_000);
        let reports = measure(&[event(1_000_000, 1_100_000)], &[&moved, &still], 2_000_000);
        let expected = EventReport {
            name: "drain".into(),
            moved: 1,
            took_ms: 48.0,
            pause_p50_ms: 40.0,
            pause_p99_ms: 40.0,
            pause_max_ms: 40.0,
            quiet_p99_ms: 2.0,
        };
        assert_eq!(reports, [expected]);
    }

    #[test]
    fn a_move_after_the_end_belongs_to_the_event_before_it() {
        let mut late = Timeline::default();
        late.served_by(0, 0);
        late.record(1_200_000, 1_500_000);
        late.served_by(1, 1_500_000);
        let events = [event(1_000_000, 1_100_000), event(3_000_000, 3_100_000)];
        let reports = measure(&events, &[&late], 4_000_000);
        assert_eq!((reports[0].moved, reports[0].pause_max_ms), (1, 300.0));
        assert_eq!(reports[1].moved, 0);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [50, 99, 100]);
        assert_eq!(percentile::<u32>(&[], 0.5), 0);
    }
}
