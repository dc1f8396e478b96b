//! [`Builder`]: a server's settings, from defaults to what the game wants.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stream::Listener;
use super::{Handle, ServeError, Server};
use crate::game::Game;
use crate::load::Load;
use crate::population::Population;
use crate::settings::Settings;

/// Collects a server's settings; every one but an address has a default.
pub struct Builder<G> {
    game: G,
    settings: Settings,
    listen: Vec<String>,
    #[cfg(feature = "plain")]
    plain: Vec<String>,
    handles_signals: bool,
}

impl<G: Game> Builder<G> {
    pub(super) fn new(game: G) -> Self {
        Self {
            game,
            settings: Settings::default(),
            listen: Vec::new(),
            #[cfg(feature = "plain")]
            plain: Vec::new(),
            handles_signals: true,
        }
    }

    /// The name of this server in logs. Default: "game".
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The build of the game, as routes name it. Default: "0".
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.settings.version = version.into();
        self
    }

    /// Where proxies connect: `ip:port` or `unix:/path`. May be called several times.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Refuses links for other services. Default: takes all.
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.settings.service = Some(service.into());
        self
    }

    /// The name of the format that `snapshot` writes; `open` must read it too. Default: "1".
    #[must_use]
    pub fn state_format(mut self, format: impl Into<String>) -> Self {
        self.settings.writes_format = format.into();
        self
    }

    /// One more format that `open` reads: that of the version before, so that players can move here from it.
    #[must_use]
    pub fn reads_format(mut self, format: impl Into<String>) -> Self {
        self.settings.reads_formats.push(format.into());
        self
    }

    /// The game tells its changes ([`crate::Context::change`]) and applies them ([`crate::Session::apply`]): services may
    /// use level `delta`. Default: it doesn't.
    #[must_use]
    pub fn deltas(mut self) -> Self {
        self.settings.deltas = true;
        self
    }

    /// Whether the game has groups: [`Game::open_group`] is implemented, and sessions may [`crate::Context::join`].
    /// Default: it has none.
    #[must_use]
    pub fn groups(mut self, has: bool) -> Self {
        self.settings.groups = has;
        self
    }

    /// What must be equal in two builds of the game for a replay to be sure. Default: the version. Builds that differ
    /// in nothing that a session does may share one.
    #[must_use]
    pub fn logic(mut self, logic: impl Into<String>) -> Self {
        self.settings.logic = logic.into();
        self
    }

    /// How long the proxies have to move players off after SIGTERM. Default: 30 s.
    #[must_use]
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.settings.drain_deadline = deadline;
        self
    }

    /// Whether this server comes back under the same name after SIGTERM, so that players nobody else can take are
    /// worth waiting with. Default: true.
    #[must_use]
    pub fn returns(mut self, returns: bool) -> Self {
        self.settings.returns = returns;
        self
    }

    /// Sessions (and groups) that this server is to have at most, over all proxies: at it, they send new ones elsewhere.
    /// Default: no bound. The same as [`Load::set_capacity`], which changes it later.
    #[must_use]
    pub fn capacity(self, sessions: u32) -> Self {
        self.settings.load.set_capacity(sessions);
        self
    }

    /// What tells the proxies of this server's capacity and load while it runs: keep a clone of it. Default: neither is
    /// told. A capacity that was set before on the builder is forgotten.
    #[must_use]
    pub fn load(mut self, load: &Load) -> Self {
        self.settings.load = load.clone();
        self
    }

    /// Largest frame taken from a player, in bytes. Default: 1 MiB; 16 MiB at most.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: u32) -> Self {
        self.settings.max_frame_bytes = bytes.min(MAX_FRAME_BYTES);
        self
    }

    /// Changes any of the settings, also those that have no method of their own.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Whether SIGTERM and SIGINT are handled. Default: true. Without, use [`Server::handle`].
    #[must_use]
    pub fn signals(mut self, handles: bool) -> Self {
        self.handles_signals = handles;
        self
    }

    /// Also serves players directly over TCP, with no proxy, each frame after its length (4 bytes, big-endian).
    /// State is lost at exit. May be called several times.
    #[cfg(feature = "plain")]
    #[must_use]
    pub fn plain(mut self, address: impl Into<String>) -> Self {
        self.plain.push(address.into());
        self
    }

    /// Binds the addresses without serving yet.
    ///
    /// # Errors
    /// There is no address, or one can't be parsed or bound.
    pub async fn bind(mut self) -> Result<Server<G>, ServeError> {
        if self.settings.logic.is_empty() {
            self.settings.logic.clone_from(&self.settings.version);
        }
        let mut listeners = Vec::new();
        for address in &self.listen {
            listeners.push(Listener::bind(address).await?);
        }
        let link_addresses = listeners.iter().filter_map(Listener::tcp_address).collect();
        #[cfg(feature = "plain")]
        let plain = crate::plain::bind(&self.plain).await?;
        #[cfg(feature = "plain")]
        let is_reachable = !listeners.is_empty() || !plain.is_empty();
        #[cfg(not(feature = "plain"))]
        let is_reachable = !listeners.is_empty();
        if !is_reachable {
            return Err(ServeError::NoAddress);
        }
        Ok(Server {
            game: Arc::new(self.game),
            settings: Arc::new(self.settings),
            listeners,
            link_addresses,
            #[cfg(feature = "plain")]
            plain_addresses: plain.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            #[cfg(feature = "plain")]
            plain,
            population: Population::default(),
            handle: Handle { drain: CancellationToken::new(), halt: CancellationToken::new() },
            handles_signals: self.handles_signals,
        })
    }

    /// Binds and serves until the process is told to end (SIGTERM: a drain; again, or SIGINT: at once).
    ///
    /// # Errors
    /// As [`Self::bind`], or signals can't be handled.
    pub async fn serve(self) -> Result<(), ServeError> {
        self.bind().await?.serve().await
    }

    /// [`Self::serve`] on a runtime of its own; blocks.
    ///
    /// # Errors
    /// As [`Self::serve`], or the runtime can't start.
    pub fn run(self) -> Result<(), ServeError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
        runtime.block_on(self.serve())
    }
}

/// What fits into a message on any link.
const MAX_FRAME_BYTES: u32 = 16 * 1024 * 1024;

impl<G> std::fmt::Debug for Builder<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
