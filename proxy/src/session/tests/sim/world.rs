//! One run of a seed: the proxies, backends and players of its plan, and everything that goes wrong, until all is calm
//! and everybody has come to their end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;

use super::io::{Event, Holder, Io, Time};
use super::plan::{Fault, Plan};
use super::player::{Player, Stage};
use super::process::Backend;
use super::trace::Trace;
use super::worker::Worker;
use crate::routing::{self, BackendAddress, BackendId};
use crate::session::LinkId;

/// After the last fault everybody must have come to their end by then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Then the links are asked for once more, so that what backends still keep is released.
const SWEEP: Duration = Duration::from_secs(10);

/// What a fault changed for a while.
#[derive(Debug, Clone, Copy)]
enum Mend {
    Undrain(usize),
    Takes(usize),
    Pool(usize),
}

pub struct World {
    pub plan: Plan,
    pub io: Io,
    pub workers: Vec<Worker>,
    pub backends: Vec<Backend>,
    pub players: Vec<Player>,
    mends: Vec<Mend>,
    /// How long a backend stays away after its own drain.
    away: Vec<Duration>,
    calm: bool,
}

impl World {
    pub fn new(plan: Plan, prints: bool) -> Self {
        let rng = Rng::with_seed(plan.seed);
        let mut io = Io::new(rng, Trace::new(prints), plan.link, plan.backends);
        let listed: Vec<_> = (0..plan.backends).map(listed).collect();
        let service = Arc::new(plan.service.clone());
        let worker = |index| {
            let mut worker = Worker::new(index, &service, &listed, plan.flush, &io);
            worker.hub.pool_bytes = plan.pool_bytes;
            worker
        };
        let workers = (0..plan.proxies).map(worker).collect();
        let mut backends: Vec<_> = (0..plan.backends).map(|index| Backend::new(index, &plan)).collect();
        backends.iter_mut().for_each(|backend| backend.boot(&mut io));
        let players: Vec<_> =
            plan.players.iter().cloned().enumerate().map(|(index, it)| Player::new(index, it)).collect();
        for player in &players {
            io.at(player.plan.begins, Event::Player(player.index));
        }
        for (index, (at, _)) in plan.faults.iter().enumerate() {
            io.at(*at, Event::Fault(index));
        }
        io.at(plan.calm_at, Event::Calm);
        let away = vec![Duration::ZERO; plan.backends];
        Self { plan, io, workers, backends, players, mends: Vec::new(), away, calm: false }
    }

    /// To the end. Panics where a promise is broken.
    pub fn run(&mut self) {
        let end = self.plan.calm_at + PATIENCE;
        while !self.is_over() {
            assert!(self.io.now < end, "somebody never came to an end:\n{}", self.who_is_left());
            let event = self.io.next().expect("clocks never stop");
            self.happen(event);
        }
        self.sweep();
    }

    /// Every link is asked for once more.
    fn sweep(&mut self) {
        let end = self.io.now + SWEEP;
        for worker in &mut self.workers {
            worker.turn(&mut self.io, |worker, _| {
                for id in worker.hub.link_ids() {
                    worker.hub.call_ahead(id);
                    worker.hub.link_mut(id).demanded = true;
                }
            });
        }
        while self.io.now < end && !self.is_swept() {
            let event = self.io.next().expect("clocks never stop");
            self.happen(event);
        }
    }

    pub fn is_swept(&self) -> bool {
        self.backends.iter().all(|it| it.process.as_ref().is_none_or(|process| process.population.get() == 0))
    }

    fn is_over(&self) -> bool {
        let gone = self.players.iter().all(|player| player.stage == Stage::Gone);
        self.calm && gone && self.workers.iter().all(|worker| worker.slots.is_empty())
    }

