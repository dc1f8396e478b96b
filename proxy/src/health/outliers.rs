//! Which backends treat their sessions so badly that they get no new ones for a while. Pure: what has been counted and
//! the time go in, ejections come out.
//!
//! However many are bad, no more than the service's share is ejected, and one always stays. An ejected backend is tried
//! again after its time with a clean slate; each further ejection is longer, until it has been fit for long enough.

mod window;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::routing::table::OutlierPolicy;
use crate::routing::{BackendId, Table};
use crate::worker::tally::Tally;
pub use window::{Sums, Window, add};

/// Fewer frames say nothing of a 99th percentile.
const FRAMES_FOR_TIMES: u64 = 100;
/// So many backends must have times for one to be slower than the others.
const BACKENDS_FOR_MEDIAN: usize = 3;

/// What a proxy's workers have counted of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub sessions: u64,
    pub tally: Tally,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    pub reason: String,
    pub until: Instant,
}

#[derive(Debug, Default)]
struct Record {
    window: Window,
    ejected: Option<Ejected>,
    /// Ejections since it was last fit for long.
    times: u32,
    fit_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Detector {
    records: BTreeMap<BackendId, Record>,
}

impl Detector {
    /// Takes what has been counted, and judges. `others` tells who is unfit for another reason: they count in the share.
    /// Returns the new ejections.
    pub fn look(
        &mut self,
        table: &Table,
        accounts: &BTreeMap<BackendId, Account>,
        others: &dyn Fn(&BackendId) -> bool,
        now: Instant,
    ) -> Vec<(BackendId, Ejected)> {
        self.records.retain(|id, _| table.backends.contains_key(id));
        self.lift(now);
        for (id, account) in accounts.iter().filter(|(id, _)| table.backends.contains_key(id)) {
            let policy = table.services.get(&*id.service).and_then(|service| service.health.outliers);
            let record = self.records.entry(id.clone()).or_default();
            record.window.add(account, policy.map(|policy| policy.window), now);
        }
        let mut ejections = Vec::new();
        for service in table.services.values() {
            let first = BackendId { service: service.name.clone(), name: "".into() };
            let listed = table.backends.range(first..).take_while(|(id, _)| id.service == service.name);
            // Who takes nobody anyway neither counts among those who stay nor is worth an ejection.
            let taking: Vec<&BackendId> = listed
                .filter(|(id, backend)| backend.weight > 0 && !table.drains.contains_key(*id))
                .map(|(id, _)| id)
                .collect();
            match &service.health.outliers {
                Some(policy) => ejections.extend(self.judge(policy, &taking, others, now)),
                None => self.pardon(&service.name),
            }
        }
        ejections
    }

    /// Who is ejected now.
    pub fn ejected(&self) -> impl Iterator<Item = (&BackendId, &Ejected)> {
        self.records.iter().filter_map(|(id, record)| Some((id, record.ejected.as_ref()?)))
    }

    fn pardon(&mut self, service: &str) {
        for (_, record) in self.records.iter_mut().filter(|(id, _)| &*id.service == service) {
            (record.ejected, record.times, record.fit_since) = (None, 0, None);
            record.window.forget();
        }
    }

