//! The cast and the play: warm-up, storm, calm, verdict.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::chaos::backend::Backend;
use crate::chaos::operator::{Operator, Order};
use crate::chaos::outcome::{Happened, Outcome, sum};
use crate::chaos::plan::{Action, BACKENDS, Bounds, Fault, Mischief, plan};
use crate::chaos::{Options, Recovery};
use crate::{
    Etcd, EtcdBinary, Players, PlayersSpec, Progress, Proxy, ProxySpec, Source, Stage, arena_service, until,
    usage,
};

/// Quiet play before the memory is read, at the start and at the end.
const QUIET: Duration = Duration::from_secs(4);
/// Long enough for a busy machine; reached only when a promise is broken.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nobody waits for a reply for longer, once all is calm. A player who is stuck waits for ever.
const CALM_WAIT_MS: u64 = 2_000;
/// What the proxies' memory may grow by, together, however long the storm: what allocators keep for later floods.
const MOST_GROWTH_BYTES: u64 = 64 << 20;
/// Who has waited so long in the storm is stuck: no fault lasts for a tenth of it.
const STUCK_MS: u64 = 60_000;
const STEP: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const CONFIG: &str = "/holdfast/config";

/// Fields are dropped in this order: players first, the run's folder last.
pub struct Theatre {
    swarms: Vec<Players>,
    proxies: Vec<Proxy>,
    backends: Vec<Backend>,
    operator: Operator,
    happened: Vec<Happened>,
    failures: Vec<String>,
    stage: Stage,
}

