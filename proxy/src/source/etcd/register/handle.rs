//! What others may ask of the registration, and see of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use super::WITHDRAW_WITHIN;

/// How the registration is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `service/name`
    pub backend: String,
    pub state: RegistrationState,
    /// In words, why it isn't registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationState {
    /// The backend hasn't said its version yet.
    Waiting,
    Registered,
    /// The key is an operator's or another proxy's; taken up when it goes.
    Held,
    /// etcd doesn't answer: the key, if it was written, stays until its lease ends.
    Away,
    Withdrawn,
}

/// What others may ask of the registration, and see of it.
#[derive(Debug, Clone)]
pub struct RegistrarHandle {
    wanted: watch::Sender<bool>,
    shown: watch::Receiver<Registration>,
}

impl RegistrarHandle {
    pub(super) fn new(wanted: watch::Sender<bool>, shown: watch::Receiver<Registration>) -> Self {
        Self { wanted, shown }
    }

    #[must_use]
    pub fn show(&self) -> Registration {
        self.shown.borrow().clone()
    }

    /// Registers it (again). Returns how it is then, or after a while.
    pub async fn register(&self) -> Registration {
        self.wanted.send_replace(true);
        self.settle(|state| !matches!(state, RegistrationState::Withdrawn)).await
    }

    /// Takes the key back, until [`Self::register`]. Returns how it is then, or after a while.
    pub async fn withdraw(&self) -> Registration {
        self.wanted.send_replace(false);
        self.settle(|state| matches!(state, RegistrationState::Withdrawn)).await
    }

    async fn settle(&self, wanted: impl Fn(RegistrationState) -> bool) -> Registration {
        let mut shown = self.shown.clone();
        // The margin is for the task itself: it gives etcd up first.
        let waiting = shown.wait_for(|shown| wanted(shown.state));
        let _ = timeout(WITHDRAW_WITHIN + Duration::from_secs(1), waiting).await;
        self.show()
    }
}
