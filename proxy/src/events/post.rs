//! One post of events, on a connection of its own.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::EventWebhook;

const HTTP_PORT: u16 = 80;

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("no answer within {0} s")]
    Late(u64),
    #[error("connect to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("{0}")]
    Talk(#[from] hyper::Error),
    #[error("{0}")]
    Token(#[from] crate::config::FieldError),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("status {0}, expected 2xx")]
    Status(StatusCode),
}

impl PostError {
    /// Whether the same events may be taken later. Who calls them wrong will do so again.
    #[must_use]
    pub fn is_worth_trying_again(&self) -> bool {
        match self {
            Self::Status(status) => {
                let soon = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                // A token may be renewed on one side first.
                let token = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                !status.is_client_error() || soon.contains(status) || token.contains(status)
            }
            Self::Request(_) => false,
            _ => true,
        }
    }
}

/// # Errors
/// It wasn't taken.
pub async fn post(webhook: &EventWebhook, body: Bytes) -> Result<(), PostError> {
    let talk = tokio::time::timeout(webhook.timeout, talk(webhook, body));
    talk.await.unwrap_or_else(|_| Err(PostError::Late(webhook.timeout.as_secs())))
}

async fn talk(webhook: &EventWebhook, body: Bytes) -> Result<(), PostError> {
    let request = request(webhook, body)?;
    let host = webhook.url.host().unwrap_or_default();
    let address = format!("{host}:{}", webhook.url.port_u16().unwrap_or(HTTP_PORT));
    let stream = TcpStream::connect(&address).await.map_err(|error| PostError::Connect(address, error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The head of the answer is enough: with it the connection is dropped, however long the body would be.
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        // It may have ended right after the answer; if there was none, the request knows why.
        _ = connection => answer.await?,
    };
    if answer.status().is_success() { Ok(()) } else { Err(PostError::Status(answer.status())) }
}

fn request(webhook: &EventWebhook, body: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
    let path = webhook.url.path_and_query().map_or("/", |path| path.as_str());
    let host = webhook.url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, "holdfast")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close");
    if let Some(token) = &webhook.token {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.token()?)).map_err(hyper::http::Error::from)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    Ok(request.body(Full::new(body))?)
}