impl Theatre {
    /// Starts everything; all players have been answered when it returns.
    pub fn open(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Self> {
        let mut stage = Stage::new("chaos")?;
        let opened = Self::raise(options, &stage, tell);
        let (swarms, proxies, backends, operator) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                stage.keep();
                return Err(error);
            }
        };
        let (happened, failures) = (Vec::new(), Vec::new());
        Ok(Self { swarms, proxies, backends, operator, happened, failures, stage })
    }

    #[expect(clippy::type_complexity, reason = "the parts of Self, before its stage may move")]
    fn raise(
        options: &Options,
        stage: &Stage,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(Vec<Players>, Vec<Proxy>, Vec<Backend>, Operator)> {
        let etcd = Etcd::start(stage, EtcdBinary::Default)?;
        let endpoint = etcd.endpoint();
        let backends = BACKENDS
            .into_iter()
            .map(|name| Backend::start(stage, name, options.recovery))
            .collect::<Result<Vec<_>>>()?;
        write_documents(&etcd, &backends, options.recovery)?;
        let mut proxies = Vec::new();
        for (id, workers) in [("a", 1), ("b", 2)] {
            let mut spec = ProxySpec::new(id, Source::Etcd { endpoint: endpoint.clone() });
            spec.workers = workers;
            proxies.push(Proxy::start(stage, &spec)?);
        }
        let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
        let mut swarms = Vec::new();
        for swarm in 0..options.swarms {
            let count =
                (options.players * (swarm + 1)) / options.swarms - (options.players * swarm) / options.swarms;
            let spec = players(options, addresses.iter().copied(), count);
            swarms.push(Players::start_as(stage, &format!("players-{}", swarm + 1), &spec)?);
        }
        let (players, games, proxy_count) = (options.players, backends.len(), proxies.len());
        tell(&format!(
            "{players} players are in, over {proxy_count} proxies, at {games} games; seed {}",
            options.seed
        ));
        Ok((swarms, proxies, backends, Operator::start(etcd)))
    }

    /// The run's files stay: something is to be looked into.
    pub fn keep(&mut self) {
        let log: String = self.happened.iter().map(|happened| happened.line() + "\n").collect();
        // The faults were told as they happened, too.
        let _ = self.stage.write("faults.txt", &log);
        self.stage.keep();
    }

    pub fn play(&mut self, options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Outcome> {
        self.quiet()?;
        let rss_start_bytes = self.rss()?;
        self.storm(options, tell)?;
        tell("The storm is over. Everything is mended; nobody may be left behind.");
        self.calm()?;
        self.quiet()?;
        let rss_end_bytes = self.rss()?;
        if rss_end_bytes > rss_start_bytes + MOST_GROWTH_BYTES {
            let failure = format!("the proxies grew from {rss_start_bytes} to {rss_end_bytes} bytes");
            self.failures.push(failure);
        }
        let verdicts = self.swarms.drain(..).map(Players::finish).collect::<Result<Vec<_>>>()?;
        self.look_at_proxies_left_alone();
        self.look_for_panics();
        Ok(Outcome {
            again: options.command(),
            seed: options.seed,
            minutes: options.minutes(),
            verdict: sum(verdicts),
            happened: self.happened.clone(),
            rss_start_bytes,
            rss_end_bytes,
            failures: std::mem::take(&mut self.failures),
        })
    }

    fn quiet(&mut self) -> Result<()> {
        let end = Instant::now() + QUIET;
        until("quiet play", QUIET * 10, || Instant::now() >= end)?;
        self.backends.iter_mut().try_for_each(Backend::go_on)
    }

    fn rss(&mut self) -> Result<u64> {
        let mut sum = 0;
        for proxy in &mut self.proxies {
            sum += usage(proxy.process().pid()?)?.rss_bytes;
        }
        Ok(sum)
    }

    fn storm(&mut self, options: &Options, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let bounds = Bounds {
            storm: options.storm,
            kinds: options.kinds.clone(),
            swarms: options.swarms,
            freeze_ms: options.recovery.freeze_ms(),
            most_burst_ticks: options.recovery.most_burst_ticks(),
        };
        for swarm in &mut self.swarms {
            swarm.begin("storm")?;
        }
        let begun = Instant::now();
        let mut looked = begun;
        for Fault { at, action } in plan(options.seed, &bounds) {
            while begun.elapsed() < at {
                self.go_on()?;
                if looked.elapsed() >= LOOK_EVERY {
                    looked = Instant::now();
                    if let Some(bad) = self.first_bad_news() {
                        tell(&bad);
                        self.failures.push(format!("at {:.2} s: {bad}", begun.elapsed().as_secs_f64()));
                        return Ok(());
                    }
                }
                std::thread::sleep(STEP);
            }
            let missed =
                !self.strike(&action).with_context(|| format!("{}: {action}", action.kind().name()))?;
            let at_s = begun.elapsed().as_secs_f64();
            let happened = Happened { at_s, kind: action.kind(), target: action.to_string(), missed };
            tell(&happened.line());
            self.happened.push(happened);
        }
        self.swarms.iter_mut().try_for_each(|swarm| swarm.end("storm"))
    }

    fn go_on(&mut self) -> Result<()> {
        self.operator.check()?;
        self.backends.iter_mut().try_for_each(Backend::go_on)
    }

    /// What can't become good any more.
    fn first_bad_news(&mut self) -> Option<String> {
        for (index, swarm) in self.swarms.iter().enumerate() {
            let Progress { lost, repeated, reordered, mismatched, disconnects, longest_wait_ms, .. } =
                swarm.latest();
            let Progress { worlds_diverged, joins_refused, .. } = swarm.latest();
            if worlds_diverged + joins_refused > 0 {
                return Some(format!(
                    "swarm {}: {worlds_diverged} worlds diverged, {joins_refused} matches refused",
                    index + 1
                ));
            }
            if longest_wait_ms > STUCK_MS {
                return Some(format!("swarm {}: a player has waited for {longest_wait_ms} ms", index + 1));
            }
            if [lost, repeated, reordered, mismatched, disconnects] != [0; 5] {
                return Some(format!(
                    "swarm {}: lost {lost}, repeated {repeated}, reordered {reordered}, wrong {mismatched}, \
                     disconnected {disconnects}",
                    index + 1
                ));
            }
        }
        let mut proxies = self.proxies.iter_mut().map(Proxy::process);
        let gone = proxies.find_map(|proxy| (!proxy.is_running()).then(|| proxy.name().to_owned()))?;
        Some(format!("{gone} has ended"))
    }

    /// False if the target isn't there.
    fn strike(&mut self, action: &Action) -> Result<bool> {
        match action {
            Action::Kill { backend, back_after } => self.backends[*backend].kill(*back_after),
            Action::Freeze { backend, lasts } => self.backends[*backend].freeze(*lasts),
            Action::LinkCut { backend, pick } => self.backends[*backend].cut(*pick),
            Action::Restart { backend, back_after } => self.backends[*backend].restart(*back_after),
            Action::Drain { backend } => {
                let key = format!("{CONFIG}/{}", self.backends[*backend].drain_key());
                self.operator.order(Order::Put { key, value: json!({"reason": "chaos"}).to_string() })
            }
            .map(|()| true),
            Action::Undrain { backend } => {
                let key = format!("{CONFIG}/{}", self.backends[*backend].drain_key());
                self.operator.order(Order::Delete { key }).map(|()| true)
            }
            Action::EtcdKill { back_after } => {
                self.operator.order(Order::KillFor { time: *back_after }).map(|()| true)
            }
            Action::EtcdCompact => self.operator.order(Order::Compact).map(|()| true),
            Action::Players { swarm, players, seed, what } => {
                misbehave(&mut self.swarms[*swarm], *players, *seed, what)
            }
        }
    }

    /// Ends every fault, and waits until every player is answered again.
    fn calm(&mut self) -> Result<()> {
        until_ok("every game is back", PATIENCE, || {
            self.backends.iter_mut().try_for_each(Backend::go_on)?;
            Ok(self.backends.iter().all(Backend::is_well))
        })?;
        self.operator.finish_orders()?;
        let served = |now: &Progress| now.by_backend.iter().map(|share| share.sessions).sum::<u64>();
        for (index, swarm) in self.swarms.iter_mut().enumerate() {
            let what = format!("nobody of swarm {} is stuck", index + 1);
            let calm = swarm.wait_until(&what, PATIENCE, |now| {
                served(now) == now.connected && now.longest_wait_ms < CALM_WAIT_MS
            });
            if let Err(error) = calm {
                self.failures.push(format!("{error:#}"));
            }
        }
        for proxy in &self.proxies {
            let name = proxy.config_path().display();
            let settled = until(&format!("{name}: no session is parked"), PATIENCE, || {
                proxy.metric("holdfast_parked_sessions", "").is_ok_and(|parked| parked == 0.0)
            });
            if let Err(error) = settled {
                self.failures.push(format!("{error:#}"));
            }
            let lost = proxy.metric("holdfast_frames_lost_total", "")?;
            if lost > 0.0 {
                self.failures.push(format!("{name}: {lost} frames lost, by its own count"));
            }
        }
        Ok(())
    }

    /// After the last player has left: nothing is kept for anybody.
    fn look_at_proxies_left_alone(&mut self) {
        for proxy in &self.proxies {
            for gauge in ["holdfast_sessions", "holdfast_groups", "holdfast_kept_bytes"] {
                let name = proxy.config_path().display();
                let mut last = None;
                let empty = until(&format!("{name}: {gauge} is 0"), PATIENCE, || {
                    last = proxy.metric(gauge, "").ok();
                    last == Some(0.0)
                });
                if let Err(error) = empty {
                    self.failures.push(format!("{error:#}; it is {last:?}"));
                }
            }
        }
    }

    fn look_for_panics(&mut self) {
        let proxies = self.proxies.iter_mut().map(|proxy| proxy.process().log());
        let logs = proxies.chain(self.backends.iter_mut().map(Backend::log));
        for log in logs {
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                self.failures.push(line.to_owned());
            }
        }
    }
}

