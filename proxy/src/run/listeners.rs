//! Binds the public listeners, one socket a worker, and keeps their certificates.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, TlsFiles};
use crate::worker::accept::Listener;

/// Certificates in use, by listener; a swap is seen by the next handshake.
pub type LiveTls = BTreeMap<Arc<str>, Arc<ArcSwap<ServerConfig>>>;

/// One listener, bound as often as there are workers.
struct One {
    name: Arc<str>,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

/// All listeners of the proxy.
pub struct Bound {
    listeners: Vec<One>,
    tls_handshake_timeout: Duration,
}

/// Binds every listener of the config.
///
/// # Errors
/// An address is taken or not allowed, or a certificate can't be used.
pub fn bind(config: &Config) -> anyhow::Result<Bound> {
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let mut address = listener.bind;
        let mut sockets = Vec::new();
        for _ in 0..config.proxy.workers {
            let socket = bind_one(address, config.proxy.workers > 1, listener.backlog)
                .with_context(|| format!("listener {:?}: can't listen on {address}", listener.name))?;
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        let tls = match &listener.tls {
            Some(files) => {
                let server =
                    server_config(files).with_context(|| format!("listener {:?}: tls", listener.name))?;
                Some(Arc::new(ArcSwap::from(server)))
            }
            None => None,
        };
        listeners.push(One { name: Arc::clone(&listener.name), address, sockets, tls });
    }
    Ok(Bound { listeners, tls_handshake_timeout: config.limits.tls_handshake_timeout })
}

fn bind_one(address: SocketAddr, shared: bool, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Reads certificate and key anew.
///
/// # Errors
/// They can't be read, or don't belong together.
pub fn server_config(files: &TlsFiles) -> anyhow::Result<Arc<ServerConfig>> {
    let certified = files.read().map_err(|error| anyhow::anyhow!("{error}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(Arc::new(config))
}

impl Bound {
    pub fn names_and_addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.listeners.iter().map(|one| (Arc::clone(&one.name), one.address)).collect()
    }

    pub fn tls(&self) -> LiveTls {
        let with_tls =
            self.listeners.iter().filter_map(|one| Some((Arc::clone(&one.name), one.tls.clone()?)));
        with_tls.collect()
    }

    /// The sockets of the next worker.
    pub fn take_for_worker(&mut self) -> Vec<Listener> {
        let timeout = self.tls_handshake_timeout;
        let take = |one: &mut One| {
            let socket = one.sockets.pop()?;
            let (name, tls) = (Arc::clone(&one.name), one.tls.clone());
            Some(Listener { name, socket, tls, tls_handshake_timeout: timeout })
        };
        self.listeners.iter_mut().filter_map(take).collect()
    }
}
