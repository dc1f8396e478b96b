//! One check of one backend: a PING on its link, a connection, or a GET.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::subset::Target;
use crate::routing::table::CheckKind;
use crate::routing::{BackendAddress, BackendId};
use crate::worker::command::Command;

/// The error says what was found instead, in words.
pub async fn probe(
    backend: &BackendId,
    target: &Target,
    worker: &mpsc::Sender<Command>,
) -> Result<(), String> {
    let timeout = target.policy.timeout;
    let answer = async {
        match &target.policy.kind {
            CheckKind::Link => ask_on_link(backend, worker).await,
            CheckKind::Tcp { port } | CheckKind::Http { port, .. } => ask(target, *port).await,
        }
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{} within {}", missing(&target.policy.kind), milliseconds(timeout))),
    }
}

fn missing(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::Link => "no PONG on the link",
        CheckKind::Tcp { .. } | CheckKind::Http { .. } => "no answer",
    }
}

/// The worker has the link.
async fn ask_on_link(backend: &BackendId, worker: &mpsc::Sender<Command>) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let asked = worker.send(Command::CheckLink { backend: backend.clone(), answer }).await;
    asked.map_err(|_| "the proxy ends".to_owned())?;
    answered.await.map_err(|_| "the proxy has no link to it".to_owned())
}

async fn ask(target: &Target, port: Option<u16>) -> Result<(), String> {
    match address(&target.address, port) {
        BackendAddress::Tcp(address) => {
            let connect = TcpStream::connect(&*address).await;
            speak(target, &address, connect.map_err(|error| format!("connect to {address}: {error}"))?).await
        }
        BackendAddress::Unix(path) => {
            let connect = UnixStream::connect(&path).await;
            let shown = path.display();
            speak(target, "localhost", connect.map_err(|error| format!("connect to {shown}: {error}"))?).await
        }
    }
}

/// The backend's own, with another port if there is one.
fn address(own: &BackendAddress, port: Option<u16>) -> BackendAddress {
    match (own, port) {
        (_, None) => own.clone(),
        (BackendAddress::Unix(_), Some(port)) => BackendAddress::Tcp(format!("127.0.0.1:{port}").into()),
        (BackendAddress::Tcp(address), Some(port)) => {
            let host = address.rsplit_once(':').map_or(&**address, |(host, _)| host);
            BackendAddress::Tcp(format!("{host}:{port}").into())
        }
    }
}

async fn speak<S>(target: &Target, host: &str, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let CheckKind::Http { path, expect, .. } = &target.policy.kind else { return Ok(()) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("GET {path}: {error}"))?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|_| format!("GET {path}: no path"))?;
    let host = HeaderValue::from_str(host).map_err(|_| format!("GET {path}: {host} is no host name"))?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("holdfast"));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    // The head of the answer is enough: with it the connection is dropped, however long the body would be.
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // It may have ended right after the answer; if there was none, the request knows why.
        _ = connection => answer.await,
    };
    let status = answer.map_err(|error| format!("GET {path}: {error}"))?.status().as_u16();
    if expect.contains(&status) {
        return Ok(());
    }
    Err(format!("GET {path}: status {status}, expected {}", list(expect)))
}

fn list(statuses: &[u16]) -> String {
    statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::routing::table::CheckPolicy;

    fn target(address: &str, kind: CheckKind) -> Target {
        let policy = CheckPolicy {
            kind,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: 1,
            healthy_after: 1,
            subset: 1,
        };
        Target { address: BackendAddress::Tcp(address.into()), policy }
    }

    /// With a worker that answers checks of links by the backend's name.
    async fn probe(target: &Target) -> Result<(), String> {
        probe_named("a", target).await
    }

    async fn probe_named(name: &str, target: &Target) -> Result<(), String> {
        let (worker, mut commands) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Command::CheckLink { backend, answer }) = commands.recv().await {
                match &*backend.name {
                    "well" => answer.send(()).unwrap(),
                    "mute" => std::mem::forget(answer),
                    _ => drop(answer),
                }
            }
        });
        super::probe(&BackendId { service: "arena".into(), name: name.into() }, target, &worker).await
    }

    #[tokio::test]
    async fn a_link_passes_if_its_ping_comes_back_in_time() {
        let link = target("127.0.0.1:1", CheckKind::Link);
        assert_eq!(probe_named("well", &link).await, Ok(()));
        assert_eq!(probe_named("mute", &link).await, Err("no PONG on the link within 500 ms".to_owned()));
        assert_eq!(probe_named("gone", &link).await, Err("the proxy has no link to it".to_owned()));
    }

    fn http(expect: &[u16]) -> CheckKind {
        CheckKind::Http { port: None, path: "/healthz".into(), expect: expect.into() }
    }

    /// Answers each connection with that, and closes it.
    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                if answer.is_empty() {
                    std::mem::forget(stream);
                } else if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_status_passes_if_it_is_expected() {
        let ok = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(probe(&target(&ok, http(&[200, 204]))).await, Ok(()));
        let failed = probe(&target(&ok, http(&[200, 301]))).await;
        assert_eq!(failed, Err("GET /healthz: status 204, expected 200 or 301".to_owned()));
    }

    #[tokio::test]
    async fn who_takes_a_connection_and_says_nothing_passes_tcp_and_fails_http() {
        let mute = answering("").await;
        assert_eq!(probe(&target(&mute, CheckKind::Tcp { port: None })).await, Ok(()));
        assert_eq!(probe(&target(&mute, http(&[200]))).await, Err("no answer within 500 ms".to_owned()));
        let other = answering("220 mail\r\n").await;
        assert!(probe(&target(&other, http(&[200]))).await.unwrap_err().starts_with("GET /healthz: "));
    }

    #[tokio::test]
    async fn a_port_of_its_own_is_the_one_that_is_asked() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = answering("HTTP/1.1 200 OK\r\n\r\n").await;
        let port = open.rsplit_once(':').unwrap().1.parse().ok();
        let error = probe(&target(&closed.to_string(), CheckKind::Tcp { port: None })).await.unwrap_err();
        assert!(error.contains(&closed.to_string()) && error.contains("refused"), "{error}");
        assert_eq!(probe(&target(&closed.to_string(), CheckKind::Tcp { port })).await, Ok(()));
        assert_eq!(
            address(&BackendAddress::Unix("/run/a".into()), Some(80)),
            BackendAddress::Tcp("127.0.0.1:80".into())
        );
        assert_eq!(
            address(&BackendAddress::Tcp("[::1]:7000".into()), Some(80)),
            BackendAddress::Tcp("[::1]:80".into())
        );
    }
}
