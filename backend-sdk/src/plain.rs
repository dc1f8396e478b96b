//! Serving players directly over TCP, with no proxy: for development, and for comparing with other proxies.
//!
//! Each frame stands after its length (4 bytes, big-endian). One task a connection; the game is the same, but a
//! session is lost with its connection or with the process: `snapshot` is never called.

mod connection;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
use crate::game::Game;
use crate::server::ServeError;
use crate::settings::Settings;

/// A wait after an accept that failed: mostly descriptors have run out, and come back.
const BACKOFF: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

pub(crate) async fn bind(addresses: &[String]) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = listen(address).await;
        listeners.push(bound.map_err(|source| ServeError::Listen { address: address.clone(), source })?);
    }
    Ok(listeners)
}

/// As `TcpListener::bind`, with room for a whole server's players who connect at once.
async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What the connections of a plain listener share.
pub(crate) struct Plain<G> {
    pub game: Arc<G>,
    pub settings: Arc<Settings>,
    /// The process is to end: players are let go.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl<G: Game> Plain<G> {
    pub async fn accept(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.settings.max_sessions));
        loop {
            let accepted = tokio::select! {
                accepted = self.next(&listener, &places) => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((connection, permit)) => {
                    let stop = self.stop.clone();
                    self.tasks.spawn(async move {
                        connection.run(stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "plain accept failed");
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }

    async fn next(
        &self,
        listener: &TcpListener,
        places: &Arc<Semaphore>,
    ) -> io::Result<(Connection<G>, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, address) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = Connection::new(Arc::clone(&self.game), Arc::clone(&self.settings), stream, address);
        Ok((connection, permit))
    }
}
