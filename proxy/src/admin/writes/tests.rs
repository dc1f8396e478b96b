//! What is answered, however the store takes it; the rest is tested with a real etcd.

use std::sync::Mutex;

use super::*;
use crate::admin::Surface;
use crate::admin::tests::support::{Options, Reply, options, proxy};

const SERVICE: &str =
    r#"{"put": {"services/lobby": "{\"protocol\": \"link\", \"framing\": {\"kind\": \"length\"}}"}}"#;

/// Has no document, and ends each transaction in this way.
struct FakeStore {
    end: Result<Committed, StoreError>,
    seen: Mutex<Vec<Transaction>>,
    proxies: Vec<ProxyWord>,
}

impl TableStore for FakeStore {
    fn read(&self) -> StoreFuture<'_, Listing> {
        Box::pin(async { Ok(Listing { revision: 41, ..Listing::default() }) })
    }

    fn commit(&self, transaction: Transaction) -> StoreFuture<'_, Committed> {
        self.seen.lock().unwrap().push(transaction);
        Box::pin(async { self.end.clone() })
    }

    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyWord>> {
        Box::pin(async { Ok(self.proxies.clone()) })
    }
}

async fn posted(end: Result<Committed, StoreError>, body: &str) -> (Reply, Vec<Transaction>) {
    let store = Arc::new(FakeStore { end, seen: Mutex::default(), proxies: Vec::new() });
    let tables = TableWriter::Store(Arc::clone(&store) as Arc<dyn TableStore>);
    let proxy = proxy(Options { tables, ..options(Surface::Admin) }).await;
    let reply = proxy.post("/table", body).await;
    let seen = store.seen.lock().unwrap().clone();
    (reply, seen)
}

#[tokio::test]
async fn a_good_change_is_one_transaction_of_what_was_listed() {
    let (reply, seen) = posted(Ok(Committed::At(42)), SERVICE).await;
    assert_eq!((reply.status, &reply.json()["revision"]), (200, &serde_json::json!(42)));
    let [transaction] = &*seen else { panic!("{seen:?}") };
    assert_eq!((transaction.listed_at, transaction.writes.len()), (41, 1));
    assert_eq!((&*transaction.writes[0].key, transaction.writes[0].expected), ("services/lobby", 0));
}

#[tokio::test]
async fn each_way_in_which_it_is_not_written_is_told_with_what_to_do() {
    for (end, status, told) in [
        (Ok(Committed::Changed(vec!["services/lobby".into()])), 409, "services/lobby changed meanwhile"),
        (Ok(Committed::TooMany), 400, "--max-txn-ops=1 or more"),
        (Ok(Committed::TooLarge), 400, "a larger --max-request-bytes"),
        (Ok(Committed::Refused("permission denied".into())), 503, "nothing is written: permission denied"),
        (Err(StoreError("cut off".into())), 503, "whether it is written isn't known: cut off"),
    ] {
        let (reply, _) = posted(end, SERVICE).await;
        assert!(
            reply.status == status && reply.error().contains(told),
            "{}: {}",
            reply.status,
            reply.error()
        );
    }
}

#[tokio::test]
async fn nothing_goes_to_the_store_that_is_refused_or_only_tried() {
    let refused = r#"{"put": {"services/lobby": "{}"}}"#;
    let (reply, seen) = posted(Ok(Committed::At(42)), refused).await;
    assert_eq!((reply.status, seen.len()), (400, 0));
    assert!(reply.error().contains("services/lobby: "), "{}", reply.error());
    let dry = SERVICE.replacen('{', r#"{"dry_run": true, "#, 1);
    let (reply, seen) = posted(Ok(Committed::At(42)), &dry).await;
    assert_eq!((reply.status, seen.len()), (200, 0));
    assert_eq!(reply.json()["keys"], serde_json::json!(["services/lobby"]));
}

#[tokio::test]
async fn who_says_yes_where_nothing_is_held_is_told_who_holds() {
    let word = |proxy: &str, held: &str| ProxyWord {
        proxy: proxy.to_owned(),
        schema: 2,
        held: vec![format!("{held}: 2 of 3 backends would be gone within 60 s")],
    };
    let proxies = vec![word("host-q", "arena"), word("host-r", "lobby")];
    let store = FakeStore { end: Ok(Committed::At(42)), seen: Mutex::default(), proxies };
    let tables = TableWriter::Store(Arc::new(store));
    let proxy = proxy(Options { tables, ..options(Surface::Admin) }).await;
    for (body, told) in [
        (
            r#"{"service": "arena"}"#,
            " of arena by this proxy, but by host-q: accept it there, --admin says where",
        ),
        ("{}", " by this proxy, but by host-q, host-r: accept it there, --admin says where"),
        (r#"{"service": "hall"}"#, " of hall"),
    ] {
        let reply = proxy.post("/accept", body).await;
        assert_eq!((reply.status, reply.error()), (404, format!("nothing is held{told}")));
    }
}

#[tokio::test]
async fn a_folder_is_written_by_people_and_the_answer_says_how() {
    let proxy = proxy(options(Surface::Admin)).await;
    let reply = proxy.post("/table", SERVICE).await;
    let told = "this proxy reads its documents from /etc/holdfast/routing, which is yours to write";
    assert!(reply.status == 409 && reply.error().contains(told), "{}", reply.error());
    let reply = proxy.post("/accept", r#"{"service": "arena"}"#).await;
    assert_eq!((reply.status, &*reply.error()), (404, "nothing is held of arena"));
    // What is held is accepted by a file, too.
    proxy.publish.send_modify(|published| {
        let held = Held {
            service: "arena".into(),
            since: 7,
            since_ms: 0,
            why: vec!["2 of 3 backends would be gone".into()],
            keys: vec!["backends/arena/a".into()],
            accept: crate::routing::document::RawAccept::default(),
        };
        Arc::make_mut(published).held = Arc::new([held]);
    });
    let reply = proxy.post("/accept", r#"{"reason": "moved"}"#).await;
    let told = "write there\naccepts/arena.json: {\"changes\":{},\"reason\":\"moved\"}";
    assert!(reply.status == 409 && reply.error().ends_with(told), "{}", reply.error());
    let reply = proxy.post("/accept", "{\"reason\": \"two\\nlines\"}").await;
    assert!(reply.status == 400 && reply.error().starts_with("reason: got"), "{}", reply.error());
}
