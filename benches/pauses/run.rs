//! One run: fresh games, proxy and players; quiet play, one event, and the players' verdict.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_stage::{Arena, ArenaSpec, Forwarder, Players, PlayersSpec, Progress, Stage};
use serde_json::json;

use crate::event::{Event, match_size};
use crate::front::{Front, Kind, Weights};
use crate::row::{Row, Run};

pub const FRAME_BYTES: usize = 128;
pub const STATE_BYTES: usize = 4096;
pub const TICK_MS: u32 = 1000;

/// Up to so many sessions the load is lively.
const MOST_LIVELY: usize = 2000;
/// From the players' entry to the quiet window; a worker's dials and buffers are warm then.
const SETTLE: Duration = Duration::from_secs(1);
/// An event's window lasts at least so long, and so does the quiet one before it.
const LEAST_WINDOW: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the games that the event is about; bystanders play at another version, by which replies can be told apart.
const VERSION: &str = "1.4";
const BYSTANDERS_VERSION: &str = "1.4-c";
const EVENT: &str = "event";

/// How many play, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    pub sessions: usize,
    pub rate_hz: f64,
    /// Half of the sessions are on a game that the event doesn't touch.
    pub has_bystanders: bool,
}

impl Load {
    pub fn of(sessions: usize) -> Self {
        match sessions <= MOST_LIVELY {
            true => Self { sessions, rate_hz: 20.0, has_bystanders: false },
            false => Self { sessions, rate_hz: 2.0, has_bystanders: true },
        }
    }

    pub fn rounds(&self, asked: usize) -> usize {
        if self.has_bystanders { 1 } else { asked }
    }

    /// Long enough that a window as long as the event's fits in.
    fn quiet(&self) -> Duration {
        if self.has_bystanders { Duration::from_secs(4) } else { Duration::from_secs(2) }
    }
}

/// The event happens to `a`; `b` is empty and may take its players; bystanders are on `c`.
pub struct Games {
    pub a: Arena,
    pub b: Arena,
    pub c: Option<Arena>,
    /// Between the proxy and `a`, where that way is to be cut.
    pub way: Option<Forwarder>,
}

impl Games {
    fn start(stage: &Stage, row: &Row) -> Result<Self> {
        let (state, tick) = (STATE_BYTES.to_string(), TICK_MS.to_string());
        let start = |name: &str, version: &str| {
            let spec =
                ArenaSpec::new(name).version(version).flags(["--state-bytes", &state, "--tick-ms", &tick]);
            Arena::start(stage, if row.kind == Kind::Holdfast { spec } else { spec.plain() })
        };
        let (a, b) = (start("a", VERSION)?, start("b", VERSION)?);
        let c = row.load.has_bystanders.then(|| start("c", BYSTANDERS_VERSION)).transpose()?;
        let is_cut = row.event == Event::Cut;
        let way = is_cut.then(|| Forwarder::start(a.address().parse()?)).transpose()?;
        Ok(Self { a, b, c, way })
    }

    /// Where its proxy connects.
    pub fn address_of_a(&self) -> Result<SocketAddr> {
        match self.a.plain_address() {
            Some(plain) => Ok(plain),
            None => self.a.address().parse().context("the address of a"),
        }
    }
}

pub fn perform(row: &Row) -> Result<Run> {
    let mut stage = Stage::new("bench-pauses")?;
    let result = on(&stage, row);
    if result.is_err() {
        stage.keep();
    }
    result.with_context(|| row.name())
}

fn on(stage: &Stage, row: &Row) -> Result<Run> {
    let mut games = Games::start(stage, row)?;
    let mut service = row.event.service();
    service["recovery"] = json!(row.recovery);
    let everybody_in = Weights { a: 100, b: 0, c: 100 };
    let front = Front::start(stage, row.kind, &service, &games, everybody_in)?;
    // Players of every proxy come back if they lose their connection; Holdfast's never should.
    let spec = PlayersSpec::new([front.address()], row.load.sessions).rate_hz(row.load.rate_hz).flags([
        "--rejoin",
        "--sources",
        "4",
    ]);
    let matches = (row.event == Event::Groups).then(|| match_size(&row.load));
    let mut players = Players::start(stage, &PlayersSpec { frame_bytes: FRAME_BYTES, matches, ..spec })?;
    front.weigh(&games, Weights { a: 100, b: 100, c: 0 })?;
    std::thread::sleep(SETTLE + row.load.quiet());
    let own_restart = event(row.event, &front, &mut games, &mut players)?;
    let verdict = players.finish()?;
    let report = verdict.events.first().cloned().context("the players report the event")?;
    Ok(Run {
        report,
        promised: verdict.promised(),
        mismatched: verdict.mismatched + verdict.worlds_diverged + verdict.joins_refused,
        frames: verdict.frames,
        own_restart_ms: own_restart.map(|took| took.as_secs_f64() * 1000.0),
    })
}

fn event(event: Event, front: &Front, games: &mut Games, players: &mut Players) -> Result<Option<Duration>> {
    let progress = players.progress()?;
    let there = progress.by_backend.iter().find(|share| share.version == VERSION);
    let there = there.context("nobody plays at a")?.clone();
    players.begin_at(&there.instance, EVENT)?;
    let began = Instant::now();
    let own_restart = event.happen(front, games)?;
    let is_over = |progress: &Progress| !event.moves() || progress.moved >= there.sessions;
    // Who isn't back in time shows as not moved.
    let _ = players.wait_until("all play on", PATIENCE, is_over);
    std::thread::sleep(LEAST_WINDOW.saturating_sub(began.elapsed()));
    players.end(EVENT)?;
    Ok(own_restart)
}
