//! Questions to the workers: all at once, with one deadline. A worker that hangs must not hang its operator.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::worker::command::Command;

pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    #[error("worker {0} didn't answer within {seconds} s; it may be overloaded", seconds = ANSWER_TIMEOUT.as_secs())]
    Silent(usize),
    #[error("worker {0} has stopped")]
    Stopped(usize),
}

/// Asks every worker the same, and returns the answers by worker number.
pub(super) async fn ask<T>(
    workers: &[mpsc::Sender<Command>],
    question: impl Fn(oneshot::Sender<T>) -> Command,
) -> Result<Vec<T>, AskError> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut pending = Vec::with_capacity(workers.len());
    for (number, worker) in workers.iter().enumerate() {
        let (answer, receiver) = oneshot::channel();
        match timeout_at(deadline, worker.send(question(answer))).await {
            Err(_) => return Err(AskError::Silent(number)),
            Ok(Err(_)) => return Err(AskError::Stopped(number)),
            Ok(Ok(())) => pending.push(receiver),
        }
    }
    let mut answers = Vec::with_capacity(workers.len());
    for (number, receiver) in pending.into_iter().enumerate() {
        match timeout_at(deadline, receiver).await {
            Err(_) => return Err(AskError::Silent(number)),
            Ok(Err(_)) => return Err(AskError::Stopped(number)),
            Ok(Ok(answer)) => answers.push(answer),
        }
    }
    Ok(answers)
}
