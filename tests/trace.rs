//! Whatever happens to a player can be looked up: handoffs, sampled frames, slow frames and sessions are traces in a
//! real Jaeger, over the proxy and both games; and a collector that is away costs spans, never frames.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_stage::{
    Arena, ArenaSpec, Documents, FoundTrace, Jaeger, Players, PlayersSpec, Proxy, ProxySpec, Stage, Verdict,
    arena_service, free_address, until,
};
use serde_json::{Value, json};

use crate::support::fleet::{sessions_on, wait_for_sessions};
use crate::support::logs::{self, JSON_LOGS};
use crate::support::play::{SOON, four_zeros, play};
use crate::support::spans::{FoundSpan, named, spans, wait_for_trace};

const HANDOFF: (&str, &str) = ("holdfast", "handoff");
const SESSION: (&str, &str) = ("holdfast", "session");

/// Two games behind a proxy, their spans on the way to a collector.
struct Traced {
    documents: Documents,
    arenas: [Arena; 2],
    proxy: Proxy,
}

impl Traced {
    fn start(
        stage: &mut Stage,
        collector: (&str, &str),
        trace: &Value,
        arena_flags: &[&str],
    ) -> Result<Self> {
        let (protocol, endpoint) = collector;
        stage.set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        stage.set("OTEL_BSP_SCHEDULE_DELAY", "100");
        let documents = Documents::folder(stage)?;
        documents.put("services/arena", &arena_service(&json!({"trace": trace})))?;
        documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
        let start = |name| Arena::start(stage, ArenaSpec::new(name).flags(arena_flags.iter().copied()));
        let arenas = [start("a")?, start("b")?];
        for arena in &arenas {
            documents.put(&arena.key(), &arena.document())?;
        }
        let proxy = Proxy::start(stage, &ProxySpec::new("p", &documents).more(JSON_LOGS))?;
        Ok(Self { documents, arenas, proxy })
    }

    /// Moves everybody from a to b; says how many that were.
    fn drain(&self, players: &mut Players) -> Result<u64> {
        let on_a = sessions_on(&self.proxy, "arena/a")?;
        ensure!(on_a > 0, "nobody to move");
        players.begin("drain")?;
        self.documents.put("drains/arena/a", &json!({}))?;
        players.wait_until("all of a are answered by b", SOON, |now| now.moved == on_a)?;
        players.end("drain")?;
        wait_for_sessions(&self.proxy, "arena/a", 0)?;
        Ok(on_a)
    }
}

#[test]
fn a_handoff_is_one_trace_over_proxy_and_both_games() {
    play("trace-grpc", |stage| {
        let jaeger = Jaeger::start(stage)?;
        let endpoint = jaeger.grpc_endpoint();
        handoff_is_one_trace(stage, &jaeger, ("grpc", &endpoint))
    });
}

#[test]
fn a_handoff_is_one_trace_over_http_too() {
    play("trace-http", |stage| {
        let jaeger = Jaeger::start(stage)?;
        let endpoint = jaeger.http_endpoint();
        handoff_is_one_trace(stage, &jaeger, ("http/protobuf", &endpoint))
    });
}

