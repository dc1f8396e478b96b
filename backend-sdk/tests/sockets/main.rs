//! A server on real sockets, with a proxy side written by hand.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should fail where it stands")]

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use holdfast_backend::{Load, ServeError, Server};
use holdfast_protocol::Message;
use holdfast_protocol::message::{AttachMode, Rule};

use support::{Counting, Proxy, SLOW, attach, data, freeze, hello, release, start};

/// Long enough for a busy machine; no test waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(20);

async fn serve(
    address: &str,
) -> (String, holdfast_backend::Handle, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let server = Server::builder(Counting)
        .listen(address)
        .drain_deadline(DEADLINE)
        .signals(false)
        .settings(|settings| settings.hello_deadline = Duration::from_millis(200))
        .bind()
        .await
        .unwrap();
    let bound = server.link_addresses().first().map_or_else(|| address.to_owned(), ToString::to_string);
    let handle = server.handle();
    (bound, handle, tokio::spawn(server.serve()))
}

fn unix_address(name: &str) -> String {
    format!("unix:{}/holdfast-{}-{name}.sock", std::env::temp_dir().display(), std::process::id())
}

async fn plays_over(address: &str) {
    let (address, handle, served) = serve(address).await;
    let mut proxy = Proxy::connect(&address).await;
    proxy.greet(1).await;
    proxy.say(&[attach(1, AttachMode::Fresh), start(1), data(1, 1, b"a"), data(1, 2, b"b")]).await;
    assert!(matches!(proxy.next().await, Message::Attached(_)));
    for (seq, text) in [(1, "1 a"), (2, "2 b")] {
        let Message::Data(data) = proxy.next().await else { panic!("expected DATA") };
        assert_eq!((data.seq.0, data.ack.0), (seq, seq));
        assert_eq!(data.frame, text.as_bytes());
    }
    handle.drain();
    let Message::Drain(drain) = proxy.next().await else { panic!("expected DRAIN") };
    assert!(drain.returns && drain.deadline_ms > 0);
    proxy.say(&[freeze(1)]).await;
    let Message::State(state) = proxy.next().await else { panic!("expected STATE") };
    assert!(state.is_final && state.total_bytes == state.chunk.len() as u64);
    assert!(!served.is_finished(), "a session is still here");
    proxy.say(&[release(1)]).await;
    tokio::time::timeout(DEADLINE, served).await.expect("the server ends when it is empty").unwrap().unwrap();
}

#[tokio::test]
async fn a_session_is_played_and_drained_over_tcp() {
    plays_over("127.0.0.1:0").await;
}

#[tokio::test]
async fn a_session_is_played_and_drained_over_a_unix_socket() {
    let address = unix_address("play");
    plays_over(&address).await;
    let path = address.strip_prefix("unix:").unwrap();
    assert!(!std::path::Path::new(path).exists(), "the socket file goes with the server");
}

