//! Where a server listens and a client calls: a TCP address or a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `host:port`, `http://host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; the host may be a name.
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} isn't an admin address: expected HOST:PORT, http://HOST:PORT or unix:/PATH")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(error()) };
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(error)?;
        let host_is_plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
        match port.parse::<u16>() {
            Ok(port) if port > 0 && host_is_plain => Ok(Self::Tcp(authority.to_owned())),
            _ => Err(error()),
        }
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        let tcp = |text: &str| Ok(Address::Tcp(text.to_owned()));
        assert_eq!("127.0.0.1:9900".parse(), tcp("127.0.0.1:9900"));
        assert_eq!("http://localhost:9900/".parse(), tcp("localhost:9900"));
        assert_eq!("[::1]:9900".parse(), tcp("[::1]:9900"));
        assert_eq!("unix:/run/h.sock".parse(), Ok(Address::Unix("/run/h.sock".into())));
    }

    #[test]
    fn others_are_refused_with_what_is_expected() {
        for text in [
            "",
            "localhost",
            "localhost:0",
            ":9900",
            "https://x:1",
            "http://a/b:1",
            "unix:run/h.sock",
            "h:99999",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("unix:/PATH"), "{error}");
        }
    }
}
