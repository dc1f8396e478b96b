//! Documents from a folder that mirrors the keys: `services/arena.json`, `backends/arena/a.json`, ...
//!
//! The folder is read whole at each change, so a lost event costs time and never correctness; it is read every few
//! seconds anyway, because events don't tell everything (a folder that is replaced, a network file system).

mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::published::Publisher;
use scan::Found;

pub use scan::{ScanError, scan};

/// Events that follow each other this closely are one change: an editor's write, rename and chmod.
const QUIET: Duration = Duration::from_millis(20);

/// A change is read this long after its first event even if events don't cease.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Without any event the folder is read this often.
const PERIOD: Duration = Duration::from_secs(5);

/// As long as it can't be read, or can't be watched, this often.
const PERIOD_LOST: Duration = Duration::from_millis(500);

/// Reads the folder and keeps the table up to date until shutdown.
pub async fn run(root: PathBuf, mut publisher: Publisher, shutdown: CancellationToken) {
    let changed = Arc::new(Notify::new());
    let mut watch = FolderWatch::default();
    loop {
        // The watch comes before the reading, so that nothing changes unseen in between.
        watch.renew(&root, &changed);
        let is_read = read_once(&root, &mut publisher).await;
        let period = if is_read && watch.current.is_some() { PERIOD } else { PERIOD_LOST };
        tokio::select! {
            () = changed.notified() => settle(&changed).await,
            () = sleep(period) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Waits until no more events come, within bounds.
async fn settle(changed: &Notify) {
    let last = Instant::now() + LONGEST_WAIT;
    while timeout_at(last.min(Instant::now() + QUIET), changed.notified()).await.is_ok()
        && Instant::now() < last
    {}
}

/// Says whether the folder could be read.
async fn read_once(root: &Path, publisher: &mut Publisher) -> bool {
    let folder = root.to_owned();
    let error = match tokio::task::spawn_blocking(move || scan(&folder)).await {
        Ok(Ok(found)) => {
            apply(publisher, &found);
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("the reader of the folder failed: {error}"),
    };
    if publisher.lost(error.clone()) {
        warn!(error, "the folder can't be read; what is in force stays");
    }
    false
}

/// Applies what differs. The revision counts the changes.
fn apply(publisher: &mut Publisher, found: &Found) {
    let documents = publisher.documents();
    let changed: Vec<_> = found.iter().filter(|(key, content)| !content.is_in(documents.get(key))).collect();
    let is_gone = documents.iter().any(|(key, _)| !found.contains_key(&**key));
    if changed.is_empty() && !is_gone && publisher.is_live() {
        return publisher.contact();
    }
    let revision = publisher.revision() + 1;
    publisher.apply(revision, |documents| {
        documents.retain(|key| found.contains_key(key));
        for (key, content) in changed {
            content.put(documents, key, revision);
        }
    });
}

/// Watches the folder that stands at a path, also after another one was put in its place.
#[derive(Default)]
struct FolderWatch {
    current: Option<(RecommendedWatcher, scan::FolderId)>,
    complained: bool,
}

impl FolderWatch {
    fn renew(&mut self, root: &Path, changed: &Arc<Notify>) {
        let id = scan::folder_id(root);
        if self.current.as_ref().is_some_and(|(_, watched)| Some(*watched) == id) {
            return;
        }
        self.current = None;
        let Some(id) = id else { return };
        match watch(root, changed.clone()) {
            Ok(watcher) => self.current = Some((watcher, id)),
            Err(error) if !self.complained => {
                self.complained = true;
                warn!(%error, folder = %root.display(), "the folder can't be watched: it is read every {PERIOD_LOST:?}");
            }
            Err(_) => {}
        }
    }
}

fn watch(root: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an access; it must not be the reason for the next one.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            changed.notify_one();
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests;
