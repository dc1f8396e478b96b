//! The live numbers of this proxy's status key: what the fleet needs to know when a backend is empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::workers::Workers;
use crate::source::etcd::StatusNumbers;
use crate::telemetry::counters::{Cell, Counters};
use crate::worker::command::{Command, DrainRow, DrainRows};

/// Status keys and their numbers change at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Keeps the numbers of the status key fresh.
pub fn tell(
    workers: &Workers,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> watch::Receiver<StatusNumbers> {
    let (sender, receiver) = watch::channel(StatusNumbers::default());
    let (counters, commands, shutdown) = (workers.counters(), workers.commands(), shutdown.clone());
    tasks.spawn(async move {
        while !shutdown.is_cancelled() {
            let next = tokio::time::Instant::now() + STATUS_EVERY;
            // What isn't known anew stays as it was: a worker may not have started, or be too busy to answer.
            let rows = tokio::select! {
                rows = ask(&commands) => rows,
                () = tokio::time::sleep_until(next) => None,
                () = shutdown.cancelled() => None,
            };
            let before = sender.borrow().clone();
            let now = numbers(&counters, rows, &before);
            sender.send_if_modified(|numbers| std::mem::replace(numbers, now) != before);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shutdown.cancelled() => {}
            }
        }
    });
    receiver
}

async fn ask(workers: &[mpsc::Sender<Command>]) -> Option<Vec<DrainRows>> {
    let mut pending = Vec::with_capacity(workers.len());
    for worker in workers {
        let (answer, receiver) = oneshot::channel();
        worker.try_send(Command::Drains { answer }).ok()?;
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
    StatusNumbers { sessions: sum(|c| &c.sessions), parked: sum(|c| &c.parked), applied, drains }
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