    fn who_is_left(&self) -> String {
        let mut left = String::new();
        for player in self.players.iter().filter(|player| player.stage != Stage::Gone) {
            let (index, stage) = (player.index, player.stage);
            let (sent, last, owed) = (player.sent.len(), player.oracle.last, &player.oracle.owed);
            left += &format!("player {index} {stage:?}: sent {sent}, last told {last:?}, owed {owed:?}\n");
        }
        for worker in &self.workers {
            for (key, slot) in &worker.slots {
                left += &format!("s{key} on p{}: {:?}\n", worker.hub.index, slot.session);
            }
            let links = worker.hub.links.iter().map(|link| (link.state, link.task));
            left += &format!("links of p{}: {:?}\n", worker.hub.index, links.collect::<Vec<_>>());
        }
        left
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Socket(conn, end) => match self.io.holder(conn, end) {
                Holder::Link(proxy, id) => self.worker(proxy, |it, io| it.link_is_ready(id, conn, io)),
                Holder::Client(proxy, key) => self.worker(proxy, |it, io| it.client_is_ready(key, conn, io)),
                Holder::Process(backend, run) => self.backend(backend, |it, io| it.socket(run, conn, io)),
                Holder::Player(index) => self.players[index].turn(&mut self.io),
            },
            Event::Clock(proxy) => self.worker(proxy, Worker::on_time),
            Event::Flush(proxy) => self.worker(proxy, Worker::flush),
            Event::Task(proxy) => self.worker(proxy, |_, _| {}),
            Event::Refused(proxy, id, wait) => self.worker(proxy, |it, io| it.refused(id, wait, io)),
            Event::Process(backend, run) => self.backend(backend, |it, io| it.clock(run, io)),
            Event::Job(backend, run, proxy, job) => {
                self.backend(backend, |it, io| it.job(run, proxy, job, io))
            }
            Event::Thaw(backend, run) => self.backend(backend, |it, io| it.thaw(run, io)),
            Event::Boot(backend) => self.backend(backend, Backend::boot),
            Event::Player(index) => self.player(index),
            Event::Fault(index) => self.fault(self.plan.faults[index].1),
            Event::Mend(index) => self.mend(self.mends[index]),
            Event::Calm => self.calm_down(),
        }
    }

    fn worker(&mut self, proxy: usize, act: impl FnOnce(&mut Worker, &mut Io)) {
        self.workers[proxy].turn(&mut self.io, act);
    }

    fn backend(&mut self, index: usize, act: impl FnOnce(&mut Backend, &mut Io)) {
        act(&mut self.backends[index], &mut self.io);
        if self.backends[index].is_finished(self.io.moment().at) {
            self.backends[index].end(&mut self.io);
            self.io.after(self.away[index], Event::Boot(index));
        }
    }

    fn player(&mut self, index: usize) {
        let player = &mut self.players[index];
        if player.stage == Stage::Waits {
            let (conn, proxy) = (player.connect(&mut self.io), player.plan.proxy);
            self.worker(proxy, |worker, io| worker.open_session(index, conn, io));
        }
        self.players[index].turn(&mut self.io);
    }

    fn fault(&mut self, fault: Fault) {
        self.io.trace.event(self.io.now, "fault", &[], || format!("{fault:?}"));
        match fault {
            Fault::Cut { proxy, backend, told } => {
                for conn in self.io.conns_between(proxy, backend) {
                    self.io.cut(conn, told);
                }
            }
            Fault::Hold { proxy, backend, lasts } => self.io.part(proxy, backend, lasts),
            Fault::Kill { backend, away } => {
                if self.backends[backend].process.is_some() {
                    self.backends[backend].kill(&mut self.io);
                    self.io.after(away, Event::Boot(backend));
                }
            }
            Fault::Stall { backend, lasts } => self.backends[backend].stall(lasts, &mut self.io),
            Fault::Term { backend, deadline, away } => {
                self.away[backend] = away;
                self.backend(backend, |it, io| it.term(deadline, true, io));
            }
            Fault::Drain { backend, lasts } => {
                self.order_drain(backend, true);
                self.mend_after(lasts, Mend::Undrain(backend));
            }
            Fault::Refuse { backend, how, lasts } => self.refuse(backend, how, lasts),
            Fault::Padding { backend, bytes } => {
                self.backends[backend].knobs.padding.store(bytes, Ordering::Relaxed);
            }
            Fault::Pool { proxy, bytes, lasts } => {
                self.workers[proxy].hub.pool_bytes = bytes;
                self.mend_after(lasts, Mend::Pool(proxy));
            }
            Fault::Slow { player, lasts } => {
                self.players[player].slow_until = self.io.now + lasts;
                self.io.after(lasts, Event::Player(player));
            }
            Fault::Flood { player, frames } => {
                self.players[player].flood(frames, &mut self.io);
                self.players[player].turn(&mut self.io);
            }
            Fault::Blackout { lasts } => {
                (0..self.plan.backends).for_each(|backend| self.refuse(backend, 1, lasts));
            }
        }
    }

    fn refuse(&mut self, backend: usize, how: u8, lasts: Duration) {
        self.backends[backend].knobs.refuses.store(how, Ordering::Relaxed);
        self.mend_after(lasts, Mend::Takes(backend));
    }

    fn order_drain(&mut self, backend: usize, ordered: bool) {
        let id = LinkId(u32::try_from(backend).unwrap());
        for proxy in 0..self.plan.proxies {
            self.worker(proxy, |worker, io| worker.key_changed(id, ordered, io));
        }
    }

    fn mend_after(&mut self, delay: Duration, mend: Mend) {
        self.mends.push(mend);
        self.io.after(delay, Event::Mend(self.mends.len() - 1));
    }

    fn mend(&mut self, mend: Mend) {
        self.io.trace.event(self.io.now, "mend", &[], || format!("{mend:?}"));
        match mend {
            Mend::Undrain(backend) => self.order_drain(backend, false),
            Mend::Takes(backend) => self.backends[backend].knobs.refuses.store(0, Ordering::Relaxed),
            Mend::Pool(proxy) => self.workers[proxy].hub.pool_bytes = self.plan.pool_bytes,
        }
    }

    /// Nothing goes wrong from here on: everybody may come to their end.
    fn calm_down(&mut self) {
        self.io.trace.event(self.io.now, "calm", &[], String::new);
        self.calm = true;
        for backend in 0..self.plan.backends {
            self.mend(Mend::Undrain(backend));
            self.mend(Mend::Takes(backend));
            self.backends[backend].knobs.padding.store(0, Ordering::Relaxed);
        }
        (0..self.plan.proxies).for_each(|proxy| self.mend(Mend::Pool(proxy)));
        for player in &mut self.players {
            player.calm = true;
            player.insists = !self.plan.is_lossless();
            player.slow_until = Time::ZERO;
            self.io.at(self.io.now.max(player.plan.begins), Event::Player(player.index));
        }
    }
}

fn listed(index: usize) -> Arc<routing::Backend> {
    let name = format!("b{index}");
    Arc::new(routing::Backend {
        id: BackendId { service: "arena".into(), name: name.as_str().into() },
        address: BackendAddress::Tcp(name.as_str().into()),
        version: "1".into(),
        weight: 100,
        zone: None,
        capacity: None,
    })
}
