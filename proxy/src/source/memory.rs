//! What is remembered of held changes, on disk: a restart is no way around them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;
use xxhash_rust::xxh3::xxh3_64;

use super::history::write_whole;
use crate::routing::slips::Memory;

/// The file of one source.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    #[must_use]
    pub fn new(data_dir: &Path, origin: &str) -> Self {
        Self { path: data_dir.join(format!("slips-{:016x}.json", xxh3_64(origin.as_bytes()))) }
    }

    /// What was written last; nothing, and an error in the log, if it can't be read.
    #[must_use]
    pub fn read(&self) -> Memory {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Memory::default(),
            Err(error) => return self.complain(&error),
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| self.complain(&error))
    }

    fn complain(&self, error: &dyn std::fmt::Display) -> Memory {
        error!(path = %self.path.display(), %error, "what is remembered of held changes can't be read");
        Memory::default()
    }

    fn write(&self, memory: &Memory) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        write_whole(&self.path, &serde_json::to_vec(memory)?)
    }

    /// Writes each new state, until shutdown.
    pub async fn keep(self, mut memories: watch::Receiver<Arc<Memory>>, shutdown: CancellationToken) {
        loop {
            let is_over = tokio::select! {
                changed = memories.changed() => if changed.is_err() { return } else { false },
                () = shutdown.cancelled() => true,
            };
            if is_over && !memories.has_changed().unwrap_or(false) {
                return;
            }
            let (file, memory) = (self.clone(), memories.borrow_and_update().clone());
            match tokio::task::spawn_blocking(move || file.write(&memory)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    error!(%error, "what is remembered of held changes can't be written to disk")
                }
                Err(error) => error!(%error, "the writer of held changes failed"),
            }
            if is_over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_as_if_nothing_was_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(folder.path(), "etcd:/holdfast");
        assert_eq!(file.read(), Memory::default());
        file.write(&Memory::default()).unwrap();
        assert_eq!(file.read(), Memory::default());
        fs::write(&file.path, "{").unwrap();
        assert_eq!(file.read(), Memory::default());
    }
}
