//! What a seed stands for: the world, its players, and what goes wrong in it when.

use std::time::Duration;

use fastrand::Rng;

use super::io::{Shape, Time};
use crate::routing::Service;
use crate::routing::table::{
    Balance, Breakers, DrainPolicy, Limits, OnCrash, OnDeadline, OnSigterm, Recovery, TracePolicy,
};
use crate::session::tests::world::framing;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Longer than any simulation: what must not end by waiting.
const FOR_EVER: Duration = Duration::from_secs(3600);

const MAX_STATE_BYTES: u64 = 256 * 1024;

/// Where there are matches, states are no larger than this: an arrival of two parts.
const MATCH_PADDING: usize = 20_000;

/// How a player goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// After the answer to the last frame.
    Content,
    /// By asking the game for the end.
    Quits,
    /// Ends its stream after this many frames, and listens on.
    Half(u32),
    /// Closes after this many frames, without waiting.
    Hurried(u32),
    /// The connection breaks after this many frames.
    Broken(u32),
}

#[derive(Debug, Clone)]
pub struct PlayerPlan {
    pub proxy: usize,
    pub begins: Time,
    pub frames: u32,
    pub gap: Duration,
    pub frame_bytes: usize,
    pub departure: Departure,
    pub shape: Shape,
    /// Bytes it reads at a time, and how long it pauses between.
    pub reads: (usize, Duration),
    /// The match that it joins and leaves.
    pub party: Option<u8>,
}

