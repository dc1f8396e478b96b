//! The keys that proxies write themselves.

use super::page::MakeSchema;
use crate::rollout::Progress;
use crate::routing::document::schema::of;
use crate::source::etcd::{GroupDocument, HolderDocument, StatusDocument};

/// One kind of such keys.
pub struct Written {
    /// Below `status/`.
    pub key: &'static str,
    pub about: &'static str,
    /// None: the value is no JSON.
    pub schema: Option<MakeSchema>,
}

pub const WRITTEN: &[Written] = &[
    Written {
        key: "proxies/PROXY",
        about: "What one proxy does, while it lives: the key stands under its lease and goes about 10 s after a proxy \
                that died. Look here for what it refuses, and why.",
        schema: Some(of::<StatusDocument>),
    },
    Written {
        key: "rollouts/SERVICE",
        about: "How far a rollout is, written by the controller alone. It stays when the controller ends, and goes with \
                the rollout's document.",
        schema: Some(of::<Progress>),
    },
    Written {
        key: "controller",
        about: "The id of the proxy that runs the rollouts, as plain text, under its lease. When it goes, another \
                proxy takes over in the middle of the step.",
        schema: None,
    },
    Written {
        key: "backends/SERVICE/BACKEND",
        about: "Which proxy registered a backend (`[register]` in its file), under the lease of the registration, as \
                the `backends/` document itself.",
        schema: Some(of::<HolderDocument>),
    },
    Written {
        key: "groups/GROUP",
        about: "Which proxy a group (a match) comes through, under the proxy's lease.",
        schema: Some(of::<GroupDocument>),
    },
];
