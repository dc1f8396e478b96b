//! A game as other proxies know it.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::Arena;

/// A game's plain side, and its share of new sessions.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    pub address: SocketAddr,
    /// 0: no new sessions. At most 100.
    pub weight: u32,
}

impl Upstream {
    pub fn of(arena: &Arena, weight: u32) -> Result<Self> {
        let address = arena.plain_address().with_context(|| format!("{} has no plain side", arena.name()))?;
        Ok(Self { name: arena.name().to_owned(), address, weight })
    }
}