/// What goes wrong, or is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A link breaks: when the proxy and the backend learn of it.
    Cut {
        proxy: usize,
        backend: usize,
        told: [Option<Duration>; 2],
    },
    /// Nothing arrives on a link for a while.
    Hold {
        proxy: usize,
        backend: usize,
        lasts: Duration,
    },
    /// SIGKILL; another process comes later.
    Kill {
        backend: usize,
        away: Duration,
    },
    /// SIGSTOP, then SIGCONT.
    Stall {
        backend: usize,
        lasts: Duration,
    },
    /// SIGTERM: drains itself, ends, and comes back.
    Term {
        backend: usize,
        deadline: Duration,
        away: Duration,
    },
    /// The key that orders a drain is put, and taken away later.
    Drain {
        backend: usize,
        lasts: Duration,
    },
    Refuse {
        backend: usize,
        how: u8,
        lasts: Duration,
    },
    Padding {
        backend: usize,
        bytes: usize,
    },
    /// Room for states on their way, for a while.
    Pool {
        proxy: usize,
        bytes: u64,
        lasts: Duration,
    },
    /// A player reads nothing for a while.
    Slow {
        player: usize,
        lasts: Duration,
    },
    /// A player sends many frames at once.
    Flood {
        player: usize,
        frames: u32,
    },
    /// No backend takes anybody.
    Blackout {
        lasts: Duration,
    },
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub proxies: usize,
    pub backends: usize,
    pub players: Vec<PlayerPlan>,
    pub service: Service,
    pub link: Shape,
    /// Nothing happens that takes a process' memory, or looks as if.
    pub gentle: bool,
    pub padding: usize,
    pub tick: Duration,
    pub outbox_bytes: usize,
    pub client_window_bytes: u32,
    pub state_credit_bytes: u64,
    /// Messages that a backend handles before it writes.
    pub turn: usize,
    pub flush: Duration,
    pub work: Duration,
    pub pool_bytes: u64,
    pub orphan_deadline: Duration,
    pub faults: Vec<(Time, Fault)>,
    pub calm_at: Time,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let r = &mut rng;
        let proxies = if r.u8(0..4) == 0 { 2 } else { 1 };
        let backends = r.usize(2..=4);
        let gentle = r.u8(0..3) == 0;
        let calm_at = ms(r.u64(300..3000));
        let count = if r.u8(0..4) == 0 { r.usize(8..=16) } else { r.usize(2..=7) };
        let players = (0..count).map(|_| PlayerPlan::draw(r, proxies, calm_at)).collect();
        let capacities: &[usize] = if gentle { &[65_536] } else { &[16_384, 65_536, 1 << 20] };
        let mut plan = Self {
            seed,
            proxies,
            backends,
            players,
            service: service(r),
            link: Shape {
                latency: Duration::from_micros(r.u64(20..5000)),
                jitter: Duration::from_micros(r.u64(0..3000)),
                // What waits for the network must not make a backend late that isn't to be given up.
                bytes_per_ms: r.u64(5000..50_000),
                capacity: *r.choice(capacities).expect("some"),
                splits: *r.choice(&[0, 2, 8]).expect("not empty"),
            },
            gentle,
            padding: *r.choice(&[0, 0, 100, 20_000, 150_000]).expect("not empty"),
            tick: ms(*r.choice(&[0, 20, 50, 200]).expect("not empty")),
            // Below what the ticks of an ack's delay take, frames would wait for ever behind ticks.
            outbox_bytes: r.usize(20_000..60_000),
            client_window_bytes: r.u32(2000..20_000),
            state_credit_bytes: *r.choice(&[0, 1000, 16_384, 300_000]).expect("not empty"),
            turn: r.usize(1..100),
            flush: Duration::from_micros(r.u64(0..1000)),
            work: ms(r.u64(1..40)),
            // Room for one state of the largest size, at least.
            pool_bytes: *r.choice(&[MAX_STATE_BYTES, 1 << 20]).expect("not empty"),
            orphan_deadline: 2 * FOR_EVER,
            faults: Vec::new(),
            calm_at,
        };
        plan.draw_faults(r);
        plan.draw_matches(&mut Rng::with_seed(!seed));
        plan
    }

    /// Some worlds have matches, each on one proxy.
    fn draw_matches(&mut self, r: &mut Rng) {
        if r.u8(0..3) > 0 {
            return;
        }
        let matches = r.u8(1..=3);
        for player in &mut self.players {
            let party = 16 * u8::try_from(player.proxy).expect("few") + r.u8(1..=matches);
            player.party = (r.u8(0..6) > 0).then_some(party);
        }
        // A match has arrivals that are under way in its state, too, which is to be a checkpoint.
        if self.service.recovery != Recovery::None {
            self.padding = self.padding.min(MATCH_PADDING);
            for (_, fault) in &mut self.faults {
                if let Fault::Padding { bytes, .. } = fault {
                    *bytes = (*bytes).min(MATCH_PADDING);
                }
            }
        }
    }

    /// No frame may be lost, repeated or reordered: the level promises it, or nothing happens that could.
    pub fn is_lossless(&self) -> bool {
        self.gentle || self.service.recovery != Recovery::None
    }

    fn draw_faults(&mut self, r: &mut Rng) {
        // Some worlds are quiet, some are not.
        let mean = r.u64(40..800);
        let mut at = ms(r.u64(0..200));
        while at < self.calm_at {
            let fault = self.draw_fault(r);
            self.faults.push((at, fault));
            at += Duration::from_micros(r.u64(0..2000 * mean));
        }
    }

    fn draw_fault(&self, r: &mut Rng) -> Fault {
        let (proxy, backend) = (r.usize(0..self.proxies), r.usize(0..self.backends));
        let player = r.usize(0..self.players.len());
        let most = if self.gentle { 16 } else { 21 };
        let lasts = ms(r.u64(1..1500));
        match r.u8(0..most) {
            0..=2 => Fault::Cut { proxy, backend, told: self.draw_told(r) },
            3 => Fault::Hold { proxy, backend, lasts: self.short(r) },
            4 => Fault::Stall { backend, lasts: self.short(r) },
            5..=7 => Fault::Drain { backend, lasts },
            8 if self.gentle => Fault::Term { backend, deadline: FOR_EVER, away: ms(r.u64(1..600)) },
            8 => Fault::Term { backend, deadline: lasts, away: ms(r.u64(1..600)) },
            9 => Fault::Refuse { backend, how: r.u8(1..=2), lasts },
            10 => Fault::Padding { backend, bytes: *r.choice(self.paddings()).expect("some") },
            11 => Fault::Pool { proxy, bytes: r.u64(0..50_000), lasts },
            12 | 13 => Fault::Slow { player, lasts },
            14 => Fault::Flood { player, frames: r.u32(1..40) },
            15 => Fault::Blackout { lasts: lasts / 2 },
            16..=17 => Fault::Kill { backend, away: ms(r.u64(1..1000)) },
            18 => Fault::Stall { backend, lasts: ms(r.u64(1..4000)) },
            19 => Fault::Hold { proxy, backend, lasts: ms(r.u64(1..4000)) },
            _ => Fault::Cut { proxy, backend, told: [None, None] },
        }
    }

    /// A state that is too large can't be a checkpoint, and its session isn't protected.
    fn paddings(&self) -> &'static [usize] {
        if self.service.recovery == Recovery::None {
            &[0, 1000, 60_000, 300_000]
        } else {
            &[0, 1000, 60_000, 150_000]
        }
    }

    /// Too short for anybody to be given up.
    fn short(&self, r: &mut Rng) -> Duration {
        let limits = &self.service.limits;
        let most = limits.freeze_timeout.min(limits.liveness / 2).min(limits.resume_timeout / 2);
        ms(r.u64(1..u64::try_from(most.as_millis()).expect("short")))
    }

    fn draw_told(&self, r: &mut Rng) -> [Option<Duration>; 2] {
        let late = Duration::from_micros(r.u64(0..100_000));
        match r.u8(0..3) {
            0 => [Some(Duration::ZERO), Some(Duration::ZERO)],
            1 => [Some(Duration::ZERO), Some(late)],
            _ => [Some(late), Some(Duration::ZERO)],
        }
    }
}

