//! An operator sees what a proxy does, and is told what is wrong with what was typed: health and admin addresses, and
//! the command line that asks them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use holdfast::telemetry::metrics::REFERENCE;
use holdfast_stage::{
    Arena, ArenaSpec, Documents, Players, PlayersSpec, Proxy, ProxySpec, Stage, arena_service, free_address,
    http,
};
use serde_json::{Value, json};

use crate::support::fleet::wait_for_sessions;
use crate::support::play::{SOON, four_zeros, play};
use crate::support::program::{Said, holdfast, holdfast_without_environment};

/// A game, its documents in a folder, and a proxy that isn't started yet.
struct Scene {
    documents: Documents,
    _arenas: [Arena; 2],
    proxy: Proxy,
}

impl Scene {
    fn prepare(stage: &Stage) -> Result<Self> {
        let documents = Documents::folder(stage)?;
        documents.put("services/arena", &arena_service(&json!({})))?;
        documents
            .put("routes/public", &json!({"listener": "game", "service": "arena", "versions": {"1.4": 3}}))?;
        let arenas = [Arena::start(stage, ArenaSpec::new("a"))?, Arena::start(stage, ArenaSpec::new("b"))?];
        for arena in &arenas {
            documents.put(&arena.key(), &arena.document())?;
        }
        let proxy = Proxy::prepare(stage, &ProxySpec::new("p", &documents))?;
        Ok(Self { documents, _arenas: arenas, proxy })
    }

    fn start(stage: &Stage) -> Result<Self> {
        let mut scene = Self::prepare(stage)?;
        scene.proxy.start_again()?;
        Ok(scene)
    }

    fn players(&self, stage: &Stage, count: usize) -> Result<Players> {
        Players::start(stage, &PlayersSpec::new([self.proxy.address()], count))
    }

    fn admin(&self, path: &str) -> Result<Value> {
        self.proxy.admin_json(path)
    }
}

/// The fields of an object, in the order of their names.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn health_says_alive_ready_and_in_which_state() {
    play("admin-health", |stage| {
        let mut scene = Scene::start(stage)?;
        let health = scene.proxy.health();
        ensure!(http::get_json(&health, "/livez")? == json!({"live": true}));
        let ready = http::get_json(&health, "/readyz")?;
        ensure!(ready["ready"] == true && ready["waiting_for"] == json!([]), "{ready}");
        ensure!(ready["table"]["source"] == "files" && ready["table"]["connected"] == true, "{ready}");
        ensure!(ready["backends_known"] == 2, "{ready}");
        // The address that kubelets and scrapers reach takes no orders and shows no sessions.
        for path in ["/sessions", "/status", "/drain"] {
            ensure!(http::get(&health, path)?.status == 404, "{path}");
        }
        ensure!(http::post(&health, "/drain", &json!({"backend": "arena/a", "local": true}))?.status == 404);
        let players = scene.players(stage, 20)?;
        // A proxy that is told to stop isn't ready, and lets those who play go on.
        scene.proxy.process().terminate()?;
        holdfast_stage::until("not ready", SOON, || {
            http::get(&health, "/readyz").is_ok_and(|answer| answer.status == 503)
        })?;
        let ready = http::get(&health, "/readyz")?.json()?;
        ensure!(ready["stopping"] == true, "{ready}");
        ensure!(http::get(&health, "/livez")?.status == 200);
        ensure!(scene.admin("/status")?["state"] == "stopping");
        four_zeros(players)?;
        let ended = scene.proxy.process().wait(SOON)?;
        ensure!(ended.success(), "{ended}");
        Ok(())
    });
}

#[test]
fn metrics_are_what_prometheus_expects_and_every_documented_one_is_there() {
    play("admin-metrics", |stage| {
        let scene = Scene::start(stage)?;
        let mut players = scene.players(stage, 20)?;
        players.wait_until("some frames", SOON, |now| now.replied > 100)?;
        players.begin("drain")?;
        let order = json!({"backend": "arena/a", "local": true});
        ensure!(http::post(&scene.proxy.admin(), "/drain", &order)?.status == 200);
        wait_for_sessions(&scene.proxy, "arena/b", 20)?;
        let page = http::get(&scene.proxy.health(), "/metrics")?.body;
        check_with_promtool(&page)?;
        let shown: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        let documented: BTreeSet<&str> = REFERENCE.iter().map(|metric| metric.name).collect();
        ensure!(shown == documented, "only shown or only documented: {:?}", &shown ^ &documented);
        let of = |name: &str, label: &str| scene.proxy.metric(name, label);
        ensure!(of("holdfast_sessions", "")? == 20.0 && of("holdfast_sessions_opened_total", "")? == 20.0);
        ensure!(of("holdfast_frames_total", "direction=\"to_backend\"")? > 100.0);
        ensure!(of("holdfast_links", "")? == 2.0);
        let moved = of("holdfast_handoffs_total", "cause=\"operator\",result=\"moved\"")?;
        ensure!(moved > 0.0 && moved == of("holdfast_handoff_pause_seconds_count", "")?);
        ensure!(!page.contains("127.0.0.1"), "no address is a label");
        four_zeros(players)?;
        holdfast_stage::until("all are gone", SOON, || {
            of("holdfast_sessions", "").is_ok_and(|open| open == 0.0)
        })?;
        ensure!(of("holdfast_sessions_closed_total", "reason=\"client_close\"")? == 20.0);
        Ok(())
    });
}

