//! What was in force is on disk, and damage to it costs no more than itself.

use super::*;
use crate::routing::{Documents, compile};

fn snapshot(revision: u64) -> Snapshot {
    let mut documents = Documents::default();
    documents.put("services/arena", br#"{"protocol": "link", "framing": {"kind": "length"}}"#, 3);
    let backend = format!(r#"{{"address": "127.0.0.1:{revision}", "version": "1"}}"#);
    documents.put("backends/arena/a", backend.as_bytes(), revision);
    let last_good = compile(&documents, &LastGood::new(), revision).last_good;
    let applied_at = UNIX_EPOCH + Duration::from_millis(1000 * revision);
    Snapshot { revision, applied_at, last_good: Arc::new(last_good) }
}

fn history(folder: &tempfile::TempDir) -> History {
    History::new(folder.path(), "etcd /holdfast".to_owned())
}

#[test]
fn what_was_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    assert!(history.latest().is_none());
    let entry = history.add(&snapshot(9)).unwrap();
    assert_eq!(entry, Entry { number: 1, revision: 9, applied_ms: 9000 });
    let read = history.latest().unwrap();
    assert_eq!((read.revision, read.applied_at), (9, snapshot(9).applied_at));
    assert_eq!(read.last_good, snapshot(9).last_good);
    let other = History::new(folder.path(), "etcd /other".to_owned());
    assert!(other.latest().is_none(), "documents of another root are not ours");
}

#[test]
fn the_last_hundred_tables_are_kept_in_their_order_whatever_their_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    for revision in (1..=KEPT as u64 + 20).rev() {
        history.add(&snapshot(revision)).unwrap();
    }
    let entries = history.entries().unwrap();
    assert_eq!(entries.len(), KEPT);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (21..=KEPT as u64 + 20).collect::<Vec<_>>());
    assert_eq!(history.latest().unwrap().revision, 1);
    assert_eq!(history.read(entries[0]).unwrap().revision, 100);
}

#[test]
fn a_damaged_table_is_an_error_wherever_the_damage_is_and_the_one_before_it_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    history.add(&snapshot(8)).unwrap();
    let entry = history.add(&snapshot(9)).unwrap();
    let path = history.folder.join(entry.file_name());
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(history.read(entry).is_err(), "cut at {cut}");
    }
    let text = String::from_utf8(whole).unwrap();
    for (old, new) in
        [("127.0.0.1:9", "127.0.0.1:2"), ("\"version\":1", "\"version\":2"), (":9000,", ":8000,")]
    {
        assert!(text.contains(old), "{old}");
        fs::write(&path, text.replacen(old, new, 1)).unwrap();
        assert!(history.read(entry).is_err(), "{old} -> {new}");
    }
    assert_eq!(history.latest().unwrap().revision, 8);
}

#[tokio::test]
async fn the_newest_table_is_on_disk_at_shutdown_and_one_that_does_not_differ_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    let (sender, receiver) = watch::channel(Snapshot::empty());
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(history.clone().keep(None, receiver, shutdown.clone()));
    for revision in 1..=20 {
        sender.send_replace(snapshot(revision));
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    keeper.await.unwrap();
    let latest = history.latest().unwrap();
    assert_eq!(latest.revision, 20);
    let count = history.entries().unwrap().len();
    let (sender, receiver) = watch::channel(Snapshot::empty());
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(history.clone().keep(Some(latest), receiver, shutdown.clone()));
    sender.send_replace(Snapshot { revision: 21, ..snapshot(20) });
    shutdown.cancel();
    keeper.await.unwrap();
    assert_eq!(history.entries().unwrap().len(), count);
}
