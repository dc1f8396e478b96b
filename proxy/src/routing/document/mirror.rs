//! `mirror` in a service's document: which share of its sessions a shadow service sees, too.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fault, key, within};
use crate::config::FieldError;
use crate::routing::table::MirrorPolicy;

/// A share of the sessions is played to a shadow service, too, whose answers no player sees.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMirror {
    /// The shadow: another service, with the same framing.
    pub service: String,
    /// Percent of the new sessions that are mirrored. At 0 running mirrors end.
    #[schemars(range(max = 100))]
    pub percent: u64,
    /// Whether the shadow's frames are compared, in their order, with those that the player gets, and counted as equal
    /// or different. Of use where a game's frames follow from its players' alone. Otherwise they are dropped.
    #[serde(default)]
    pub compare: bool,
}

impl RawMirror {
    /// `of`: the service that is mirrored.
    pub fn check(self, of: &str) -> Result<MirrorPolicy, FieldError> {
        let service: Arc<str> = key::name("mirror.service", &self.service)?;
        if *service == *of {
            return Err(fault("mirror.service", self.service, "another service than the mirrored one"));
        }
        let percent = within("mirror.percent", self.percent, 0..=100)?;
        Ok(MirrorPolicy { service, percent: u8::try_from(percent).unwrap_or(100), compare: self.compare })
    }
}
