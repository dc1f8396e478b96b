//! The task of one link: dials when somebody needs the backend, shakes hands, serves, and finds out what a loss means.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::message::{Hello, Message, MessageType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::link::{Link, LinkState, OwnDrain, Peer};
use super::slot::SessionKey;
use super::stream::Stream;
use super::{Worker, with_worker};
use crate::routing::BackendAddress;
use crate::session::LinkId;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LAST: Duration = Duration::from_millis(1000);
/// The longest wait while sessions are parked: players feel it.
const BACKOFF_PARKED: Duration = Duration::from_millis(50);
/// An idle link to another host is closed after this.
pub const IDLE_LINK: Duration = Duration::from_secs(30);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connect to {address}: no answer within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout { address: String },
    #[error("handshake: {0}")]
    Handshake(String),
    /// What came instead of WELCOME breaks the link's rules.
    #[error("handshake: the backend broke the link's rules: {0}")]
    Fault(String),
}

impl DialError {
    /// The process isn't there: no use in waiting for it to resume.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    }
}

/// What the task of a link is to do next.
enum Wish {
    Dial,
    Rest,
    End,
}

/// What the task needs to know to dial.
struct Call {
    address: BackendAddress,
    hello: Vec<u8>,
    generation: u64,
    /// The longest frame of the service; the backend must take it.
    max_frame_bytes: u32,
}

/// Starts the task of a link that was made in this turn.
pub fn spawn(worker: &Worker, id: LinkId) {
    let demand = worker.hub.link(id).demand.clone();
    tokio::spawn(async move {
        let mut backoff = BACKOFF_FIRST;
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
            match dial(&call).await {
                Ok((stream, peer, rest)) => {
                    backoff = BACKOFF_FIRST;
                    with_worker(|worker| worker.link_up(id, stream, peer, rest));
                    let reason = poll_fn(|cx| with_worker(|worker| worker.poll_link(id, cx))).await;
                    with_worker(|worker| worker.link_cut(id, reason));
                }
                Err(error) => {
                    with_worker(|worker| worker.dial_failed(id, &error));
                    let pause = backoff.mul_f64(0.5 + fastrand::f64());
                    // Sessions that were parked meanwhile make it urgent.
                    let hurried = timeout(pause, demand.notified()).await.is_ok();
                    let longest = with_worker(|worker| worker.longest_backoff());
                    backoff = if hurried { BACKOFF_FIRST } else { (backoff * 2).min(longest) };
                }
            }
        }
    });
}

async fn dial(call: &Call) -> Result<(Stream, Peer, Vec<u8>), DialError> {
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
            let answer = first_message(&bytes).map_err(|error| DialError::Fault(error.to_string()))?;
            if let Some((message, length)) = answer {
                let peer = welcome(&message, call)?;
                return Ok((peer, bytes.split_off(length)));
            }
        }
    };
    match timeout(HANDSHAKE_TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Handshake(format!("no WELCOME within {HANDSHAKE_TIMEOUT:?}"))),
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
    let fault = |text| Err(DialError::Fault(text));
    match message {
        Message::Welcome(welcome) if welcome.version != codec::PROTOCOL_VERSION => fault(format!(
            "the backend chose version {}, offered was {}",
            welcome.version,
            codec::PROTOCOL_VERSION
        )),
        Message::Welcome(welcome) if welcome.generation != call.generation => {
            fault(format!("WELCOME of generation {}, expected {}", welcome.generation, call.generation))
        }
        Message::Welcome(welcome) if welcome.max_frame_bytes < call.max_frame_bytes => {
            let (takes, allowed) = (welcome.max_frame_bytes, call.max_frame_bytes);
            let text = format!(
                "the backend takes frames up to {takes} bytes, the service's framing allows {allowed}"
            );
            Err(DialError::Handshake(text))
        }
        Message::Welcome(welcome) => Ok(Peer {
            instance: welcome.instance,
            backend_version: welcome.backend_version.to_owned(),
            writes_format: welcome.writes_format.to_owned(),
            reads_formats: welcome.reads_formats.split(',').map(|format| format.trim().to_owned()).collect(),
            client_window_bytes: welcome.client_window_bytes,
            state_credit_bytes: welcome.state_credit_bytes,
            draining: welcome.draining,
            attachments: welcome.attachments.iter().collect(),
        }),
        Message::Fault(refusal) => {
            let text = format!("the backend refused the link: {:?}: {}", refusal.rule, refusal.text);
            Err(DialError::Handshake(text))
        }
        other => fault(format!("expected WELCOME, got {}", other.type_name())),
    }
}

