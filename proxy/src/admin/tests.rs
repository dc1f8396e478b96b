//! The servers over real sockets, with workers that are tasks.

pub(crate) mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::routing::DrainOrder;
use crate::source::history::Snapshot;
use crate::source::{Origin, Published};
use support::{FakeStore, Options, id, options, proxy, published, table};

#[tokio::test]
async fn ready_means_listeners_and_a_table() {
    let proxy = proxy(options(Surface::Health)).await;
    let ready = proxy.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.body);
    let view = ready.json();
    assert_eq!(view["table"]["revision"], 17);
    assert_eq!(view["table"]["refused"], 1);
    assert_eq!((&view["backends_known"], &view["links_up"]), (&json!(2), &json!(1)));

    // A lost source is told, and changes nothing.
    let silent = Published {
        connected: false,
        last_contact: Some(SystemTime::now() - Duration::from_secs(90)),
        ..published(table(17))
    };
    proxy.publish.send_replace(Arc::new(silent));
    let lost = proxy.get("/readyz").await;
    assert_eq!(lost.status, 200);
    assert!(lost.json()["table"]["silent_s"].as_u64().unwrap() >= 90);

    let nothing = Published { origin: Origin::Nothing, ..published(table(0)) };
    proxy.publish.send_replace(Arc::new(nothing));
    proxy.state.listeners_bound.store(false, Ordering::Release);
    let starting = proxy.get("/readyz").await;
    assert_eq!(starting.status, 503);
    let waiting = json!(["the listeners to be bound", "a first routing table"]);
    assert_eq!(starting.json()["waiting_for"], waiting);
    assert_eq!(proxy.get("/livez").await.status, 200, "not ready is no reason to be restarted");
}

#[tokio::test]
async fn a_stopping_proxy_is_alive_and_not_ready() {
    let proxy = proxy(options(Surface::Admin)).await;
    proxy.state.set_stopping();
    assert_eq!(proxy.get("/livez").await.status, 200);
    let ready = proxy.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["stopping"]), (503, &json!(true)));
    assert_eq!(proxy.get("/status").await.json()["state"], "stopping");
}

