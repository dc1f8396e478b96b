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
