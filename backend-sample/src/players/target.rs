//! Where bots connect, as typed (`HOST:PORT`) and as resolved. Names are looked up once, before the first bot.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

/// How often a name that isn't known yet, or a place that nobody listens at yet, is tried again.
const RETRY_PERIOD: Duration = Duration::from_millis(200);
/// A resolver without an answer; the system's own patience is longer, and not ours to set.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `HOST:PORT`, the host a name or an IP address (IPv6 in brackets).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let expected = "expected HOST:PORT, as in game.example:7000, 127.0.0.1:7000 or [::1]:7000";
        let (host, port) = text.rsplit_once(':').ok_or(expected)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || !host.chars().all(is_name) || port.parse::<u16>().is_err() {
            return Err(expected.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A place with the addresses that its name stands for: at least one, tried in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub addresses: Vec<SocketAddr>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { name: address.to_string(), addresses: vec![address] }
    }
}

impl Target {
    /// Connects to the first address that answers; from `source`, if that is given and the address is IPv4. Tries
    /// again until the deadline, at least once.
    pub(super) async fn connect(&self, source: Option<Ipv4Addr>, deadline: Instant) -> io::Result<TcpStream> {
        loop {
            let error = match self.connect_once(source).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if is_over(deadline) {
                return Err(error);
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    async fn connect_once(&self, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for &address in &self.addresses {
            let attempt = timeout(CONNECT_TIMEOUT, dial(address, source)).await;
            match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn dial(address: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source
        && address.is_ipv4()
    {
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn is_over(deadline: Instant) -> bool {
    Instant::now() + RETRY_PERIOD > deadline
}

/// The operator's fault, or a name that comes later than was waited for.
#[derive(Debug, thiserror::Error)]
#[error("--connect {place}: no address for this host: {reason}")]
pub struct Unresolved {
    place: String,
    reason: String,
}

/// Looks all names up, again and again until the deadline, at least once.
///
/// # Errors
/// The first place whose name has no address by then.
pub async fn resolve(places: &[Place], deadline: Instant) -> Result<Vec<Target>, Unresolved> {
    let mut targets = Vec::with_capacity(places.len());
    for place in places {
        targets.push(resolve_one(place, deadline).await?);
    }
    Ok(targets)
}

async fn resolve_one(place: &Place, deadline: Instant) -> Result<Target, Unresolved> {
    loop {
        let reason = match timeout(LOOKUP_TIMEOUT, lookup_host(&place.0)).await {
            Ok(Ok(found)) => {
                let addresses: Vec<SocketAddr> = found.collect();
                if !addresses.is_empty() {
                    return Ok(Target { name: place.to_string(), addresses });
                }
                "the resolver's answer is empty".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the resolver didn't answer within {} s", LOOKUP_TIMEOUT.as_secs()),
        };
        if is_over(deadline) {
            return Err(Unresolved { place: place.to_string(), reason });
        }
        sleep(RETRY_PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.invalid` never has an address (RFC 6761).
    const UNKNOWN: &str = "nobody.invalid:7000";

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_a_host_or_an_address_with_a_port() {
        for text in ["proxy-a:7000", "game.example.:1", "127.0.0.1:7000", "[::1]:7000"] {
            assert_eq!(place(text).to_string(), text);
        }
        for text in ["", "proxy-a", ":7000", "proxy-a:", "proxy-a:65536", "::1:7000", "http://proxy-a:7000"] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("expected HOST:PORT"), "{text}: {error}");
        }
    }

    /// An address that nobody listens at, for now.
    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener.local_addr().unwrap();
        let target = Target { name: "game:1".to_owned(), addresses: vec![free_address(), listening] };
        let stream = target.connect(None, Instant::now()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
    }

    #[tokio::test]
    async fn a_listener_that_comes_later_is_waited_for() {
        let address = free_address();
        let target = Target::from(address);
        let error = target.connect(None, Instant::now()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let connecting = target.connect(None, Instant::now() + Duration::from_secs(60));
        let listening = async {
            sleep(RETRY_PERIOD / 2).await;
            tokio::net::TcpListener::bind(address).await.unwrap()
        };
        let (stream, _listener) = tokio::join!(connecting, listening);
        assert_eq!(stream.unwrap().peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn names_become_addresses_in_the_order_given() {
        let targets = resolve(&[place("127.0.0.2:1"), place("localhost:2")], Instant::now()).await.unwrap();
        assert_eq!(targets[0], Target::from(SocketAddr::from(([127, 0, 0, 2], 1))));
        assert_eq!(targets[1].name, "localhost:2");
        let is_own = |address: &SocketAddr| address.ip().is_loopback() && address.port() == 2;
        assert!(targets[1].addresses.iter().all(is_own), "{targets:?}");
    }

    #[tokio::test]
    async fn an_unknown_name_is_tried_until_the_deadline_and_then_named() {
        let wait = RETRY_PERIOD * 3;
        let start = Instant::now();
        let error = resolve(&[place("127.0.0.1:1"), place(UNKNOWN)], start + wait).await.unwrap_err();
        assert!(error.to_string().contains(UNKNOWN), "{error}");
        assert!(start.elapsed() + RETRY_PERIOD >= wait, "gave up after {:?}", start.elapsed());
    }
}
