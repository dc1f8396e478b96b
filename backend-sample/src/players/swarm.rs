//! All bots of one process: connects them, paces their frames, counts, and gives the verdict.
//!
//! One thread. A pacer sends what is due, each bot has a task that only reads.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use holdfast_backend::GroupId;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;

use crate::players::bot::{Bot, Brought, Inner, Registry};
use crate::players::checker::{Checker, Faults};
use crate::players::control::{self, Output};
use crate::players::event::Event;
use crate::players::matches::{MatchRules, Matches};
use crate::players::mischief::Floods;
use crate::players::report::Verdict;
use crate::players::target::Target;
use crate::players::worlds::{Seen, Worlds};
use crate::wire::Ask;

mod tally;

/// Connects under way at once: well below a listener's usual backlog of 128.
const CONNECTS_AT_ONCE: usize = 50;
/// The first faults are told in words, the rest only counted.
const MAX_NOTES: usize = 20;
const READ_BYTES: usize = 64 * 1024;
/// How often the end of the run is looked for, and unsent bytes are tried again.
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Before a bot that was turned away tries again.
const REJOIN_PERIOD: Duration = Duration::from_millis(20);

/// What to play.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bots are spread over these in turn; at least one.
    pub targets: Vec<Target>,
    /// Until then a bot that can't connect tries again.
    pub connect_deadline: Instant,
    pub count: usize,
    /// Frames a second and bot; without meaning in a closed loop.
    pub rate_hz: f64,
    /// Without the length prefix.
    pub frame_bytes: usize,
    /// Each bot sends its next frame when the reply is there.
    pub closed_loop: bool,
    /// A bot that is disconnected comes back on a new connection, as a new player of the game.
    pub rejoin: bool,
    /// Source addresses 127.0.0.1 to 127.0.0.N in turn; 1: the system's choice.
    pub sources: u8,
    /// From when all bots are connected; None: until told to stop.
    pub play: Option<Duration>,
    /// How long replies may take after the last frame before they count as lost.
    pub grace: Duration,
    /// Players play in matches; None: each alone.
    pub matches: Option<MatchRules>,
}

/// Plays to the end, or until `stop`, taking orders on the way if there are any.
pub async fn run(
    settings: Settings,
    orders: Option<control::Orders>,
    output: Output,
    stop: impl Future<Output = ()>,
) -> Verdict {
    let swarm = Rc::new(Swarm::new(settings));
    let pacer = tokio::task::spawn_local(pace(swarm.clone()));
    let play = async {
        swarm.join(swarm.settings.count, None).await;
        control::conduct(&swarm, orders, &output).await;
    };
    tokio::select! {
        () = play => {}
        () = stop => {}
    }
    swarm.stopping.set(true);
    swarm.settle().await;
    pacer.abort();
    swarm.verdict()
}

pub(super) struct Swarm {
    pub settings: Settings,
    started: Instant,
    pub bots: RefCell<Vec<Rc<Bot>>>,
    backends: RefCell<Vec<(u64, String)>>,
    due: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    scratch: RefCell<Vec<u8>>,
    pub events: RefCell<Vec<Event>>,
    faults: Cell<Faults>,
    sent: Cell<u64>,
    received: Cell<u64>,
    replied: Cell<u64>,
    disconnects: Cell<u64>,
    connect_failures: Cell<u64>,
    pub floods: Floods,
    pub matches: Matches,
    worlds: Worlds,
    joins: Cell<u64>,
    pub left: Cell<u64>,
    notes: RefCell<Vec<String>>,
    joined: Cell<usize>,
    stopping: Cell<bool>,
}

impl Registry for Swarm {
    fn backend(&self, instance: u64, version: &str) -> usize {
        let mut backends = self.backends.borrow_mut();
        // A handful of runs at most, the current ones last.
        if let Some(index) = backends.iter().rposition(|(known, _)| *known == instance) {
            return index;
        }
        backends.push((instance, version.to_owned()));
        backends.len() - 1
    }

    fn world(&self, name: u64) -> Rc<Seen> {
        count(&self.joins, 1);
        self.worlds.watch(name)
    }
}

