//! `[register]`: this proxy makes the backend beside it known to all proxies, as a key under a lease.

use std::sync::Arc;
use std::time::Duration;

use super::reader::{Section, parsed, text_that};
use super::{FieldError, Local, ProxyConfig, Source};
use crate::routing::address::{BACKEND_ADDRESS, NAME, is_name};
use crate::routing::document::RawBackend;
use crate::routing::document::backend::{DEFAULT_WEIGHT, MAX_CAPACITY, MAX_WEIGHT, version};
use crate::routing::{BackendAddress, BackendId};

const VERSION: &str = "a version: 1 to 64 characters, no spaces";

/// What the registered document says, and how long it outlives this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// That of `[local]`.
    pub backend: BackendId,
    /// The way to it from other hosts.
    pub advertise: BackendAddress,
    /// `None`: as the backend itself says when its link comes up.
    pub version: Option<Arc<str>>,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    pub capacity: Option<u64>,
    pub ttl: Duration,
}

impl Register {
    /// Needs `[local]`, which says what is registered, and `[etcd]`, where.
    pub(super) fn read(
        mut section: Section<'_>,
        local: Option<&Local>,
        proxy: Option<&ProxyConfig>,
        source: &Option<Source>,
    ) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let advertise = section.required("advertise", BACKEND_ADDRESS, parsed);
        let is_version = |text: &str| version("version", text.to_owned()).is_ok();
        let own_version = section.optional("version", VERSION, text_that(is_version));
        let weight = section.number("weight", DEFAULT_WEIGHT.into(), 0..=MAX_WEIGHT.into());
        let zone = section.optional("zone", NAME, text_that(is_name)).map(Into::into);
        let capacity = section.number("capacity", 0, 1..=MAX_CAPACITY);
        let ttl = section.seconds("ttl_s", 15, 2..=3_600);
        if local.is_none() {
            let got = "[register] without a valid [local]";
            section.refuse(FieldError::new("advertise", got, "[local], the backend that is registered"));
        }
        if matches!(source, Some(Source::Files { .. })) {
            let got = "[register] beside [files]";
            section.refuse(FieldError::new("advertise", got, "[etcd], where backends are registered"));
        }
        section.finish();
        Some(Self {
            backend: local?.backend.clone(),
            advertise: advertise?,
            version: own_version.map(Into::into),
            weight: u32::try_from(weight).ok()?,
            zone: zone.or_else(|| proxy?.zone.clone()),
            capacity: (capacity > 0).then_some(capacity),
            ttl,
        })
    }

    /// The document to write for a backend of that version.
    ///
    /// # Errors
    /// The version isn't one that a document may have.
    pub fn document(&self, version: &str) -> Result<RawBackend, FieldError> {
        let raw = RawBackend {
            address: self.advertise.to_string(),
            version: version.to_owned(),
            weight: self.weight,
            zone: self.zone.as_deref().map(str::to_owned),
            capacity: self.capacity,
        };
        raw.clone().check(self.backend.clone())?;
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::path::Path;

    fn parse(more: &str) -> Result<Config, String> {
        let text = format!(
            "[proxy]\nid = \"p\"\nzone = \"eu-1\"\n[[listener]]\nname = \"game\"\nbind = \"0.0.0.0:7000\"\n{more}"
        );
        Config::parse(&text, Path::new("holdfast.toml")).map_err(|errors| errors.to_string())
    }

    const ETCD: &str = "[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n";
    const LOCAL: &str = "[local]\nbackend = \"arena/a\"\naddress = \"unix:/run/a.sock\"\n";

    #[test]
    fn a_registered_backend_is_the_local_one_in_the_zone_of_the_proxy() {
        let config = parse(&format!("{ETCD}{LOCAL}[register]\nadvertise = \"10.0.0.5:7100\"\n")).unwrap();
        let register = config.register.unwrap();
        assert_eq!(register.backend.to_string(), "arena/a");
        assert_eq!(
            (register.zone.as_deref(), register.weight, register.ttl.as_secs()),
            (Some("eu-1"), 100, 15)
        );
        let document = serde_json::to_string(&register.document("1.4").unwrap()).unwrap();
        assert_eq!(document, r#"{"address":"10.0.0.5:7100","version":"1.4","weight":100,"zone":"eu-1"}"#);
        assert_eq!(register.document("a b").unwrap_err().field, "version");
    }

    #[test]
    fn it_needs_a_local_backend_and_etcd() {
        let register = "[register]\nadvertise = \"10.0.0.5:7100\"\n";
        let errors = parse(&format!("{ETCD}{register}")).unwrap_err();
        assert!(errors.contains("register.advertise: got [register] without a valid [local]"), "{errors}");
        let folder = tempfile::tempdir().unwrap();
        let files = format!("[files]\npath = {:?}\n{LOCAL}{register}", folder.path());
        let errors = parse(&files).unwrap_err();
        assert!(
            errors.contains("register.advertise: got [register] beside [files], expected [etcd]"),
            "{errors}"
        );
        let wrong = format!("{ETCD}{LOCAL}[register]\nversion = \"a b\"\ncapacity = 0\nttl_s = 1\n");
        let errors = parse(&wrong).unwrap_err();
        for key in ["advertise", "version", "capacity", "ttl_s"] {
            assert!(errors.contains(&format!("register.{key}: got ")), "{errors}");
        }
        assert_eq!(errors.lines().count(), 4, "{errors}");
    }
}
