//! Which worker of this proxy a group lives on. Asked only when a session comes into a group, or a group ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use holdfast_protocol::GroupId;

/// Where a group lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Me,
    Other(u16),
    /// Nowhere: there are as many as there may be.
    Nobody,
}

/// Groups by id; shared by all workers of a proxy.
#[derive(Debug, Default)]
pub struct Directory(Mutex<HashMap<GroupId, u16>>);

impl Directory {
    /// The group's worker; if it has none, this one from here on. Groups are `most` at most.
    pub fn claim(&self, group: GroupId, worker: u16, most: usize) -> Owner {
        let mut groups = self.lock();
        let count = groups.len();
        let owner = match groups.entry(group) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(_) if count >= most => return Owner::Nobody,
            Entry::Vacant(entry) => *entry.insert(worker),
        };
        if owner == worker { Owner::Me } else { Owner::Other(owner) }
    }

    /// The group has ended on that worker.
    pub fn release(&self, group: GroupId, worker: u16) {
        let mut groups = self.lock();
        if groups.get(&group) == Some(&worker) {
            groups.remove(&group);
        }
    }

    /// Whether the group is there, or may be formed.
    #[must_use]
    pub fn has_room(&self, group: GroupId, most: usize) -> bool {
        let groups = self.lock();
        groups.len() < most || groups.contains_key(&group)
    }

    // A worker that panicked takes the process with it; until then what it left is whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<GroupId, u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_its_first_workers_until_that_one_lets_go() {
        let (directory, group) = (Directory::default(), GroupId([1; 16]));
        assert_eq!(directory.claim(group, 0, 1), Owner::Me);
        assert_eq!(directory.claim(group, 0, 1), Owner::Me);
        assert_eq!(directory.claim(group, 1, 1), Owner::Other(0));
        directory.release(group, 1);
        assert_eq!(directory.claim(group, 1, 1), Owner::Other(0));
        let other = GroupId([2; 16]);
        assert_eq!(directory.claim(other, 1, 1), Owner::Nobody);
        assert!(directory.has_room(group, 1) && !directory.has_room(other, 1));
        directory.release(group, 0);
        assert_eq!(directory.claim(group, 1, 1), Owner::Me);
    }
}
