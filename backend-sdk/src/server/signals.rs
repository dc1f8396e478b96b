//! SIGTERM and SIGINT, as orders to the server.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Handle, ServeError};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }
}

/// The first SIGTERM drains. Returns when the server is to end at once. Never does without `signals`.
pub(super) async fn obey(signals: Option<Signals>, handle: &Handle) {
    let Some(mut signals) = signals else { return std::future::pending().await };
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                if handle.drain.is_cancelled() {
                    return;
                }
                handle.drain();
            }
            _ = signals.interrupt.recv() => return,
        }
    }
}
