//! The queue and the posts, with a receiver over a real socket.

use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::event::Kind;
use super::*;

/// Answers each post with the next of these statuses, the last for good; keeps the reasons of the events it took.
struct Taker {
    url: String,
    taken: Arc<Mutex<Vec<String>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

async fn receiver(statuses: &'static [u16]) -> Taker {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events?x=1", listener.local_addr().unwrap());
    let (taken, heads) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let (takes, sees) = (Arc::clone(&taken), Arc::clone(&heads));
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut text = String::new();
            let mut chunk = [0; 4096];
            while !text.ends_with("]}") {
                let read = stream.read(&mut chunk).await.unwrap();
                text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
            }
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            sees.lock().unwrap().push(head.to_lowercase());
            let status = *statuses.get(number).unwrap_or(statuses.last().unwrap());
            if status == 200 {
                let body: Value = serde_json::from_str(body).unwrap();
                let reasons =
                    body["events"].as_array().unwrap().iter().map(|e| e["reason"].as_str().unwrap());
                takes.lock().unwrap().extend(reasons.map(str::to_owned));
            }
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Taker { url, taken, heads }
}

struct Bench {
    queue: Arc<Queue>,
    stats: Arc<Stats>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn posting_to(url: &str, token: Option<crate::config::TokenFile>, capacity: usize) -> Self {
        let webhook = EventWebhook { url: url.parse().unwrap(), token, timeout: Duration::from_secs(5) };
        let (stats, stop) = (Arc::<Stats>::default(), CancellationToken::new());
        let queue = Arc::new(Queue::new(capacity, &stats));
        let sink = Sink::new(Arc::clone(&queue), &"host-a".into(), &stats);
        let task = tokio::spawn(sink.post(webhook, stop.clone()));
        Self { queue, stats, stop, task }
    }

    fn tell(&self, reason: &str) {
        self.queue.push(Arc::new(Event::new(Kind::TableApplied, reason.to_owned())));
    }

    async fn until(&self, what: &str, holds: impl Fn(&super::super::EventsView) -> bool) {
        let begun = Instant::now();
        while !holds(&self.stats.view()) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.stats.view());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn events_are_posted_in_their_order_with_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let receiver = receiver(&[200]).await;
    let bench = Bench::posting_to(&receiver.url, Some(crate::config::TokenFile::new(&file)), 1024);
    let reasons: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    for reason in &reasons {
        bench.tell(reason);
        tokio::task::yield_now().await;
    }
    bench.until("all are sent", |view| view.sent == 200).await;
    assert_eq!(*receiver.taken.lock().unwrap(), reasons);
    let heads = receiver.heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("post /events?x=1 http/1.1")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("authorization: bearer s3cret")), "{heads:?}");
}

#[tokio::test]
async fn what_fails_is_tried_again_and_what_is_refused_is_counted() {
    let receiver = receiver(&[503, 500, 200, 400, 200]).await;
    let bench = Bench::posting_to(&receiver.url, None, 1024);
    bench.tell("again");
    bench.until("the first is taken", |view| view.sent == 1).await;
    bench.tell("refused");
    bench.until("it is refused", |view| view.failed == 1).await;
    bench.tell("next");
    bench.until("the next is taken", |view| view.sent == 2).await;
    assert_eq!(*receiver.taken.lock().unwrap(), ["again", "next"]);
}

#[tokio::test]
async fn a_dead_receiver_costs_the_oldest_events_and_holds_up_nobody() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bench = Bench::posting_to(&format!("http://{dead}/"), None, 16);
    let begun = Instant::now();
    (0..10_000).for_each(|number| bench.tell(&number.to_string()));
    assert!(begun.elapsed() < Duration::from_secs(5), "telling waits for nobody: {:?}", begun.elapsed());
    assert_eq!(bench.stats.view().dropped, 10_000 - 16, "it is known at once");
    bench.stop.cancel();
    bench.task.await.unwrap();
    let view = bench.stats.view();
    assert_eq!((view.sent, view.dropped, view.failed), (0, 10_000 - 16, 16));
}

#[tokio::test]
async fn what_waits_when_the_proxy_ends_is_still_printed() {
    let (stats, stop) = (Arc::<Stats>::default(), CancellationToken::new());
    let queue = Arc::new(Queue::new(16, &stats));
    let told = |reason: &str| queue.push(Arc::new(Event::new(Kind::TableApplied, reason.to_owned())));
    ["one", "two"].into_iter().for_each(told);
    stop.cancel();
    Sink::new(Arc::clone(&queue), &"host-a".into(), &stats).print(stop).await;
    let view = stats.view();
    assert_eq!((view.sent, view.failed, queue.take().len()), (2, 0, 0));
}
