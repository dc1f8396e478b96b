//! Who this proxy is: the instance of this run, and of the runs before it in the same data directory.
//!
//! A proxy that comes back quickly may take over its own status key without waiting for the old lease to end; a
//! stranger with the same id may not.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_protocol::InstanceId;

use super::history::write_whole;

/// Instances that are remembered, this one with them.
const REMEMBERED: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("data_dir: {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("data_dir: {0} is in use by another proxy that runs; expected a folder of its own for each")]
    InUse(PathBuf),
}

/// This run, and those before it. Holds the data directory for itself while it lives.
#[derive(Debug)]
pub struct Identity {
    pub instance: InstanceId,
    earlier: Vec<InstanceId>,
    _lock: File,
}

impl Identity {
    /// Takes the data directory (made if it isn't there) and writes this run into it.
    pub fn open(data_dir: &Path, instance: InstanceId) -> Result<Self, IdentityError> {
        let wrap = |source| IdentityError::Io { path: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(wrap)?;
        let lock = File::create(data_dir.join("lock")).map_err(wrap)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => IdentityError::InUse(data_dir.to_owned()),
            TryLockError::Error(source) => wrap(source),
        })?;
        let path = data_dir.join("instance");
        let earlier = read(&path).map_err(wrap)?;
        let lines: Vec<_> =
            std::iter::once(&instance).chain(&earlier).take(REMEMBERED).map(ToString::to_string).collect();
        write_whole(&path, (lines.join("\n") + "\n").as_bytes()).map_err(wrap)?;
        Ok(Self { instance, earlier, _lock: lock })
    }

    /// Whether `instance` is this proxy, now or in an earlier run.
    #[must_use]
    pub fn is_own(&self, instance: InstanceId) -> bool {
        instance == self.instance || self.earlier.contains(&instance)
    }
}

/// Lines that are no instance are passed over: at worst the proxy waits for its old lease.
fn read(path: &Path) -> io::Result<Vec<InstanceId>> {
    match fs::read(path) {
        Ok(bytes) => {
            Ok(String::from_utf8_lossy(&bytes).lines().flat_map(str::parse).take(REMEMBERED).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_runs_are_remembered_and_strangers_are_not_known() {
        let folder = tempfile::tempdir().unwrap();
        for run in 1..=20 {
            drop(Identity::open(folder.path(), InstanceId([run; 16])).unwrap());
        }
        let identity = Identity::open(folder.path(), InstanceId([21; 16])).unwrap();
        assert!(identity.is_own(InstanceId([21; 16])) && identity.is_own(InstanceId([20; 16])));
        assert!(!identity.is_own(InstanceId([99; 16])));
        assert!(!identity.is_own(InstanceId([1; 16])), "the list is bounded");
    }

    #[test]
    fn a_second_live_proxy_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::open(folder.path(), InstanceId([1; 16])).unwrap();
        let second = Identity::open(folder.path(), InstanceId([2; 16]));
        assert!(matches!(second, Err(IdentityError::InUse(_))));
        drop(first);
        assert!(Identity::open(folder.path(), InstanceId([2; 16])).is_ok());
    }
}
