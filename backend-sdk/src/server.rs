//! [`Server`]: one call that serves a game over links until the process is told to end.

mod accept;
mod builder;
mod link;
mod peers;
mod signals;
mod stream;
mod task;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::builder::Builder;
use self::peers::{Peers, Shared};
use self::signals::Signals;
use self::stream::Listener;
use crate::core::DrainOrder;
use crate::game::Game;
use crate::population::Population;
use crate::settings::Settings;

/// Why a server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listen address {address:?}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("nothing to listen on: give the server an address")]
    NoAddress,
    #[error("the runtime can't start: {0}")]
    Runtime(std::io::Error),
    #[error("signals can't be handled: {0}")]
    Signals(std::io::Error),
}

/// Tells a server to end, from within the process.
#[derive(Debug, Clone)]
pub struct Handle {
    drain: CancellationToken,
    halt: CancellationToken,
}

impl Handle {
    /// As SIGTERM does: the proxies move the players off, then the server ends.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// As SIGINT does: the server ends at once.
    pub fn stop(&self) {
        self.halt.cancel();
    }
}

/// A game server with its addresses bound.
pub struct Server<G> {
    game: Arc<G>,
    settings: Arc<Settings>,
    listeners: Vec<Listener>,
    link_addresses: Vec<SocketAddr>,
    #[cfg(feature = "plain")]
    plain: Vec<tokio::net::TcpListener>,
    #[cfg(feature = "plain")]
    plain_addresses: Vec<SocketAddr>,
    population: Population,
    handle: Handle,
    handles_signals: bool,
}

impl<G: Game> Server<G> {
    /// Collects a server's settings. Finish with [`Builder::run`], [`Builder::serve`] or [`Builder::bind`].
    pub fn builder(game: G) -> Builder<G> {
        Builder::new(game)
    }

    /// The TCP addresses for proxies, with the ports really bound.
    #[must_use]
    pub fn link_addresses(&self) -> &[SocketAddr] {
        &self.link_addresses
    }

    /// The TCP addresses for players, with the ports really bound.
    #[cfg(feature = "plain")]
    #[must_use]
    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &self.plain_addresses
    }

    /// Tells the server to end, from another task.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until the process is told to end: SIGTERM is a drain; a second one, or SIGINT, ends it at once.
    ///
    /// # Errors
    /// Signals can't be handled.
    pub async fn serve(self) -> Result<(), ServeError> {
        let signals = if self.handles_signals { Some(Signals::listen()?) } else { None };
        let (orders, drain) = watch::channel(None);
        let shared = Arc::new(Shared {
            game: self.game,
            settings: self.settings,
            population: self.population,
            drain,
            stop: CancellationToken::new(),
            halt: self.handle.halt.clone(),
            tasks: TaskTracker::new(),
            peers: Peers::default(),
        });
        for listener in self.listeners {
            shared.tasks.spawn(accept::accept(Arc::clone(&shared), listener));
        }
        #[cfg(feature = "plain")]
        for listener in self.plain {
            let plain = crate::plain::Plain {
                game: Arc::clone(&shared.game),
                settings: Arc::clone(&shared.settings),
                stop: self.handle.drain.clone(),
                tasks: shared.tasks.clone(),
            };
            shared.tasks.spawn(plain.accept(listener));
        }
        let (name, version) = (&shared.settings.name, &shared.settings.version);
        tracing::info!(name, version, links = ?self.link_addresses, "serving");
        tokio::select! {
            () = serve_out(&shared, &self.handle.drain, &orders) => {}
            () = self.handle.halt.cancelled() => {}
            () = signals::obey(signals, &self.handle) => {}
        }
        shared.stop.cancel();
        shared.halt.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        tracing::info!("ended");
        Ok(())
    }
}

/// From the order to drain until the last session is gone and its work is done, or the deadline.
async fn serve_out<G: Game>(
    shared: &Shared<G>,
    drain: &CancellationToken,
    orders: &watch::Sender<Option<DrainOrder>>,
) {
    drain.cancelled().await;
    let (length, returns) = (shared.settings.drain_deadline, shared.settings.returns);
    let deadline = Instant::now() + length;
    tracing::info!(sessions = shared.population.get(), deadline_ms = length.as_millis(), returns, "draining");
    orders.send_replace(Some(DrainOrder { deadline, returns }));
    let emptied = async {
        shared.population.empty().await;
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    };
    if tokio::time::timeout_at(deadline.into(), emptied).await.is_err() {
        tracing::warn!(
            sessions = shared.population.get(),
            "drain deadline: ending with sessions or work left"
        );
    }
}

impl<G> std::fmt::Debug for Server<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("link_addresses", &self.link_addresses).finish_non_exhaustive()
    }
}
