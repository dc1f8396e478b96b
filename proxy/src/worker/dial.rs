//! The task of one link: dials when somebody needs the backend, shakes hands, serves. What it all means for sessions is
//! decided in [`super::link_life`].

use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use holdfast_protocol::codec::{self, capability};
use holdfast_protocol::message::{Message, MessageType, Rule};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::link::Peer;
use super::stream::Stream;
use super::{Worker, with_worker};
use crate::routing::BackendAddress;
use crate::session::LinkId;

/// What this proxy can do, as HELLO says it.
pub(super) const OFFERED: u64 =
    capability::REPLAY | capability::DELTA | capability::CHECKPOINTS | capability::GROUPS;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The same while sessions wait to hear whether their backend is still there: a process that was killed may take a dial
/// in the moment of its end.
pub(super) const BACKOFF_CUT: Duration = Duration::from_millis(1);
/// However urgent it is, a backend isn't dialled again sooner.
const PAUSE_LEAST: Duration = Duration::from_millis(10);
/// A link that lived so long was a good one: a backend that loses it is dialled again at once.
const STEADY: Duration = Duration::from_secs(1);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connect to {address}: no answer within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout { address: String },
    #[error("handshake: {0}")]
    Handshake(String),
    /// What came instead of WELCOME breaks the link's rules.
    #[error("handshake: the backend broke the link's rules: {text}")]
    Fault { rule: Rule, text: String },
    #[error("no link within {patience:?}")]
    TooLong { patience: Duration },
}

impl DialError {
    /// The process isn't there: no use in waiting for it to resume.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    }
}

/// What the task of a link is to do next.
pub(super) enum Wish {
    Dial,
    Rest,
    End,
}

/// What the task needs to know to dial.
pub(super) struct Call {
    pub address: BackendAddress,
    pub hello: Vec<u8>,
    pub generation: u64,
    /// The longest frame of the service, as HELLO says it.
    pub max_frame_bytes: u32,
    /// How long the backend may take to answer HELLO.
    pub liveness: Duration,
    /// How long the whole may take.
    pub patience: Duration,
}

/// Starts the task of a link that was made in this turn.
pub fn spawn(worker: &Worker, id: LinkId) {
    let demand = worker.hub.link(id).demand.clone();
    tokio::spawn(unconstrained(async move {
        let mut backoff = Duration::ZERO;
        loop {
            match with_worker(|worker| worker.wish(id)) {
                Wish::Dial => {}
                Wish::Rest => {
                    demand.notified().await;
                    continue;
                }
                Wish::End => return with_worker(|worker| worker.hub.free_links.push(id)),
            }
            let call = with_worker(|worker| worker.prepare_call(id));
            let lived = match dial(&call).await {
                Ok((stream, peer, rest)) => serve(id, stream, peer, rest).await,
                Err(error) => {
                    with_worker(|worker| worker.dial_failed(id, &error));
                    Duration::ZERO
                }
            };
            // A backend that takes a link and drops it at once isn't dialled in a tight loop.
            if lived >= STEADY {
                backoff = Duration::ZERO;
                continue;
            }
            let (least, longest) = with_worker(|worker| worker.backoff(id));
            backoff = backoff.clamp(least, longest.max(least));
            let pause = backoff.mul_f64(0.5 + fastrand::f64());
            tokio::time::sleep(pause.min(PAUSE_LEAST)).await;
            // Sessions that were parked meanwhile make it urgent.
            let hurried = timeout(pause.saturating_sub(PAUSE_LEAST), demand.notified()).await.is_ok();
            backoff = if hurried { Duration::ZERO } else { backoff * 2 };
        }
    }));
}

/// Serves a link that is up, to its end. Returns how long it lived.
async fn serve(id: LinkId, stream: Stream, peer: Peer, rest: Vec<u8>) -> Duration {
    let begun = Instant::now();
    if with_worker(|worker| worker.link_up(id, stream, peer, &rest)) {
        let reason = poll_fn(|cx| with_worker(|worker| worker.poll_link(id, cx))).await;
        with_worker(|worker| worker.link_cut(id, reason));
    }
    begun.elapsed()
}

async fn dial(call: &Call) -> Result<(Stream, Peer, Vec<u8>), DialError> {
    let patience = call.patience;
    timeout(patience, reach(call)).await.unwrap_or(Err(DialError::TooLong { patience }))
}

