//! [`Peers`]: which task has the attachments of which proxy worker. A new link goes to the task that has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::InstanceId;
use holdfast_protocol::message::{Hello, Rule};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Link;
use super::task::PeerTask;
use crate::core::{DrainOrder, Fault};
use crate::game::Game;
use crate::population::Population;
use crate::settings::Settings;

/// A worker of a running proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PeerId {
    pub instance: InstanceId,
    pub worker: u16,
}

/// A link whose HELLO has been read.
#[derive(Debug)]
pub(super) struct NewLink {
    pub link: Link,
    pub hello: OwnedHello,
}

/// What of a HELLO outlives the bytes it was read from.
#[derive(Debug, Clone)]
pub(super) struct OwnedHello {
    pub peer: PeerId,
    pub generation: u64,
    pub max_frame_bytes: u32,
    pub liveness_ms: u32,
    pub capabilities: u64,
    pub proxy: String,
    pub service: String,
}

impl OwnedHello {
    pub fn of(hello: &Hello<'_>) -> Self {
        Self {
            peer: PeerId { instance: hello.instance, worker: hello.worker },
            generation: hello.generation,
            max_frame_bytes: hello.max_frame_bytes,
            liveness_ms: hello.liveness_ms,
            capabilities: hello.capabilities,
            proxy: hello.proxy.to_owned(),
            service: hello.service.to_owned(),
        }
    }

    pub fn as_hello(&self) -> Hello<'_> {
        Hello {
            min_version: holdfast_protocol::PROTOCOL_VERSION,
            max_version: holdfast_protocol::PROTOCOL_VERSION,
            instance: self.peer.instance,
            worker: self.peer.worker,
            generation: self.generation,
            max_frame_bytes: self.max_frame_bytes,
            liveness_ms: self.liveness_ms,
            capabilities: self.capabilities,
            proxy: &self.proxy,
            service: &self.service,
            proof: &[],
        }
    }
}

/// A link that no task takes, and why.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub link: NewLink,
    pub fault: Fault,
}

/// Links that may wait for a peer's task; a proxy that makes more at once is refused.
const WAITING_LINKS: usize = 4;

/// What all tasks of a server share.
pub(super) struct Shared<G> {
    pub game: Arc<G>,
    pub settings: Arc<Settings>,
    pub population: Population,
    pub drain: watch::Receiver<Option<DrainOrder>>,
    /// All sessions are gone, or the deadline has passed: let work finish, and end.
    pub stop: CancellationToken,
    /// End now, whatever is under way.
    pub halt: CancellationToken,
    pub tasks: TaskTracker,
    pub peers: Peers,
}

/// The tasks by the worker they are for.
#[derive(Debug, Default)]
pub(super) struct Peers {
    senders: Mutex<HashMap<PeerId, mpsc::Sender<NewLink>>>,
}

impl Peers {
    /// Gives the link to its peer's task, and begins one if there is none. It comes back if it can't be taken.
    pub fn hand_over<G: Game>(shared: &Arc<Shared<G>>, link: NewLink) -> Result<(), Box<NotTaken>> {
        let mut senders = shared.peers.lock();
        let id = link.hello.peer;
        let sent = match senders.get(&id) {
            Some(sender) => sender.try_send(link),
            None => Err(TrySendError::Closed(link)),
        };
        let link = match sent {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(link)) => {
                return Err(Box::new(NotTaken {
                    link,
                    fault: Fault::new(Rule::Handshake, "too many links at once"),
                }));
            }
            Err(TrySendError::Closed(link)) => link,
        };
        Self::begin(shared, &mut senders, link)
    }

    fn begin<G: Game>(
        shared: &Arc<Shared<G>>,
        senders: &mut HashMap<PeerId, mpsc::Sender<NewLink>>,
        link: NewLink,
    ) -> Result<(), Box<NotTaken>> {
        let max = shared.settings.max_peers;
        if senders.len() >= max {
            return Err(Box::new(NotTaken {
                link,
                fault: Fault::new(Rule::Handshake, format!("{max} proxy workers are the limit")),
            }));
        }
        let (sender, receiver) = mpsc::channel(WAITING_LINKS);
        senders.insert(link.hello.peer, sender);
        shared.tasks.spawn(PeerTask::new(Arc::clone(shared), link.hello.peer, receiver).run(link));
        Ok(())
    }

    /// A task has nothing left to keep: it is taken off the list, unless a link has come for it in the meantime.
    pub fn retire(&self, id: PeerId, links: &mut mpsc::Receiver<NewLink>) -> Option<NewLink> {
        let mut senders = self.lock();
        let link = links.try_recv().ok();
        if link.is_none() {
            senders.remove(&id);
        }
        link
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, mpsc::Sender<NewLink>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
