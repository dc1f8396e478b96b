//! A folder of documents, as people and their editors change it.

use std::fs;

use super::super::published::{Origin, Published, Source};
use super::*;

const SERVICE: &str = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;
const DEADLINE: Duration = Duration::from_secs(20);

struct Folder {
    root: tempfile::TempDir,
    source: Source,
    shutdown: CancellationToken,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Folder {
    fn start(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, text)| write(root.path(), path, text));
        let (publisher, source) = Publisher::new();
        let shutdown = CancellationToken::new();
        tokio::spawn(run(root.path().to_owned(), publisher, shutdown.clone()));
        Self { root, source, shutdown }
    }

    fn write(&self, path: &str, text: &str) {
        write(self.root.path(), path, text);
    }

    async fn until(&self, what: &str, reached: impl Fn(&Published) -> bool) -> Arc<Published> {
        let mut published = self.source.published.clone();
        let wait = published.wait_for(|published| reached(published));
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(published) => published.unwrap().clone(),
            Err(_) => panic!("not reached: {what}; {:?}", self.source.published.borrow()),
        }
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_written_changed_and_deleted_file_is_a_document() {
    let folder = Folder::start(&[("services/arena.json", SERVICE)]);
    let first = folder.until("first", |now| now.table.services.len() == 1).await;
    assert_eq!((first.table.revision, first.origin, first.connected), (1, Origin::Source, true));
    // In folders that were not there before.
    folder.write("backends/arena/a.json", r#"{"address": "127.0.0.1:1", "version": "1"}"#);
    folder.write("backends/arena/b.json", r#"{"address": "127.0.0.1:9", "version": "1"}"#);
    folder.until("written", |now| now.table.backends.len() == 2).await;
    folder.write("backends/arena/a.json", r#"{"address": "127.0.0.1:2", "version": "1"}"#);
    let second =
        |now: &Published| now.table.backends.values().any(|one| one.address.to_string() == "127.0.0.1:2");
    let changed = folder.until("changed", second).await;
    fs::remove_file(folder.root.path().join("backends/arena/a.json")).unwrap();
    let deleted = folder.until("deleted", |now| now.table.backends.len() == 1).await;
    assert!(changed.table.revision > 1 && deleted.table.revision > changed.table.revision);
}

#[tokio::test]
async fn a_half_written_file_is_refused_until_it_is_whole() {
    let folder = Folder::start(&[("services/arena.json", SERVICE)]);
    folder.until("first", |now| now.table.services.len() == 1).await;
    folder.write("services/arena.json", &SERVICE[..20]);
    let half = folder.until("half", |now| now.refused.len() == 1).await;
    assert!(half.refused[0].last_good && half.table.services.len() == 1);
    folder.write("services/arena.json", SERVICE);
    folder.until("whole", |now| now.refused.is_empty()).await;
}

#[tokio::test]
async fn an_atomic_rename_is_seen_and_temporary_files_are_not() {
    let folder = Folder::start(&[("services/arena.json", SERVICE)]);
    folder.until("first", |now| now.table.services.len() == 1).await;
    folder.write("services/lobby.json.tmp", "{");
    folder.write("services/.lobby.json.swp", "{");
    folder.write("services/lobby.json~", "{");
    folder.write("services/4913", "");
    folder.write("services/.lobby.json", SERVICE);
    let path = |name: &str| folder.root.path().join("services").join(name);
    fs::rename(path(".lobby.json"), path("lobby.json")).unwrap();
    let now = folder.until("renamed", |now| now.table.services.len() == 2).await;
    assert!(now.refused.is_empty(), "{:?}", now.refused);
}

#[tokio::test]
async fn a_folder_that_is_gone_changes_nothing_and_may_come_back() {
    let folder = Folder::start(&[("services/arena.json", SERVICE)]);
    folder.until("first", |now| now.table.services.len() == 1).await;
    let (root, aside) = (folder.root.path().to_owned(), folder.root.path().with_extension("aside"));
    fs::rename(&root, &aside).unwrap();
    let gone = folder.until("gone", |now| !now.connected).await;
    assert!(gone.table.services.len() == 1 && gone.source_error.is_some());
    write(&aside, "services/lobby.json", SERVICE);
    fs::rename(&aside, &root).unwrap();
    folder.until("back", |now| now.connected && now.table.services.len() == 2).await;
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let long = format!("{SERVICE}{}", " ".repeat(2 * crate::routing::document::MAX_DOCUMENT_BYTES));
    write(root.path(), "services/arena.json", &long);
    let (mut publisher, source) = Publisher::new();
    apply(&mut publisher, &scan(root.path()).unwrap());
    assert_eq!(source.published.borrow().refused[0].field, "document");
}
