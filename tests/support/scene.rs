//! A proxy in front of some arenas, with its documents in a folder: where most promises are put to the test.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Players, PlayersSpec, Proxy, ProxySpec, Stage, Verdict, arena_service,
    holdfast_binary, http, until,
};
use serde_json::{Value, json};

use super::client::Client;
use super::impostor::Impostor;

/// Long enough for anything that should happen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// What a scene begins with.
pub struct Script {
    name: String,
    arenas: Vec<ArenaSpec>,
    service: Value,
    route: Value,
    config: String,
    local: Option<String>,
    workers: u16,
    listeners: Vec<String>,
    files: Vec<(String, String)>,
}

/// Declared so that the folder goes last.
pub struct Scene {
    pub proxy: Proxy,
    pub arenas: Vec<Arena>,
    pub documents: Documents,
    pub stage: Stage,
}

impl Script {
    /// Arenas `a` and `b`, both of version 1.4, and nothing out of the ordinary.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            arenas: vec![ArenaSpec::new("a"), ArenaSpec::new("b")],
            service: json!({}),
            route: json!({}),
            config: String::new(),
            local: None,
            workers: 1,
            listeners: vec!["game".to_owned()],
            files: Vec::new(),
        }
    }

    pub fn arenas(self, arenas: impl IntoIterator<Item = ArenaSpec>) -> Self {
        Self { arenas: arenas.into_iter().collect(), ..self }
    }

    /// Sections of the service's document.
    pub fn service(self, service: Value) -> Self {
        Self { service, ..self }
    }

    /// Fields of the route's document.
    pub fn route(self, route: Value) -> Self {
        Self { route, ..self }
    }

    /// More of the proxy's config file.
    pub fn config(self, toml: &str) -> Self {
        Self { config: toml.to_owned(), ..self }
    }

    pub fn workers(self, workers: u16) -> Self {
        Self { workers, ..self }
    }

    /// The arena beside the proxy; its link is up from the start.
    pub fn beside(self, arena: &str) -> Self {
        Self { local: Some(arena.to_owned()), ..self }
    }

    /// A file beside the config.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// One more listener beside `game`.
    pub fn listener(mut self, name: &str) -> Self {
        self.listeners.push(name.to_owned());
        self
    }

    pub fn open(self) -> Scene {
        self.try_open().unwrap()
    }

    fn try_open(self) -> Result<Scene> {
        let stage = Stage::new(&self.name)?;
        for (name, content) in &self.files {
            stage.write(name, content)?;
        }
        let documents = Documents::folder(&stage)?;
        let arenas =
            self.arenas.into_iter().map(|spec| Arena::start(&stage, spec)).collect::<Result<Vec<_>>>()?;
        documents.put("services/arena", &arena_service(&self.service))?;
        for arena in &arenas {
            documents.put(&arena.key(), &arena.document())?;
        }
        documents.put("routes/public", &route(&self.route))?;
        let mut spec = ProxySpec::new("host-a", &documents).more(&self.config);
        spec.listeners = self.listeners;
        spec.workers = self.workers;
        if let Some(name) = &self.local {
            let local = arenas.iter().find(|arena| arena.name() == name).context("the local arena")?;
            spec = spec.beside(&format!("arena/{name}"), local.address());
        }
        let proxy = Proxy::start(&stage, &spec)?;
        let scene = Scene { proxy, arenas, documents, stage };
        let all = scene.arenas.len() as u64;
        until("the table in force names every backend", SOON, || {
            let ready = http::get(&scene.proxy.health(), "/readyz").and_then(|answer| answer.json());
            ready.is_ok_and(|ready| ready["backends_known"] == all)
        })?;
        Ok(scene)
    }
}

/// The route of all players, with more fields.
pub fn route(more: &Value) -> Value {
    let mut route = json!({"listener": "game", "service": "arena"});
    if let (Some(route), Some(more)) = (route.as_object_mut(), more.as_object()) {
        route.extend(more.clone());
    }
    route
}