fn count(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl Swarm {
    fn new(settings: Settings) -> Self {
        let matches = Matches::new(settings.matches);
        Self {
            settings,
            started: Instant::now(),
            bots: RefCell::default(),
            backends: RefCell::default(),
            due: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES]),
            events: RefCell::default(),
            faults: Cell::default(),
            sent: Cell::default(),
            received: Cell::default(),
            replied: Cell::default(),
            disconnects: Cell::default(),
            connect_failures: Cell::default(),
            floods: Floods::default(),
            matches,
            worlds: Worlds::default(),
            joins: Cell::default(),
            left: Cell::default(),
            notes: RefCell::default(),
            joined: Cell::default(),
            stopping: Cell::default(),
        }
    }

    /// The small number of a backend that has served somebody.
    pub fn known_backend(&self, instance: u64) -> Option<usize> {
        self.backends.borrow().iter().rposition(|(known, _)| *known == instance)
    }

    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn period_us(&self) -> u64 {
        (1e6 / self.settings.rate_hz) as u64
    }

    fn note(&self, text: impl FnOnce() -> String) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < MAX_NOTES {
            notes.push(format!("{:.3} s: {}", self.now_us() as f64 / 1e6, text()));
        }
    }

    /// Lets `count` more bots in; returns how many were connected and how many weren't.
    pub async fn join(self: &Rc<Self>, count: usize, address: Option<SocketAddr>) -> (u64, u64) {
        let (mut connected, mut left) = (0, count);
        while left > 0 {
            let mut batch = JoinSet::new();
            for _ in 0..left.min(CONNECTS_AT_ONCE) {
                let index = self.joined.replace(self.joined.get() + 1);
                let targets = &self.settings.targets;
                let target = address.map_or_else(|| targets[index % targets.len()].clone(), Target::from);
                batch.spawn_local(self.clone().connect(index, target));
            }
            left -= batch.len();
            while let Some(result) = batch.join_next().await {
                connected += u64::from(result.unwrap_or(false));
            }
        }
        (connected, count as u64 - connected)
    }

    async fn connect(self: Rc<Self>, index: usize, target: Target) -> bool {
        let (bot, reader) = match self.dial(index, &target).await {
            Ok(connected) => connected,
            Err(error) => {
                count(&self.connect_failures, 1);
                self.note(|| format!("player {index}: connecting to {}: {error}", target.name));
                return false;
            }
        };
        let slot = self.bots.borrow().len();
        self.bots.borrow_mut().push(bot.clone());
        let game = self.matches.assign(index, &target.name);
        self.seek(&bot, game);
        tokio::task::spawn_local(stay(self.clone(), Seat { slot, target, game }, bot, reader));
        // Spread over the period by the golden ratio, so that any number of bots sends evenly.
        let phase = (index as f64 * 0.618_033_988_75).fract();
        let wait_us = if self.settings.closed_loop { 0 } else { (phase * self.period_us() as f64) as u64 };
        self.due.borrow_mut().push(Reverse((self.now_us() + wait_us, slot)));
        true
    }

    /// A bot on a connection of its own.
    async fn dial(&self, index: usize, target: &Target) -> io::Result<(Rc<Bot>, OwnedReadHalf)> {
        let sources = self.settings.sources;
        let source =
            (sources > 1).then(|| Ipv4Addr::new(127, 0, 0, 1 + (index % usize::from(sources)) as u8));
        let stream = target.connect(source, self.settings.connect_deadline).await?;
        let checker = Checker::new(fastrand::u64(..), self.settings.frame_bytes);
        let (bot, reader) = Bot::new(index, &target.name, checker, stream);
        Ok((Rc::new(bot), reader))
    }

    /// Brings a disconnected bot back, if it should come; it asks for an answer at once.
    async fn rejoin(&self, seat: &Seat, gone: &Bot) -> Option<(Rc<Bot>, OwnedReadHalf)> {
        let mut wait = !gone.look(|it| it.is_answered());
        while self.settings.rejoin && !self.stopping.get() {
            if std::mem::replace(&mut wait, true) {
                tokio::time::sleep(REJOIN_PERIOD).await;
            }
            let Ok((bot, reader)) = self.dial(gone.index, &seat.target).await else { continue };
            let before = gone.look(|it| it.checker.faults());
            let past = gone.look(Inner::leave);
            self.add_faults(gone, gone.look(|it| it.checker.faults()), before);
            bot.look(|it| it.follow(past));
            self.seek(&bot, seat.game);
            self.bots.borrow_mut()[seat.slot] = bot.clone();
            self.send(&bot);
            return Some((bot, reader));
        }
        None
    }

    pub fn send(&self, bot: &Bot) -> bool {
        self.rematch(bot);
        self.send_asking(bot, None)
    }

    pub fn send_asking(&self, bot: &Bot, ask: Option<Ask>) -> bool {
        let sent = bot.send(self.settings.frame_bytes, self.now_us(), ask);
        count(&self.sent, u64::from(sent));
        sent
    }

    fn brought(&self, bot: &Bot, brought: &Brought, faults_before: Faults) {
        count(&self.received, brought.frames);
        count(&self.replied, brought.replies);
        self.add_faults(bot, brought.faults, faults_before);
        if self.settings.closed_loop && !self.stopping.get() {
            for _ in 0..brought.replies {
                self.send(bot);
            }
        }
    }

    fn add_faults(&self, bot: &Bot, now: Faults, before: Faults) {
        let more = now.since(before);
        if more == Faults::default() {
            return;
        }
        let mut total = self.faults.get();
        total.add(more);
        self.faults.set(total);
        self.note(|| match bot.look(|it| it.refusal.take()) {
            Some(reason) => format!("player {}: {more}: {reason}", bot.index),
            None => format!("player {}: {more}", bot.index),
        });
    }

    fn disconnected(&self, bot: &Bot, error: &io::Error) {
        if !bot.die() {
            return;
        }
        // One that comes back and is turned away has no more to lose.
        let turned_away = self.settings.rejoin && !bot.look(|it| it.is_answered());
        count(if turned_away { &self.connect_failures } else { &self.disconnects }, 1);
        bot.look(|it| it.checker.watch.cut_off());
        if self.settings.rejoin {
            bot.look(|it| it.cut_off(self.now_us()));
        }
        self.note(|| format!("player {} disconnected: {error}", bot.index));
    }

    /// Waits for what is owed: each reply, and one more tick, which a game that still lives must send.
    async fn settle(&self) {
        let deadline = Instant::now() + self.settings.grace;
        let ticks: Vec<u64> =
            self.bots.borrow().iter().map(|bot| bot.look(|it| it.checker.ticks())).collect();
        let tick_owed = |bot: &Bot, before: u64| {
            let (period_ms, ticks) = bot.look(|it| (it.tick_ms, it.checker.ticks()));
            let period = Duration::from_millis(u64::from(period_ms));
            bot.is_alive() && period_ms > 0 && period * 2 < self.settings.grace && ticks <= before
        };
        loop {
            let bots = self.bots.borrow().clone();
            bots.iter().for_each(|bot| bot.flush());
            let owed = bots.iter().zip(&ticks).any(|(bot, before)| {
                tick_owed(bot, *before) || (bot.is_alive() && bot.look(|it| !it.checker.is_settled()))
            });
            if !owed || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(SETTLE_STEP).await;
        }
        for (bot, before) in self.bots.borrow().iter().zip(&ticks).filter(|(bot, _)| !bot.has_left()) {
            let faults_before = bot.look(|it| it.checker.faults());
            if tick_owed(bot, *before) {
                bot.look(|it| it.checker.tick_missing());
            }
            let faults = bot.look(|it| it.finish(self.now_us()));
            self.add_faults(bot, faults, faults_before);
        }
    }
}

