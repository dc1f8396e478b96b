//! Keeps a task for each backend that is checked, and their verdicts.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use super::probe::probe;
use super::streak::Streak;
use super::subset::Target;
use crate::routing::BackendId;
use crate::worker::command::Command;

/// Results that nobody has looked at; the checks then wait.
const RESULTS: usize = 64;

/// One check's result.
#[derive(Debug)]
pub struct Checked {
    backend: BackendId,
    /// Of which task: one that was replaced doesn't count any more.
    number: u64,
    pub result: Result<(), String>,
}

#[derive(Debug)]
struct Probed {
    target: Target,
    number: u64,
    streak: Streak,
    task: AbortHandle,
}

/// All tasks end with it.
#[derive(Debug)]
pub struct Prober {
    probed: BTreeMap<BackendId, Probed>,
    tasks: JoinSet<()>,
    number: u64,
    worker: mpsc::Sender<Command>,
    sender: mpsc::Sender<Checked>,
    results: mpsc::Receiver<Checked>,
}

impl Prober {
    /// `worker` has the links for the checks that go over one.
    pub fn new(worker: mpsc::Sender<Command>) -> Self {
        let (sender, results) = mpsc::channel(RESULTS);
        Self { probed: BTreeMap::new(), tasks: JoinSet::new(), number: 0, worker, sender, results }
    }

    /// These are checked from here on. Who is checked as before keeps the verdict.
    pub fn set_targets(&mut self, mut targets: BTreeMap<BackendId, Target>) {
        self.probed.retain(|backend, probed| {
            let stays = targets.get(backend) == Some(&probed.target);
            if stays {
                targets.remove(backend);
            } else {
                probed.task.abort();
            }
            stays
        });
        for (backend, target) in targets {
            self.number += 1;
            let (worker, results) = (self.worker.clone(), self.sender.clone());
            let task =
                self.tasks.spawn(check_on(backend.clone(), target.clone(), self.number, worker, results));
            let probed = Probed { target, number: self.number, streak: Streak::default(), task };
            self.probed.insert(backend, probed);
        }
    }

    pub async fn next(&mut self) -> Checked {
        while self.tasks.try_join_next().is_some() {}
        self.results.recv().await.expect("the prober holds a sender")
    }

    /// `true`: a verdict has turned.
    pub fn judge(&mut self, checked: Checked) -> bool {
        let probed = self.probed.get_mut(&checked.backend);
        let Some(probed) = probed.filter(|probed| probed.number == checked.number) else { return false };
        if let Err(reason) = &checked.result {
            tracing::debug!(backend = %checked.backend, reason, "a check failed");
        }
        probed.streak.add(checked.result, &probed.target.policy)
    }

    /// Who is unhealthy, and why.
    pub fn unhealthy(&self) -> impl Iterator<Item = (&BackendId, &str)> {
        self.probed.iter().filter_map(|(backend, probed)| Some((backend, probed.streak.failure()?)))
    }
}

/// The first check comes at any time within the interval, so that a proxy's checks don't all come at once.
async fn check_on(
    backend: BackendId,
    target: Target,
    number: u64,
    worker: mpsc::Sender<Command>,
    results: mpsc::Sender<Checked>,
) {
    let interval = target.policy.interval;
    tokio::time::sleep(interval.mul_f64(fastrand::f64())).await;
    loop {
        let next = tokio::time::Instant::now() + interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let result = probe(&backend, &target, &worker).await;
        let checked = Checked { backend: backend.clone(), number, result };
        if results.send(checked).await.is_err() {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}
