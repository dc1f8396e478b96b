//! What is done on alerts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A `hooks/` key in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub name: Arc<str>,
    /// An alert has to have all of them.
    pub labels: BTreeMap<String, String>,
    /// The alert's label with the service.
    pub service_label: String,
    pub action: HookAction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookAction {
    /// A backend is to get no players.
    TakeOut(TakeOut),
    /// A service's rollout is given up, if it is of the version in that label.
    Abort { version_label: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOut {
    pub order: TakeOutOrder,
    /// The alert's label with the backend.
    pub backend_label: String,
    /// Of the service's backends, that may be out of service with this one.
    pub max_percent: u32,
    /// The alert's end lifts it.
    pub undo: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOutOrder {
    Drain {
        /// The service's otherwise.
        deadline: Option<Duration>,
    },
    Eject {
        /// Until it is lifted otherwise.
        time: Option<Duration>,
    },
}

impl HookAction {
    /// Public: the `action` label of `holdfast_hooks_total`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TakeOut(TakeOut { order: TakeOutOrder::Drain { .. }, .. }) => "drain",
            Self::TakeOut(TakeOut { order: TakeOutOrder::Eject { .. }, .. }) => "eject",
            Self::Abort { .. } => "abort",
        }
    }
}
