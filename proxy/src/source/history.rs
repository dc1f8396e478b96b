//! The last tables on disk: a proxy that starts while its source is away serves on from the newest, and an operator
//! sees what was in force when, longer than etcd's own history lasts.
//!
//! Never on the way to a swap: a task of its own writes, at most once a second, the newest state only.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::routing::document::{Document, Key};
use crate::routing::documents::{Good, LastGood};

/// Tables that are kept.
pub const KEPT: usize = 100;

/// Format of the files; another one is not read.
const VERSION: u32 = 1;

/// Larger files are not read: far more than etcd itself would hold for us.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

const PERIOD: Duration = Duration::from_secs(1);

/// The good documents at one revision.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub revision: u64,
    pub applied_at: SystemTime,
    pub last_good: Arc<LastGood>,
}

/// One table of the history. They are numbered as they came into force: a revision may come twice, or fall, when a
/// source is restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub number: u64,
    pub revision: u64,
    /// When it came into force, in milliseconds of Unix time.
    pub applied_ms: u64,
}

/// Why a table can't be had. Never fatal.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Corrupt { path: PathBuf, reason: String },
}

/// The tables of one source in the data directory.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
    /// What the documents are of: those of another root or folder are not ours.
    origin: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    version: u32,
    origin: String,
    revision: u64,
    applied_ms: u64,
    /// Over everything else, in hexadecimal.
    checksum: String,
    documents: Vec<DocumentInFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentInFile {
    key: String,
    revision: u64,
    value: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leased: bool,
}

impl Snapshot {
    /// What there is before any document was read.
    #[must_use]
    pub fn empty() -> Self {
        Self { revision: 0, applied_at: UNIX_EPOCH, last_good: Arc::default() }
    }

    /// Whether both have the same documents, whatever their revisions.
    fn is_like(&self, other: &Self) -> bool {
        let texts = |snapshot: &Self| snapshot.last_good.len();
        texts(self) == texts(other)
            && self.last_good.iter().zip(other.last_good.iter()).all(|((key, good), (other_key, other))| {
                key == other_key && (Arc::ptr_eq(&good.raw, &other.raw) || good.raw == other.raw)
            })
    }
}

impl Entry {
    fn file_name(self) -> String {
        format!("{:020}.{}.{}.json", self.number, self.revision, self.applied_ms)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_suffix(".json")?.split('.').map(|part| part.parse().ok());
        let entry = Self { number: parts.next()??, revision: parts.next()??, applied_ms: parts.next()?? };
        (entry.file_name() == file_name).then_some(entry)
    }
}

impl History {
    #[must_use]
    pub fn new(data_dir: &Path, origin: String) -> Self {
        let folder = data_dir.join("tables").join(format!("{:016x}", xxh3_64(origin.as_bytes())));
        Self { folder, origin }
    }

    /// The newest table that can be read. A damaged one is an error that is logged, and the one before it will do.
    #[must_use]
    pub fn latest(&self) -> Option<Snapshot> {
        let entries = self.entries();
        let mut entries =
            entries.inspect_err(|error| error!(%error, "the tables on disk can't be listed")).ok()?;
        while let Some(entry) = entries.pop() {
            match self.read(entry) {
                Ok(snapshot) => return Some(snapshot),
                Err(error) => error!(%error, "a table on disk can't be used; the one before it is tried"),
            }
        }
        None
    }

