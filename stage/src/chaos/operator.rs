//! Who looks after etcd: writes drain keys, compacts it, kills it and starts it again, one order after another, on a
//! thread of its own, so that a slow etcd holds no other fault up.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{Etcd, until_some};

/// An order is tried again until then: etcd may just be coming back.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub enum Order {
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    Compact,
    /// SIGKILL, and a new start on the same data after that time.
    KillFor {
        time: Duration,
    },
}

pub struct Operator {
    orders: Option<Sender<Order>>,
    done: Receiver<Result<()>>,
    given: usize,
    thread: Option<JoinHandle<()>>,
}

impl Operator {
    /// Takes etcd, which ends with this value.
    pub fn start(etcd: Etcd) -> Self {
        let (orders, taken) = channel::<Order>();
        let (told, done) = channel();
        let thread = std::thread::spawn(move || work(etcd, &taken, &told));
        Self { orders: Some(orders), done, given: 0, thread: Some(thread) }
    }

    pub fn order(&mut self, order: Order) -> Result<()> {
        let orders = self.orders.as_ref().context("the operator has gone home")?;
        orders.send(order).ok().context("the operator's thread has ended")?;
        self.given += 1;
        Ok(())
    }

    /// The first order that failed, of those done so far.
    pub fn check(&mut self) -> Result<()> {
        while let Ok(result) = self.done.try_recv() {
            self.given -= 1;
            result?;
        }
        Ok(())
    }

    /// Waits until every order is done.
    pub fn finish_orders(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE * 4;
        while self.given > 0 {
            match self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(result) => result?,
                Err(RecvTimeoutError::Timeout) => bail!("{} orders about etcd aren't done", self.given),
                Err(RecvTimeoutError::Disconnected) => bail!("the operator's thread has ended"),
            }
            self.given -= 1;
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told through the channels already.
            let _ = thread.join();
        }
    }
}

fn work(mut etcd: Etcd, orders: &Receiver<Order>, told: &Sender<Result<()>>) {
    for order in orders {
        let what = format!("{order:?}");
        // Nobody listens any more at the end of a run that failed.
        let _ = told.send(obey(&mut etcd, order).context(what));
    }
}

fn obey(etcd: &mut Etcd, order: Order) -> Result<()> {
    match order {
        Order::Put { key, value } => patiently(|| etcd.put(&key, &value)),
        Order::Delete { key } => patiently(|| etcd.etcdctl(&["del", &key]).map(drop)),
        Order::Compact => patiently(|| {
            // There is always something new to forget.
            etcd.put("/chaos/compacted", "now")?;
            etcd.compact().map(drop)
        }),
        Order::KillFor { time } => {
            etcd.kill()?;
            // How long it is away is the fault itself; nothing is waited for.
            std::thread::sleep(time);
            etcd.start_again()
        }
    }
}

fn patiently(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let mut last = None;
    let done = until_some("etcd takes the order", PATIENCE, || match attempt() {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    });
    done.with_context(|| format!("its last answer: {last:?}"))
}
