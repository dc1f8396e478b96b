//! Alerts over a real socket, with a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::admin::tests::support::{Options, Proxy, Reply, options, proxy, published, table};
use crate::admin::{StoreError, StoreFuture, Surface};
use crate::hooks::Mark;
use crate::routing::Hook;
use crate::routing::table::{DrainOrder, HookAction, TakeOut, TakeOutOrder};

/// Does the first of each, and knows it again.
#[derive(Default, Clone)]
struct FakeHooks {
    opened: Arc<AtomicUsize>,
    deeds: Arc<Mutex<Vec<Deed>>>,
    away: Arc<AtomicBool>,
}

/// The store refuses whatever is for this backend.
const CURSED: &str = "cursed";

fn backend(deed: &Deed) -> &str {
    match deed {
        Deed::TakeOut { backend, .. } | Deed::PutBack { backend, .. } => &backend.name,
        Deed::Abort { service, .. } => service,
    }
}

impl HookStore for FakeHooks {
    fn open(&self) -> Box<dyn HookWriter> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Box::new(self.clone())
    }
}

impl HookWriter for FakeHooks {
    fn carry_out(&mut self, deed: Deed) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            if backend(&deed) == CURSED {
                return Ok(Outcome::Failed("permission denied".to_owned()));
            }
            if self.away.load(Ordering::Relaxed) {
                return Err(StoreError("etcd is away".to_owned()));
            }
            let mut deeds = self.deeds.lock().unwrap();
            if deeds.contains(&deed) {
                return Ok(Outcome::Already("it stands".to_owned()));
            }
            deeds.push(deed);
            Ok(Outcome::Done("drains/arena/a".to_owned()))
        })
    }
}

fn hook(name: &str, alertname: &str) -> (String, Arc<Hook>) {
    let order = TakeOutOrder::Drain { deadline: None };
    let action = HookAction::TakeOut(TakeOut {
        order,
        backend_label: "backend".to_owned(),
        max_percent: 50,
        undo: true,
    });
    let labels = BTreeMap::from([("alertname".to_owned(), alertname.to_owned())]);
    let hook = Hook { name: name.into(), labels, service_label: "service".to_owned(), action };
    (name.to_owned(), Arc::new(hook))
}

async fn desk(surface: Surface, token: Option<TokenFile>) -> (Proxy, FakeHooks) {
    let store = FakeHooks::default();
    let orders = HookOrders::Store(Arc::new(store.clone()));
    let hooks = HookDesk { token, orders, ..HookDesk::default() };
    let proxy = proxy(Options { hooks, ..options(surface) }).await;
    let mut table = table(17);
    table.hooks.extend([hook("hot", "ArenaHot")]);
    proxy.publish.send_replace(Arc::new(published(table)));
    (proxy, store)
}

fn alert(status: &str, name: &str, backend: &str) -> Value {
    let labels = json!({"alertname": name, "backend": backend});
    json!({"status": status, "labels": labels, "annotations": {}, "fingerprint": "f1"})
}

fn payload(alerts: &[Value]) -> String {
    json!({"version": "4", "status": "firing", "receiver": "r", "alerts": alerts}).to_string()
}

async fn post(proxy: &Proxy, body: &str) -> Reply {
    proxy.post("/hooks/alertmanager", body).await
}

fn results(reply: &Reply) -> Vec<Value> {
    reply.json()["alerts"].as_array().unwrap().iter().map(|row| row["result"].clone()).collect()
}

#[tokio::test]
async fn each_alert_is_answered_by_what_was_done() {
    let (proxy, store) = desk(Surface::Admin, None).await;
    let alerts = [
        alert("firing", "ArenaHot", "arena/a"),
        alert("firing", "ArenaHot", "arena/z"),
        alert("firing", "DiskFull", "arena/a"),
    ];
    let first = post(&proxy, &payload(&alerts)).await;
    assert_eq!(
        (first.status, results(&first)),
        (200, vec![json!("done"), json!("refused"), json!("no rule")])
    );
    let row = &first.json()["alerts"][0];
    assert_eq!(
        (&row["hook"], &row["action"], &row["target"], &row["detail"]),
        (&json!("hot"), &json!("drain"), &json!("arena/a"), &json!("drains/arena/a"))
    );
    let again = post(&proxy, &payload(&alerts[..1])).await;
    assert_eq!((again.status, results(&again)), (200, vec![json!("already")]));
    assert_eq!(store.deeds.lock().unwrap().len(), 1);
    let counts = proxy.state.hooks.counts.all();
    let count = |action: &str, result: &str| {
        let labels = [("action", action), ("result", result)];
        counts.iter().find(|(found, _)| *found == labels).unwrap().1
    };
    let told = [
        count("drain", "done"),
        count("drain", "already"),
        count("drain", "refused"),
        count("none", "no_rule"),
    ];
    assert_eq!(told, [1; 4]);
}

#[tokio::test]
async fn a_store_that_is_away_is_a_503_so_that_the_alerts_are_sent_again() {
    let (proxy, store) = desk(Surface::Admin, None).await;
    store.away.store(true, Ordering::Relaxed);
    let alerts = [alert("firing", "ArenaHot", "arena/a"), alert("firing", "ArenaHot", "arena/b")];
    let reply = post(&proxy, &payload(&alerts)).await;
    assert_eq!((reply.status, results(&reply)), (503, vec![json!("failed"), json!("failed")]));
    assert!(reply.error().contains("etcd is away"), "{}", reply.body);
    store.away.store(false, Ordering::Relaxed);
    assert_eq!(post(&proxy, &payload(&alerts)).await.status, 200);
}

