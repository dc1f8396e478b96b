//! One request to a proxy's admin address, over TCP or a Unix socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Exit;
use crate::admin::Address;
use crate::admin::view::ErrorView;

const TIMEOUT: Duration = Duration::from_secs(5);
/// An order may wait for etcd, more than once.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why a command didn't get its answer, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "can't reach the proxy at {address}: {reason}\n\
         Is it running there? --admin or HOLDFAST_ADMIN names another address: the `bind` of [admin] in the proxy's config."
    )]
    Unreachable { address: Address, reason: String },
    /// The proxy's own words.
    #[error("{text}")]
    Refused { status: u16, text: String },
    #[error(
        "{address} answers, but not as a Holdfast admin address does ({reason}); check --admin and HOLDFAST_ADMIN"
    )]
    Foreign { address: Address, reason: String },
    /// What is on this side doesn't hold.
    #[error("{0}")]
    Here(String),
    #[error("the answer can't be printed: {0}")]
    Output(#[from] io::Error),
}

impl ClientError {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            // A reader that has enough (`| head`) is no failure of ours.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Refused { .. } | Self::Foreign { .. } | Self::Here(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// A proxy to ask.
#[derive(Debug)]
pub struct Client {
    address: Address,
}

impl Client {
    pub fn new(address: Address) -> Self {
        Self { address }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(io::Error::from)?;
        self.request(Method::POST, path, body.into()).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let limit = if method == Method::POST { ORDER_TIMEOUT } else { TIMEOUT };
        let (status, body) = match tokio::time::timeout(limit, self.exchange(method, path, body)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.unreachable(format!("no answer within {} s", limit.as_secs()))),
        };
        if !status.is_success() {
            return Err(match serde_json::from_slice::<ErrorView>(&body) {
                Ok(view) => ClientError::Refused { status: status.as_u16(), text: view.error },
                Err(_) => self.foreign(format!("HTTP {status} for {path}")),
            });
        }
        serde_json::from_slice(&body).map_err(|error| self.foreign(format!("{path}: {error}")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| self.foreign(format!("the path {path:?}")))?;
        let host = match &self.address {
            Address::Tcp(authority) => HeaderValue::from_str(authority),
            Address::Unix(_) => Ok(HeaderValue::from_static("localhost")),
        };
        request.headers_mut().insert(HOST, host.map_err(|_| self.unreachable("not a host name".to_owned()))?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let connected = |error: io::Error| self.unreachable(error.to_string());
        match &self.address {
            Address::Tcp(authority) => {
                self.speak(TcpStream::connect(authority).await.map_err(connected)?, request).await
            }
            Address::Unix(path) => {
                self.speak(UnixStream::connect(path).await.map_err(connected)?, request).await
            }
        }
    }

    async fn speak<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let foreign = |error: hyper::Error| self.foreign(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(foreign)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(foreign)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| self.foreign(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here, beside the exchange, so that nothing outlives it.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = exchange.as_mut() => answer,
            _ = connection.as_mut() => exchange.await,
        }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), reason }
    }

    fn foreign(&self, reason: String) -> ClientError {
        ClientError::Foreign { address: self.address.clone(), reason }
    }
}