fn handoff_is_one_trace(stage: &mut Stage, jaeger: &Jaeger, collector: (&str, &str)) -> Result<()> {
    let mut traced = Traced::start(stage, collector, &json!({"ratio": 0.0, "slow_frame_ms": 60_000}), &[])?;
    let mut players = Players::start(stage, &PlayersSpec::new([traced.proxy.address()], 20))?;
    let moved = traced.drain(&mut players)?;
    let wanted: BTreeSet<(String, String)> = ["handoff", "freeze", "state", "attach", "replay", "flush"]
        .into_iter()
        .map(|name| ("holdfast", name))
        .chain([("arena-a", "snapshot"), ("arena-b", "restore")])
        .map(|(service, name)| (service.to_owned(), name.to_owned()))
        .collect();
    let trace = wait_for_trace(jaeger, HANDOFF, "a whole handoff", |trace| trace.spans == wanted)?;
    check_family(&spans(&trace))?;
    until("every handoff is a trace", SOON, || {
        jaeger.traces(HANDOFF.0, HANDOFF.1, 100).is_ok_and(|found| found.len() as u64 == moved)
    })?;
    // The log leads there.
    let told = logs::lines(traced.proxy.process(), "handoff");
    let line = told.iter().find(|line| line["trace_id"] == trace.id.as_str()).context("its log line")?;
    let spans = spans(&trace);
    ensure!(line["session"] == named(&spans, "handoff")?.tags["holdfast.session"], "{line}");
    // Nothing else was sampled.
    ensure!(jaeger.traces("holdfast", "frame", 10)?.is_empty(), "frames at a ratio of 0");
    four_zeros(players)?;
    check_sessions(jaeger, moved)
}

/// Parents, times and attributes.
fn check_family(spans: &[FoundSpan]) -> Result<()> {
    ensure!(spans.len() == 8, "each span once: {spans:#?}");
    let handoff = named(spans, "handoff")?;
    ensure!(handoff.parent.is_empty(), "{handoff:?}");
    let mut before = handoff.begin_us;
    for name in ["freeze", "state", "attach", "replay", "flush"] {
        let phase = named(spans, name)?;
        ensure!(phase.parent == handoff.id, "{phase:?}");
        ensure!(phase.begin_us >= before && phase.end_us <= handoff.end_us + 1, "in order: {spans:#?}");
        before = phase.begin_us;
    }
    ensure!(named(spans, "snapshot")?.parent == named(spans, "freeze")?.id, "{spans:#?}");
    ensure!(named(spans, "restore")?.parent == named(spans, "attach")?.id, "{spans:#?}");
    let tag = |name: &str| handoff.tags.get(name).cloned().unwrap_or_default();
    ensure!(tag("holdfast.from") == "arena/a" && tag("holdfast.to") == "arena/b", "{handoff:?}");
    ensure!(tag("holdfast.cause") == "operator" && tag("holdfast.result") == "moved", "{handoff:?}");
    ensure!(tag("holdfast.state_bytes").as_u64() >= Some(4096), "{handoff:?}");
    Ok(())
}

/// Sessions that have moved tell their whole life, sampled or not.
fn check_sessions(jaeger: &Jaeger, moved: u64) -> Result<()> {
    until("every session that moved is a trace", SOON, || {
        jaeger.traces(SESSION.0, SESSION.1, 100).is_ok_and(|found| found.len() as u64 == moved)
    })?;
    for trace in jaeger.traces(SESSION.0, SESSION.1, 100)? {
        let spans = spans(&trace);
        let session = named(&spans, "session")?;
        ensure!(session.events == ["opened", "attached", "moved", "closed"], "{session:?}");
        let tag = |name: &str| session.tags.get(name).cloned().unwrap_or_default();
        ensure!(tag("holdfast.service") == "arena" && tag("holdfast.route") == "public", "{session:?}");
        ensure!(tag("holdfast.reason") == "client_close", "{session:?}");
        ensure!(tag("holdfast.session").as_str().is_some_and(|id| id.len() == 32), "{session:?}");
    }
    Ok(())
}

