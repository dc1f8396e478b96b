//! How names and addresses are written, in keys, documents, the bootstrap file and on the command line.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::table::{BackendAddress, BackendId};

/// What a name may be made of; see [`is_name`].
pub const NAME: &str = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit";
/// The same as a regular expression, for JSON Schema.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
/// How a backend is named.
pub const BACKEND_ID: &str = "service/name, each 1 to 64 letters, digits, '.', '_' or '-'";
/// How a backend's address is written.
pub const BACKEND_ADDRESS: &str = "host:port, [ipv6]:port or unix:/path";

/// The longest path of a Unix socket, which the kernel keeps in 108 bytes with its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Text that isn't a name or address of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("got {got:?}, expected {expected}")]
pub struct AddressError {
    pub got: String,
    pub expected: &'static str,
}

/// Whether `text` may name a service, backend, listener, route, zone or proxy: it stands in keys, file names and
/// metric labels as it is.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// An absolute path that a Unix socket can have, from `unix:/path`.
#[must_use]
pub fn unix_path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix:")?;
    let usable = path.len() <= MAX_SOCKET_PATH_BYTES && !path.contains('\0') && !path.ends_with('/');
    (usable && Path::new(path).is_absolute()).then(|| PathBuf::from(path))
}

impl FromStr for BackendId {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((service, name)) if is_name(service) && is_name(name) => {
                Ok(Self { service: service.into(), name: name.into() })
            }
            _ => Err(AddressError { got: text.to_owned(), expected: BACKEND_ID }),
        }
    }
}

impl FromStr for BackendAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = if text.starts_with("unix:") {
            unix_path(text).map(Self::Unix)
        } else {
            is_host_and_port(text).then(|| Self::Tcp(text.into()))
        };
        address.ok_or_else(|| AddressError { got: text.to_owned(), expected: BACKEND_ADDRESS })
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether `text` is a host and a port to connect to.
#[must_use]
pub fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        let bytes = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        !label.is_empty() && label.len() <= 63 && ends && bytes
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_by_service_and_name() {
        let id: BackendId = "arena/a-1.x_y".parse().unwrap();
        assert_eq!((&*id.service, &*id.name, id.to_string()), ("arena", "a-1.x_y", "arena/a-1.x_y".into()));
        for text in
            ["", "arena", "/a", "arena/", "arena/a/b", "arena/..", "a b/c", "arena/é", &"x/y".repeat(40)]
        {
            assert!(text.parse::<BackendId>().is_err(), "{text}");
        }
        let error = "arena".parse::<BackendId>().unwrap_err().to_string();
        assert_eq!(
            error,
            "got \"arena\", expected service/name, each 1 to 64 letters, digits, '.', '_' or '-'"
        );
    }

    #[test]
    fn an_address_is_a_host_and_port_or_a_unix_socket() {
        for text in ["10.0.0.5:7100", "[::1]:7100", "arena-0.arena.default.svc:7100", "unix:/run/arena.sock"]
        {
            assert_eq!(text.parse::<BackendAddress>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "10.0.0.5",
            ":7100",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:7100",
            "a..b:1",
            "unix:run/a",
            "unix:",
            &long,
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text}");
        }
        let error = "10.0.0.5".parse::<BackendAddress>().unwrap_err().to_string();
        assert_eq!(error, "got \"10.0.0.5\", expected host:port, [ipv6]:port or unix:/path");
    }
}