/// A service of lines of at most 1000 bytes, for backends and clients that a test plays itself.
pub fn odd_service(more: &Value) -> Value {
    let mut service = json!({
        "protocol": "link",
        "framing": {"kind": "lines", "max_bytes": 1000},
        "on_crash": "close",
        "limits": {
            "server_window_bytes": 4096,
            "liveness_ms": 600,
            "resume_timeout_ms": 300,
            "attach_timeout_ms": 1000,
            "park_deadline_s": 2,
        },
    });
    if let (Some(service), Some(more)) = (service.as_object_mut(), more.as_object()) {
        service.extend(more.clone());
    }
    service
}

impl Scene {
    /// Adds the odd service on listener `odd`.
    pub fn with_odd_service(self, more: &Value) -> Self {
        self.documents.put("services/odd", &odd_service(more)).unwrap();
        self.applied(|scene| {
            let route = json!({"listener": "odd", "service": "odd", "prefer": "none"});
            scene.documents.put("routes/odd", &route).unwrap();
        });
        until("the odd route is in force", SOON, || {
            self.proxy.admin_json("/routes").unwrap()["routes"].as_array().unwrap().len() == 2
        })
        .unwrap();
        self
    }

    /// Makes the impostor a backend of the odd service.
    pub fn cast(&self, name: &str, impostor: &Impostor) {
        self.applied(|scene| {
            scene.documents.put(&format!("backends/odd/{name}"), &impostor.document()).unwrap();
        });
    }

    /// Takes it off the list. It was the only one, so that this is held until it is accepted.
    pub fn dismiss(&self, name: &str) {
        self.applied(|scene| scene.documents.delete(&format!("backends/odd/{name}")).unwrap());
        self.accept("odd");
    }

    /// Says yes to what is held of a service, in the way that `holdfast table accept` tells of.
    pub fn accept(&self, service: &str) {
        let mut accept = None;
        until("something is held", SOON, || {
            let held = self.proxy.admin_json("/held").unwrap_or_default();
            accept = held["accepts"].get(service).cloned();
            accept.is_some()
        })
        .unwrap();
        let accept = accept.unwrap_or_default();
        self.applied(|scene| scene.documents.put(&format!("accepts/{service}"), &accept).unwrap());
    }

    /// Somebody on listener `odd`.
    pub fn odd_client(&self) -> Client {
        Client::connect(self.proxy.listener("odd").unwrap())
    }

    /// Players at 20 Hz, each of whom has been answered once.
    pub fn players(&self, count: usize) -> Players {
        Players::start(&self.stage, &PlayersSpec::new([self.proxy.address()], count)).unwrap()
    }

    pub fn arena(&mut self, name: &str) -> &mut Arena {
        self.arenas.iter_mut().find(|arena| arena.name() == name).unwrap()
    }

    /// Starts another arena, and tells the proxy of it.
    pub fn join(&mut self, spec: ArenaSpec) {
        let arena = Arena::start(&self.stage, spec).unwrap();
        self.applied(|scene| scene.documents.put(&arena.key(), &arena.document()).unwrap());
        self.arenas.push(arena);
    }

    /// Writes the drain key of an arena.
    pub fn drain(&self, arena: &str) {
        self.drain_with(arena, &json!({"reason": "test"}));
    }

    pub fn drain_with(&self, arena: &str, document: &Value) {
        self.documents.put(&format!("drains/arena/{arena}"), document).unwrap();
    }

    /// Deletes the drain key; returns when that is in force.
    pub fn undrain(&self, arena: &str) {
        self.applied(|scene| scene.documents.delete(&format!("drains/arena/{arena}")).unwrap());
    }

