//! The end: what the players found, for a person or for a script.

use std::fmt::Write;

use holdfast_stage::Verdict;
use serde_json::Value;

pub struct Outcome {
    pub verdict: Verdict,
    /// What should have happened and didn't.
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.verdict.is_clean() && self.failures.is_empty()
    }

    /// The public fields, and no others.
    pub fn json(&self) -> Value {
        self.verdict.summary()
    }

    pub fn table(&self) -> String {
        let Verdict { sessions, frames, .. } = self.verdict;
        let mut out = format!("\n  {sessions} sessions, {frames} frames, each checked\n\n");
        for (name, count) in self.verdict.promised() {
            let _ = writeln!(out, "  {name:<13} {count:>6}");
        }
        if self.verdict.mismatched > 0 {
            let _ = writeln!(out, "  {:<13} {:>6}", "wrong content", self.verdict.mismatched);
        }
        out.push_str(&self.events());
        for failure in self.failures.iter().chain(&self.verdict.notes) {
            let _ = writeln!(out, "  ! {failure}");
        }
        let last = match self.is_good() {
            true => "Nobody noticed more than the pauses above.",
            false => "Something went wrong: see above.",
        };
        let _ = writeln!(out, "  {last}");
        out
    }

    fn events(&self) -> String {
        let rule = |ends: [char; 3]| {
            let columns = [18, 7, 11, 12, 12, 12, 12].map(|width| "─".repeat(width));
            format!("  {}{}{}\n", ends[0], columns.join(&ends[1].to_string()), ends[2])
        };
        let mut out = format!("\n{}", rule(['┌', '┬', '┐']));
        let heads = ["moved", "took", "pause p50", "pause p99", "pause max", "quiet p99"];
        let [moved, took, p50, p99, max, quiet] = heads;
        let _ = writeln!(
            out,
            "  │ {:<16} │ {moved:>5} │ {took:>9} │ {p50:>10} │ {p99:>10} │ {max:>10} │ {quiet:>10} │",
            "event"
        );
        out.push_str(&rule(['├', '┼', '┤']));
        for event in &self.verdict.events {
            let _ = writeln!(
                out,
                "  │ {:<16} │ {:>5} │ {:>6.0} ms │ {:>7.1} ms │ {:>7.1} ms │ {:>7.1} ms │ {:>7.1} ms │",
                event.name,
                event.moved,
                event.took_ms,
                event.pause_p50_ms,
                event.pause_p99_ms,
                event.pause_max_ms,
                event.quiet_p99_ms
            );
        }
        out.push_str(&rule(['└', '┴', '┘']));
        out.push_str(
            "  A pause is the longest a player waited for a reply during the event, over the players moved\n",
        );
        out.push_str("  (over all if none moved); quiet is the same just before it.\n\n");
        out
    }
}
