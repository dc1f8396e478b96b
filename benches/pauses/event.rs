//! What happens to the players' game. One more event is one more variant here.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::front::{Front, Kind};
use crate::run::{Games, Load};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Event {
    /// The game is to be empty, for a deploy.
    Drain,
    /// SIGTERM, and the same address again.
    Restart,
    /// SIGKILL; another game takes over.
    Kill,
    /// The connection between proxy and game is reset.
    Cut,
    /// The game is to be empty, and all its players are in matches, each with a world of its own.
    Groups,
}

/// Players in a match: each frame is told to all of them, so that thousands play in pairs.
pub fn match_size(load: &Load) -> usize {
    if load.has_bystanders { 2 } else { 5 }
}

/// A process that is told to end gives its players up first.
const END_WITHIN: Duration = Duration::from_secs(30);
const LISTENS_WITHIN: Duration = Duration::from_secs(15);
/// Finer than any wait of the stage: this one is part of what players feel.
const STEP: Duration = Duration::from_micros(200);

impl Event {
    pub const ALL: [Self; 5] = [Self::Drain, Self::Restart, Self::Kill, Self::Cut, Self::Groups];

    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "planned drain",
            Self::Restart => "restart in place",
            Self::Kill => "SIGKILL",
            Self::Cut => "link cut",
            Self::Groups => "group move",
        }
    }

    /// Other proxies have no link that could be cut: their sessions are connections, which end with it. Nor have they groups.
    pub fn is_for(self, kind: Kind, load: &Load) -> bool {
        match kind {
            Kind::Holdfast => true,
            Kind::Haproxy => !matches!(self, Self::Cut | Self::Groups),
            // It ends itself when descriptors run out, and thousands who come back at once need more than the 20,000
            // that a process may have on many machines: no comparison.
            Kind::Envoy => !matches!(self, Self::Cut | Self::Groups) && !load.has_bystanders,
        }
    }

    /// Whether another backend, or another run of it, serves the players afterwards.
    pub fn moves(self) -> bool {
        self != Self::Cut
    }

    /// More of the service's document.
    pub fn service(self) -> Value {
        match self {
            Self::Restart => json!({"drain": {"on_sigterm": "park"}}),
            Self::Drain | Self::Kill | Self::Cut | Self::Groups => json!({}),
        }
    }

    /// Makes it happen; the time from exec to listening, if there was a restart.
    pub fn happen(self, front: &Front, games: &mut Games) -> Result<Option<Duration>> {
        match self {
            Self::Drain | Self::Groups => front.drain(games).map(|()| None),
            Self::Restart => restart(games).map(Some),
            Self::Kill => games.a.process().kill().map(|()| None),
            Self::Cut => {
                let Some(way) = &games.way else { bail!("the link has no way that could be cut") };
                way.blink();
                Ok(None)
            }
        }
    }
}

fn restart(games: &mut Games) -> Result<Duration> {
    let address = games.address_of_a()?;
    let process = games.a.process();
    process.terminate()?;
    soon("its end", END_WITHIN, || !process.is_running())?;
    process.wait(END_WITHIN)?;
    let exec = Instant::now();
    process.start()?;
    soon("listening", LISTENS_WITHIN, || TcpStream::connect(address).is_ok())?;
    Ok(exec.elapsed())
}

fn soon(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + within;
    while !condition() {
        if Instant::now() > deadline {
            bail!("restart: waited {within:?} in vain for {what}");
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}