async fn reach(call: &Call) -> Result<(Stream, Peer, Vec<u8>), DialError> {
    match &call.address {
        BackendAddress::Tcp(address) => {
            let mut stream = connected(address, TcpStream::connect(&**address)).await?;
            stream.set_nodelay(true).map_err(|error| DialError::Handshake(error.to_string()))?;
            let (peer, rest) = shake_hands(&mut stream, call).await?;
            Ok((Stream::Tcp(stream), peer, rest))
        }
        BackendAddress::Unix(path) => {
            let address = format!("unix:{}", path.display());
            let mut stream = connected(&address, UnixStream::connect(path)).await?;
            let (peer, rest) = shake_hands(&mut stream, call).await?;
            Ok((Stream::Unix(stream), peer, rest))
        }
    }
}

async fn connected<S>(address: &str, connect: impl Future<Output = io::Result<S>>) -> Result<S, DialError> {
    match timeout(CONNECT_TIMEOUT, connect).await {
        Err(_) => Err(DialError::ConnectTimeout { address: address.to_owned() }),
        Ok(result) => result.map_err(|source| DialError::Connect { address: address.to_owned(), source }),
    }
}

async fn shake_hands<S>(stream: &mut S, call: &Call) -> Result<(Peer, Vec<u8>), DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: io::Error| DialError::Handshake(error.to_string());
    let exchange = async {
        stream.write_all(&call.hello).await.map_err(broken)?;
        let mut bytes = Vec::with_capacity(4096);
        loop {
            if stream.read_buf(&mut bytes).await.map_err(broken)? == 0 {
                return Err(DialError::Handshake("closed by the backend before WELCOME".to_owned()));
            }
            let answer = first_message(&bytes)
                .map_err(|error| DialError::Fault { rule: Rule::Malformed, text: error.to_string() })?;
            if let Some((message, length)) = answer {
                let peer = welcome(&message, call)?;
                return Ok((peer, bytes.split_off(length)));
            }
        }
    };
    match timeout(call.liveness, exchange).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Handshake(format!("no WELCOME within {:?}", call.liveness))),
    }
}

/// WELCOME, or the FAULT of a backend that refuses the link and says why.
fn first_message(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, codec::DecodeError> {
    const TYPE_AT: usize = 4;
    if bytes.get(TYPE_AT) == Some(&(MessageType::Fault as u8)) {
        return codec::decode(bytes, codec::MAX_MESSAGE_BYTES);
    }
    codec::decode_first(bytes, codec::MAX_MESSAGE_BYTES)
}

fn welcome(message: &Message<'_>, call: &Call) -> Result<Peer, DialError> {
    let fault = |rule, text| Err(DialError::Fault { rule, text });
    match message {
        Message::Welcome(welcome) if welcome.version != codec::PROTOCOL_VERSION => fault(
            Rule::Version,
            format!("the backend chose version {}, offered was {}", welcome.version, codec::PROTOCOL_VERSION),
        ),
        Message::Welcome(welcome) if welcome.generation != call.generation => fault(
            Rule::Handshake,
            format!("WELCOME of generation {}, expected {}", welcome.generation, call.generation),
        ),
        Message::Welcome(welcome) => Ok(Peer {
            instance: welcome.instance,
            backend_version: welcome.backend_version.to_owned(),
            takes_frame_bytes: welcome.max_frame_bytes,
            gives_frame_bytes: call.max_frame_bytes,
            writes_format: welcome.writes_format.to_owned(),
            reads_formats: welcome.reads_formats.split(',').map(|format| format.trim().to_owned()).collect(),
            client_window_bytes: welcome.client_window_bytes,
            state_credit_bytes: welcome.state_credit_bytes,
            draining: welcome.draining,
            attachments: welcome.attachments.iter().collect(),
            capabilities: welcome.capabilities & OFFERED,
            logic: welcome.logic.to_owned(),
        }),
        Message::Fault(refusal) => {
            let text = format!("the backend refused the link: {:?}: {}", refusal.rule, refusal.text);
            Err(DialError::Handshake(text))
        }
        other => fault(Rule::Handshake, format!("expected WELCOME, got {}", other.type_name())),
    }
}