#[tokio::test]
async fn metrics_speak_the_scrapers_format() {
    let proxy = proxy(options(Surface::Health)).await;
    let plain = proxy.get("/metrics").await;
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    assert!(
        plain.body.contains("\nholdfast_sessions 6\n")
            && plain.body.contains("\nholdfast_table_revision 17\n")
    );
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/openmetrics-text\r\n\r\n";
    let open = proxy.send(request).await;
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_health_address_takes_no_orders() {
    let proxy = proxy(options(Surface::Health)).await;
    for path in ["/sessions", "/backends", "/routes", "/status", "/drain"] {
        assert_eq!(proxy.get(path).await.status, 404, "{path}");
    }
    assert_eq!(proxy.post("/drain", r#"{"backend":"arena/a","local":true}"#).await.status, 404);
    assert!(proxy.fleet.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn sessions_are_listed_up_to_a_limit() {
    let proxy = proxy(options(Surface::Admin)).await;
    let all = proxy.get("/sessions").await.json();
    assert_eq!((all["sessions"].as_array().unwrap().len(), &all["total"]), (6, &json!(6)));
    let some = proxy.get("/sessions?limit=4").await.json();
    assert_eq!((some["sessions"].as_array().unwrap().len(), &some["total"]), (4, &json!(6)));
    for query in ["limit=0", "limit=x", "limit=10001", "top=3"] {
        let reply = proxy.get(&format!("/sessions?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.error().contains("N from 1 to 10000"), "{}", reply.error());
    }
}

#[tokio::test]
async fn backends_are_the_tables_and_the_links() {
    let proxy = proxy(options(Surface::Admin)).await;
    let view = proxy.get("/backends").await.json();
    let backends = view["backends"].as_array().unwrap();
    let names: Vec<_> = backends.iter().map(|backend| backend["backend"].as_str().unwrap()).collect();
    assert_eq!(names, ["arena/a", "arena/b", "arena/old"]);
    let (a, b, old) = (&backends[0], &backends[1], &backends[2]);
    assert_eq!((&a["link"], &a["sessions"], &a["left"]), (&json!("up"), &json!(4), &json!(2)));
    assert_eq!((&a["version"], &a["draining"]), (&json!("1.4.2"), &json!(["backend"])));
    assert_eq!((&b["link"], &b["version"]), (&json!("none"), &json!("1.4")));
    assert_eq!((&old["in_table"], &old["weight"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn routes_show_what_is_in_force_and_what_is_refused() {
    let proxy = proxy(options(Surface::Admin)).await;
    let mut table = table(18);
    let order =
        DrainOrder { backend: id("arena/b"), deadline: None, reason: "deploy".into(), instance: None };
    table.drains.insert(id("arena/b"), Arc::new(order));
    proxy.publish.send_replace(Arc::new(published(table)));
    let view = proxy.get("/routes").await.json();
    assert_eq!(view["table"]["revision"], 18);
    assert_eq!(view["drains"][0]["backend"], "arena/b");
    assert_eq!(
        view["refused"][0],
        json!({"key": "backends/arena/x", "error": "weight: got -1, expected 0 to 1000000", "since": 16, "last_good": true})
    );
    let backends = proxy.get("/backends").await.json();
    assert_eq!(
        backends["backends"][1]["draining"],
        json!(["key"]),
        "a drain of a backend nobody has dialled"
    );
}

#[tokio::test]
async fn a_local_drain_reaches_every_worker() {
    let proxy = proxy(options(Surface::Admin)).await;
    let body = r#"{"backend":"arena/a","deadline_s":60,"reason":"deploy","local":true}"#;
    let reply = proxy.post("/drain", body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let expected =
        json!({"backend": "arena/a", "scope": "local", "changed": true, "deadline_s": 60, "others": 1});
    assert_eq!(reply.json(), expected);
    let undrain = proxy.post("/undrain", r#"{"backend":"arena/a","local":true}"#).await.json();
    assert_eq!(undrain["changed"], false);
    let mut orders = proxy.fleet.orders.lock().unwrap().clone();
    orders.sort();
    let expected = [
        "0: drain arena/a Some(60s) deploy",
        "0: undrain arena/a",
        "1: drain arena/a Some(60s) deploy",
        "1: undrain arena/a",
    ];
    assert_eq!(orders, expected);
}

#[tokio::test]
async fn a_drain_for_all_proxies_is_written_to_the_store() {
    let store = Arc::new(FakeStore::default());
    let drains = DrainWriter::Store(Arc::clone(&store) as Arc<dyn DrainStore>);
    let proxy = proxy(Options { drains, ..options(Surface::Admin) }).await;
    let reply = proxy.post("/drain", r#"{"backend":"arena/b","deadline_s":9}"#).await.json();
    assert_eq!((&reply["scope"], &reply["key"]), (&json!("all"), &json!("/holdfast/config/drains/arena/b")));
    let expected =
        DrainKey { backend: id("arena/b"), deadline: Some(Duration::from_secs(9)), reason: String::new() };
    assert_eq!(*store.put.lock().unwrap(), [expected]);
    for changed in [true, false] {
        assert_eq!(proxy.post("/undrain", r#"{"backend":"arena/b"}"#).await.json()["changed"], changed);
    }
    assert!(proxy.fleet.orders.lock().unwrap().is_empty(), "workers hear of it through the table");

    store.failing.store(true, Ordering::Relaxed);
    let failed = proxy.post("/drain", r#"{"backend":"arena/b"}"#).await;
    assert_eq!(failed.status, 503);
    assert!(failed.error().contains("etcd is away"), "{}", failed.error());
}

#[tokio::test]
async fn with_files_only_a_local_drain_is_possible() {
    let proxy = proxy(options(Surface::Admin)).await;
    for (path, verb) in [("/drain", "write"), ("/undrain", "delete")] {
        let reply = proxy.post(path, r#"{"backend":"arena/a"}"#).await;
        assert_eq!(reply.status, 409);
        let file = format!("{verb} /etc/holdfast/routing/drains/arena/a.json yourself");
        assert!(reply.error().contains(&file) && reply.error().contains("--local"), "{}", reply.error());
    }
}

#[tokio::test]
async fn an_unknown_backend_is_named_beside_the_known_ones() {
    let proxy = proxy(options(Surface::Admin)).await;
    let reply = proxy.post("/drain", r#"{"backend":"arena/z","local":true}"#).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.error(), "no backend \"arena/z\"; known: arena/a, arena/b, arena/old");
    let old = proxy.post("/drain", r#"{"backend":"arena/old","local":true}"#).await;
    assert_eq!(old.status, 200, "its key is gone, its sessions may still have to move");
}

#[tokio::test]
async fn bad_orders_say_what_was_expected() {
    let proxy = proxy(options(Surface::Admin)).await;
    for (body, expected) in [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("{}", "missing field `backend`"),
        (r#"{"backend":"arena/a","deadline":5}"#, "unknown field `deadline`"),
        (r#"{"backend":"arena"}"#, "expected SERVICE/NAME"),
        (r#"{"backend":"/a"}"#, "expected SERVICE/NAME"),
        (r#"{"backend":"arena/a","deadline_s":0}"#, "from 1 to 86400"),
        (r#"{"backend":"arena/a","deadline_s":-1}"#, "expected u64"),
    ] {
        let reply = proxy.post("/drain", body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.error().contains(expected), "{body}: {}", reply.error());
    }
    let long = json!({"backend": "arena/a", "reason": "x".repeat(300)}).to_string();
    assert!(proxy.post("/drain", &long).await.error().contains("at most 256 bytes"));
    let huge = json!({"backend": "arena/a", "reason": "x".repeat(20_000)}).to_string();
    assert_eq!(proxy.post("/drain", &huge).await.status, 413);
    assert!(proxy.fleet.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_the_right_ones() {
    let proxy = proxy(options(Surface::Admin)).await;
    let missing = proxy.get("/session").await;
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("/sessions"), "{}", missing.error());
    let get = proxy.get("/undrain").await;
    assert_eq!(get.status, 405);
    assert!(get.head.contains("allow: post"), "{}", get.head);
    let post = proxy.post("/sessions", "").await;
    assert_eq!(post.status, 405);
    assert!(post.head.contains("allow: get, head"), "{}", post.head);
    let head = proxy.send("HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_web_page_can_order_nothing() {
    let proxy = proxy(options(Surface::Admin)).await;
    let body = r#"{"backend":"arena/a","local":true}"#;
    let head = "POST /drain HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: https://example.com";
    let reply = proxy.send(&format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(reply.status, 403);
    assert!(proxy.fleet.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_hung_worker_is_named_and_hangs_nobody_else() {
    let proxy = proxy(Options { hung_worker: true, ..options(Surface::Admin) }).await;
    assert!(proxy.hung.is_some());
    for path in ["/sessions", "/backends", "/status"] {
        let reply = proxy.get(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.error().starts_with("worker 1 didn't answer within 1 s"), "{}", reply.error());
    }
    for path in ["/livez", "/readyz", "/metrics", "/routes"] {
        assert_eq!(proxy.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // A dead process left its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = Address::Unix(path.clone());
    let proxy = proxy(Options { address: address.clone(), ..options(Surface::Admin) }).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(proxy.get("/status").await.json()["proxy"], "host-a");
    let taken = Listener::bind(&address).await.unwrap_err().to_string();
    assert!(taken.contains("admin.sock") && taken.contains("in use"), "{taken}");
    proxy.stop.cancel();
    proxy.server.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stopping_server_closes_idle_connections() {
    let proxy = proxy(options(Surface::Admin)).await;
    let Address::Tcp(address) = &proxy.address else { panic!("a TCP address") };
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    idle.read_exact(&mut first).await.unwrap();
    proxy.stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), proxy.server).await.unwrap().unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(3), idle.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_history_on_disk_is_listed_and_read_by_number() {
    let proxy = proxy(options(Surface::Admin)).await;
    assert_eq!(proxy.get("/tables").await.json()["tables"], json!([]));
    let (key, text) = ("services/arena", r#"{"protocol": "link", "framing": {"kind": "length"}}"#);
    let mut documents = crate::routing::Documents::default();
    documents.put(key, text.as_bytes(), 3);
    let compiled = crate::routing::compile(&documents, &crate::routing::LastGood::new(), 5);
    let applied_at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    let last_good = Arc::new(compiled.last_good);
    proxy.history().add(&Snapshot { revision: 5, applied_at, last_good }).unwrap();
    let tables = proxy.get("/tables").await.json();
    assert_eq!(tables["tables"], json!([{"number": 1, "revision": 5, "applied_ms": 7000}]));
    let past = proxy.get("/documents?table=1").await.json();
    assert_eq!(past["documents"], json!([{"key": key, "revision": 3, "text": text, "leased": false}]));
    let unknown = proxy.get("/documents?table=2").await;
    assert_eq!(
        (unknown.status, unknown.error()),
        (404, "there is no table 2 in the history; it has 1 to 1".to_owned())
    );
    assert_eq!(proxy.get("/documents?number=1").await.status, 400);
}
