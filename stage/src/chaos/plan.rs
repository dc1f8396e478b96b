//! What goes wrong, when and to whom: all of it follows from the seed, before anything has happened.
//!
//! The plan never leaves players without a game for longer than [`MOST_WITHOUT_GAME`], which is far below the
//! deadline at which waiting sessions are closed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

const LEAST_BURST_TICKS: u32 = 1_000;
/// Between two faults, in milliseconds.
const GAP_MS: (u64, u64) = (150, 600);
/// Of ten faults, so many come right after the one before, to meet what it has set going.
const HURRIED_OF_TEN: u32 = 3;
const HURRIED_GAP_MS: (u64, u64) = (0, 100);
/// What takes every game away from the players ends by then.
const MOST_WITHOUT_GAME: Duration = Duration::from_secs(3);
/// Time that an etcd takes to be healthy again, and to be noticed.
const ETCD_RETURNS: Duration = Duration::from_millis(2_500);
/// What a restart in place takes, beside the time between the end and the new start.
const RESTART: Duration = Duration::from_millis(1_200);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL to a game, and a new start a moment later.
    Kill,
    /// SIGSTOP to a game, and SIGCONT after a while.
    Freeze,
    /// A reset of the connections between a game and the proxies.
    LinkCut,
    Drain,
    Undrain,
    /// SIGTERM to a game, and a new start on the same address.
    Restart,
    EtcdKill,
    EtcdCompact,
    /// Players who don't read.
    SlowPlayer,
    /// Players who send all they can.
    PlayerFlood,
    /// Games that send all they can.
    BackendFlood,
    /// Players who leave, and as many who come.
    Leave,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::Freeze,
        Self::LinkCut,
        Self::Drain,
        Self::Undrain,
        Self::Restart,
        Self::EtcdKill,
        Self::EtcdCompact,
        Self::SlowPlayer,
        Self::PlayerFlood,
        Self::BackendFlood,
        Self::Leave,
    ];

    /// As it stands in `faults` of the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::LinkCut => "link_cut",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Restart => "restart",
            Self::EtcdKill => "etcd_kill",
            Self::EtcdCompact => "etcd_compact",
            Self::SlowPlayer => "slow_player",
            Self::PlayerFlood => "player_flood",
            Self::BackendFlood => "backend_flood",
            Self::Leave => "leave",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Since the storm's begin.
    pub at: Duration,
    pub action: Action,
}

/// Backends and swarms by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Kill {
        backend: usize,
        back_after: Duration,
    },
    Freeze {
        backend: usize,
        lasts: Duration,
    },
    /// All its connections, or the one that `pick` falls on.
    LinkCut {
        backend: usize,
        pick: Option<u64>,
    },
    Drain {
        backend: usize,
    },
    Undrain {
        backend: usize,
    },
    Restart {
        backend: usize,
        back_after: Duration,
    },
    EtcdKill {
        back_after: Duration,
    },
    EtcdCompact,
    Players {
        swarm: usize,
        players: usize,
        seed: u64,
        what: Mischief,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mischief {
    Slow(Duration),
    Flood(Duration),
    Burst(u32),
    Leave,
}

impl Action {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Freeze { .. } => Kind::Freeze,
            Self::LinkCut { .. } => Kind::LinkCut,
            Self::Drain { .. } => Kind::Drain,
            Self::Undrain { .. } => Kind::Undrain,
            Self::Restart { .. } => Kind::Restart,
            Self::EtcdKill { .. } => Kind::EtcdKill,
            Self::EtcdCompact => Kind::EtcdCompact,
            Self::Players { what, .. } => match what {
                Mischief::Slow(_) => Kind::SlowPlayer,
                Mischief::Flood(_) => Kind::PlayerFlood,
                Mischief::Burst(_) => Kind::BackendFlood,
                Mischief::Leave => Kind::Leave,
            },
        }
    }
}

