//! Requests to answers. Every error is JSON with one field, `error`, that says what to do next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::AskError;
use super::drain_status::{self, DrainQuery};
use super::drains::{self, OrderError};
use super::hooks::{self, HookError};
use super::state::AdminState;
use super::tables::TableError;
use super::view::ErrorView;
use super::writes::{self, WriteError};
use super::{ejections, health, inspect, rollouts, tables};
use crate::telemetry::metrics::Exposition;

const MAX_BODY_BYTES: usize = 16 * 1024;
/// Of alerts: some hundreds with long annotations.
const MAX_ALERTS_BYTES: usize = 1024 * 1024;
/// A folder of documents; etcd takes less in one transaction.
const MAX_CHANGE_BYTES: usize = 16 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

pub(super) type Answer = Response<Full<Bytes>>;

/// Which paths a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `/livez`, `/readyz`, `/metrics`
    Health,
    /// Those, and the rest.
    Admin,
    /// `/hooks/alertmanager` alone.
    Hooks,
}

#[derive(Debug, Clone, Copy)]
enum Resource {
    Live,
    Ready,
    Metrics,
    Status,
    Sessions,
    Backends,
    Routes,
    Documents,
    Tables,
    Table,
    Accept,
    Held,
    Applied,
    Rollouts,
    Rollout,
    Drain,
    Undrain,
    Eject,
    Uneject,
    Register,
    Withdraw,
    Alertmanager,
}

impl Resource {
    fn find(surface: Surface, path: &str) -> Option<Self> {
        let resource = match path {
            "/hooks/alertmanager" if surface != Surface::Health => Self::Alertmanager,
            _ if surface == Surface::Hooks => return None,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            _ if surface == Surface::Health => return None,
            "/status" => Self::Status,
            "/sessions" => Self::Sessions,
            "/backends" => Self::Backends,
            "/routes" => Self::Routes,
            "/documents" => Self::Documents,
            "/tables" => Self::Tables,
            "/table" => Self::Table,
            "/accept" => Self::Accept,
            "/held" => Self::Held,
            "/applied" => Self::Applied,
            "/rollouts" => Self::Rollouts,
            "/rollout" => Self::Rollout,
            "/drain" => Self::Drain,
            "/undrain" => Self::Undrain,
            "/eject" => Self::Eject,
            "/uneject" => Self::Uneject,
            "/register" => Self::Register,
            "/withdraw" => Self::Withdraw,
            _ => return None,
        };
        Some(resource)
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Drain => "GET, POST",
            Self::Undrain
            | Self::Eject
            | Self::Uneject
            | Self::Register
            | Self::Withdraw
            | Self::Table
            | Self::Rollout
            | Self::Accept
            | Self::Alertmanager => "POST",
            _ => "GET, HEAD",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

pub(super) async fn answer(surface: Surface, state: Arc<AdminState>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let Some(resource) = Resource::find(surface, path) else {
        let paths = match surface {
            Surface::Health => "/livez, /readyz, /metrics (the rest is on the admin address)",
            Surface::Admin => {
                "/status, /sessions, /backends, /routes, /documents, /tables, /table, /held, /accept, /applied, /rollouts, /rollout, \
                 /drain, /undrain, /eject, /uneject, /register, /withdraw, /hooks/alertmanager, /livez, /readyz, /metrics"
            }
            Surface::Hooks => "/hooks/alertmanager (the rest is on the admin address)",
        };
        return error(StatusCode::NOT_FOUND, format!("no {path} here; there are {paths}"));
    };
    if !resource.allows(request.method()) {
        let text = format!("{} doesn't take {}; it takes {}", path, request.method(), resource.allow());
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, text);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.allow()));
        return answer;
    }
    dispatch(resource, &state, request).await.unwrap_or_else(|failure| error(failure.status, failure.text))
}

