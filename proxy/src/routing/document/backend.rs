//! `backends/<service>/<backend>`: where a backend listens, and what its share is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fault, key, line, within};
use crate::config::FieldError;
use crate::routing::address::{BACKEND_ADDRESS, NAME_PATTERN};
use crate::routing::table::{Backend, BackendAddress, BackendId};

/// Largest weight and share: sums of them stay far from overflow.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// Most sessions that a backend's capacity may name.
pub const MAX_CAPACITY: u64 = 1_000_000;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBackend {
    /// Where the proxies reach it: `host:port`, `[ipv6]:port` or `unix:/path`.
    pub address: String,
    /// Version of the game, any word without spaces; routes give versions their shares.
    #[schemars(length(min = 1, max = 64))]
    pub version: String,
    /// Its share among the backends of its version; 0: no new sessions. Live sessions are moved to fit weights only
    /// where the service has `rebalance`.
    #[serde(default = "default_weight")]
    #[schemars(range(max = MAX_WEIGHT))]
    pub weight: u32,
    /// A name for where it stands, for routes that prefer a zone. Absent: in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = NAME_PATTERN))]
    pub zone: Option<String>,
    /// Sessions that it is to have at most: no worker that sees so many there, by its own count or by the backend's over
    /// all proxies, sends more. Absent: what the backend tells over its link, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_CAPACITY))]
    pub capacity: Option<u64>,
}

/// The weight of a backend whose document doesn't say.
pub const DEFAULT_WEIGHT: u32 = 100;

fn default_weight() -> u32 {
    DEFAULT_WEIGHT
}

impl RawBackend {
    pub fn check(self, id: BackendId) -> Result<Backend, FieldError> {
        Ok(Backend {
            id,
            address: address(&self.address)?,
            version: version("version", self.version)?.into(),
            weight: within("weight", self.weight, 0..=MAX_WEIGHT)?,
            zone: self.zone.map(|zone| key::name("zone", &zone)).transpose()?,
            capacity: self.capacity.map(|count| within("capacity", count, 1..=MAX_CAPACITY)).transpose()?,
        })
    }
}

fn address(text: &str) -> Result<BackendAddress, FieldError> {
    text.parse().map_err(|_| fault("address", super::strict::shown(text), BACKEND_ADDRESS))
}

/// A version is the game's own word for a build: any short line.
pub fn version(field: &str, text: String) -> Result<String, FieldError> {
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        return Err(fault(field, super::strict::shown(&text), "a version: 1 to 64 characters, no spaces"));
    }
    line(field, text, 64)
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};

    fn field(text: &str) -> String {
        Document::parse(&Key::parse("backends/arena/a").unwrap(), text.as_bytes()).unwrap_err().field
    }

    #[test]
    fn a_bad_field_is_named() {
        assert_eq!(field(r#"{"address": "nowhere", "version": "1"}"#), "address");
        assert_eq!(field(r#"{"address": "127.0.0.1:1", "version": ""}"#), "version");
        assert_eq!(field(r#"{"address": "127.0.0.1:1", "version": "a b"}"#), "version");
        assert_eq!(field(r#"{"address": "127.0.0.1:1", "version": "1", "weight": 1000001}"#), "weight");
        assert_eq!(field(r#"{"address": "127.0.0.1:1", "version": "1", "zone": "a zone"}"#), "zone");
        assert_eq!(field(r#"{"address": "127.0.0.1:1", "version": "1", "capacity": 0}"#), "capacity");
    }

    #[test]
    fn weight_zone_and_capacity_have_defaults() {
        let key = Key::parse("backends/arena/a").unwrap();
        let text = br#"{"address": "127.0.0.1:7100", "version": "1.4"}"#;
        let Document::Backend(backend) = Document::parse(&key, text).unwrap() else { panic!("a backend") };
        assert_eq!((backend.weight, backend.zone.as_deref(), &*backend.version), (100, None, "1.4"));
        assert_eq!(backend.capacity, None);
    }
}
