//! A client for health and admin pages: one request, one connection, one answer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY_BYTES: usize = 64 << 20;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// `address` is `ip:port` or `unix:/path`.
pub fn get(address: &str, path: &str) -> Result<Answer> {
    call(Method::GET, address, path, String::new())
}

pub fn post(address: &str, path: &str, body: &Value) -> Result<Answer> {
    call(Method::POST, address, path, body.to_string())
}

/// A page that must be there.
pub fn get_json(address: &str, path: &str) -> Result<Value> {
    let answer = get(address, path)?;
    if answer.status != 200 {
        bail!("GET {address}{path}: {} {}", answer.status, answer.body);
    }
    answer.json()
}

fn call(method: Method, address: &str, path: &str, body: String) -> Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let what = format!("{method} {address}{path}");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    runtime
        .block_on(async { tokio::time::timeout(TIMEOUT, exchange(address, request)).await })
        .with_context(|| format!("{what}: no answer in {TIMEOUT:?}"))?
        .with_context(|| what)
}

async fn exchange(address: &str, request: Request<Full<Bytes>>) -> Result<Answer> {
    match address.strip_prefix("unix:") {
        Some(path) => ask(TokioIo::new(UnixStream::connect(path).await?), request).await,
        None => ask(TokioIo::new(TcpStream::connect(address).await?), request).await,
    }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    driver.abort();
    let body = body.map_err(|error| anyhow::anyhow!("its body: {error}"))?.to_bytes();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request, and returns it.
    fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut chunk) = (String::new(), [0; 1024]);
            while !(request.contains("\r\n\r\n") && (request.starts_with("GET") || request.ends_with('}'))) {
                let bytes = stream.read(&mut chunk).unwrap();
                request.push_str(std::str::from_utf8(&chunk[..bytes]).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (address, server)
    }

    #[test]
    fn pages_are_read_and_documents_posted() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}");
        assert_eq!(get_json(&address, "/x").unwrap()["a"], 1);
        assert!(server.join().unwrap().starts_with("GET /x HTTP/1.1"));
        let (address, server) = serve("HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno");
        let answer = post(&address, "/drain", &serde_json::json!({"b": 2})).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (409, "no"));
        assert!(server.join().unwrap().ends_with("{\"b\":2}"));
    }

    #[test]
    fn an_error_names_what_was_asked() {
        let nobody = crate::free_address().unwrap().to_string();
        let error = format!("{:#}", get(&nobody, "/readyz").unwrap_err());
        assert!(error.contains(&format!("GET {nobody}/readyz")), "{error}");
    }
}