    /// All tables, oldest first.
    ///
    /// # Errors
    /// The folder can't be read. That there is none yet is no error.
    pub fn entries(&self) -> Result<Vec<Entry>, HistoryError> {
        let io = |source| HistoryError::Io { path: self.folder.clone(), source };
        let names = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io)?,
        };
        let mut entries = Vec::new();
        for name in names {
            let name = name.map_err(io)?.file_name();
            entries.extend(name.to_str().and_then(Entry::parse));
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Reads and checks one table.
    ///
    /// # Errors
    /// Its file can't be read, or isn't as it was written.
    pub fn read(&self, entry: Entry) -> Result<Snapshot, HistoryError> {
        let path = self.folder.join(entry.file_name());
        let bytes = read_bytes(&path).map_err(|source| HistoryError::Io { path: path.clone(), source })?;
        self.parse(&bytes).map_err(|reason| HistoryError::Corrupt { path, reason })
    }

    fn parse(&self, bytes: &[u8]) -> Result<Snapshot, String> {
        let file: TableFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("version {}, expected {VERSION}", file.version));
        }
        if file.checksum != checksum(&file) {
            return Err("the checksum does not match".to_owned());
        }
        if file.origin != self.origin {
            return Err(format!("a table of {}, expected one of {}", file.origin, self.origin));
        }
        let last_good = file.documents.iter().map(parse).collect::<Result<LastGood, _>>()?;
        let applied_at = UNIX_EPOCH + Duration::from_millis(file.applied_ms);
        Ok(Snapshot { revision: file.revision, applied_at, last_good: Arc::new(last_good) })
    }

    /// Adds a table, whole or not at all, and removes the oldest.
    ///
    /// # Errors
    /// The disk.
    pub fn add(&self, snapshot: &Snapshot) -> Result<Entry, HistoryError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HistoryError::Io { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let entries = self.entries()?;
        let entry = Entry {
            number: entries.last().map_or(1, |last| last.number + 1),
            revision: snapshot.revision,
            applied_ms: unix_ms(snapshot.applied_at),
        };
        let path = self.folder.join(entry.file_name());
        write_whole(&path, &self.to_bytes(snapshot, entry)).map_err(io(&path))?;
        let oldest = (entries.len() + 1).saturating_sub(KEPT);
        for old in &entries[..oldest] {
            let path = self.folder.join(old.file_name());
            fs::remove_file(&path).map_err(io(&path))?;
        }
        Ok(entry)
    }

    fn to_bytes(&self, snapshot: &Snapshot, entry: Entry) -> Vec<u8> {
        let documents = snapshot.last_good.iter().map(|(key, good)| DocumentInFile {
            key: key.to_string(),
            revision: good.revision,
            value: String::from_utf8_lossy(&good.raw).into_owned(),
            leased: good.leased,
        });
        let mut file = TableFile {
            version: VERSION,
            origin: self.origin.clone(),
            revision: snapshot.revision,
            applied_ms: entry.applied_ms,
            checksum: String::new(),
            documents: documents.collect(),
        };
        file.checksum = checksum(&file);
        serde_json::to_vec(&file).expect("strings and numbers can be written as JSON")
    }

    /// Adds the newest snapshot, at most one a second, until shutdown; then once more if something is left. `last` is
    /// the one that is on disk: what doesn't differ from it isn't written again.
    pub async fn keep(
        self,
        mut last: Option<Snapshot>,
        mut snapshots: watch::Receiver<Snapshot>,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => break,
            }
            self.add_latest(&mut last, &mut snapshots).await;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if snapshots.has_changed().unwrap_or(false) {
            self.add_latest(&mut last, &mut snapshots).await;
        }
    }

    async fn add_latest(&self, last: &mut Option<Snapshot>, snapshots: &mut watch::Receiver<Snapshot>) {
        let snapshot = snapshots.borrow_and_update().clone();
        if last.as_ref().is_some_and(|last| last.is_like(&snapshot)) {
            return;
        }
        let (history, added) = (self.clone(), snapshot.clone());
        match tokio::task::spawn_blocking(move || history.add(&added)).await {
            Ok(Ok(_)) => *last = Some(snapshot),
            Ok(Err(error)) => error!(%error, "the table can't be written to disk"),
            Err(error) => error!(%error, "the writer of the tables failed"),
        }
    }
}

/// Milliseconds of Unix time.
#[must_use]
pub fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(document: &DocumentInFile) -> Result<(Arc<str>, Good), String> {
    let raw = document.value.as_bytes();
    let parsed = Key::parse(&document.key)
        .and_then(|key| Document::parse(&key, raw))
        .map_err(|error| format!("{}: {error}", document.key))?;
    let good =
        Good { document: parsed, raw: raw.into(), revision: document.revision, leased: document.leased };
    Ok((document.key.as_str().into(), good))
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

fn checksum(file: &TableFile) -> String {
    let mut hash = Xxh3::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(file.origin.as_bytes());
    add(&file.revision.to_le_bytes());
    add(&file.applied_ms.to_le_bytes());
    for document in &file.documents {
        add(document.key.as_bytes());
        add(&document.revision.to_le_bytes());
        add(document.value.as_bytes());
        if document.leased {
            add(b"leased");
        }
    }
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests;