    fn judge(
        &mut self,
        policy: &OutlierPolicy,
        taking: &[&BackendId],
        others: &dyn Fn(&BackendId) -> bool,
        now: Instant,
    ) -> Vec<(BackendId, Ejected)> {
        self.forgive(policy, taking, now);
        let median = self.median(taking);
        let is_ejected = |id: &BackendId| self.records.get(id).is_some_and(|record| record.ejected.is_some());
        let unfit = taking.iter().filter(|id| is_ejected(id) || others(id)).count();
        let mut bad: Vec<(f64, &BackendId, String)> = taking
            .iter()
            .filter(|id| !is_ejected(id) && !others(id))
            .filter_map(|id| {
                let (excess, reason) = fault(policy, self.records.get(id)?.window.sums(), median)?;
                Some((excess, *id, reason))
            })
            .collect();
        // The worst first: there may not be room for all.
        bad.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most =
            (taking.len() * policy.max_ejected_percent as usize / 100).min(taking.len().saturating_sub(1));
        let mut ejections = Vec::new();
        for (_, id, reason) in bad.into_iter().take(most.saturating_sub(unfit)) {
            let Some(record) = self.records.get_mut(id) else { continue };
            record.times = record.times.saturating_add(1);
            let time = policy.base_ejection.saturating_mul(record.times).min(policy.max_ejection);
            let ejected = Ejected { reason, until: now + time };
            record.ejected = Some(ejected.clone());
            ejections.push((id.clone(), ejected));
        }
        ejections
    }

    /// Those whose time is over begin anew, also who is drained meanwhile; what was counted was of sessions from before.
    fn lift(&mut self, now: Instant) {
        for record in self.records.values_mut() {
            if record.ejected.as_ref().is_some_and(|ejected| now >= ejected.until) {
                record.ejected = None;
                record.fit_since = Some(now);
                record.window.forget();
            }
        }
    }

    /// Who was fit for long enough is ejected for the shortest time again.
    fn forgive(&mut self, policy: &OutlierPolicy, taking: &[&BackendId], now: Instant) {
        for id in taking {
            let Some(record) = self.records.get_mut(*id) else { continue };
            let fit_for = record.fit_since.map(|since| now.saturating_duration_since(since));
            if record.ejected.is_none() && fit_for.is_some_and(|time| time >= policy.max_ejection) {
                (record.times, record.fit_since) = (0, None);
            }
        }
    }

    /// The median of the backends' 99th percentiles.
    fn median(&self, taking: &[&BackendId]) -> Option<Duration> {
        let of = |id: &&BackendId| p99(self.records.get(*id)?.window.sums());
        let mut times: Vec<Duration> = taking.iter().filter_map(of).collect();
        times.sort_unstable();
        (times.len() >= BACKENDS_FOR_MEDIAN).then(|| times[times.len() / 2])
    }
}

fn p99(sums: &Sums) -> Option<Duration> {
    (sums.service.count() >= FRAMES_FOR_TIMES).then(|| sums.service.quantile(0.99)).flatten()
}

/// The first thing that is over its limit, and by how much.
fn fault(policy: &OutlierPolicy, sums: &Sums, median: Option<Duration>) -> Option<(f64, String)> {
    let over = |part: u64, whole: u64, limit: Option<u32>, what: &str| {
        let limit = limit.filter(|_| whole >= policy.min_volume)?;
        let percent = part as f64 * 100.0 / whole.max(1) as f64;
        let reason = || format!("{what} {part} of {whole} sessions in {} s", policy.window.as_secs());
        (percent >= f64::from(limit)).then(|| (percent / f64::from(limit), reason()))
    };
    let slow = |limit: Option<Duration>, what: &str| {
        let (limit, bound) = (limit?, p99(sums)?);
        // Times are counted by half doublings, as their upper bounds: two thirds of it is what it surely is.
        let surely = bound * 2 / 3;
        let reason = || format!("p99 service time over {} ms, {what}", surely.as_millis());
        (surely > limit).then(|| (surely.as_secs_f64() / limit.as_secs_f64().max(1e-6), reason()))
    };
    over(sums.refused, sums.refused + sums.attached, policy.refused_percent, "refused or didn't answer")
        .or_else(|| over(sums.failed, sums.sessions, policy.failed_percent, "failed"))
        .or_else(|| slow(policy.slow, "more than slow_ms"))
        .or_else(|| {
            let limit = policy.slow_factor.and_then(|factor| median?.checked_mul(factor));
            slow(limit, "more than slow_factor times the median")
        })
}

#[cfg(test)]
mod tests;
