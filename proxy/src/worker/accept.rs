//! A listener's task on one worker: accepts clients, ends their TLS, finds their route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use super::{Worker, with_worker};
use crate::telemetry::counters::CloseReason;

/// After a failed accept (no descriptors left), the next try waits this long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Silence of a client after which the kernel asks whether it is still there, and how often it asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// TLS handshakes under way at once on one listener of one worker.
const HANDSHAKES_AT_ONCE: usize = 256;

/// A bound public address, and its TLS.
pub struct Listener {
    pub name: Arc<str>,
    pub socket: std::net::TcpListener,
    /// Swapped when the certificate is read anew.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    pub tls_handshake_timeout: Duration,
}

/// Accepts until `stop`.
pub async fn run(listener: Listener, stop: CancellationToken) {
    let socket = match listener.socket.try_clone().and_then(TcpListener::from_std) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(listener = %listener.name, %error, "can't listen"),
    };
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                tune(&stream);
                match &listener.tls {
                    None => admit(&listener.name, Stream::Tcp(stream), client, None),
                    Some(config) => {
                        let permit = tokio::select! {
                            permit = Arc::clone(&handshakes).acquire_owned() => permit,
                            () = stop.cancelled() => return,
                        };
                        let Ok(permit) = permit else { return };
                        let acceptor = TlsAcceptor::from(config.load_full());
                        let name = Arc::clone(&listener.name);
                        let limit = listener.tls_handshake_timeout;
                        tokio::spawn(async move {
                            with_worker(|worker| worker.hub.counters.tls_handshakes.add(1));
                            shake_hands(acceptor, stream, client, &name, limit).await;
                            with_worker(|worker| worker.hub.counters.tls_handshakes.sub(1));
                            drop(permit);
                        });
                    }
                }
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Frames leave at once, and a client that vanished without a word is noticed.
fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    // A socket that can't be told so is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    client: SocketAddr,
    listener: &str,
    limit: Duration,
) {
    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            admit(listener, Stream::Tls(Box::new(stream)), client, sni.as_deref());
        }
        Ok(Err(error)) => {
            tracing::info!(listener, %client, %error, "TLS handshake failed: the client's fault")
        }
        Err(_) => tracing::info!(listener, %client, "TLS handshake took too long"),
    }
}

fn admit(listener: &str, stream: Stream, client: SocketAddr, sni: Option<&str>) {
    with_worker(|worker| worker.admit(listener, stream, client, sni));
}

impl Worker {
    fn admit(&mut self, listener: &str, stream: Stream, client: SocketAddr, sni: Option<&str>) {
        let table = Arc::clone(&self.hub.table);
        let route = table.route(listener, sni, client.ip());
        let service = route.and_then(|route| table.services.get(&*route.service));
        let (Some(route), Some(service)) = (route, service) else {
            return self.turn_away(listener, client, CloseReason::NoRoute);
        };
        if self.stopping.is_some() {
            return self.turn_away(listener, client, CloseReason::Shutdown);
        }
        let of_service = self.hub.population.get(&service.name).copied().unwrap_or(0);
        let crowded = self.hub.counters.sessions.get() >= self.hub.config.max_sessions
            || of_service >= service.limits.max_sessions
            || self.hub.pressure.is_full();
        if crowded {
            return self.turn_away(listener, client, CloseReason::Limit);
        }
        self.open_session(stream, client, sni.map(Arc::from), Arc::clone(route), Arc::clone(service));
    }

    fn turn_away(&mut self, listener: &str, client: SocketAddr, reason: CloseReason) {
        self.hub.counters.sessions_closed[reason as usize].add(1);
        if self.hub.may_complain() {
            tracing::info!(listener, %client, reason = reason.name(), "clients are turned away");
        }
    }
}