impl PlayerPlan {
    fn draw(r: &mut Rng, proxies: usize, calm_at: Time) -> Self {
        let frames = r.u32(1..60);
        let early = r.u32(0..frames);
        let departure = match r.u8(0..12) {
            0..=5 => Departure::Content,
            6 | 7 => Departure::Quits,
            8 | 9 => Departure::Half(early),
            10 => Departure::Hurried(early),
            _ => Departure::Broken(early),
        };
        let begins = ms(r.u64(0..u64::try_from(calm_at.as_millis()).expect("short")));
        let begins = if r.bool() { begins } else { ms(r.u64(0..20)) };
        Self {
            proxy: r.usize(0..proxies),
            begins,
            frames,
            gap: Duration::from_micros(r.u64(100..100_000)),
            frame_bytes: *r.choice(&[8, 60, 400, 1400]).expect("not empty"),
            departure,
            shape: Shape {
                latency: Duration::from_micros(r.u64(50..40_000)),
                jitter: Duration::from_micros(r.u64(0..10_000)),
                bytes_per_ms: r.u64(100..10_000),
                capacity: r.usize(2000..100_000),
                splits: *r.choice(&[0, 2, 8]).expect("not empty"),
            },
            reads: (r.usize(500..20_000), Duration::from_micros(r.u64(0..20_000))),
            party: None,
        }
    }
}

fn service(r: &mut Rng) -> Service {
    let limits = Limits {
        client_window_bytes: r.u32(2000..20_000),
        server_window_bytes: r.u32(2000..20_000),
        state_size_bytes: *r.choice(&[1, 1024, 200_000]).expect("not empty"),
        max_state_bytes: MAX_STATE_BYTES,
        max_sessions: 100,
        // A state that takes longer than this could never arrive.
        attach_timeout: ms(r.u64(1000..2000)),
        freeze_timeout: ms(r.u64(200..1000)),
        park_deadline: FOR_EVER,
        park_home: ms(r.u64(1..2000)),
        liveness: ms(r.u64(600..1500)),
        resume_timeout: ms(r.u64(400..1500)),
        close_deadline: FOR_EVER,
        // One read of a client, 64 KiB, counts in it before the client is held back.
        max_journal_bytes: *r.choice(&[40_000, 64_000, 1 << 20]).expect("not empty"),
        checkpoint_interval: ms(r.u64(10..1000)),
        // Kills come as often as they like, and are nobody's input's doing.
        max_recoveries: 10_000,
        recoveries_in_flight: *r.choice(&[1, 100]).expect("not empty"),
        max_group_members: 8,
        slow_member: Duration::from_secs(1),
    };
    Service {
        mirror: None,
        health: Default::default(),
        name: "arena".into(),
        framing: framing(),
        recovery: *r.choice(&[Recovery::None, Recovery::Replay, Recovery::Delta]).expect("not empty"),
        on_crash: OnCrash::Fresh,
        limits,
        drain: DrainPolicy {
            in_flight: *r.choice(&[1, 4, 100]).expect("not empty"),
            per_second: *r.choice(&[20, 1000]).expect("not empty"),
            deadline: FOR_EVER,
            on_deadline: OnDeadline::Keep,
            on_sigterm: if r.bool() { OnSigterm::Move } else { OnSigterm::Park },
        },
        rebalance: None,
        balance: Balance::default(),
        breakers: Breakers::default(),
        trace: TracePolicy { ratio: Some(0.0), slow_frame: Duration::from_secs(1) },
    }
}
