//! One reading of the folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::FieldError;
use crate::routing::Documents;
use crate::routing::document::MAX_DOCUMENT_BYTES;
use crate::routing::documents::{Entry, MAX_DOCUMENTS};

/// `backends/<service>/<backend>.json` is the deepest there is.
const MAX_DEPTH: usize = 3;

/// Key -> content of every document in the folder.
pub type Found = BTreeMap<String, Content>;

/// A file's bytes, or why they can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    Unreadable(FieldError),
}

/// The folder as a whole can't be read: nothing changes.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: more than {MAX_DOCUMENTS} documents")]
    TooMany { path: PathBuf },
}

/// Device and inode: which folder stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderId(u64, u64);

pub fn folder_id(path: &Path) -> Option<FolderId> {
    fs::metadata(path).ok().map(|metadata| FolderId(metadata.dev(), metadata.ino()))
}

impl Content {
    /// Whether this is what `entry` was made of.
    pub fn is_in(&self, entry: Option<&Entry>) -> bool {
        entry.is_some_and(|entry| match (self, &entry.source) {
            (Self::Bytes(bytes), Ok(raw)) => **bytes == **raw,
            (Self::Unreadable(fault), Err(known)) => fault == known,
            _ => false,
        })
    }

    /// As it is written to another source.
    pub fn text(&self) -> Result<String, FieldError> {
        match self {
            Self::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            Self::Unreadable(fault) => Err(fault.clone()),
        }
    }

    pub fn put(&self, documents: &mut Documents, key: &str, revision: u64) {
        match self {
            Self::Bytes(bytes) => documents.put(key, bytes, revision),
            Self::Unreadable(fault) => documents.put_fault(key, fault.clone(), revision),
        }
    }
}

/// Reads every `*.json` below `root`. Hidden files and editors' temporary ones have other names.
pub fn scan(root: &Path) -> Result<Found, ScanError> {
    let mut found = Found::new();
    let entries = fs::read_dir(root).map_err(|source| ScanError::Io { path: root.to_owned(), source })?;
    scan_folder(entries, "", 1, &mut found);
    if found.len() > MAX_DOCUMENTS {
        return Err(ScanError::TooMany { path: root.to_owned() });
    }
    Ok(found)
}

fn scan_folder(entries: fs::ReadDir, prefix: &str, depth: usize, found: &mut Found) {
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let path = entry.path();
        // What vanishes while it is read is gone. Links are followed: mounted folders are often made of them.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth < MAX_DEPTH {
            if let Ok(entries) = fs::read_dir(&path) {
                scan_folder(entries, &format!("{prefix}{name}/"), depth + 1, found);
            }
        } else if let Some(stem) = name.strip_suffix(".json").filter(|_| metadata.is_file()) {
            if found.len() > MAX_DOCUMENTS {
                return;
            }
            if let Some(content) = read(&path) {
                found.insert(format!("{prefix}{stem}"), content);
            }
        }
    }
}

fn read(path: &Path) -> Option<Content> {
    let mut bytes = Vec::new();
    // One byte more than a document may have, so that a longer one is seen to be longer.
    let limit = MAX_DOCUMENT_BYTES as u64 + 1;
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => Some(Content::Bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Content::Unreadable(FieldError::new("document", error, "a readable file"))),
    }
}
