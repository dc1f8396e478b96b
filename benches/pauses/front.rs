//! What stands between players and games: Holdfast, or a proxy it is compared with.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use holdfast_stage::{
    Arena, Documents, Envoy, Haproxy, Proxy, ProxySpec, Stage, Upstream, arena_service, until,
};
use serde_json::{Value, json};

use crate::run::Games;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Holdfast,
    Haproxy,
    Envoy,
}

const APPLIED_WITHIN: Duration = Duration::from_secs(15);

impl Kind {
    pub const ALL: [Self; 3] = [Self::Holdfast, Self::Haproxy, Self::Envoy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "Holdfast",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        }
    }
}

pub enum Front {
    Holdfast { proxy: Box<Proxy>, documents: Documents },
    Haproxy(Haproxy),
    Envoy(Envoy),
}

/// Shares of new sessions by game.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    pub a: u32,
    pub b: u32,
    pub c: u32,
}

impl Weights {
    /// Of each game that there is.
    fn of(self, games: &Games) -> impl Iterator<Item = (&Arena, u32)> {
        let first = [(&games.a, self.a), (&games.b, self.b)];
        first.into_iter().chain(games.c.iter().map(move |c| (c, self.c)))
    }

    fn upstreams(self, games: &Games) -> Result<Vec<Upstream>> {
        self.of(games).map(|(arena, weight)| Upstream::of(arena, weight)).collect()
    }
}

impl Front {
    pub fn start(
        stage: &Stage,
        kind: Kind,
        service: &Value,
        games: &Games,
        weights: Weights,
    ) -> Result<Self> {
        match kind {
            Kind::Holdfast => {
                let documents = Documents::folder(stage)?;
                documents.put("services/arena", &arena_service(service))?;
                put_backends(&documents, games, weights)?;
                documents.put(
                    "routes/public",
                    &json!({"listener": "game", "service": "arena", "prefer": "none"}),
                )?;
                let proxy = Box::new(Proxy::start(stage, &ProxySpec::new("bench", &documents))?);
                Ok(Self::Holdfast { proxy, documents })
            }
            Kind::Haproxy => Ok(Self::Haproxy(Haproxy::start(stage, &weights.upstreams(games)?)?)),
            Kind::Envoy => Ok(Self::Envoy(Envoy::start(stage, &weights.upstreams(games)?)?)),
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Holdfast { proxy, .. } => proxy.address(),
            Self::Haproxy(proxy) => proxy.address(),
            Self::Envoy(proxy) => proxy.address(),
        }
    }

    /// New and moved sessions follow these weights when it returns; live ones stay.
    pub fn weigh(&self, games: &Games, weights: Weights) -> Result<()> {
        match self {
            Self::Holdfast { proxy, documents } => {
                put_backends(documents, games, weights)?;
                until("the proxy has the new weights", APPLIED_WITHIN, || {
                    proxy.admin_json("/backends").is_ok_and(|page| weights.are_in(&page, games))
                })
            }
            Self::Haproxy(proxy) => proxy.weigh(&weights.upstreams(games)?),
            Self::Envoy(proxy) => proxy.weigh(&weights.upstreams(games)?),
        }
    }

    /// Empties game a. Without Holdfast that takes two steps: no new sessions, then the game ends those it has.
    pub fn drain(&self, games: &mut Games) -> Result<()> {
        match self {
            Self::Holdfast { documents, .. } => {
                documents.put(&games.a.drain_key(), &json!({"deadline_s": 60, "reason": "bench"}))
            }
            Self::Haproxy(_) | Self::Envoy(_) => {
                self.weigh(games, Weights { a: 0, b: 100, c: 0 })?;
                games.a.process().terminate()
            }
        }
    }
}

impl Weights {
    /// As `/backends` tells them.
    fn are_in(self, page: &Value, games: &Games) -> bool {
        let told = |arena: &Arena| {
            let name = format!("arena/{}", arena.name());
            let found = page["backends"].as_array()?.iter().find(|backend| backend["backend"] == *name)?;
            found["weight"].as_u64()
        };
        self.of(games).all(|(arena, weight)| told(arena) == Some(u64::from(weight)))
    }
}

fn put_backends(documents: &Documents, games: &Games, weights: Weights) -> Result<()> {
    weights.of(games).try_for_each(|(arena, weight)| {
        let mut document = arena.document();
        document["weight"] = weight.into();
        if let (Some(way), "a") = (&games.way, arena.name()) {
            document["address"] = way.address().into();
        }
        documents.put(&arena.key(), &document)
    })
}
