//! What the bots say at the end, and on the way. Field names are public: scripts read them.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    /// Players in a match at the end.
    #[serde(default)]
    pub in_match: u64,
    /// How often a player came into a match.
    #[serde(default)]
    pub joins: u64,
    #[serde(default)]
    pub joins_refused: u64,
    /// A match's world wasn't one, see [`crate::players::checker::Faults::diverged`].
    #[serde(default)]
    pub worlds_diverged: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub by_backend: Vec<BackendShare>,
    pub events: Vec<EventReport>,
    /// The first faults, in words.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Nothing lost, repeated, out of order or wrong, nobody disconnected, and everybody was let in, to their match too.
    pub fn is_clean(&self) -> bool {
        let counts = [self.lost, self.repeated, self.reordered, self.mismatched, self.disconnects];
        let entries = [self.connect_failures, self.joins_refused, self.worlds_diverged];
        counts.iter().chain(&entries).all(|&count| count == 0)
    }

    /// What is promised to be zero, as scripts know it.
    pub fn promised(&self) -> [(&'static str, u64); 4] {
        [
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("reordered", self.reordered),
            ("disconnects", self.disconnects),
        ]
    }

    /// The fields that the demo and the benches have in common.
    pub fn summary(&self) -> Value {
        let mut summary = json!({"sessions": self.sessions, "frames": self.frames, "events": self.events});
        for (name, count) in self.promised() {
            summary[name] = count.into();
        }
        summary
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

/// One `begin` .. `end`. Pauses are over the sessions concerned: those that the event's backend served at `begin`, if
/// it names one; else the sessions moved; if none moved, all. The others are bystanders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    pub name: String,
    /// Of those concerned.
    pub moved: u64,
    /// From `begin` until the last moved session's first reply from its new backend; 0 if none moved.
    pub took_ms: f64,
    pub pause_p50_ms: f64,
    pub pause_p99_ms: f64,
    pub pause_max_ms: f64,
    /// The same sessions' figures for an equally long window just before `begin`.
    pub quiet_p50_ms: f64,
    pub quiet_p99_ms: f64,
    pub quiet_max_ms: f64,
    /// From `begin` until a moved session's first reply from its new backend.
    pub resumed_p50_ms: f64,
    pub resumed_p99_ms: f64,
    pub concerned: u64,
    pub bystanders: u64,
    pub bystanders_pause_p99_ms: f64,
    pub bystanders_quiet_p99_ms: f64,
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
    /// Players in a match now.
    #[serde(default)]
    pub in_match: u64,
    #[serde(default)]
    pub joins: u64,
    #[serde(default)]
    pub joins_refused: u64,
    #[serde(default)]
    pub worlds_diverged: u64,
    /// How long the frame has waited for its reply that waits longest.
    #[serde(default)]
    pub longest_wait_ms: u64,
    /// Answers the `stats` line with this number; absent when nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
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
    let played = [("sessions", verdict.sessions), ("frames", verdict.frames)];
    let more = [("mismatched", verdict.mismatched), ("connect failures", verdict.connect_failures)];
    for (name, count) in played.into_iter().chain(verdict.promised()).chain(more) {
        let _ = writeln!(out, "  {name:<17} {count:>12}");
    }
    if verdict.joins + verdict.joins_refused > 0 {
        let counts = [
            ("in a match", verdict.in_match),
            ("joins", verdict.joins),
            ("joins refused", verdict.joins_refused),
            ("worlds diverged", verdict.worlds_diverged),
        ];
        for (name, count) in counts {
            let _ = writeln!(out, "  {name:<17} {count:>12}");
        }
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

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [50, 99, 100]);
        assert_eq!(percentile::<u32>(&[], 0.5), 0);
    }
}