impl Worker {
    fn wish(&self, id: LinkId) -> Wish {
        match self.is_wanted(id) {
            _ if self.hub.link(id).retired => Wish::End,
            true => Wish::Dial,
            false => Wish::Rest,
        }
    }

    /// Gives up the places of links whose backends are off the list and that nobody needs.
    pub(super) fn retire_links(&mut self) {
        let table = std::sync::Arc::clone(&self.hub.table);
        for id in self.hub.link_ids() {
            let link = self.hub.link(id);
            let idle = matches!(link.state, LinkState::Idle | LinkState::Dead) && link.sessions == 0;
            let listed = table.backends.contains_key(&link.backend.id);
            if idle && !listed && !link.retired && self.keys_on(id).is_empty() {
                let link = self.hub.link_mut(id);
                link.retired = true;
                link.demand.notify_one();
                let backend = link.backend.id.clone();
                self.hub.link_of.remove(&backend);
            }
        }
    }

    pub(super) fn is_wanted(&self, id: LinkId) -> bool {
        let link = self.hub.link(id);
        let listed = self.hub.table.backends.contains_key(&link.backend.id);
        match link.state {
            LinkState::Broken { .. } => true,
            // Looked after until it is back, or is taken off the list.
            LinkState::Dead => listed,
            _ => link.sessions > 0 || (listed && self.hub.is_local(&link.backend.id)),
        }
    }

    fn longest_backoff(&self) -> Duration {
        if self.hub.counters.parked.get() > 0 { BACKOFF_PARKED } else { BACKOFF_LAST }
    }

    /// Sessions have just been parked: backends that are away are asked for at once.
    pub(super) fn hurry_dials(&mut self) {
        if std::mem::take(&mut self.hub.parked_anew) {
            let away = self.hub.links.iter().filter(|link| link.state == LinkState::Dead);
            away.for_each(|link| link.demand.notify_one());
        }
    }

    fn prepare_call(&mut self, id: LinkId) -> Call {
        let config = std::sync::Arc::clone(&self.hub.config);
        let table = std::sync::Arc::clone(&self.hub.table);
        let link = self.hub.link_mut(id);
        if let Some(backend) = table.backends.get(&link.backend.id) {
            link.backend = std::sync::Arc::clone(backend);
        }
        link.generation += 1;
        if link.state == LinkState::Idle {
            link.state = LinkState::Connecting;
        }
        let service = table.services.get(&*link.backend.id.service);
        let max_frame = service.map_or(0, |service| service.framing.max_frame_bytes());
        let max_frame_bytes = u32::try_from(max_frame).unwrap_or(u32::MAX);
        let liveness = service.map_or(Duration::from_secs(3), |service| service.limits.liveness);
        let hello = Message::Hello(Hello {
            min_version: codec::PROTOCOL_VERSION,
            max_version: codec::PROTOCOL_VERSION,
            instance: config.instance,
            worker: config.index,
            generation: link.generation,
            max_frame_bytes,
            liveness_ms: u32::try_from(liveness.as_millis()).unwrap_or(u32::MAX),
            capabilities: 0,
            proxy: &config.proxy_id,
            service: &link.backend.id.service,
            proof: &[],
        });
        let mut bytes = Vec::new();
        codec::encode(&hello, &mut bytes);
        Call {
            address: link.backend.address.clone(),
            hello: bytes,
            generation: link.generation,
            max_frame_bytes,
        }
    }

    fn link_up(&mut self, id: LinkId, stream: Stream, peer: Peer, rest: Vec<u8>) {
        let now = self.hub.now;
        let attachments = peer.attachments.clone();
        let link = self.hub.link_mut(id);
        let before = link.instance();
        let same = before == Some(peer.instance);
        if !same {
            link.causes.own = None;
        }
        if peer.draining && link.causes.own.is_none() {
            let deadline = now + Duration::from_secs(3600);
            link.causes.own =
                Some(OwnDrain { deadline, returns: true, reason: "told in WELCOME".to_owned() });
        }
        tracing::info!(backend = %link.backend.id, instance = %peer.instance, version = %peer.backend_version,
            resumed = same, "link up");
        let was_broken = matches!(link.state, LinkState::Broken { .. });
        reset(link);
        link.stream = Some(stream);
        link.state = LinkState::Up;
        link.last_heard = now;
        link.idle_since = now;
        link.last_error = None;
        link.peer = Some(Peer { attachments: Vec::new(), ..peer });
        self.hub.counters.links_up.add(1);
        self.meet_sessions(id, &attachments, was_broken && same);
        self.review_drain(id);
        self.sessions_may_return();
        if !rest.is_empty()
            && let Err(reason) = self.link_bytes(id, &rest)
        {
            self.hub.link_mut(id).doom(reason);
        }
    }