async fn dispatch(
    resource: Resource,
    state: &AdminState,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    Ok(match resource {
        Resource::Live => json(StatusCode::OK, &serde_json::json!({ "live": true })),
        Resource::Ready => {
            let view = health::ready(state);
            json(if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &view)
        }
        Resource::Metrics => metrics(state, &request)?,
        Resource::Status => json(StatusCode::OK, &inspect::status(state).await?),
        Resource::Sessions => {
            let limit = limit(request.uri().query())?;
            json(StatusCode::OK, &inspect::sessions(state, limit).await?)
        }
        Resource::Backends => json(StatusCode::OK, &inspect::backends(state).await?),
        Resource::Routes => json(StatusCode::OK, &inspect::routes(state)),
        Resource::Documents => {
            let view = match past(request.uri().query())? {
                None => tables::in_force(state),
                Some(number) => tables::of_number(state, number).await?,
            };
            json(StatusCode::OK, &view)
        }
        Resource::Tables => json(StatusCode::OK, &tables::all(state).await?),
        Resource::Table => json(StatusCode::OK, &writes::write(state, change(request).await?).await?),
        Resource::Accept => json(StatusCode::OK, &writes::accept(state, change(request).await?).await?),
        Resource::Held => json(StatusCode::OK, &writes::held(state).await),
        Resource::Applied => json(StatusCode::OK, &writes::applied(state).await?),
        Resource::Rollouts => json(StatusCode::OK, &rollouts::all(state)),
        Resource::Rollout => {
            let asked = body(request, MAX_BODY_BYTES, ROLLOUT).await?;
            json(StatusCode::OK, &rollouts::say(state, asked).await?)
        }
        Resource::Drain if request.method() == Method::GET => {
            let asked = DrainQuery::read(request.uri().query())?;
            json(StatusCode::OK, &drain_status::of(state, &asked).await?)
        }
        Resource::Drain => json(StatusCode::OK, &drains::drain(state, order(request).await?).await?),
        Resource::Eject => json(StatusCode::OK, &ejections::eject(state, order(request).await?).await?),
        Resource::Uneject => json(StatusCode::OK, &ejections::uneject(state, order(request).await?).await?),
        Resource::Undrain => json(StatusCode::OK, &drains::undrain(state, order(request).await?).await?),
        Resource::Register | Resource::Withdraw => {
            let NoParticulars {} = order(request).await?;
            let Some(registration) = &state.registration else { return Err(Failure::unregistered()) };
            let now = match resource {
                Resource::Register => registration.register().await,
                _ => registration.withdraw().await,
            };
            json(StatusCode::OK, &now)
        }
        Resource::Alertmanager => alerts(state, request).await?,
    })
}

/// What couldn't be written is to be sent again, which Alertmanager does after a 503.
async fn alerts(state: &AdminState, request: Request<Incoming>) -> Result<Answer, Failure> {
    state.hooks.admit(request.headers().get(AUTHORIZATION))?;
    let body = bytes(request, MAX_ALERTS_BYTES).await?;
    let (answer, again) = hooks::alertmanager(state, &body).await?;
    Ok(json(if again { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &answer))
}

fn metrics(state: &AdminState, request: &Request<Incoming>) -> Result<Answer, Failure> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::for_accept(accept);
    let internal = |_| Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: "the metrics can't be written".to_owned(),
    };
    let page = state.metrics.render(exposition).map_err(internal)?;
    Ok(respond(StatusCode::OK, exposition.content_type(), page.into()))
}

/// `limit=N` alone; anything else in the query is a slip.
fn limit(query: Option<&str>) -> Result<usize, Failure> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(DEFAULT_LIMIT) };
    query
        .strip_prefix("limit=")
        .and_then(|value| value.parse().ok())
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| {
            Failure::bad(format!("the query is {query:?}: expected limit=N, N from 1 to {MAX_LIMIT}"))
        })
}

/// `table=N` alone, or nothing.
fn past(query: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let number = query.strip_prefix("table=").and_then(|number| number.parse().ok());
    let bad = || Failure::bad(format!("the query is {query:?}: expected table=N, N a table of /tables"));
    number.map(Some).ok_or_else(bad)
}

impl DrainQuery {
    fn read(query: Option<&str>) -> Result<Self, Failure> {
        let expected = || {
            let given = query.unwrap_or_default();
            Failure::bad(format!(
                "the query is {given:?}: expected backend=SERVICE/NAME, and maybe revision=REVISION"
            ))
        };
        let (mut backend, mut revision) = (None, None);
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some(("backend", value)) => backend = Some(value.to_owned()),
                Some(("revision", value)) => revision = Some(value.parse().map_err(|_| expected())?),
                _ => return Err(expected()),
            }
        }
        Ok(Self { backend: backend.ok_or_else(expected)?, revision })
    }
}