#[test]
fn a_stay_in_the_proxy_shows_in_the_traces() {
    play("trace-park", |stage| {
        let jaeger = Jaeger::start(stage)?;
        let endpoint = jaeger.grpc_endpoint();
        let mut traced = Traced::start(stage, ("grpc", &endpoint), &json!({"ratio": 0.0}), &[])?;
        let mut players = Players::start(stage, &PlayersSpec::new([traced.proxy.address()], 10))?;
        traced.drain(&mut players)?;
        // Nobody else takes the players of b: they wait in the proxy until it is back.
        let b = &mut traced.arenas[1];
        b.process().terminate()?;
        ensure!(b.process().wait(SOON)?.success());
        ensure!(traced.proxy.metric("holdfast_parked_sessions", "")? == 10.0);
        b.start_again()?;
        wait_for_sessions(&traced.proxy, "arena/b", 10)?;
        let parked = |trace: &FoundTrace| trace.spans.contains(&("holdfast".to_owned(), "park".to_owned()));
        let trace = wait_for_trace(&jaeger, HANDOFF, "a handoff with a stay in the proxy", parked)?;
        let spans = spans(&trace);
        let (handoff, park) = (named(&spans, "handoff")?, named(&spans, "park")?);
        ensure!(park.parent == handoff.id && handoff.tags["holdfast.cause"] == "backend", "{spans:#?}");
        ensure!(handoff.tags["holdfast.result"] == "moved", "{spans:#?}");
        four_zeros(players)?;
        let whole_life = |trace: &FoundTrace| {
            let spans = self::spans(trace);
            spans[0].events == ["opened", "attached", "moved", "parked", "moved", "closed"]
        };
        wait_for_trace(&jaeger, SESSION, "a session with a stay in the proxy", whole_life).map(drop)
    });
}

#[test]
fn a_log_line_leads_to_its_session_and_its_trace() {
    play("trace-logs", |stage| {
        // Without a collector too: the ids are those that other systems were given.
        let mut traced = Traced::start(stage, ("grpc", ""), &json!({}), &[])?;
        let mut players = Players::start(stage, &PlayersSpec::new([traced.proxy.address()], 10))?;
        let listed = traced.proxy.admin_json("/sessions")?;
        let moved = traced.drain(&mut players)?;
        four_zeros(players)?;
        until("the sessions are closed", SOON, || {
            traced.proxy.metric("holdfast_sessions", "").is_ok_and(|open| open == 0.0)
        })?;
        let log = traced.proxy.process().log();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("JSON in {line:?}"))?;
            ensure!(
                line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(),
                "{line}"
            );
        }
        let handoffs = logs::lines(traced.proxy.process(), "handoff");
        ensure!(handoffs.len() as u64 == moved, "{handoffs:#?}");
        let hexadecimal = |value: &Value| {
            value.as_str().is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        for line in &handoffs {
            ensure!(hexadecimal(&line["session"]) && hexadecimal(&line["trace_id"]), "{line}");
            ensure!(
                line["from"] == "arena/a" && line["to"] == "arena/b" && line["result"] == "moved",
                "{line}"
            );
            let sessions = listed["sessions"].as_array().context("a list")?;
            ensure!(sessions.iter().any(|session| session["id"] == line["session"]), "{line} in {listed}");
        }
        let traces: BTreeSet<_> = handoffs.iter().map(|line| line["trace_id"].to_string()).collect();
        ensure!(traces.len() == handoffs.len(), "a trace of its own for each: {traces:?}");
        for message in ["session opened", "session closed"] {
            ensure!(logs::lines(traced.proxy.process(), message).len() == 10, "{message} in:\n{log}");
        }
        Ok(())
    });
}