    /// Sessions of this link go on, begin, or learn that their backend was replaced.
    fn meet_sessions(
        &mut self,
        id: LinkId,
        attachments: &[holdfast_protocol::message::AttachmentEntry],
        resumed: bool,
    ) {
        use holdfast_protocol::message::Subject;
        for key in self.keys_on(id) {
            let Some(slot) = self.slots.get(key) else { continue };
            let subject = Subject::Session(slot.session.id());
            let entry = attachments.iter().find(|entry| entry.subject == subject);
            self.drive(key, |session, fx| {
                let waits = matches!(session.phase(), crate::session::Phase::Attaching { asked: false, .. });
                if waits {
                    session.link_is_ready(id, fx);
                } else if resumed {
                    session.resumed(id, entry, fx);
                } else {
                    session.attachment_lost(id, fx);
                }
            });
        }
        for entry in attachments {
            self.release_unknown(id, entry);
        }
    }

    /// The backend keeps something for a session that has ended here.
    fn release_unknown(&mut self, id: LinkId, entry: &holdfast_protocol::message::AttachmentEntry) {
        use holdfast_protocol::message::{Release, Subject};
        let known = match entry.subject {
            Subject::Session(session) => self.by_id.contains_key(&session),
            Subject::Group(_) => false,
        };
        if !known {
            self.send_on_link(id, &Message::Release(Release { subject: entry.subject, epoch: entry.epoch }));
        }
    }

    /// Sessions attached to this link, or frozen on it.
    pub(super) fn keys_on(&self, id: LinkId) -> Vec<SessionKey> {
        self.slots.iter().filter(|(_, slot)| slot.session.concerns(id)).map(|(key, _)| key).collect()
    }

    fn link_cut(&mut self, id: LinkId, reason: String) {
        let now = self.hub.now;
        let sessions = self.keys_on(id).len();
        let link = self.hub.link_mut(id);
        let had_own_drain = link.causes.own.is_some();
        reset(link);
        if link.state != LinkState::Dead {
            link.state = if sessions > 0 { LinkState::Broken { since: now } } else { LinkState::Idle };
        }
        if sessions == 0 && had_own_drain {
            // It said that it would go, and it is gone.
            link.causes.own = None;
            link.state = LinkState::Dead;
            tracing::info!(backend = %link.backend.id, "the backend ended its drain and left");
        } else if sessions == 0 {
            tracing::info!(backend = %link.backend.id, reason, "link closed");
        } else {
            tracing::warn!(backend = %link.backend.id, sessions, reason, "link lost");
        }
        link.last_error = Some(reason);
        self.hub.counters.links_up.sub(1);
        self.hub.counters.links_lost.add(1);
        self.review_drain(id);
    }

    fn dial_failed(&mut self, id: LinkId, error: &DialError) {
        let now = self.hub.now;
        let resume_timeout = self.resume_timeout(id);
        if matches!(error, DialError::Fault(_)) {
            self.hub.counters.link_faults.add(1);
        }
        let link = self.hub.link_mut(id);
        let again = link.last_error.as_deref() == Some(&error.to_string());
        if !again {
            tracing::warn!(backend = %link.backend.id, %error, "no link");
        }
        link.last_error = Some(error.to_string());
        if let LinkState::Broken { since } = link.state
            && !error.is_gone()
            && now.saturating_duration_since(since) < resume_timeout
        {
            return;
        }
        self.backend_gone(id);
    }

    /// The backend's process is gone, or as good as gone: its sessions take the crash path.
    pub(super) fn backend_gone(&mut self, id: LinkId) {
        let keys = self.keys_on(id);
        let link = self.hub.link_mut(id);
        if !keys.is_empty() {
            tracing::warn!(backend = %link.backend.id, sessions = keys.len(), "the backend is gone");
        }
        link.state = LinkState::Dead;
        link.peer = None;
        link.causes.own = None;
        for key in keys {
            self.drive(key, |session, fx| session.attachment_lost(id, fx));
        }
        self.review_drain(id);
    }

    fn resume_timeout(&self, id: LinkId) -> Duration {
        let service = self.hub.table.services.get(&*self.hub.link(id).backend.id.service);
        service.map_or(Duration::from_secs(2), |service| service.limits.resume_timeout)
    }
}

/// What belonged to the connection that is over.
fn reset(link: &mut Link) {
    link.stream = None;
    link.inbox.clear();
    link.outbox.clear();
    link.transfers.clear();
    link.doomed = None;
    link.pinged = false;
    link.waker = None;
}