#[tokio::test]
async fn what_is_over_goes_first_and_what_stands_last_over_one_connection() {
    let (proxy, store) = desk(Surface::Admin, None).await;
    let mut table = (*proxy.state.published().table).clone();
    let b = table.backends.keys().find(|id| &*id.name == "b").unwrap().clone();
    let drain =
        DrainOrder { backend: b.clone(), deadline: None, reason: "deploy".to_owned(), instance: None };
    table.drains.insert(b, Arc::new(drain));
    proxy.publish.send_replace(Arc::new(published(table)));
    let mut over = alert("resolved", "ArenaHot", "arena/a");
    over["fingerprint"] = "f2".into();
    let alerts = [alert("firing", "ArenaHot", "arena/b"), alert("firing", "ArenaHot", "arena/a"), over];
    let reply = post(&proxy, &payload(&alerts)).await;
    let statuses: Vec<_> =
        reply.json()["alerts"].as_array().unwrap().iter().map(|row| row["status"].clone()).collect();
    assert_eq!(statuses, ["firing", "firing", "resolved"], "the answer is in the alerts' order");
    let deeds = store.deeds.lock().unwrap();
    let done: Vec<_> =
        deeds.iter().map(|deed| (matches!(deed, Deed::PutBack { .. }), backend(deed))).collect();
    assert_eq!(done, [(true, "a"), (false, "a"), (false, "b")]);
    assert_eq!(store.opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_deed_that_always_fails_holds_up_no_other() {
    let (proxy, store) = desk(Surface::Admin, None).await;
    let cursed = alert("resolved", "ArenaHot", &format!("arena/{CURSED}"));
    let alerts = [cursed, alert("firing", "ArenaHot", "arena/a")];
    let reply = post(&proxy, &payload(&alerts)).await;
    assert_eq!((reply.status, results(&reply)), (503, vec![json!("failed"), json!("done")]));
    assert!(reply.error().contains("permission denied"), "{}", reply.body);
    assert_eq!(store.deeds.lock().unwrap().len(), 1);
}

/// Never answers.
struct Mute;

impl HookWriter for Mute {
    fn carry_out(&mut self, _: Deed) -> StoreFuture<'_, Outcome> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn out_of_time_only_what_does_not_stand_is_to_be_sent_again() {
    let deed = || {
        let mark = Mark { by: String::new(), reason: String::new() };
        Deed::Abort { service: "arena".into(), version: None, mark }
    };
    let mut writing = Writing { deadline: Instant::now(), ..Writing::begin(Box::new(Mute)) };
    assert_eq!(writing.carry_out(deed(), None).await.name(), "failed");
    assert_eq!(writing.carry_out(deed(), Some("deploy".to_owned())).await.name(), "already");
    writing.undone = true;
    assert_eq!(writing.carry_out(deed(), Some("deploy".to_owned())).await.name(), "failed");
}

#[tokio::test]
async fn who_has_no_token_is_not_heard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let (proxy, store) = desk(Surface::Hooks, Some(TokenFile::new(&file))).await;
    let body = payload(&[alert("firing", "ArenaHot", "arena/a")]);
    let with = |header: &str| {
        let length = body.len();
        format!(
            "POST /hooks/alertmanager HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}content-length: {length}\r\n\r\n{body}"
        )
    };
    for header in [
        "",
        "authorization: Bearer s3creT\r\n",
        "authorization: Bearer s3cret2\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic s3cret\r\n",
    ] {
        let reply = proxy.send(&with(header)).await;
        assert_eq!(reply.status, 401, "{header:?}");
        assert!(reply.head.contains("www-authenticate: bearer"), "{}", reply.head);
    }
    assert_eq!(store.deeds.lock().unwrap().len(), 0);
    assert_eq!(proxy.send(&with("authorization: Bearer s3cret\r\n")).await.status, 200);
    // Renewed in its place; and gone, which lets nobody in.
    std::fs::write(&file, "next").unwrap();
    assert_eq!(proxy.send(&with("authorization: Bearer s3cret\r\n")).await.status, 401);
    assert_eq!(proxy.send(&with("authorization: Bearer next\r\n")).await.status, 200);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(proxy.send(&with("authorization: Bearer next\r\n")).await.status, 503);
}

#[tokio::test]
async fn what_is_no_alert_is_refused_and_said_why() {
    let (proxy, _) = desk(Surface::Admin, None).await;
    let reply = post(&proxy, "{}").await;
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("missing field `version`"), "{}", reply.body);
    let long = format!("{{\"version\": \"{}\"", "4".repeat(1024 * 1024));
    assert_eq!(post(&proxy, &long).await.status, 413);
    assert_eq!(proxy.get("/hooks/alertmanager").await.status, 405);
}

#[tokio::test]
async fn the_address_for_alerts_has_nothing_else_and_that_for_kubelets_not_this() {
    let (alerts, _) = desk(Surface::Hooks, None).await;
    for path in ["/livez", "/status", "/drain", "/metrics"] {
        assert_eq!(alerts.get(path).await.status, 404, "{path}");
    }
    let (health, _) = desk(Surface::Health, None).await;
    assert_eq!(post(&health, &payload(&[])).await.status, 404);
}

#[tokio::test]
async fn documents_in_files_are_not_written_by_hooks() {
    let hooks = HookDesk { orders: HookOrders::Files("/etc/holdfast".into()), ..HookDesk::default() };
    let proxy = proxy(Options { hooks, ..options(Surface::Admin) }).await;
    let reply = post(&proxy, &payload(&[alert("firing", "ArenaHot", "arena/a")])).await;
    assert_eq!(reply.status, 409, "Alertmanager doesn't send it again");
    assert!(reply.error().contains("/etc/holdfast"), "{}", reply.body);
}
