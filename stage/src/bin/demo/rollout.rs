//! `./dev demo rollout`: a version that turns out to be faulty is rolled out on a real etcd, is given up by itself, and
//! its players are brought back.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Etcd, EtcdBinary, Players, PlayersSpec, Proxy, ProxySpec, Stage, Verdict,
    arena_service, until,
};
use serde_json::{Value, json};

use crate::screen::{Cast, Screen, players_at};

const PLAYERS: usize = 1_000;
const RATE_HZ: f64 = 5.0;
const OLD: &str = "1.4";
const NEW: &str = "1.5";
const CAST: [Cast<'static>; 3] = [
    Cast { name: "arena/a", version: OLD },
    Cast { name: "arena/b", version: OLD },
    Cast { name: "arena/new", version: NEW },
];
/// How long the failures must last.
const FAILING_S: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// What became of the rollout.
pub struct Outcome {
    verdict: Verdict,
    aborted: bool,
    moved_back: u64,
    abort_to_last_back_ms: u64,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.verdict.is_clean() && self.aborted && self.moved_back > 0
    }

    pub fn json(&self) -> Value {
        let mut summary = self.verdict.summary();
        summary["aborted"] = json!(self.aborted);
        summary["moved_back"] = json!(self.moved_back);
        summary["abort_to_last_back_ms"] = json!(self.abort_to_last_back_ms);
        summary
    }

    pub fn text(&self) -> String {
        let Verdict { sessions, frames, .. } = self.verdict;
        let mut out = format!("\n  {sessions} sessions, {frames} frames, each checked\n\n");
        for (name, count) in self.verdict.promised() {
            out.push_str(&format!("  {name:<13} {count:>6}\n"));
        }
        out.push_str(&format!(
            "\n  {} players were brought back to {OLD}, the last {} ms after the failures had lasted {FAILING_S} s.\n",
            self.moved_back, self.abort_to_last_back_ms
        ));
        for note in &self.verdict.notes {
            out.push_str(&format!("  ! {note}\n"));
        }
        out
    }
}

/// Fields are dropped in this order: players first, the run's folder last.
struct Theatre {
    players: Option<Players>,
    proxies: Vec<Proxy>,
    new: Arena,
    _old: Vec<Arena>,
    documents: Documents,
    etcd: Rc<Etcd>,
    screen: Screen,
    stage: Stage,
}

/// Performs it; the run's files stay if it isn't good.
pub fn perform() -> Result<Outcome> {
    let mut theatre = Theatre::open()?;
    let outcome = theatre.play();
    if !outcome.as_ref().is_ok_and(Outcome::is_good) {
        theatre.stage.keep();
    }
    outcome
}

impl Theatre {
    fn open() -> Result<Self> {
        let mut screen = Screen::new();
        screen.title("A faulty version is rolled out, and Holdfast brings its players back.");
        let stage = Stage::new("rollout")?;
        let etcd = Rc::new(Etcd::start(&stage, EtcdBinary::Default)?);
        let documents = Documents::Etcd(Rc::clone(&etcd));
        documents.put("services/arena", &arena_service(&json!({})))?;
        documents.put(
            "routes/public",
            &json!({"listener": "game", "service": "arena", "versions": {OLD: 100}, "prefer": "none"}),
        )?;
        let start = |name: &str, version: &str| {
            let arena = Arena::start(&stage, ArenaSpec::new(name).version(version).faults("none"))?;
            documents.put(&arena.key(), &arena.document()).map(|()| arena)
        };
        let old = vec![start("a", OLD)?, start("b", OLD)?];
        let new = start("new", NEW)?;
        let proxies = ["host-a", "host-b"].map(|id| Proxy::start(&stage, &ProxySpec::new(id, &documents)));
        let proxies = proxies.into_iter().collect::<Result<Vec<_>>>()?;
        screen.say(&format!("  Routes come from etcd at {}.", etcd.endpoint()));
        let spec = PlayersSpec::new(proxies.iter().map(Proxy::address), PLAYERS).rate_hz(RATE_HZ);
        let players = Some(Players::start(&stage, &spec)?);
        screen.tell(&format!("{PLAYERS} players are in, over two proxies, all on version {OLD}."));
        Ok(Self { players, proxies, new, _old: old, documents, etcd, screen, stage })
    }

