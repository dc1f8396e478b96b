//! The last good documents on disk: a proxy that starts while its source is away serves on from them.
//!
//! Never on the way to a swap: a task of its own writes, at most once a second, the newest state only.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;
use xxhash_rust::xxh3::Xxh3;

use crate::routing::document::{Document, Key};
use crate::routing::documents::{Good, LastGood};

/// Format of the file; another one is not read.
const VERSION: u32 = 1;

/// Larger files are not read: far more than etcd itself would hold for us.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

const PERIOD: Duration = Duration::from_secs(1);

/// The good documents at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub revision: u64,
    pub last_good: Arc<LastGood>,
}

/// Why the file can't be used. Never fatal.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Corrupt { path: PathBuf, reason: String },
}

/// The file of one source in the data directory.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
    /// What the documents are of: those of another root or folder are not ours.
    origin: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheFile {
    version: u32,
    origin: String,
    revision: u64,
    /// Over everything else, in hexadecimal.
    checksum: String,
    documents: Vec<CachedDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedDocument {
    key: String,
    revision: u64,
    value: String,
}

impl Cache {
    #[must_use]
    pub fn new(data_dir: &Path, origin: String) -> Self {
        Self { path: data_dir.join("documents.json"), origin }
    }

    /// Reads and checks the file; `None` if there is none, or one of another origin.
    pub fn read(&self) -> Result<Option<Snapshot>, CacheError> {
        let bytes = match self.read_bytes() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| CacheError::Io { path: self.path.clone(), source })?,
        };
        let file: CacheFile = serde_json::from_slice(&bytes).map_err(|error| self.corrupt(error))?;
        if file.version != VERSION {
            return Err(self.corrupt(format!("version {}, expected {VERSION}", file.version)));
        }
        if file.checksum != checksum(&file) {
            return Err(self.corrupt("the checksum does not match"));
        }
        if file.origin != self.origin {
            return Ok(None);
        }
        let documents = file.documents.iter().map(|document| self.parse(document));
        let last_good = Arc::new(documents.collect::<Result<LastGood, _>>()?);
        Ok(Some(Snapshot { revision: file.revision, last_good }))
    }

    fn read_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn parse(&self, cached: &CachedDocument) -> Result<(Arc<str>, Good), CacheError> {
        let raw = cached.value.as_bytes();
        let document = Key::parse(&cached.key)
            .and_then(|key| Document::parse(&key, raw))
            .map_err(|error| self.corrupt(format!("{}: {error}", cached.key)))?;
        let good = Good { document, raw: raw.into(), revision: cached.revision };
        Ok((cached.key.as_str().into(), good))
    }

    fn corrupt(&self, reason: impl ToString) -> CacheError {
        CacheError::Corrupt { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Replaces the file: whole or not at all.
    pub fn write(&self, snapshot: &Snapshot) -> Result<(), CacheError> {
        let text = |good: &Good| String::from_utf8_lossy(&good.raw).into_owned();
        let documents = snapshot.last_good.iter().map(|(key, good)| CachedDocument {
            key: key.to_string(),
            revision: good.revision,
            value: text(good),
        });
        let mut file = CacheFile {
            version: VERSION,
            origin: self.origin.clone(),
            revision: snapshot.revision,
            checksum: String::new(),
            documents: documents.collect(),
        };
        file.checksum = checksum(&file);
        let bytes = serde_json::to_vec(&file).map_err(|error| self.corrupt(error))?;
        write_whole(&self.path, &bytes).map_err(|source| CacheError::Io { path: self.path.clone(), source })
    }

    /// Writes the newest snapshot, at most one a second, until shutdown; then once more if something is left.
    pub async fn keep(self, mut snapshots: watch::Receiver<Snapshot>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => break,
            }
            self.write_latest(&mut snapshots).await;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if snapshots.has_changed().unwrap_or(false) {
            self.write_latest(&mut snapshots).await;
        }
    }

    async fn write_latest(&self, snapshots: &mut watch::Receiver<Snapshot>) {
        let snapshot = snapshots.borrow_and_update().clone();
        let cache = self.clone();
        match tokio::task::spawn_blocking(move || cache.write(&snapshot)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "the last good documents can't be written to disk"),
            Err(error) => error!(%error, "the writer of the last good documents failed"),
        }
    }
}

/// A new file beside the old one, synced, then renamed over it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn checksum(file: &CacheFile) -> String {
    let mut hash = Xxh3::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(file.origin.as_bytes());
    add(&file.revision.to_le_bytes());
    for document in &file.documents {
        add(document.key.as_bytes());
        add(&document.revision.to_le_bytes());
        add(document.value.as_bytes());
    }
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Documents, compile};

    fn snapshot() -> Snapshot {
        let mut documents = Documents::default();
        documents.put("services/arena", br#"{"protocol": "link", "framing": {"kind": "length"}}"#, 3);
        documents.put("backends/arena/a", br#"{"address": "127.0.0.1:1", "version": "1"}"#, 4);
        let last_good = compile(&documents, &LastGood::new(), 9).last_good;
        Snapshot { revision: 9, last_good: Arc::new(last_good) }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), "etcd /holdfast".to_owned());
        assert!(cache.read().unwrap().is_none());
        cache.write(&snapshot()).unwrap();
        let read = cache.read().unwrap().unwrap();
        assert_eq!((read.revision, read.last_good), (9, snapshot().last_good));
        let other = Cache::new(folder.path(), "etcd /other".to_owned());
        assert!(other.read().unwrap().is_none(), "documents of another root are not ours");
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_the_damage_is() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), "etcd /holdfast".to_owned());
        cache.write(&snapshot()).unwrap();
        let whole = fs::read(&cache.path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&cache.path, &whole[..cut]).unwrap();
            assert!(cache.read().is_err(), "cut at {cut}");
        }
        let text = String::from_utf8(whole).unwrap();
        for (old, new) in [("127.0.0.1:1", "127.0.0.1:2"), ("\"version\":1", "\"version\":2"), (":9,", ":8,")]
        {
            assert!(text.contains(old), "{old}");
            fs::write(&cache.path, text.replacen(old, new, 1)).unwrap();
            assert!(cache.read().is_err(), "{old} -> {new}");
        }
    }

    #[tokio::test]
    async fn the_newest_snapshot_is_on_disk_at_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), "files".to_owned());
        let (sender, receiver) = watch::channel(Snapshot::default());
        let shutdown = CancellationToken::new();
        let keeper = tokio::spawn(cache.clone().keep(receiver, shutdown.clone()));
        for revision in 1..=20 {
            sender.send_replace(Snapshot { revision, ..snapshot() });
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        keeper.await.unwrap();
        assert_eq!(cache.read().unwrap().unwrap().revision, 20);
    }
}
