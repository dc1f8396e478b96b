//! `[proxy]` and `[local]`: who this proxy is, and which backend stands beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reader::{Section, parsed, text_that};
use crate::routing::address::{BACKEND_ADDRESS, BACKEND_ID, NAME, is_name};
use crate::routing::{BackendAddress, BackendId};

/// Where data is kept if the file doesn't say, each proxy's under its id.
const DATA_DIR: &str = "/var/lib/holdfast";

/// Who this proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Unique among the proxies of one etcd root.
    pub id: Arc<str>,
    pub zone: Option<Arc<str>>,
    /// Threads that carry sessions, at least one.
    pub workers: u16,
    /// Holds the last good table.
    pub data_dir: PathBuf,
}

/// The backend beside this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub backend: BackendId,
    /// The way to it from here; other proxies use the address in its document.
    pub address: BackendAddress,
}

impl ProxyConfig {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let id = section.required("id", NAME, text_that(is_name));
        let zone = section.optional("zone", NAME, text_that(is_name));
        let workers = section.number("workers", 1, 1..=256);
        let data_dir = section.path("data_dir");
        section.finish();
        let id = id?;
        Some(Self {
            data_dir: data_dir.unwrap_or_else(|| Path::new(DATA_DIR).join(&id)),
            id: id.into(),
            zone: zone.map(Into::into),
            workers: u16::try_from(workers).ok()?,
        })
    }
}

impl Local {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let backend = section.required("backend", BACKEND_ID, parsed);
        let address = section.required("address", BACKEND_ADDRESS, parsed);
        section.finish();
        Some(Self { backend: backend?, address: address? })
    }
}
