//! Which worker of this proxy a group lives on. Asked only when a session comes into a group, or a group ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_protocol::GroupId;
use tokio::sync::{Notify, mpsc, oneshot};

use super::claims::{Answer, Question};

/// Where a group lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Me,
    Other(u16),
}

/// Groups by id; shared by all workers of a proxy.
#[derive(Debug, Default)]
pub struct Directory {
    groups: Mutex<Groups>,
    cluster: Option<Cluster>,
}

#[derive(Debug, Default)]
struct Groups {
    workers: HashMap<GroupId, u16>,
    /// Those that ended, and whose claims are to end.
    ended: Vec<GroupId>,
}

#[derive(Debug)]
struct Cluster {
    questions: mpsc::Sender<Question>,
    one_ended: Notify,
}

impl Directory {
    /// One whose groups no other proxy of the cluster has.
    #[must_use]
    pub fn in_cluster(questions: mpsc::Sender<Question>) -> Self {
        Self { cluster: Some(Cluster { questions, one_ended: Notify::new() }), ..Self::default() }
    }

    /// The group's worker; if it has none, this one from here on. `None`: there are `most` groups already.
    pub fn claim(&self, group: GroupId, worker: u16, most: usize) -> Option<Owner> {
        let workers = &mut self.lock().workers;
        let count = workers.len();
        let owner = match workers.entry(group) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(_) if count >= most => return None,
            Entry::Vacant(entry) => *entry.insert(worker),
        };
        Some(if owner == worker { Owner::Me } else { Owner::Other(owner) })
    }

    /// Asks whether this proxy may form the group. `None`: there is nobody to ask. Never waits: a question that finds
    /// no place is unanswered.
    pub fn ask(&self, group: GroupId, now: Instant) -> Option<oneshot::Receiver<Answer>> {
        let cluster = self.cluster.as_ref()?;
        let (answer, receiver) = oneshot::channel();
        let _ = cluster.questions.try_send(Question { group, asked: now, answer });
        Some(receiver)
    }

    /// The group has ended on that worker, or hasn't come about: other proxies may have it.
    pub fn release(&self, group: GroupId, worker: u16) {
        let groups = &mut *self.lock();
        if groups.workers.get(&group) != Some(&worker) {
            return;
        }
        groups.workers.remove(&group);
        if let Some(cluster) = &self.cluster {
            groups.ended.push(group);
            cluster.one_ended.notify_one();
        }
    }

    /// Whether the group is here, or may come.
    #[must_use]
    pub fn has_room(&self, group: GroupId, most: usize) -> bool {
        let workers = &self.lock().workers;
        workers.len() < most || workers.contains_key(&group)
    }

    #[must_use]
    pub fn contains(&self, group: GroupId) -> bool {
        self.lock().workers.contains_key(&group)
    }

    /// Every group.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.lock().workers.keys().copied().collect()
    }

    /// Groups that have ended since this was last asked.
    #[must_use]
    pub fn take_ended(&self) -> Vec<GroupId> {
        std::mem::take(&mut self.lock().ended)
    }

    /// Waits until a group has ended.
    pub async fn one_ended(&self) {
        match &self.cluster {
            Some(cluster) => cluster.one_ended.notified().await,
            None => std::future::pending().await,
        }
    }

    // A worker that panicked takes the process with it; until then what it left is whole.
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId([1; 16]);

    #[test]
    fn a_group_is_its_first_workers_until_that_one_lets_go() {
        let directory = Directory::default();
        let claim = |worker| directory.claim(GROUP, worker, 10);
        assert_eq!(claim(0), Some(Owner::Me));
        assert_eq!(claim(0), Some(Owner::Me));
        assert_eq!(claim(1), Some(Owner::Other(0)));
        directory.release(GROUP, 1);
        assert_eq!(claim(1), Some(Owner::Other(0)));
        directory.release(GROUP, 0);
        assert_eq!((claim(1), directory.groups()), (Some(Owner::Me), vec![GROUP]));
        assert_eq!(directory.take_ended(), [], "nobody takes them");
    }

    #[test]
    fn there_are_as_many_groups_as_may_be_and_no_more() {
        let (directory, other) = (Directory::default(), GroupId([2; 16]));
        assert!(directory.has_room(GROUP, 1));
        assert_eq!(directory.claim(GROUP, 0, 1), Some(Owner::Me));
        assert!(directory.has_room(GROUP, 1) && !directory.has_room(other, 1));
        assert_eq!((directory.claim(other, 0, 1), directory.claim(GROUP, 0, 1)), (None, Some(Owner::Me)));
    }

    #[test]
    fn what_ends_is_told_once_and_a_question_without_place_is_unanswered() {
        let (sender, mut questions) = mpsc::channel(1);
        let directory = Directory::in_cluster(sender);
        directory.claim(GROUP, 0, 10);
        let now = Instant::now();
        let (mut first, mut second) =
            (directory.ask(GROUP, now).unwrap(), directory.ask(GROUP, now).unwrap());
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        questions.try_recv().unwrap().answer.send(Answer::Mine).unwrap();
        assert_eq!(first.try_recv(), Ok(Answer::Mine));
        directory.release(GROUP, 0);
        assert_eq!((directory.take_ended(), directory.take_ended()), (vec![GROUP], vec![]));
        assert!(Directory::default().ask(GROUP, now).is_none());
    }
}