fn check_with_promtool(page: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool: `./dev setup` installs it")?;
    child.stdin.take().context("its stdin")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "promtool: {}", String::from_utf8_lossy(&said));
    Ok(())
}

const SESSION_FIELDS: [&str; 15] = [
    "age_s",
    "backend",
    "client",
    "client_seq",
    "epoch",
    "group",
    "id",
    "kept_bytes",
    "mirror_of",
    "phase",
    "route",
    "server_seq",
    "service",
    "state_bytes",
    "worker",
];

#[test]
fn sessions_backends_and_routes_are_json_with_stable_fields() {
    play("admin-json", |stage| {
        let scene = Scene::start(stage)?;
        let players = scene.players(stage, 20)?;
        let sessions = scene.admin("/sessions?limit=5")?;
        ensure!(
            sessions["total"] == 20 && sessions["sessions"].as_array().map(Vec::len) == Some(5),
            "{sessions}"
        );
        let session = &sessions["sessions"][0];
        ensure!(fields(session) == SESSION_FIELDS, "{session}");
        ensure!(session["phase"] == "active" && session["route"] == "public", "{session}");
        let backends = scene.admin("/backends")?;
        let backend = &backends["backends"][0];
        let expected = [
            "address",
            "at_bound",
            "attachments",
            "backend",
            "capacity",
            "capacity_told",
            "drain",
            "draining",
            "in_table",
            "last_error",
            "left",
            "link",
            "links",
            "load_permille",
            "sessions",
            "unfit",
            "version",
            "weight",
            "zone",
        ];
        ensure!(fields(backend) == expected, "{backend}");
        ensure!(backend["backend"] == "arena/a" && backend["link"] == "up", "{backend}");
        ensure!(backend["links"][0]["instance"].as_str().is_some_and(|id| id.len() == 32), "{backend}");
        let routes = scene.admin("/routes")?;
        ensure!(
            fields(&routes) == ["drains", "held", "refused", "routes", "services", "table", "warnings"],
            "{routes}"
        );
        let route = &routes["routes"][0];
        ensure!(
            route["name"] == "public" && route["here"] == true && route["versions"] == json!({"1.4": 3}),
            "{route}"
        );
        let status = scene.admin("/status")?;
        ensure!(
            status["proxy"] == "p" && status["state"] == "serving" && status["sessions"] == 20,
            "{status}"
        );
        ensure!(status["listeners"][0]["address"] == scene.proxy.address().to_string(), "{status}");
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_refused_document_shows_with_its_reason() {
    play("admin-refused", |stage| {
        let scene = Scene::start(stage)?;
        let players = scene.players(stage, 20)?;
        scene
            .documents
            .put("routes/public", &json!({"listener": "game", "service": "arena", "version": {}}))?;
        holdfast_stage::until("the refusal", SOON, || {
            scene.admin("/status").is_ok_and(|status| status["refused"][0]["key"] == "routes/public")
        })?;
        let error = scene.admin("/routes")?["refused"][0]["error"].clone();
        ensure!(error.as_str().is_some_and(|text| text.starts_with("version: got")), "{error}");
        let said = holdfast(&scene.proxy.admin(), &["status"])?;
        let told = "refused    routes/public: version: got";
        ensure!(said.code == 0 && said.stdout.contains(told), "{said:?}");
        ensure!(said.stdout.contains("its last good version holds"), "{said:?}");
        four_zeros(players).map(drop)
    });
}

#[test]
fn orders_that_make_no_sense_are_refused_with_what_to_do() {
    play("admin-orders", |stage| {
        let scene = Scene::start(stage)?;
        let players = scene.players(stage, 20)?;
        let admin = scene.proxy.admin();
        let refused = |body: &Value, status: u16, hint: &str| {
            let answer = http::post(&admin, "/drain", body)?;
            let error = answer.json()?["error"].as_str().unwrap_or_default().to_owned();
            ensure!(answer.status == status && error.contains(hint), "{body}: {answer:?}");
            anyhow::Ok(())
        };
        refused(&json!({"backend": "arena/zz", "local": true}), 404, "known: arena/a, arena/b")?;
        refused(&json!({"backend": "arena", "local": true}), 400, "expected SERVICE/NAME")?;
        refused(&json!({"backend": "arena/a", "local": true, "deadline_s": 0}), 400, "deadline_s")?;
        refused(&json!({"backend": "arena/a", "locally": true}), 400, "locally")?;
        refused(&json!("arena/a"), 400, "expected JSON such as")?;
        refused(&json!({"backend": "arena/a"}), 409, "--local")?;
        let garbage = answer_to(
            &admin,
            "POST /drain HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\n{oops",
        )?;
        ensure!(
            garbage.starts_with("HTTP/1.1 400") && garbage.contains("expected JSON such as"),
            "{garbage}"
        );
        let order = r#"{"backend":"arena/a","local":true}"#;
        let head = "POST /drain HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: http://evil.example";
        let from_a_page = format!("{head}\r\ncontent-length: {}\r\n\r\n{order}", order.len());
        let answer = answer_to(&admin, &from_a_page)?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        ensure!(http::get(&admin, "/undrain")?.status == 405);
        ensure!(http::get(&admin, "/sessions?limit=0")?.status == 400);
        ensure!(http::get(&admin, "/nowhere")?.status == 404);
        // None of it moved anybody.
        ensure!(scene.proxy.metric("holdfast_handoffs_total", "")? == 0.0);
        four_zeros(players).map(drop)
    });
}

/// The answer to a request as it stands here, right or wrong; it asks for the connection to be closed after it.
fn answer_to(admin: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_commands_tell_and_do_over_tcp() {
    play("admin-cli-tcp", |stage| {
        let scene = Scene::start(stage)?;
        let players = scene.players(stage, 20)?;
        let admin = scene.proxy.admin();
        commands_tell_and_do(&scene, &admin)?;
        // The flag wins over the variable.
        let said = holdfast("127.0.0.1:1", &["--admin", &admin, "status"])?;
        ensure!(said.code == 0, "{said:?}");
        four_zeros(players).map(drop)
    });
}

#[test]
fn the_commands_tell_and_do_over_a_unix_socket() {
    play("admin-cli-unix", |stage| {
        let mut scene = Scene::prepare(stage)?;
        let socket = format!("unix:{}", stage.path().join("admin.sock").display());
        let config = std::fs::read_to_string(scene.proxy.config_path())?;
        let bind = |address: &str| format!("[admin]\nbind = \"{address}\"");
        ensure!(config.contains(&bind(&scene.proxy.admin())), "{config}");
        std::fs::write(
            scene.proxy.config_path(),
            config.replace(&bind(&scene.proxy.admin()), &bind(&socket)),
        )?;
        scene.proxy.start_again()?;
        let players = scene.players(stage, 20)?;
        commands_tell_and_do(&scene, &socket)?;
        four_zeros(players).map(drop)
    });
}

/// `status`, `sessions`, `drain` and `undrain`, as text and as JSON, while 20 play.
fn commands_tell_and_do(scene: &Scene, admin: &str) -> Result<()> {
    let run = |arguments: &[&str]| holdfast(admin, arguments);
    let said = run(&["status"])?;
    ensure!(said.code == 0 && said.stdout.starts_with("proxy p serving, holdfast "), "{said:?}");
    let listener = format!("listener   game on {}\n", scene.proxy.address());
    ensure!(said.stdout.contains("20 open, 0 parked") && said.stdout.contains(&listener), "{said:?}");
    let status: Value = serde_json::from_str(&run(&["status", "--json"])?.stdout)?;
    ensure!(status["backends"][1]["backend"] == "arena/b" && status["sessions"] == 20, "{status}");
    let said = run(&["sessions", "--limit", "3"])?;
    ensure!(said.stdout.lines().count() == 5 && said.stdout.contains("3 of 20 sessions"), "{said:?}");
    let sessions: Value = serde_json::from_str(&run(&["sessions", "--json"])?.stdout)?;
    ensure!(sessions["sessions"].as_array().map(Vec::len) == Some(20), "{sessions}");
    let said = run(&["drain", "arena/a"])?;
    ensure!(
        said.code == 1 && said.stderr.contains("--local"),
        "files: only this proxy can be ordered: {said:?}"
    );
    let said = run(&["drain", "arena/zz", "--local"])?;
    ensure!(said.code == 1 && said.stderr.contains("known: arena/a, arena/b"), "{said:?}");
    let said = run(&["drain", "arena/a", "--local", "--wait", "--json"])?;
    let end: Value = serde_json::from_str(&said.stdout)?;
    ensure!(said.code == 0 && end["result"] == "done" && end["left"] == 0, "{said:?}");
    // Nobody is left to take b's: the deadline passes, and everybody stays where they are.
    let said = run(&["drain", "arena/b", "--local", "--wait", "--deadline", "1s"])?;
    ensure!(
        said.code == 4
            && said.stdout.contains("isn't empty at the deadline")
            && said.stdout.contains("20 sessions left"),
        "{said:?}"
    );
    ensure!(said.stderr.contains("no other backend of arena takes sessions now"), "{said:?}");
    for backend in ["arena/a", "arena/b"] {
        let said = run(&["undrain", backend, "--local"])?;
        ensure!(
            said.code == 0 && said.stdout.contains("no longer drained by this proxy's own order"),
            "{said:?}"
        );
    }
    ensure!(scene.proxy.metric("holdfast_handoffs_total", "cause=\"operator\",result=\"moved\"")? > 0.0);
    Ok(())
}

#[test]
fn a_proxy_that_is_not_there_is_told_apart() {
    play("admin-unreachable", |stage| {
        let nobody = free_address()?.to_string();
        let socket = format!("unix:{}", stage.path().join("none.sock").display());
        for admin in [&nobody, &socket] {
            let said = holdfast(admin, &["status"])?;
            let told = format!("can't reach the proxy at {admin}: ");
            ensure!(said.code == 3 && said.stderr.contains(&told), "{said:?}");
            ensure!(said.stderr.contains("Is it running there?") && said.stdout.is_empty(), "{said:?}");
        }
        let said = holdfast("nonsense", &["status"])?;
        ensure!(said.code == 2 && said.stderr.contains("expected HOST:PORT"), "{said:?}");
        // An address where something else answers.
        let scene = Scene::start(stage)?;
        let said = holdfast(&scene.proxy.health(), &["status"])?;
        ensure!(said.code == 1 && said.stderr.contains("no /status here"), "{said:?}");
        Ok(())
    });
}

#[test]
fn help_and_check_say_what_an_operator_needs() {
    play("admin-help", |stage| {
        let help = |arguments: &[&str]| -> Result<Said> {
            let said = holdfast_without_environment(arguments)?;
            ensure!(said.code == 0 && said.stderr.is_empty(), "{said:?}");
            let widest = said.stdout.lines().map(|line| line.chars().count()).max();
            ensure!(widest <= Some(80), "fits a terminal: {widest:?}\n{}", said.stdout);
            Ok(said)
        };
        let top = help(&["--help"])?.stdout;
        for part in
            ["run", "check", "status", "sessions", "drain", "undrain", "Exit codes:", "HOLDFAST_ADMIN"]
        {
            ensure!(top.contains(part), "{part} in:\n{top}");
        }
        for command in ["run", "check", "status", "sessions", "drain", "undrain"] {
            let text = help(&[command, "--help"])?.stdout;
            ensure!(text.contains("Examples:") && text.contains(&format!("holdfast {command}")), "{text}");
        }
        ensure!(help(&["--version"])?.stdout == format!("holdfast {}\n", env!("CARGO_PKG_VERSION")));
        let said = holdfast_without_environment(&["drain"])?;
        ensure!(said.code == 2 && said.stderr.contains("<SERVICE/BACKEND>"), "{said:?}");
        let scene = Scene::prepare(stage)?;
        let config = scene.proxy.config_path().display().to_string();
        let said = holdfast_without_environment(&["check", &config])?;
        ensure!(said.code == 0 && said.stdout.starts_with("ok: "), "{said:?}");
        scene.documents.put("backends/arena/a", &json!({"address": "nowhere", "version": "1.4"}))?;
        let said = holdfast_without_environment(&["check", &config])?;
        ensure!(said.code == 1 && said.stdout.contains("backends/arena/a.json"), "{said:?}");
        ensure!(said.stdout.contains("address: got nowhere, expected "), "{said:?}");
        let report: Value =
            serde_json::from_str(&holdfast_without_environment(&["check", &config, "--json"])?.stdout)?;
        ensure!(report["ok"] == false && report["problems"][0]["field"] == "address", "{report}");
        Ok(())
    });
}
