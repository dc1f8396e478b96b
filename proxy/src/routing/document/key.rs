//! Where a document stands: `services/<s>`, `backends/<s>/<b>`, `routes/<r>`, `drains/<s>/<b>`, `ejections/<s>/<b>`,
//! `rollouts/<s>`, `accepts/<s>`, `hooks/<h>`.

use std::fmt;
use std::sync::Arc;

use super::fault;
use crate::config::FieldError;
use crate::routing::address::{NAME, is_name};
use crate::routing::table::BackendId;

/// A document's key below `config/`, or its path in a folder without `.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Service(Arc<str>),
    Backend(BackendId),
    Route(Arc<str>),
    Drain(BackendId),
    Ejection(BackendId),
    Rollout(Arc<str>),
    Accept(Arc<str>),
    Hook(Arc<str>),
}

const KINDS: &str = "services/<service>, backends/<service>/<backend>, routes/<route>, drains/<service>/<backend>, ejections/<service>/<backend>, rollouts/<service>, accepts/<service> or hooks/<hook>";

impl Key {
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut parts = text.split('/');
        let kind = parts.next().unwrap_or_default();
        match (kind, parts.next(), parts.next(), parts.next()) {
            ("services", Some(service), None, None) => Ok(Self::Service(name("key", service)?)),
            ("backends", Some(service), Some(backend), None) => Ok(Self::Backend(id(service, backend)?)),
            ("routes", Some(route), None, None) => Ok(Self::Route(name("key", route)?)),
            ("drains", Some(service), Some(backend), None) => Ok(Self::Drain(id(service, backend)?)),
            ("ejections", Some(service), Some(backend), None) => Ok(Self::Ejection(id(service, backend)?)),
            ("rollouts", Some(service), None, None) => Ok(Self::Rollout(name("key", service)?)),
            ("hooks", Some(hook), None, None) => Ok(Self::Hook(name("key", hook)?)),
            ("accepts", Some(service), None, None) => Ok(Self::Accept(name("key", service)?)),
            _ => Err(fault("key", super::strict::shown(text), KINDS)),
        }
    }

    /// The folder of its kind: the first part of the key.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "services",
            Self::Backend(_) => "backends",
            Self::Route(_) => "routes",
            Self::Drain(_) => "drains",
            Self::Ejection(_) => "ejections",
            Self::Rollout(_) => "rollouts",
            Self::Accept(_) => "accepts",
            Self::Hook(_) => "hooks",
        }
    }

    /// An order for a time, not a part of the configuration: no folder lacks it, and no rollback brings it back.
    #[must_use]
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Drain(_) | Self::Ejection(_) | Self::Rollout(_) | Self::Accept(_))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "services/{name}"),
            Self::Backend(id) => write!(f, "backends/{id}"),
            Self::Route(name) => write!(f, "routes/{name}"),
            Self::Drain(id) => write!(f, "drains/{id}"),
            Self::Ejection(id) => write!(f, "ejections/{id}"),
            Self::Rollout(name) => write!(f, "rollouts/{name}"),
            Self::Hook(name) => write!(f, "hooks/{name}"),
            Self::Accept(name) => write!(f, "accepts/{name}"),
        }
    }
}

fn id(service: &str, backend: &str) -> Result<BackendId, FieldError> {
    Ok(BackendId { service: name("key", service)?, name: name("key", backend)? })
}

/// A backend as labels name it: `SERVICE/NAME`, or `NAME` of that service.
#[must_use]
pub fn backend(text: &str, service: Option<&str>) -> Option<BackendId> {
    let (service, name) = text.split_once('/').or_else(|| Some((service?, text)))?;
    id(service, name).ok()
}

/// A name in a key or a reference to one: the same rule as in the bootstrap file.
pub fn name(field: &str, text: &str) -> Result<Arc<str>, FieldError> {
    if is_name(text) { Ok(text.into()) } else { Err(fault(field, super::strict::shown(text), NAME)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for text in [
            "services/arena",
            "backends/arena/a",
            "routes/eu.public_1",
            "drains/arena/a-2",
            "ejections/arena/a",
            "rollouts/arena",
            "hooks/hot",
        ] {
            assert_eq!(Key::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_label_names_a_backend_whole_or_beside_its_service() {
        let named = |text: &str, service| backend(text, service).map(|id| id.to_string());
        assert_eq!(named("arena/a", None).as_deref(), Some("arena/a"));
        assert_eq!(named("arena/a", Some("lobby")).as_deref(), Some("arena/a"), "the whole name wins");
        assert_eq!(named("a", Some("arena")).as_deref(), Some("arena/a"));
        for (text, service) in
            [("a", None), ("", Some("arena")), ("arena/a/b", None), ("10.0.0.5:1", Some("s"))]
        {
            assert_eq!(named(text, service), None, "{text}");
        }
    }

    #[test]
    fn a_key_of_no_known_kind_or_shape_is_refused() {
        let long = format!("services/{}", "a".repeat(65));
        for text in [
            "",
            "service/arena",
            "services",
            "services/",
            "services/a/b",
            "backends/a",
            "backends/a/b/c",
            "routes/-a",
            &long,
        ] {
            assert_eq!(Key::parse(text).unwrap_err().field, "key", "{text:?}");
        }
    }
}