/// The target, and how much.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let game = |backend: &usize| format!("arena/{}", BACKENDS[*backend]);
        match self {
            Self::Kill { backend, back_after } => {
                write!(f, "{}, starts again after {back_after:?}", game(backend))
            }
            Self::Freeze { backend, lasts } => write!(f, "{} for {lasts:?}", game(backend)),
            Self::LinkCut { backend, pick: None } => write!(f, "{}, all connections", game(backend)),
            Self::LinkCut { backend, .. } => write!(f, "{}, one connection", game(backend)),
            Self::Drain { backend } | Self::Undrain { backend } => write!(f, "{}", game(backend)),
            Self::Restart { backend, back_after } => {
                write!(f, "{}, starts again {back_after:?} after its end", game(backend))
            }
            Self::EtcdKill { back_after } => write!(f, "etcd, starts again after {back_after:?}"),
            Self::EtcdCompact => write!(f, "etcd"),
            Self::Players { swarm, players, what, .. } => {
                write!(f, "{players} of swarm {}", swarm + 1)?;
                match what {
                    Mischief::Slow(time) | Mischief::Flood(time) => write!(f, " for {time:?}"),
                    Mischief::Burst(ticks) => write!(f, ", {ticks} ticks each"),
                    Mischief::Leave => Ok(()),
                }
            }
        }
    }
}

pub const BACKENDS: [&str; 3] = ["a", "b", "c"];

/// What the plan is made for.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub storm: Duration,
    pub kinds: Vec<Kind>,
    pub swarms: usize,
    /// In milliseconds.
    pub freeze_ms: (u64, u64),
    /// Ticks that a player asks a game for at once, at most; above [`LEAST_BURST_TICKS`].
    pub most_burst_ticks: u32,
}

/// All faults in their order.
pub fn plan(seed: u64, bounds: &Bounds) -> Vec<Fault> {
    let mut planner = Planner {
        bounds,
        random: Rng::with_seed(seed),
        bag: Vec::new(),
        backends: [Away::default(); BACKENDS.len()],
        etcd_back_at: Duration::ZERO,
        faults: Vec::new(),
    };
    planner.run();
    planner.faults.sort_by_key(|fault| fault.at);
    planner.faults
}

struct Planner<'a> {
    bounds: &'a Bounds,
    random: Rng,
    /// Kinds that are still to come before all have their next turn.
    bag: Vec<Kind>,
    backends: [Away; BACKENDS.len()],
    etcd_back_at: Duration,
    faults: Vec<Fault>,
}

/// Until when a backend takes no players.
#[derive(Debug, Clone, Copy, Default)]
struct Away {
    /// Down, frozen or restarting.
    process: Duration,
    drained: Duration,
}

impl Away {
    fn until(self) -> Duration {
        self.process.max(self.drained)
    }
}

