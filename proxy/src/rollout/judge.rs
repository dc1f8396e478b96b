//! What the fleet has seen of a rollout's two versions over the last window.
//!
//! Proxies tell sums since their start. A proxy that is new, or has started anew, is counted from its first row on;
//! one that is gone takes nothing back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::account::VersionRow;
use super::progress::Seen;
use crate::routing::Rollout;
use crate::worker::tally::Histogram;

/// Both versions' rows of one proxy; `run` tells its runs apart.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    pub proxy: &'a str,
    pub run: &'a str,
    pub rows: &'a [VersionRow],
}

/// What is known of the two versions' state formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formats {
    /// Nobody has talked to a server of that version yet.
    Unknown {
        version: String,
    },
    Fit,
    /// In words.
    Unfit(String),
}

/// One look at all proxies.
#[derive(Debug, Clone, Default)]
struct Sample {
    at_ms: u64,
    /// Players on `to` at its end.
    on_to: u64,
    /// Since the look before.
    offered: u64,
    failures: u64,
    times: Histogram,
}

/// The memory of one rollout's judge.
#[derive(Debug, Default)]
pub struct Judge {
    /// By proxy and run.
    known: BTreeMap<(String, String), VersionRow>,
    samples: VecDeque<Sample>,
}

impl Judge {
    /// Takes in what the proxies say now, and sums up the window.
    pub fn look(&mut self, plan: &Rollout, reports: &[Report<'_>], now_ms: u64) -> Seen {
        let mut sample = Sample { at_ms: now_ms, ..Sample::default() };
        let mut on_from = 0;
        for report in reports {
            let of = |version: &str| {
                report.rows.iter().find(|row| *row.service == *plan.service && row.version == version)
            };
            on_from += of(&plan.from).map_or(0, |row| row.sessions);
            if let Some(row) = of(&plan.to) {
                sample.on_to += row.sessions;
                self.take(plan, report, row, &mut sample);
            }
        }
        self.known.retain(|(proxy, run), _| reports.iter().any(|one| one.proxy == proxy && one.run == run));
        self.samples.push_back(sample);
        let window = u64::try_from(plan.abort.window.as_millis()).unwrap_or(u64::MAX);
        // The one look that is older than the window is kept: it tells who was there when the window began.
        while self.samples.get(1).is_some_and(|next| next.at_ms + window <= now_ms) {
            self.samples.pop_front();
        }
        self.sum(on_from)
    }

    fn take(&mut self, plan: &Rollout, report: &Report<'_>, row: &VersionRow, sample: &mut Sample) {
        let key = (report.proxy.to_owned(), report.run.to_owned());
        if let Some(before) = self.known.insert(key, row.clone()) {
            let failures = |row: &VersionRow| plan.abort.count.iter().map(|kind| row.failures(*kind)).sum();
            sample.failures += grown(failures(&before), failures(row));
            sample.offered += grown(before.offered(), row.offered());
            let times = Histogram::from_counts(&row.times);
            sample.times.merge(&times.since(&Histogram::from_counts(&before.times)));
        }
    }

    fn sum(&self, on_from: u64) -> Seen {
        let on_to = self.samples.back().map_or(0, |last| last.on_to);
        let there_before = self.samples.front().map_or(0, |first| first.on_to);
        let since = || self.samples.iter().skip(1);
        let failures = since().map(|sample| sample.failures).sum::<u64>();
        let players = there_before + since().map(|sample| sample.offered).sum::<u64>();
        let mut times = Histogram::default();
        since().for_each(|sample| times.merge(&sample.times));
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Seen {
            on_from,
            on_to,
            players,
            failures,
            failures_percent: if failures == 0 {
                0.0
            } else {
                100.0 * failures as f64 / players.max(1) as f64
            },
            frames: times.count(),
            p99_ms: times.quantile(0.99).map(millis),
        }
    }
}

/// What came since; all of it, if it began anew.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Whether players can be moved from one version to the other and back, with their state.
#[must_use]
pub fn formats(plan: &Rollout, reports: &[Report<'_>]) -> Formats {
    let (from, to) = (Spoken::of(plan, &plan.from, reports), Spoken::of(plan, &plan.to, reports));
    for (version, spoken) in [(&plan.from, &from), (&plan.to, &to)] {
        if spoken.reads.is_none() {
            return Formats::Unknown { version: version.to_string() };
        }
    }
    let fault = |reader: &str, reads: &Spoken, writer: &str, writes: &Spoken| {
        let reads = reads.reads.as_ref()?;
        let unread: Vec<_> = writes.writes.difference(reads).cloned().collect();
        (!unread.is_empty()).then(|| {
            let (unread, reads) = (unread.join(", "), Vec::from_iter(reads.iter().cloned()).join(", "));
            format!("version {reader} doesn't read the state format {unread} that {writer} writes; it reads {reads}")
        })
    };
    let back = fault(&plan.from, &from, &plan.to, &to);
    match back.or_else(|| fault(&plan.to, &to, &plan.from, &from)) {
        Some(text) => Formats::Unfit(text),
        None => Formats::Fit,
    }
}

/// What the servers of one version have said, over all proxies.
struct Spoken {
    writes: BTreeSet<String>,
    /// What all of them read; absent while none has said anything.
    reads: Option<BTreeSet<String>>,
}

impl Spoken {
    fn of(plan: &Rollout, version: &str, reports: &[Report<'_>]) -> Self {
        let mut spoken = Self { writes: BTreeSet::new(), reads: None };
        let rows = reports.iter().flat_map(|report| report.rows);
        for row in
            rows.filter(|row| *row.service == *plan.service && row.version == version && row.spoken > 0)
        {
            spoken.writes.extend(row.writes.iter().cloned());
            spoken.reads = Some(match spoken.reads {
                Some(reads) => &reads & &row.reads,
                None => row.reads.clone(),
            });
        }
        spoken
    }
}

#[cfg(test)]
mod tests;
