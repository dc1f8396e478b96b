//! Routing documents, in a folder or in etcd: the same keys, the same bodies.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::replace_file;
use crate::{Etcd, Stage};

/// Where documents are written, as an operator would.
pub enum Documents {
    Folder(PathBuf),
    /// Keys under `/holdfast/config/`, written by `etcdctl`.
    Etcd(Rc<Etcd>),
}

/// The part of a key that every document shares.
const CONFIG: &str = "/holdfast/config";

impl Documents {
    pub fn folder(stage: &Stage) -> Result<Self> {
        let path = stage.path().join("documents");
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self::Folder(path))
    }

    /// `key` as `backends/arena/a`.
    pub fn put(&self, key: &str, document: &Value) -> Result<()> {
        self.put_text(key, &document.to_string())
    }

    /// Also what is no document: for tests of what is said then.
    pub fn put_text(&self, key: &str, text: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => replace_file(&file(folder, key), text),
            Self::Etcd(etcd) => etcd.put(&format!("{CONFIG}/{key}"), text),
        }
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => std::fs::remove_file(file(folder, key)).context(key.to_owned()),
            Self::Etcd(etcd) => etcd.delete(&format!("{CONFIG}/{key}")),
        }
    }

    /// The line an operator would type for [`Self::put`].
    pub fn put_line(&self, key: &str, document: &Value) -> String {
        match self {
            Self::Folder(_) => format!("echo '{document}' > documents/{key}.json"),
            Self::Etcd(_) => format!("etcdctl put {CONFIG}/{key} '{document}'"),
        }
    }

    pub fn delete_line(&self, key: &str) -> String {
        match self {
            Self::Folder(_) => format!("rm documents/{key}.json"),
            Self::Etcd(_) => format!("etcdctl del {CONFIG}/{key}"),
        }
    }
}

fn file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.json"))
}

/// The strongest level of crash recovery that a service may ask for; benches measure it unless told otherwise.
pub const BEST_RECOVERY: &str = "replay";

/// The sample game's service; `more` adds sections or replaces them.
pub fn arena_service(more: &Value) -> Value {
    let mut service = json!({
        "protocol": "link",
        "framing": {"kind": "length", "width": 4, "order": "big"},
        "recovery": "none",
    });
    if let (Some(service), Some(more)) = (service.as_object_mut(), more.as_object()) {
        service.extend(more.clone());
    }
    service
}