#[tokio::test]
async fn a_socket_file_left_behind_is_replaced_and_one_in_use_is_not() {
    let address = unix_address("stale");
    drop(std::os::unix::net::UnixListener::bind(address.strip_prefix("unix:").unwrap()).unwrap());
    let (_, handle, served) = serve(&address).await;
    let second = Server::builder(Counting).listen(&address).bind().await;
    assert!(second.unwrap_err().to_string().contains("another process serves this socket"));
    handle.stop();
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_game_that_is_slow_over_a_batch_answers_before_the_batch_is_done() {
    const FRAMES: u32 = 200;
    let (address, handle, _served) = serve("127.0.0.1:0").await;
    let mut proxy = Proxy::connect(&address).await;
    proxy.greet(1).await;
    proxy.say(&[attach(1, AttachMode::Fresh), start(1)]).await;
    assert!(matches!(proxy.next().await, Message::Attached(_)));
    let batch: Vec<_> = (1..=u64::from(FRAMES)).map(|seq| data(1, seq, b"slow")).collect();
    let begun = std::time::Instant::now();
    proxy.say(&batch).await;
    assert!(matches!(proxy.next().await, Message::Data(_)));
    assert!(begun.elapsed() < SLOW * FRAMES / 2, "the first answer came after {:?}", begun.elapsed());
    for _ in 1..FRAMES {
        assert!(matches!(proxy.next().await, Message::Data(_)), "all are answered");
    }
    handle.stop();
}

#[tokio::test]
async fn a_cut_link_is_resumed_by_a_newer_one() {
    let (address, handle, served) = serve("127.0.0.1:0").await;
    let mut first = Proxy::connect(&address).await;
    first.greet(1).await;
    first.say(&[attach(1, AttachMode::Fresh), start(1), data(1, 1, b"a")]).await;
    first.next().await;
    first.next().await;
    let mut second = Proxy::connect(&address).await;
    let Message::Welcome(welcome) = second.greet(2).await else { panic!("expected WELCOME") };
    let listed: Vec<_> =
        welcome.attachments.iter().map(|entry| (entry.client_seq.0, entry.server_seq.0)).collect();
    assert_eq!(listed, [(1, 1)]);
    assert!(first.is_closed().await, "the older link is closed");
    second.say(&[attach(1, AttachMode::Resume)]).await;
    assert!(matches!(second.next().await, Message::Attached(_)));
    let Message::Data(resent) = second.next().await else { panic!("expected DATA") };
    assert!(resent.again && resent.frame == b"1 a");
    second.say(&[data(1, 2, b"b")]).await;
    let Message::Data(answer) = second.next().await else { panic!("expected DATA") };
    assert_eq!(answer.frame, b"2 b");
    handle.stop();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_link_cut_while_nobody_is_connected_is_resumed() {
    let (address, _handle, _served) = serve("127.0.0.1:0").await;
    let mut first = Proxy::connect(&address).await;
    first.greet(1).await;
    first.say(&[attach(1, AttachMode::Fresh), start(1), data(1, 1, b"a")]).await;
    first.next().await;
    drop(first);
    let mut second = Proxy::connect(&address).await;
    let Message::Welcome(welcome) = second.greet(2).await else { panic!("expected WELCOME") };
    assert_eq!(welcome.attachments.len(), 1);
}

async fn refused_with(bytes: &[u8], rule: Rule) {
    let (address, _handle, _served) = serve("127.0.0.1:0").await;
    let mut healthy = Proxy::connect(&address).await;
    healthy.greet(1).await;
    healthy.say(&[attach(1, AttachMode::Fresh), start(1)]).await;
    healthy.next().await;
    let mut bad = Proxy::connect(&address).await;
    bad.write(bytes).await;
    let Message::Fault(fault) = bad.next().await else { panic!("expected FAULT") };
    assert_eq!(fault.rule, rule, "{}", fault.text);
    assert!(bad.is_closed().await);
    healthy.say(&[data(1, 1, b"a")]).await;
    assert!(matches!(healthy.next().await, Message::Data(_)), "other links aren't touched");
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_a_fault_of_that_link_alone() {
    refused_with(b"GET / HTTP/1.1\r\nHost: game\r\n\r\n", Rule::Malformed).await;
}

#[tokio::test]
async fn an_unknown_version_is_refused_by_name() {
    let hello = holdfast_protocol::message::Hello { min_version: 7, max_version: 9, ..hello(1, 5) };
    refused_with(&support::bytes_of(&Message::Hello(hello)), Rule::Version).await;
}

#[tokio::test]
async fn a_connection_without_a_hello_is_closed_at_the_deadline() {
    refused_with(b"", Rule::Handshake).await;
}

#[tokio::test]
async fn garbage_after_the_hello_is_a_fault_and_the_sessions_wait_for_the_next_link() {
    let (address, _handle, _served) = serve("127.0.0.1:0").await;
    let mut proxy = Proxy::connect(&address).await;
    proxy.greet(1).await;
    proxy.say(&[attach(1, AttachMode::Fresh), start(1)]).await;
    proxy.next().await;
    proxy.write(&[0xff; 64]).await;
    let Message::Fault(fault) = proxy.next().await else { panic!("expected FAULT") };
    assert_eq!(fault.rule, Rule::Malformed);
    assert!(proxy.is_closed().await);
    let mut next = Proxy::connect(&address).await;
    let Message::Welcome(welcome) = next.greet(2).await else { panic!("expected WELCOME") };
    assert_eq!(welcome.attachments.len(), 1);
}

#[tokio::test]
async fn an_empty_server_drains_at_once() {
    let (_, handle, served) = serve("127.0.0.1:0").await;
    handle.drain();
    tokio::time::timeout(DEADLINE, served).await.expect("it ends").unwrap().unwrap();
}

#[cfg(feature = "plain")]
#[tokio::test]
async fn players_are_served_without_a_proxy_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::builder(Counting).plain("127.0.0.1:0").signals(false).bind().await.unwrap();
    let address = server.plain_addresses()[0];
    let handle = server.handle();
    let served = tokio::spawn(server.serve());
    let mut player = tokio::net::TcpStream::connect(address).await.unwrap();
    player.write_all(b"\0\0\0\x01a\0\0\0\x02bc\0\0").await.unwrap();
    let mut answer = [0; 15];
    player.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x031 a\0\0\0\x042 bc");
    // The rest of a length of which half was there.
    player.write_all(b"\0\x04join").await.unwrap();
    let mut refusal = [0; 22];
    tokio::time::timeout(DEADLINE, player.read_exact(&mut refusal)).await.expect("an answer").unwrap();
    assert_eq!(&refusal, b"\0\0\0\x063 join\0\0\0\x08no proxy", "there are no groups here");
    handle.drain();
    tokio::time::timeout(DEADLINE, served).await.expect("it ends").unwrap().unwrap();
    assert_eq!(player.read(&mut answer).await.unwrap_or(0), 0, "the player is let go");
}

#[tokio::test]
async fn a_silent_proxy_is_asked_for_a_sign_of_life_and_then_its_link_is_closed() {
    let (address, _handle, _served) = serve("127.0.0.1:0").await;
    let mut proxy = Proxy::connect(&address).await;
    let hello = holdfast_protocol::message::Hello { liveness_ms: 600, ..hello(1, 0) };
    proxy.say(&[Message::Hello(hello)]).await;
    assert!(matches!(proxy.next().await, Message::Welcome(_)));
    assert!(matches!(proxy.next().await, Message::Ping(_)));
    let closed = async { while !proxy.is_closed().await {} };
    tokio::time::timeout(DEADLINE, closed).await.expect("the link is closed");
}

#[tokio::test]
async fn a_load_that_changes_all_the_time_is_told_four_times_a_second_at_most() {
    let load = Load::default();
    let server = Server::builder(Counting).listen("127.0.0.1:0").signals(false).load(&load).capacity(8);
    let server = server.bind().await.unwrap();
    let (address, handle) = (server.link_addresses()[0].to_string(), server.handle());
    let served = tokio::spawn(server.serve());
    let mut proxy = Proxy::connect(&address).await;
    proxy.greet(1).await;
    assert_eq!(told(&mut proxy).await, (Some(8), None), "what was known is told at once");
    let changing = tokio::spawn({
        let load = load.clone();
        async move {
            for permille in 0.. {
                load.set_permille(permille % 1000);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        told(&mut proxy).await;
    }
    let took = begun.elapsed();
    // The first may come at once, and each of the others a quarter of a second later.
    assert!(took >= Duration::from_millis(4 * 250 - 50), "five in {took:?}");
    changing.abort();
    assert!(changing.await.is_err_and(|end| end.is_cancelled()));
    load.set(0.5);
    while told(&mut proxy).await != (Some(8), Some(500)) {}
    handle.stop();
    served.await.unwrap().unwrap();
}

/// What the next PONG that nobody asked for tells.
async fn told(proxy: &mut Proxy) -> (Option<u32>, Option<u16>) {
    let Message::Pong(pong) = proxy.next().await else { panic!("expected PONG") };
    assert_eq!(pong.nonce, 0);
    (pong.capacity.map(NonZeroU32::get), pong.load_permille)
}