fn until_ok(what: &str, within: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    crate::until_some(what, within, || Ok(condition()?.then_some(())))
}

/// Half of them play matches, which they leave from time to time, for another or the same one.
fn players(
    options: &Options,
    addresses: impl Iterator<Item = std::net::SocketAddr>,
    count: usize,
) -> PlayersSpec {
    PlayersSpec::new(addresses, count).rate_hz(options.rate_hz).flags([
        "--grace=60",
        "--matches=5",
        "--match-share=50",
        "--rematch=5",
    ])
}

fn misbehave(swarm: &mut Players, players: usize, seed: u64, what: &Mischief) -> Result<bool> {
    let did = match what {
        Mischief::Slow(time) => swarm.mischief(&format!("slow {players} {} {seed}", time.as_millis()))?,
        Mischief::Flood(time) => swarm.mischief(&format!("flood {players} {} {seed}", time.as_millis()))?,
        Mischief::Burst(ticks) => swarm.mischief(&format!("burst {players} {ticks} {seed}"))?,
        Mischief::Leave => {
            let left = swarm.mischief(&format!("leave {players} {seed}"))?;
            swarm.add(usize::try_from(left)?, None)?;
            left
        }
    };
    Ok(did > 0)
}

fn write_documents(etcd: &Etcd, backends: &[Backend], recovery: Recovery) -> Result<()> {
    let put =
        |key: &str, document: &serde_json::Value| etcd.put(&format!("{CONFIG}/{key}"), &document.to_string());
    put("services/arena", &arena_service(&service(recovery)))?;
    for backend in backends {
        put(&backend.key(), &backend.document())?;
    }
    put("routes/public", &json!({"listener": "game", "service": "arena", "prefer": "none"}))
}

/// Nobody is closed for having waited or for bad luck, and drains take long enough to meet other faults.
fn service(recovery: Recovery) -> serde_json::Value {
    let patience_ms = recovery.patience_ms();
    json!({
        "recovery": recovery.name(),
        "limits": {
            "park_deadline_s": 110,
            "liveness_ms": patience_ms,
            "resume_timeout_ms": patience_ms,
            // Players who are told to be slow aren't closed for it.
            "slow_member_ms": 20_000,
        },
        "drain": {"per_second": 150},
    })
}
