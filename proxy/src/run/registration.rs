//! The registration of the backend beside this proxy: what it says of itself, told to who writes its key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::workers::Workers;
use crate::config::{Config, Source as SourceConfig};
use crate::routing::BackendId;
use crate::source::Source;
use crate::source::etcd::{BackendRegistrar, Proxy, RegistrarHandle};
use crate::worker::command::Command;

/// How often the link is looked at, before it has been up and after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// Who holds the key of the local backend, if the config asks for it.
pub fn prepare(
    config: &Config,
    proxy: &Proxy,
    workers: &Workers,
    source: &Source,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Option<(BackendRegistrar, RegistrarHandle)> {
    let register = config.register.clone()?;
    let SourceConfig::Etcd(etcd) = &config.source else { return None };
    let (sender, version) = watch::channel(None);
    if register.version.is_none() {
        tasks.spawn(tell_version(register.backend.clone(), workers.commands(), sender, shutdown.clone()));
    }
    let etcd = Arc::new((**etcd).clone());
    Some(BackendRegistrar::new(etcd, register, proxy.clone(), version, source.published.clone()))
}

/// Tells the version of the backend whenever its link is up with another one.
async fn tell_version(
    backend: BackendId,
    workers: Vec<mpsc::Sender<Command>>,
    version: watch::Sender<Option<Arc<str>>>,
    shutdown: CancellationToken,
) {
    let name = backend.to_string();
    // Every worker keeps a link to the local backend.
    let Some(worker) = workers.into_iter().next() else { return };
    loop {
        let every = if version.borrow().is_some() { LOOK_AGAIN_EVERY } else { LOOK_EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let (answer, receiver) = oneshot::channel();
        if worker.try_send(Command::Links { answer }).is_err() {
            continue;
        }
        let links = tokio::select! {
            () = shutdown.cancelled() => return,
            links = receiver => links.unwrap_or_default(),
        };
        let up = links.into_iter().find(|link| link.backend == name && link.link == "up");
        if let Some(said) = up.and_then(|link| link.backend_version) {
            version.send_if_modified(|version| {
                let is_news = version.as_deref() != Some(said.as_str());
                *version = Some(said.into());
                is_news
            });
        }
    }
}