    /// Does something to the documents, and waits until the workers have a new table.
    pub fn applied(&self, act: impl FnOnce(&Self)) {
        let before = self.revision();
        act(self);
        until("a new table in force", SOON, || self.revision() > before).unwrap();
        // The workers take orders one after another: their answer comes after the table.
        self.backend("a");
    }

    fn revision(&self) -> u64 {
        self.proxy.admin_json("/routes").unwrap()["table"]["revision"].as_u64().unwrap()
    }

    /// `/backends` about one arena; null if it isn't there.
    pub fn backend(&self, arena: &str) -> Value {
        let all = self.proxy.admin_json("/backends").unwrap();
        let name = format!("arena/{arena}");
        let found = all["backends"].as_array().unwrap().iter().find(|backend| backend["backend"] == *name);
        found.cloned().unwrap_or_default()
    }

    /// Sessions that the proxy has on an arena.
    pub fn sessions_on(&self, arena: &str) -> u64 {
        self.backend(arena)["sessions"].as_u64().unwrap_or(0)
    }

    /// `/sessions`, all of them.
    pub fn sessions(&self) -> Vec<Value> {
        let page = self.proxy.admin_json("/sessions?limit=10000").unwrap();
        page["sessions"].as_array().unwrap().clone()
    }

    /// Sessions in that phase.
    pub fn in_phase(&self, phase: &str) -> usize {
        self.sessions().iter().filter(|session| session["phase"] == phase).count()
    }

    pub fn metric(&self, name: &str, label: &str) -> u64 {
        self.proxy.metric(name, label).unwrap() as u64
    }

    /// Handoffs by cause and result; "" for every result.
    pub fn handoffs(&self, cause: &str, result: &str) -> u64 {
        let label = match result {
            "" => format!("cause=\"{cause}\""),
            result => format!("cause=\"{cause}\",result=\"{result}\""),
        };
        self.metric("holdfast_handoffs_total", &label)
    }

    /// Sessions closed for that reason.
    pub fn closed(&self, reason: &str) -> u64 {
        self.metric("holdfast_sessions_closed_total", &format!("reason=\"{reason}\""))
    }

    pub fn log(&mut self) -> String {
        self.proxy.process().log()
    }

    /// Waits, with a deadline, for something that the proxy shows.
    pub fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        until(what, SOON, || condition(self)).unwrap();
    }

    pub fn wait_log(&mut self, text: &str) {
        self.wait(&format!("{text:?} in the proxy's log"), |scene| scene.log().contains(text));
    }

    /// Waits until that many sessions are on an arena, and all of them are in play.
    pub fn wait_settled(&mut self, arena: &str, count: u64) {
        self.wait(&format!("{count} sessions in play on {arena}"), |scene| {
            let backend = format!("arena/{arena}");
            let there = |session: &&Value| session["backend"] == *backend && session["phase"] == "active";
            scene.sessions().iter().filter(there).count() as u64 == count
        });
    }

    /// Runs the command line against this proxy.
    pub fn holdfast(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(holdfast_binary().unwrap());
        command.args(arguments).env("HOLDFAST_ADMIN", self.proxy.admin());
        command.output().unwrap().into()
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Ends play. Nothing was lost, repeated, reordered or wrong, and nobody was disconnected.
pub fn clean(players: Players) -> Verdict {
    let verdict = players.finish().unwrap();
    let counts = (verdict.lost, verdict.repeated, verdict.reordered, verdict.mismatched, verdict.disconnects);
    assert_eq!(counts, (0, 0, 0, 0, 0), "lost, repeated, reordered, mismatched, disconnects: {verdict:?}");
    assert_eq!(verdict.connect_failures, 0, "{verdict:?}");
    assert!(verdict.frames > 0 && verdict.received > 0, "nobody played: {verdict:?}");
    verdict
}

/// How many sessions moved in that event.
pub fn moved(verdict: &Verdict, event: &str) -> u64 {
    verdict.events.iter().find(|found| found.name == event).map(|event| event.moved).unwrap()
}
