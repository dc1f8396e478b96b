//! One line of the table: an event, a load and a proxy, over its rounds.

use holdfast_stage::EventReport;
use serde_json::{Value, json};

use crate::event::Event;
use crate::front::Kind;
use crate::run::Load;

/// What one run brought.
#[derive(Debug, Clone)]
pub struct Run {
    pub report: EventReport,
    /// Lost, repeated, reordered, disconnects.
    pub promised: [(&'static str, u64); 4],
    pub mismatched: u64,
    pub frames: u64,
    /// From exec to listening.
    pub own_restart_ms: Option<f64>,
}

pub struct Row {
    pub event: Event,
    pub load: Load,
    pub kind: Kind,
    pub recovery: String,
    pub runs: Vec<Run>,
}

impl Row {
    pub fn new(event: Event, load: Load, kind: Kind, recovery: &str) -> Self {
        Self { event, load, kind, recovery: recovery.to_owned(), runs: Vec::new() }
    }

    pub fn name(&self) -> String {
        format!("{}, {}, {} sessions", self.event.name(), self.kind.name(), self.load.sessions)
    }

    /// The median round's figure, each figure by itself.
    pub fn median(&self, figure: impl Fn(&EventReport) -> f64) -> f64 {
        median(self.runs.iter().map(|run| figure(&run.report)))
    }

    /// The worst round's count.
    pub fn worst(&self, count: impl Fn(&Run) -> u64) -> u64 {
        self.runs.iter().map(count).max().unwrap_or(0)
    }

    pub fn promised(&self) -> [(&'static str, u64); 4] {
        let names = self.runs.first().map(|run| run.promised).unwrap_or_default();
        std::array::from_fn(|at| (names[at].0, self.worst(|run| run.promised[at].1)))
    }

    pub fn own_restart_ms(&self) -> Option<f64> {
        let own: Vec<f64> = self.runs.iter().filter_map(|run| run.own_restart_ms).collect();
        (!own.is_empty()).then(|| median(own.into_iter()))
    }

    /// How far the rounds' quiet p99 differ, as a ratio.
    pub fn quiet_spread(&self) -> f64 {
        let quiet = || self.runs.iter().map(|run| run.report.quiet_p99_ms);
        let least = quiet().fold(f64::INFINITY, f64::min);
        if least > 0.0 && least.is_finite() { quiet().fold(0.0, f64::max) / least } else { 1.0 }
    }

    /// What Holdfast promises and didn't keep.
    pub fn broken_promise(&self) -> Option<String> {
        if self.kind != Kind::Holdfast {
            return None;
        }
        let stayed = self.worst(|run| run.report.concerned - run.report.moved);
        if self.event.moves() && stayed > 0 {
            return Some(format!("{}: {stayed} weren't moved", self.name()));
        }
        // After a crash without recovery a game begins anew: that is said, not hidden.
        let begins_anew = self.event == Event::Kill && self.recovery == "none";
        let faults = self.promised().into_iter().chain([("mismatched", self.worst(|run| run.mismatched))]);
        let broken = faults.filter(|(name, count)| *count > 0 && (!begins_anew || *name == "disconnects"));
        let broken: Vec<String> = broken.map(|(name, count)| format!("{name} {count}")).collect();
        (!broken.is_empty()).then(|| format!("{}: {}", self.name(), broken.join(", ")))
    }

    pub fn json(&self) -> Value {
        let median = |figure: fn(&EventReport) -> f64| rounded(self.median(figure));
        let mut row = json!({
            "event": self.event.name(),
            "proxy": self.kind.name(),
            "sessions": self.load.sessions,
            "rate_hz": self.load.rate_hz,
            "rounds": self.runs.len(),
            "concerned": self.worst(|run| run.report.concerned),
            "moved": self.runs.iter().map(|run| run.report.moved).min(),
            "frames": self.worst(|run| run.frames),
            "quiet_p50_ms": median(|it| it.quiet_p50_ms),
            "quiet_p99_ms": median(|it| it.quiet_p99_ms),
            "quiet_max_ms": median(|it| it.quiet_max_ms),
            "pause_p50_ms": median(|it| it.pause_p50_ms),
            "pause_p99_ms": median(|it| it.pause_p99_ms),
            "pause_max_ms": median(|it| it.pause_max_ms),
            "took_ms": median(|it| it.took_ms),
            "resumed_p50_ms": median(|it| it.resumed_p50_ms),
            "resumed_p99_ms": median(|it| it.resumed_p99_ms),
            "own_restart_ms": self.own_restart_ms().map(rounded),
            "bystanders": self.worst(|run| run.report.bystanders),
            "bystanders_quiet_p99_ms": median(|it| it.bystanders_quiet_p99_ms),
            "bystanders_pause_p99_ms": median(|it| it.bystanders_pause_p99_ms),
            "mismatched": self.worst(|run| run.mismatched),
        });
        for (name, count) in self.promised() {
            row[name] = count.into();
        }
        row
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