    fn play(&mut self) -> Result<Outcome> {
        self.screen.title(&format!("1. The operator rolls {NEW} out: 10, 50, 100 % of the players"));
        let plan = json!({"from": OLD, "to": NEW, "steps": [10, 50, 100], "interval_s": 4,
            "abort": {"failures_percent": 5, "window_s": 5, "for_s": FAILING_S}});
        let line = self.documents.put_line("rollouts/arena", &plan);
        self.screen.say(&format!("          $ {line}"));
        self.documents.put("rollouts/arena", &plan)?;
        let first = self.watch("a tenth of the players is on the new version", |on_new| on_new >= 60)?;
        self.screen.tell(&format!("{first} players are on {NEW}. All is well."));
        self.watch("the second step begins", |on_new| on_new >= 150)?;
        self.screen.title(&format!("2. {NEW} turns out to be faulty: it refuses every other player"));
        self.new.set_faults("refuse=0.5")?;
        let aborting = self.await_abort()?;
        let moved_back = aborting["to_move_back"].as_u64().context("players to be moved back")?;
        let reason = aborting["reason"].as_str().unwrap_or_default().to_owned();
        self.screen.title("3. Holdfast gives it up by itself");
        self.screen.tell(&reason);
        let condition_ms = aborting["failing_since_ms"].as_u64().context("since when")? + 1_000 * FAILING_S;
        self.await_nobody_on_new()?;
        let abort_to_last_back_ms = now_ms().saturating_sub(condition_ms);
        self.screen.tell(&format!("All {moved_back} players of {NEW} are back on {OLD}, with their state."));
        let aborted = self.progress().is_some_and(|progress| is_given_up(&progress));
        let Some(players) = self.players.take() else { bail!("the players are gone already") };
        self.screen.tell("The players stop, and wait for every reply that they are owed.");
        let verdict = players.finish()?;
        Ok(Outcome { verdict, aborted, moved_back, abort_to_last_back_ms })
    }

    /// Shows the play until so many are on the new version.
    fn watch(&mut self, what: &str, condition: impl Fn(u64) -> bool) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(players) = &mut self.players else { bail!("the players are gone already") };
            let progress = players.progress()?;
            self.screen.show(&progress, &CAST);
            let on_new = players_at(&progress, NEW);
            if condition(on_new) {
                return Ok(on_new);
            }
            if Instant::now() > deadline {
                bail!("in {PATIENCE:?} it didn't come true that {what}");
            }
            std::thread::sleep(STEP);
        }
    }

    fn await_abort(&mut self) -> Result<Value> {
        let found = self.etcd.wait_for("/holdfast/status/rollouts/arena", PATIENCE, |text| {
            serde_json::from_str(text).is_ok_and(|progress: Value| is_given_up(&progress))
        })?;
        Ok(serde_json::from_str(&found)?)
    }

    fn await_nobody_on_new(&self) -> Result<()> {
        until("nobody is on the new version any more", PATIENCE, || {
            let on_new = |proxy: &Proxy| {
                let view = proxy.admin_json("/backends").ok()?;
                let mut backends = view["backends"].as_array()?.iter();
                backends.find(|backend| backend["backend"] == "arena/new")?["sessions"].as_u64()
            };
            self.proxies.iter().all(|proxy| on_new(proxy) == Some(0))
        })
    }

    fn progress(&self) -> Option<Value> {
        let text =
            self.etcd.etcdctl(&["get", "--print-value-only", "/holdfast/status/rollouts/arena"]).ok()?;
        serde_json::from_str(&text).ok()
    }
}

fn is_given_up(progress: &Value) -> bool {
    progress["state"] == "aborting" || progress["state"] == "aborted"
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