/// Sends each bot's frames when they are due; in a closed loop only its first.
async fn pace(swarm: Rc<Swarm>) {
    let period_us = swarm.period_us();
    loop {
        swarm.flood();
        let now_us = swarm.now_us();
        while !swarm.stopping.get() {
            let due = swarm.due.borrow_mut().pop_if_due(now_us);
            let Some((due_us, slot)) = due else { break };
            let bot = swarm.bots.borrow()[slot].clone();
            if bot.is_alive() {
                swarm.send(&bot);
            } else if !swarm.settings.rejoin {
                continue;
            }
            if !swarm.settings.closed_loop {
                // Far behind (this process was stopped): go on from now, without a burst.
                let next_us = (due_us + period_us).max(now_us.saturating_sub(period_us));
                swarm.due.borrow_mut().push(Reverse((next_us, slot)));
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self, now_us: u64) -> Option<(u64, usize)>;
}

impl PopIfDue for BinaryHeap<Reverse<(u64, usize)>> {
    fn pop_if_due(&mut self, now_us: u64) -> Option<(u64, usize)> {
        self.peek().is_some_and(|Reverse((due_us, _))| *due_us <= now_us).then(|| self.pop())?.map(|it| it.0)
    }
}

/// A bot's place among the others, and where it connects.
struct Seat {
    slot: usize,
    target: Target,
    /// The match that it comes for.
    game: Option<GroupId>,
}

/// Until the bot is gone for good.
async fn stay(swarm: Rc<Swarm>, seat: Seat, mut bot: Rc<Bot>, mut reader: OwnedReadHalf) {
    loop {
        let left = read(&swarm, &bot, &mut reader).await;
        let Some(error) = left else { return };
        swarm.disconnected(&bot, &error);
        match swarm.rejoin(&seat, &bot).await {
            Some(next) => (bot, reader) = next,
            None => return,
        }
    }
}

/// Until its connection ends; None: it was told to leave.
async fn read(swarm: &Swarm, bot: &Bot, reader: &mut OwnedReadHalf) -> Option<io::Error> {
    loop {
        let before = bot.look(|it| it.checker.faults());
        let received = async {
            swarm.listens(bot).await;
            bot.receive(reader, &swarm.scratch, || swarm.now_us(), swarm).await
        };
        let received = tokio::select! {
            received = received => received,
            () = bot.told_to_leave() => return None,
        };
        match received {
            Ok(brought) => swarm.brought(bot, &brought, before),
            Err(error) => return Some(error),
        }
    }
}
