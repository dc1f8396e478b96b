//! What one proxy has seen of one version of a service: a row of its status key, and the sum of its workers' tallies.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::routing::Table;
use crate::routing::table::Failure;
use crate::worker::command::BackendTally;
use crate::worker::tally::Histogram;

/// Counts since the proxy started, in players; one that falls begins anew. Fields are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionRow {
    /// Name of the service.
    pub service: String,
    /// One of the two of its rollout.
    pub version: String,
    /// Players on it now.
    pub sessions: u64,
    /// Players whom it has taken.
    pub attached: u64,
    /// Players whom it refused.
    pub refused: u64,
    /// Players about whom it didn't answer in time.
    pub late: u64,
    /// Players lost to a broken rule, or given up by it.
    pub faults: u64,
    /// Players whom it closed.
    pub closes: u64,
    /// Players who were there when a server was lost.
    pub crashes: u64,
    /// Players whose replay made something else.
    pub diverged: u64,
    /// Service times of frames, as `Histogram::to_counts` writes them.
    pub times: Vec<u64>,
    /// State formats that its backends write.
    pub writes: BTreeSet<String>,
    /// State formats that all of them read.
    pub reads: BTreeSet<String>,
    /// Backends that have said what they read and write.
    pub spoken: u64,
}

impl VersionRow {
    #[must_use]
    pub fn failures(&self, kind: Failure) -> u64 {
        match kind {
            Failure::Refused => self.refused,
            Failure::Late => self.late,
            Failure::Fault => self.faults,
            Failure::Close => self.closes,
            Failure::Crash => self.crashes,
            Failure::Divergence => self.diverged,
        }
    }

    /// Players that this version was offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.attached + self.refused + self.late
    }
}

/// The rows of both versions of every rollout in the table, over all workers.
#[must_use]
pub fn rows(table: &Table, tallies: &[BackendTally]) -> Vec<VersionRow> {
    let mut rows: BTreeMap<(&str, &str), (VersionRow, Histogram)> = BTreeMap::new();
    for rollout in table.rollouts.values() {
        for version in [&*rollout.from, &*rollout.to] {
            let row = VersionRow {
                service: rollout.service.to_string(),
                version: version.to_owned(),
                ..VersionRow::default()
            };
            rows.insert((&*rollout.service, version), (row, Histogram::default()));
        }
    }
    for one in tallies {
        let of = (&*one.backend.id.service, &*one.backend.version);
        if let Some((row, times)) = rows.get_mut(&of) {
            add(row, one);
            times.merge(&one.tally.service);
        }
    }
    let finish = |(mut row, times): (VersionRow, Histogram)| {
        row.times = times.to_counts();
        row
    };
    rows.into_values().map(finish).collect()
}

fn add(row: &mut VersionRow, one: &BackendTally) {
    let tally = &one.tally;
    row.sessions += one.sessions;
    row.attached += tally.attached;
    row.refused += tally.refused;
    row.late += tally.late;
    row.faults += tally.faults;
    row.closes += tally.closes;
    row.crashes += tally.crashes;
    row.diverged += tally.diverged;
    if let Some(spoken) = &one.spoken {
        let reads: BTreeSet<String> = spoken.reads_formats.iter().cloned().collect();
        row.reads = if row.spoken == 0 { reads } else { &row.reads & &reads };
        row.writes.insert(spoken.writes_format.clone());
        row.spoken += 1;
    }
}
