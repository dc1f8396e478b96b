//! The cast: two game servers, a proxy beside each, the players, and where the documents are written.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Etcd, EtcdBinary, Jaeger, Players, PlayersSpec, Progress, Proxy, ProxySpec,
    Stage, arena_service, until,
};
use serde_json::{Value, json};

use crate::screen::{Cast, Screen};
use crate::verdict::Outcome;

pub const FIRST_PLAYERS: usize = 200;
pub const RATE_HZ: f64 = 20.0;
/// Each of the two games runs a version of its own, so that a route can tell them apart.
pub const VERSIONS: [&str; 2] = ["1.4", "1.5"];
const NAMES: [&str; 2] = ["a", "b"];
const CAST: [Cast<'static>; 2] =
    [Cast { name: "arena/a", version: VERSIONS[0] }, Cast { name: "arena/b", version: VERSIONS[1] }];
const PATIENCE: Duration = Duration::from_secs(30);
/// Undisturbed play before an event, to compare it with.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub etcd: bool,
    pub jaeger: bool,
}

/// Fields are dropped in this order: players first, the run's folder last.
pub struct Theatre {
    pub players: Option<Players>,
    pub proxies: Vec<Proxy>,
    pub arenas: Vec<Arena>,
    pub documents: Documents,
    pub jaeger: Option<Jaeger>,
    pub screen: Screen,
    pub failures: Vec<String>,
    stage: Stage,
}

impl Theatre {
    /// Starts everything but the players.
    pub fn open(options: &Options) -> Result<Self> {
        let mut screen = Screen::new();
        screen.title(
            "Holdfast keeps players connected while their game server is drained, restarted or replaced.",
        );
        let mut stage = Stage::new("demo")?;
        let jaeger = if options.jaeger { Some(start_jaeger(&mut stage, &mut screen)?) } else { None };
        let documents = match options.etcd {
            true => Documents::Etcd(Rc::new(Etcd::start(&stage, EtcdBinary::Default)?)),
            false => Documents::folder(&stage)?,
        };
        let mut arenas = Vec::new();
        for (name, version) in NAMES.into_iter().zip(VERSIONS) {
            arenas.push(Arena::start(&stage, ArenaSpec::new(name).version(version))?);
        }
        write_first_documents(&documents, &arenas)?;
        let mut proxies = Vec::new();
        for arena in &arenas {
            let backend = format!("arena/{}", arena.name());
            let spec = ProxySpec::new(arena.name(), &documents).beside(&backend, arena.address());
            proxies.push(Proxy::start(&stage, &spec)?);
        }
        let mut theatre =
            Self { players: None, proxies, arenas, documents, jaeger, screen, failures: Vec::new(), stage };
        theatre.introduce();
        theatre.enter()?;
        Ok(theatre)
    }

    fn introduce(&mut self) {
        let place = match &self.documents {
            Documents::Folder(path) => format!("the folder {}", path.display()),
            Documents::Etcd(etcd) => format!("etcd at {}", etcd.endpoint()),
        };
        for (arena, proxy) in self.arenas.iter().zip(&self.proxies) {
            let (name, link, public) = (arena.name(), arena.address(), proxy.address());
            self.screen.say(&format!("  players ──> proxy {public} ──> game server arena/{name} {link}"));
        }
        self.screen.say(&format!("  Routes come from {place}."));
    }

    fn enter(&mut self) -> Result<()> {
        let addresses = self.proxies.iter().map(Proxy::address);
        self.players =
            Some(Players::start(&self.stage, &PlayersSpec::new(addresses, FIRST_PLAYERS).rate_hz(RATE_HZ))?);
        self.screen.tell(&format!(
            "{FIRST_PLAYERS} players are in, over both proxies. Each sends {RATE_HZ} frames a second, and checks \
             every reply and every tick."
        ));
        Ok(())
    }

    pub fn play(&mut self) -> Result<Outcome> {
        crate::scenes::perform(self)?;
        let Some(players) = self.players.take() else { bail!("the players are gone already") };
        self.screen.tell("The players stop, and wait for every reply that they are owed.");
        let verdict = players.finish()?;
        Ok(Outcome { verdict, failures: std::mem::take(&mut self.failures) })
    }

    /// The run's files stay: something is to be looked into.
    pub fn keep(&mut self) {
        self.stage.keep();
    }

    pub fn players(&mut self) -> Result<&mut Players> {
        match &mut self.players {
            Some(players) => Ok(players),
            None => bail!("the players are gone already"),
        }
    }

    /// Shows the play until the condition holds; what doesn't come true is a failure of the demo, not its end.
    pub fn watch(&mut self, what: &str, condition: impl Fn(&Progress) -> bool) -> Result<Progress> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let progress = self.players()?.progress()?;
            self.screen.show(&progress, &CAST);
            if condition(&progress) {
                return Ok(progress);
            }
            if Instant::now() > deadline {
                self.failures.push(format!("in {} s it didn't come true that {what}", PATIENCE.as_secs()));
                return Ok(progress);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets undisturbed play go on for a while; returns where the players are then.
    pub fn quiet(&mut self) -> Result<Progress> {
        let end = Instant::now() + QUIET;
        self.watch("time goes on", |_| Instant::now() >= end)
    }

    /// Writes a document as the operator would, and tells the audience the line.
    pub fn put(&mut self, key: &str, document: &Value) -> Result<()> {
        let line = self.documents.put_line(key, document);
        self.screen.say(&format!("          $ {line}"));
        self.documents.put(key, document)
    }

    pub fn delete(&mut self, key: &str) -> Result<()> {
        let line = self.documents.delete_line(key);
        self.screen.say(&format!("          $ {line}"));
        self.documents.delete(key)
    }

    /// Does something to the documents, and returns when every proxy has taken it.
    pub fn and_applied(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let revision = |proxy: &Proxy| proxy.metric("holdfast_table_revision", "");
        let before = self.proxies.iter().map(revision).collect::<Result<Vec<f64>>>()?;
        change(self)?;
        until("every proxy has applied the change", PATIENCE, || {
            let mut pairs = self.proxies.iter().zip(&before);
            pairs.all(|(proxy, before)| revision(proxy).is_ok_and(|now| now > *before))
        })
    }
}

fn start_jaeger(stage: &mut Stage, screen: &mut Screen) -> Result<Jaeger> {
    let jaeger = Jaeger::start(stage)?;
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &jaeger.grpc_endpoint());
    stage.set("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    screen.say("  Traces go to Jaeger.");
    Ok(jaeger)
}

fn write_first_documents(documents: &Documents, arenas: &[Arena]) -> Result<()> {
    documents.put("services/arena", &arena_service(&json!({})))?;
    for arena in arenas {
        documents.put(&arena.key(), &arena.document())?;
    }
    documents.put("routes/public", &route(50, 50))
}

/// Everybody who comes to the listener `game` plays the arena, so many of a hundred at each version.
pub fn route(first: u32, second: u32) -> Value {
    let versions = json!({VERSIONS[0]: first, VERSIONS[1]: second});
    json!({"listener": "game", "service": "arena", "versions": versions})
}
