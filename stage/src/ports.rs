//! Addresses for servers that must be told their port.

use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Below the ports that the system gives to outgoing connections (from 32768 on), so that none of those can take a
/// port between this look and the server's bind.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A loopback address that nothing listens on, and that isn't given out twice by this process.
pub fn free_address() -> Result<SocketAddr> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Another process begins elsewhere.
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(..COUNT)));
    for _ in 0..1000 {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port on loopback between {FIRST} and {}", FIRST + COUNT)
}
