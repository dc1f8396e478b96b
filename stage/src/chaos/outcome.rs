//! The end: what happened, what the players found, and whether the promises were kept.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::chaos::plan::Kind;
use crate::{EventReport, Verdict};

/// One fault, as it happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// Since the storm's begin.
    pub at_s: f64,
    pub kind: Kind,
    pub target: String,
    /// Its target wasn't there: it counts for nothing.
    pub missed: bool,
}

impl Happened {
    pub fn line(&self) -> String {
        let Self { at_s, kind, target, missed } = self;
        let missed = if *missed { " (missed: not there)" } else { "" };
        format!("{at_s:>7.2} s  {:<13} {target}{missed}", kind.name())
    }
}

pub struct Outcome {
    /// The command that plays the same storm.
    pub again: String,
    pub seed: u64,
    pub minutes: f64,
    /// Of all swarms.
    pub verdict: Verdict,
    pub happened: Vec<Happened>,
    pub rss_start_bytes: u64,
    pub rss_end_bytes: u64,
    /// What was promised and isn't so.
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.verdict.is_clean() && self.failures.is_empty()
    }

    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        let mut faults = BTreeMap::new();
        for happened in self.happened.iter().filter(|happened| !happened.missed) {
            *faults.entry(happened.kind.name()).or_default() += 1;
        }
        faults
    }

    /// The public fields, and no others.
    pub fn json(&self) -> Value {
        let Verdict { sessions, frames, lost, repeated, reordered, disconnects, events, .. } = &self.verdict;
        json!({
            "sessions": sessions,
            "frames": frames,
            "lost": lost,
            "repeated": repeated,
            "reordered": reordered,
            "disconnects": disconnects,
            "joins": self.verdict.joins,
            "worlds_diverged": self.verdict.worlds_diverged,
            "events": events,
            "faults": self.faults(),
            "rss_start_bytes": self.rss_start_bytes,
            "rss_end_bytes": self.rss_end_bytes,
            "seed": self.seed,
            "minutes": self.minutes,
        })
    }

    pub fn table(&self) -> String {
        let Verdict { sessions, frames, lost, repeated, reordered, disconnects, mismatched, .. } =
            self.verdict;
        let mut out = format!("\n  {sessions} sessions, {frames} frames, each checked; seed {}\n", self.seed);
        let _ = writeln!(out, "  {} times a player came into a match\n", self.verdict.joins);
        for (kind, count) in self.faults() {
            let _ = writeln!(out, "  {kind:<15} {count:>8}");
        }
        out.push('\n');
        for (name, count) in [
            ("lost", lost),
            ("repeated", repeated),
            ("reordered", reordered),
            ("wrong content", mismatched),
            ("disconnects", disconnects),
            ("worlds diverged", self.verdict.worlds_diverged),
        ] {
            let _ = writeln!(out, "  {name:<15} {count:>8}");
        }
        let longest = self.verdict.events.iter().map(|event| event.pause_max_ms).fold(0.0, f64::max);
        let _ = writeln!(out, "  {:<15} {longest:>5.0} ms", "longest reply");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (start, end) = (mib(self.rss_start_bytes), mib(self.rss_end_bytes));
        let _ = writeln!(out, "  proxies' memory {start:>5.1} MiB at the start, {end:.1} MiB at the end\n");
        for failure in self.failures.iter().chain(&self.verdict.notes) {
            let _ = writeln!(out, "  ! {failure}");
        }
        match self.is_good() {
            true => {
                out.push_str("  Every player is still there, and every frame was processed once, in order.\n")
            }
            false => {
                let _ = write!(out, "  Something went wrong: see above. What happened:\n\n{}", self.log());
                let _ = writeln!(out, "\n  Again: {}", self.again);
            }
        }
        out
    }

    /// Every fault in a line.
    pub fn log(&self) -> String {
        self.happened.iter().map(|happened| format!("  {}\n", happened.line())).collect()
    }
}

/// The sum of what the swarms found. Reply times don't add up: each swarm's events stay its own, and the whole has
/// the worst of theirs.
pub fn sum(verdicts: Vec<Verdict>) -> Verdict {
    let mut whole = Verdict::default();
    for (index, verdict) in verdicts.into_iter().enumerate() {
        let swarm = index + 1;
        whole.sessions += verdict.sessions;
        whole.frames += verdict.frames;
        whole.received += verdict.received;
        whole.in_match += verdict.in_match;
        whole.joins += verdict.joins;
        whole.joins_refused += verdict.joins_refused;
        whole.worlds_diverged += verdict.worlds_diverged;
        whole.lost += verdict.lost;
        whole.repeated += verdict.repeated;
        whole.reordered += verdict.reordered;
        whole.disconnects += verdict.disconnects;
        whole.mismatched += verdict.mismatched;
        whole.connect_failures += verdict.connect_failures;
        whole.p50_ms = whole.p50_ms.max(verdict.p50_ms);
        whole.p99_ms = whole.p99_ms.max(verdict.p99_ms);
        whole.max_ms = whole.max_ms.max(verdict.max_ms);
        whole.by_backend.extend(verdict.by_backend);
        let named =
            |event: EventReport| EventReport { name: format!("{}, swarm {swarm}", event.name), ..event };
        whole.events.extend(verdict.events.into_iter().map(named));
        whole.notes.extend(verdict.notes.into_iter().map(|note| format!("swarm {swarm}: {note}")));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let happened = |kind, missed| Happened { at_s: 1.5, kind, target: "arena/a".into(), missed };
        let verdict = Verdict { sessions: 2, frames: 10, received: 10, ..Verdict::default() };
        Outcome {
            again: "./dev chaos --seed 9".into(),
            seed: 9,
            minutes: 1.0,
            verdict: sum(vec![verdict.clone(), verdict]),
            happened: vec![
                happened(Kind::Kill, false),
                happened(Kind::Kill, true),
                happened(Kind::Drain, false),
            ],
            rss_start_bytes: 1 << 20,
            rss_end_bytes: 2 << 20,
            failures: Vec::new(),
        }
    }

    #[test]
    fn the_json_has_the_public_fields_and_counts_what_happened() {
        let json = outcome().json();
        let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "disconnects",
            "events",
            "faults",
            "frames",
            "joins",
            "lost",
            "minutes",
            "reordered",
            "repeated",
            "rss_end_bytes",
            "rss_start_bytes",
            "seed",
            "sessions",
            "worlds_diverged",
        ];
        let mut sorted = fields.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!(json["faults"], json!({"kill": 1, "drain": 1}));
        assert_eq!((&json["sessions"], &json["frames"]), (&json!(4), &json!(20)));
    }

    #[test]
    fn one_lost_frame_or_one_broken_promise_is_a_failure_with_its_log_and_seed() {
        let good = outcome();
        assert!(good.is_good());
        assert!(!good.table().contains("arena/a"), "the log of a good run isn't repeated");
        let mut lost = outcome();
        lost.verdict.lost = 1;
        let mut grown = outcome();
        grown.failures.push("grown".into());
        for bad in [lost, grown] {
            assert!(!bad.is_good());
            let table = bad.table();
            assert!(table.contains("kill          arena/a") && table.contains("--seed 9"), "{table}");
        }
    }
}