impl Planner<'_> {
    fn run(&mut self) {
        let mut at = Duration::ZERO;
        while at < self.bounds.storm {
            if let Some(action) = self.draw(at) {
                self.faults.push(Fault { at, action });
            }
            let hurried = self.random.u32(..10) < HURRIED_OF_TEN;
            at += self.millis(if hurried { HURRIED_GAP_MS } else { GAP_MS });
        }
    }

    fn millis(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(self.random.u64(least..=most))
    }

    /// The next kind of the bag that is possible now; if none is, what is left over waits for the next bag.
    fn draw(&mut self, at: Duration) -> Option<Action> {
        self.draw_from_bag(at).or_else(|| {
            self.fill_bag();
            self.draw_from_bag(at)
        })
    }

    fn fill_bag(&mut self) {
        let mut kinds = self.bounds.kinds.clone();
        kinds.retain(|kind| *kind != Kind::Undrain && !self.bag.contains(kind));
        kinds.sort();
        self.random.shuffle(&mut kinds);
        // Drawn from the end: those left over come first.
        kinds.append(&mut self.bag);
        self.bag = kinds;
    }

    fn draw_from_bag(&mut self, at: Duration) -> Option<Action> {
        let turns = (0..self.bag.len()).rev();
        let (index, action) = turns.into_iter().find_map(|index| {
            let kind = self.bag[index];
            Some((index, self.action(kind, at)?))
        })?;
        self.bag.remove(index);
        Some(action)
    }

    fn action(&mut self, kind: Kind, at: Duration) -> Option<Action> {
        match kind {
            Kind::Kill => {
                let (backend, back_after) = self.take_down(at, (0, 2_000), Duration::ZERO)?;
                Some(Action::Kill { backend, back_after })
            }
            Kind::Freeze => {
                let (backend, lasts) = self.take_down(at, self.bounds.freeze_ms, Duration::ZERO)?;
                Some(Action::Freeze { backend, lasts })
            }
            Kind::Restart => {
                let (backend, back_after) = self.take_down(at, (0, 1_500), RESTART)?;
                Some(Action::Restart { backend, back_after })
            }
            Kind::LinkCut => {
                let pick = self.random.bool().then(|| self.random.u64(..));
                Some(Action::LinkCut { backend: self.random.usize(..BACKENDS.len()), pick })
            }
            Kind::Drain => self.drain(at),
            Kind::EtcdKill => self.kill_etcd(at),
            Kind::EtcdCompact => (at >= self.etcd_back_at).then_some(Action::EtcdCompact),
            Kind::SlowPlayer => {
                let time = self.millis((300, 3_000));
                Some(self.players(Mischief::Slow(time), 8))
            }
            Kind::PlayerFlood => {
                let time = self.millis((50, 500));
                Some(self.players(Mischief::Flood(time), 4))
            }
            Kind::BackendFlood => {
                let ticks = self.random.u32(LEAST_BURST_TICKS..=self.bounds.most_burst_ticks);
                Some(self.players(Mischief::Burst(ticks), 4))
            }
            Kind::Leave => Some(self.players(Mischief::Leave, 10)),
            // Planned with its drain.
            Kind::Undrain => None,
        }
    }

    fn players(&mut self, what: Mischief, most: usize) -> Action {
        let swarm = self.random.usize(..self.bounds.swarms);
        let players = self.random.usize(1..=most);
        Action::Players { swarm, players, seed: self.random.u64(..), what }
    }

    /// A backend whose process is there, for so long and what comes on top.
    fn take_down(&mut self, at: Duration, time_ms: (u64, u64), more: Duration) -> Option<(usize, Duration)> {
        let there = |away: &Away| away.process <= at;
        let backend = self.pick(there)?;
        let time = self.millis(time_ms).min(self.most(backend, at).saturating_sub(more));
        self.backends[backend].process = at + time + more;
        Some((backend, time))
    }

    fn pick(&mut self, wanted: impl Fn(&Away) -> bool) -> Option<usize> {
        let fitting: Vec<usize> =
            (0..BACKENDS.len()).filter(|index| wanted(&self.backends[*index])).collect();
        self.random.choice(fitting)
    }

    /// How long this backend may be away.
    fn most(&self, backend: usize, at: Duration) -> Duration {
        let mut others = (0..BACKENDS.len()).filter(|other| *other != backend);
        match others.any(|other| self.backends[other].until() <= at) {
            true => Duration::MAX,
            false => MOST_WITHOUT_GAME,
        }
    }

    fn drain(&mut self, at: Duration) -> Option<Action> {
        if at < self.etcd_back_at {
            return None;
        }
        let backend = self.pick(|away| away.drained < at)?;
        let lasts = self.millis((500, 6_000)).min(self.most(backend, at));
        self.backends[backend].drained = at + lasts;
        self.faults.push(Fault { at: at + lasts, action: Action::Undrain { backend } });
        Some(Action::Drain { backend })
    }

    /// Not while a drain has to end, or players would wait for etcd.
    fn kill_etcd(&mut self, at: Duration) -> Option<Action> {
        let back_after = self.millis((200, 3_000));
        let back_at = at + back_after + ETCD_RETURNS;
        let undrained_meanwhile =
            self.backends.iter().any(|away| away.drained > at && away.drained < back_at);
        if at < self.etcd_back_at || undrained_meanwhile {
            return None;
        }
        self.etcd_back_at = back_at;
        Some(Action::EtcdKill { back_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        let storm = Duration::from_secs(60);
        Bounds {
            storm,
            kinds: Kind::ALL.to_vec(),
            swarms: 4,
            freeze_ms: (100, 4_000),
            most_burst_ticks: 20_000,
        }
    }

    #[test]
    fn a_seed_makes_the_same_plan_again_and_another_seed_another() {
        let bounds = bounds();
        assert_eq!(plan(7, &bounds), plan(7, &bounds));
        assert_ne!(plan(7, &bounds), plan(8, &bounds));
    }

    #[test]
    fn every_kind_has_its_turns_every_few_hundred_milliseconds() {
        for seed in 0..50 {
            let faults = plan(seed, &bounds());
            assert!(faults.len() >= 60_000 / GAP_MS.1 as usize, "seed {seed}: {} faults", faults.len());
            for kind in Kind::ALL {
                let turns = faults.iter().filter(|fault| fault.action.kind() == kind).count();
                assert!(turns >= 3, "seed {seed}: {turns} of {}", kind.name());
            }
        }
    }

    #[test]
    fn every_drain_ends_and_never_while_etcd_is_away() {
        for seed in 0..50 {
            let faults = plan(seed, &bounds());
            let mut drained = [false; BACKENDS.len()];
            let mut etcd_back_at = Duration::ZERO;
            for Fault { at, action } in &faults {
                match action {
                    Action::Drain { backend } => assert!(!std::mem::replace(&mut drained[*backend], true)),
                    Action::Undrain { backend } => assert!(std::mem::take(&mut drained[*backend])),
                    Action::EtcdKill { back_after } => etcd_back_at = *at + *back_after,
                    _ => continue,
                }
                let is_order = matches!(action, Action::Drain { .. } | Action::Undrain { .. });
                assert!(!is_order || *at >= etcd_back_at, "seed {seed}: {action} at {at:?}");
            }
            assert_eq!(drained, [false; BACKENDS.len()], "seed {seed}");
        }
    }

    #[test]
    fn players_are_never_long_without_a_game() {
        for seed in 0..50 {
            let faults = plan(seed, &bounds());
            let mut away = [Duration::ZERO; BACKENDS.len()];
            let undrained = |from: usize, backend: usize| {
                let mut later = faults[from..].iter();
                let undrain = Action::Undrain { backend };
                later.find(|fault| fault.action == undrain).map_or(Duration::MAX, |fault| fault.at)
            };
            for (index, Fault { at, action }) in faults.iter().enumerate() {
                let (backend, until) = match action {
                    Action::Kill { backend, back_after } => (*backend, *at + *back_after),
                    Action::Restart { backend, back_after } => (*backend, *at + *back_after + RESTART),
                    Action::Freeze { backend, lasts } => (*backend, *at + *lasts),
                    Action::Drain { backend } => (*backend, undrained(index, *backend)),
                    _ => continue,
                };
                away[backend] = away[backend].max(until);
                let back_at = away.iter().min().copied().unwrap_or_default();
                let without = back_at.saturating_sub(*at);
                assert!(without <= MOST_WITHOUT_GAME, "seed {seed}: at {at:?} none for {without:?}");
            }
        }
    }

    #[test]
    fn only_kinds_asked_for_are_planned() {
        let some = Bounds { kinds: vec![Kind::LinkCut, Kind::Leave], ..bounds() };
        assert!(plan(1, &some).iter().all(|fault| some.kinds.contains(&fault.action.kind())));
        assert_eq!("link_cut".parse(), Ok(Kind::LinkCut));
        assert!("x".parse::<Kind>().unwrap_err().contains("etcd_compact"));
    }
}
