//! Weighted rendezvous hashing: the same key comes to the same backend from every worker and proxy, and a backend that
//! comes or goes moves only the keys that come to it, or were there.

use std::net::IpAddr;

use holdfast_protocol::SessionId;
use xxhash_rust::xxh3::xxh3_64;

use super::{Candidate, rendezvous};
use crate::routing::table::{HashKey, Policy};

pub fn pick<'a>(seed: u64, among: impl Iterator<Item = (usize, &'a Candidate<'a>)>) -> Option<usize> {
    let score = |candidate: &Candidate<'_>| rendezvous(seed, &candidate.backend.id.name, candidate.weight);
    among.min_by(|(_, a), (_, b)| score(a).total_cmp(&score(b))).map(|(index, _)| index)
}

/// Whose place it is.
#[derive(Debug, Clone, Copy)]
pub struct Player<'a> {
    pub session: SessionId,
    /// None: a group, which goes by its own id.
    pub client: Option<IpAddr>,
    pub sni: Option<&'a str>,
}

/// What a player's place follows from: with the policy `hash` its key, where there is one; else the session's id.
#[must_use]
pub fn seed(policy: Policy, player: &Player<'_>) -> u64 {
    let of_key = match (policy, player) {
        (Policy::Hash(HashKey::Client), Player { client: Some(client), .. }) => {
            Some(match client.to_canonical() {
                IpAddr::V4(address) => xxh3_64(&address.octets()),
                IpAddr::V6(address) => xxh3_64(&address.octets()),
            })
        }
        (Policy::Hash(HashKey::Sni), Player { client: Some(_), sni: Some(sni), .. }) => {
            let name = sni.strip_suffix('.').unwrap_or(sni);
            Some(xxh3_64(name.to_ascii_lowercase().as_bytes()))
        }
        _ => None,
    };
    of_key.unwrap_or_else(|| xxh3_64(&player.session.0))
}