#[test]
fn a_sampled_frame_is_followed_through_proxy_and_game() {
    play("trace-frames", |stage| {
        let jaeger = Jaeger::start(stage)?;
        let endpoint = jaeger.grpc_endpoint();
        let traced = Traced::start(stage, ("grpc", &endpoint), &json!({"ratio": 1.0}), &[])?;
        let spec = PlayersSpec::new([traced.proxy.address()], 10).rate_hz(5.0);
        let mut players = Players::start(stage, &spec)?;
        players.wait_until("two hundred frames", SOON, |now| now.replied >= 200)?;
        traced.drain(&mut players)?;
        let verdict = four_zeros(players)?;
        for game in ["arena-a", "arena-b"] {
            let whole = |trace: &FoundTrace| trace.services().contains("holdfast");
            let trace = wait_for_trace(&jaeger, (game, "handle"), "a frame over both", whole)?;
            let spans = spans(&trace);
            let (frame, handle) = (named(&spans, "frame")?, named(&spans, "handle")?);
            ensure!(frame.parent.is_empty() && frame.service == "holdfast", "{spans:#?}");
            ensure!(handle.parent == frame.id && handle.service == game, "{spans:#?}");
            ensure!(frame.tags["holdfast.session"] == handle.tags["session"], "{spans:#?}");
            let seq = |tag: &Value| tag.as_str().map_or_else(|| tag.to_string(), str::to_owned);
            ensure!(seq(&frame.tags["holdfast.seq"]) == seq(&handle.tags["seq"]), "{spans:#?}");
        }
        // Every frame once: those that a handoff sent again aren't told twice.
        until("a trace for each frame", SOON, || {
            jaeger.traces("holdfast", "frame", 10_000).is_ok_and(|found| found.len() as u64 == verdict.frames)
        })?;
        for trace in jaeger.traces("holdfast", "frame", 10_000)? {
            ensure!(trace.raw["spans"].as_array().map(Vec::len) == Some(2), "{:#?}", spans(&trace));
        }
        until("every session is sampled", SOON, || {
            jaeger.traces(SESSION.0, SESSION.1, 100).is_ok_and(|found| found.len() == 10)
        })
    });
}

#[test]
fn a_slow_frame_is_told_though_it_was_not_sampled() {
    play("trace-slow", |stage| {
        let jaeger = Jaeger::start(stage)?;
        let endpoint = jaeger.grpc_endpoint();
        let policy = json!({"ratio": 0.0, "slow_frame_ms": 40});
        let traced = Traced::start(stage, ("grpc", &endpoint), &policy, &["--slow-ms", "50"])?;
        let spec = PlayersSpec::new([traced.proxy.address()], 2).rate_hz(2.0);
        let mut players = Players::start(stage, &spec)?;
        players.wait_until("some frames", SOON, |now| now.replied >= 6)?;
        let trace = wait_for_trace(&jaeger, ("holdfast", "frame"), "a slow frame", |_| true)?;
        let spans = spans(&trace);
        let frame = named(&spans, "frame")?;
        ensure!(
            spans.len() == 1 && frame.end_us - frame.begin_us >= 40_000,
            "the proxy's span alone: {spans:#?}"
        );
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_frames() {
    play("trace-refused", |stage| {
        let nobody = format!("http://{}", free_address()?);
        lost_spans_are_counted(stage, &nobody)
    });
}

#[test]
fn a_collector_that_hangs_costs_spans_and_no_frames() {
    play("trace-hung", |stage| {
        // Connections are taken by the system; nobody ever reads from them.
        let silent = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", silent.local_addr()?);
        lost_spans_are_counted(stage, &endpoint)
    });
}

fn lost_spans_are_counted(stage: &mut Stage, endpoint: &str) -> Result<()> {
    stage.set("OTEL_BSP_MAX_QUEUE_SIZE", "64");
    stage.set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64");
    let mut traced = Traced::start(stage, ("grpc", endpoint), &json!({"ratio": 1.0}), &[])?;
    let mut players = Players::start(stage, &PlayersSpec::new([traced.proxy.address()], 20))?;
    let dropped = || traced.proxy.metric("holdfast_spans_dropped_total", "");
    until("lost spans are counted", SOON, || dropped().is_ok_and(|dropped| dropped > 200.0))?;
    traced.drain(&mut players)?;
    ensure!(traced.proxy.metric("holdfast_spans_exported_total", "")? == 0.0);
    let verdict: Verdict = four_zeros(players)?;
    // Far below any timeout of an export; what a busy machine adds is allowed for.
    ensure!(Duration::from_secs_f64(verdict.p99_ms / 1e3) < Duration::from_millis(250), "{verdict:?}");
    let complaints = traced.proxy.process().log().matches("the collector takes no spans").count();
    ensure!(complaints <= 2, "an outage is told once, not {complaints} times");
    Ok(())
}
