//! The live numbers of this proxy's status key: what the fleet needs to know when a backend is empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::workers::Workers;
use crate::rollout::account;
use crate::routing::Table;
use crate::source::etcd::StatusNumbers;
use crate::telemetry::counters::{Cell, Counters};
use crate::worker::command::{BackendTally, Command, DrainRow, DrainRows};

/// Status keys and their numbers change at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Keeps the numbers of the status key fresh.
pub fn tell(
    workers: &Workers,
    table: Arc<ArcSwap<Table>>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> watch::Receiver<StatusNumbers> {
    let (sender, receiver) = watch::channel(StatusNumbers::default());
    let (counters, commands, shutdown) = (workers.counters(), workers.commands(), shutdown.clone());
    tasks.spawn(async move {
        while !shutdown.is_cancelled() {
            let next = tokio::time::Instant::now() + STATUS_EVERY;
            // What isn't known anew stays as it was: a worker may not have started, or be too busy to answer.
            let table = table.load_full();
            let (rows, tallies) = tokio::select! {
                answers = ask_all(&commands, !table.rollouts.is_empty()) => answers,
                () = tokio::time::sleep_until(next) => (None, None),
                () = shutdown.cancelled() => (None, None),
            };
            let before = sender.borrow().clone();
            let mut now = numbers(&counters, rows, &before);
            now.versions = match tallies {
                Some(tallies) => account::rows(&table, &tallies),
                None => before.versions.clone(),
            };
            sender.send_if_modified(|numbers| std::mem::replace(numbers, now) != before);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shutdown.cancelled() => {}
            }
        }
    });
    receiver
}

/// `rolls_out`: somebody wants to know how versions do.
async fn ask_all(
    workers: &[mpsc::Sender<Command>],
    rolls_out: bool,
) -> (Option<Vec<DrainRows>>, Option<Vec<BackendTally>>) {
    let drains = ask(workers, |answer| Command::Drains { answer }).await;
    let tallies = match rolls_out {
        true => ask(workers, |answer| Command::Tallies { answer }).await.map(|all| all.concat()),
        false => Some(Vec::new()),
    };
    (drains, tallies)
}

async fn ask<T>(
    workers: &[mpsc::Sender<Command>],
    question: fn(oneshot::Sender<T>) -> Command,
) -> Option<Vec<T>> {
    let mut pending = Vec::with_capacity(workers.len());
    for worker in workers {
        let (answer, receiver) = oneshot::channel();
        worker.try_send(question(answer)).ok()?;
        pending.push(receiver);
    }
    let mut all = Vec::with_capacity(workers.len());
    for receiver in pending {
        all.push(receiver.await.ok()?);
    }
    Some(all)
}

fn numbers(
    counters: &[Arc<Counters>],
    rows: Option<Vec<DrainRows>>,
    before: &StatusNumbers,
) -> StatusNumbers {
    let sum = |cell: fn(&Counters) -> &Cell| counters.iter().map(|counters| cell(counters).get()).sum();
    let (applied, drains) = match rows {
        Some(workers) => (workers.iter().map(|worker| worker.revision).min().unwrap_or(0), merge(workers)),
        None => (before.applied, before.drains.clone()),
    };
    let (sessions, parked) = (sum(|c| &c.sessions), sum(|c| &c.parked));
    StatusNumbers { sessions, parked, applied, drains, versions: before.versions.clone() }
}

/// The workers' rows, one for each backend: the fullest first, since a status lists only so many.
fn merge(workers: Vec<DrainRows>) -> Vec<DrainRow> {
    let mut merged: BTreeMap<String, DrainRow> = BTreeMap::new();
    for row in workers.into_iter().flat_map(|worker| worker.rows) {
        match merged.get_mut(&row.backend) {
            None => drop(merged.insert(row.backend.clone(), row)),
            Some(sum) => {
                sum.sessions += row.sessions;
                sum.in_flight += row.in_flight;
                sum.stuck |= row.stuck;
            }
        }
    }
    let mut rows: Vec<_> = merged.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.sessions + row.in_flight));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(backend: &str, sessions: u64) -> DrainRow {
        DrainRow { backend: backend.to_owned(), sessions, in_flight: 1, stuck: false }
    }

    #[test]
    fn a_revision_counts_as_applied_when_every_worker_acts_by_it() {
        let workers = vec![
            DrainRows { revision: 7, rows: vec![row("arena/a", 3)] },
            DrainRows { revision: 5, rows: vec![row("arena/a", 4), row("arena/b", 9)] },
        ];
        let first = numbers(&[], Some(workers), &StatusNumbers::default());
        assert_eq!(first.applied, 5);
        let told: Vec<_> =
            first.drains.iter().map(|row| (row.backend.as_str(), row.sessions, row.in_flight)).collect();
        assert_eq!(told, [("arena/b", 9, 1), ("arena/a", 7, 2)]);
        assert_eq!(numbers(&[], None, &first), first, "nobody has answered");
    }
}