const ORDER: &str = "{\"backend\": \"arena/a\", \"local\": true}";
const ROLLOUT: &str = "{\"service\": \"arena\", \"word\": {\"start\": {\"to\": \"1.5\"}}}";
const CHANGE: &str =
    "{\"put\": {\"services/arena\": \"..\"}, \"dry_run\": true}, or {\"service\": \"arena\"} for /accept";

/// Reads the body of a change of documents.
async fn change<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    body(request, MAX_CHANGE_BYTES, CHANGE).await
}

/// The body of an order that needs none: `{}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParticulars {}

/// Reads an order's body.
async fn order<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    body(request, MAX_BODY_BYTES, ORDER).await
}

async fn body<T: DeserializeOwned>(
    request: Request<Incoming>,
    max_bytes: usize,
    example: &str,
) -> Result<T, Failure> {
    let bytes = bytes(request, max_bytes).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::bad(format!("the body: {error}; expected JSON such as {example}")))
}

async fn bytes(request: Request<Incoming>, max_bytes: usize) -> Result<Bytes, Failure> {
    // A page in an operator's browser could otherwise post here; browsers say where such a request comes from.
    if request.headers().contains_key(ORIGIN) {
        let text = "orders are not taken from web pages (the request has an Origin header)".to_owned();
        return Err(Failure { status: StatusCode::FORBIDDEN, text });
    }
    let body = Limited::new(request.into_body(), max_bytes).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("the body is larger than {max_bytes} bytes");
            Err(Failure { status: StatusCode::PAYLOAD_TOO_LARGE, text })
        }
        Ok(Err(error)) => Err(Failure::bad(format!("the body can't be read: {error}"))),
        Err(_) => {
            let text = format!("the body didn't arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Failure { status: StatusCode::REQUEST_TIMEOUT, text })
        }
    }
}

/// An answer that isn't 2xx.
struct Failure {
    status: StatusCode,
    text: String,
}

impl Failure {
    fn bad(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text }
    }

    fn unregistered() -> Self {
        let text = "this proxy registers no backend: its config has no [register]".to_owned();
        Self { status: StatusCode::CONFLICT, text }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: error.to_string() }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self { status: table_status(&error), text: error.to_string() }
    }
}

fn table_status(error: &TableError) -> StatusCode {
    match error {
        TableError::Unknown { .. } => StatusCode::NOT_FOUND,
        TableError::Ambiguous { .. } => StatusCode::BAD_REQUEST,
        TableError::Disk(_) | TableError::Reader => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let status = match &error {
            WriteError::Invalid(_)
            | WriteError::Refused(_)
            | WriteError::TooMany(_)
            | WriteError::TooLarge(_) => StatusCode::BAD_REQUEST,
            WriteError::NothingHeld(_) => StatusCode::NOT_FOUND,
            WriteError::Files(_)
            | WriteError::AcceptInFiles { .. }
            | WriteError::Held(_)
            | WriteError::Changed(_) => StatusCode::CONFLICT,
            WriteError::Store(_) | WriteError::Unsure(_) => StatusCode::SERVICE_UNAVAILABLE,
            WriteError::Table(error) => table_status(error),
        };
        Self { status, text: error.to_string() }
    }
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Self {
        let status = match &error {
            HookError::Unauthorized => StatusCode::UNAUTHORIZED,
            HookError::Token(_) => StatusCode::SERVICE_UNAVAILABLE,
            HookError::Payload(_) => StatusCode::BAD_REQUEST,
            HookError::Files(_) => StatusCode::CONFLICT,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        let status = match &error {
            OrderError::Invalid { .. } => StatusCode::BAD_REQUEST,
            OrderError::Unknown { .. } => StatusCode::NOT_FOUND,
            OrderError::Files { .. } | OrderError::Folder { .. } => StatusCode::CONFLICT,
            OrderError::Store(_) | OrderError::Ejection(_) | OrderError::Ask(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self { status, text: error.to_string() }
    }
}

fn error(status: StatusCode, text: String) -> Answer {
    let mut answer = json(status, &ErrorView { error: text });
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn json(status: StatusCode, view: &impl Serialize) -> Answer {
    match serde_json::to_vec(view) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(status, "application/json", body.into())
        }
        Err(_) => {
            let body = Bytes::from_static(b"{\"error\":\"the answer can't be written as JSON\"}\n");
            respond(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body)
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
