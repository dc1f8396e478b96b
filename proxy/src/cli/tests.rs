//! The command line against a real admin server, and what it prints.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::drain::wait::{render_end, render_progress};
use super::drain::{render_order, render_undrain};
use super::show::{render_sessions, render_status};
use super::*;
use crate::admin::tests::support::{FakeStore, Options, Proxy, options, proxy};
use crate::admin::view::{
    DrainAnswer, DrainState, DrainStatusView, ProxyDrainView, SessionsView, StatusView,
};
use crate::admin::{DrainStore, DrainWriter, ProxyDrains, Surface};
use crate::drain::progress::State;
use crate::worker::command::DrainRow;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn ask(line: &str) -> Ask {
    match parse(line).unwrap().command {
        Command::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

async fn run(proxy: &Proxy, line: &str) -> Exit {
    execute(ask(line), proxy.address.clone(), true).await
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_fits_a_terminal_and_tells_the_exit_codes() {
    let mut command = Cli::command();
    let top = command.render_long_help().to_string();
    for expected in ["HOLDFAST_ADMIN", "Exit codes:", "3  the proxy can't be reached", "unix:/PATH"] {
        assert!(top.contains(expected), "{expected}: {top}");
    }
    command.build();
    let subcommands = command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help").cloned();
    for mut subcommand in subcommands.collect::<Vec<_>>() {
        let name = subcommand.get_name().to_owned();
        let long = subcommand.render_long_help().to_string();
        assert!(long.contains("Examples:"), "{name}");
        assert_fits(&name, &long);
        assert_fits(&name, &subcommand.render_help().to_string());
        for mut inner in subcommand.get_subcommands().cloned().collect::<Vec<_>>() {
            assert_fits(inner.get_name().to_owned().as_str(), &inner.render_long_help().to_string());
        }
    }
    assert_fits("holdfast", &top);
    assert_fits("holdfast", &command.render_help().to_string());
}

fn assert_fits(name: &str, help: &str) {
    assert_eq!(help.lines().find(|line| line.chars().count() > 80), None, "{name}");
}

#[test]
fn options_are_read() {
    let cli =
        parse("holdfast --admin unix:/run/h.sock drain arena/a --deadline 2m --reason deploy --local --wait")
            .unwrap();
    assert_eq!(cli.admin.to_string(), "unix:/run/h.sock");
    let Command::Ask(Ask::Drain(args)) = cli.command else { panic!("a drain") };
    assert_eq!((args.backend.as_str(), args.deadline), ("arena/a", Some(Duration::from_secs(120))));
    assert!(args.local && args.wait && args.reason == "deploy");
    let Command::Run(args) = parse("holdfast run").unwrap().command else { panic!("a run") };
    assert_eq!(args.config, PathBuf::from("holdfast.toml"));
    assert!(parse("holdfast status --json").unwrap().json);
}

#[test]
fn wrong_usage_says_what_is_expected() {
    for (line, expected) in [
        ("holdfast drain arena", "expected SERVICE/BACKEND"),
        ("holdfast drain arena/a/b", "expected SERVICE/BACKEND"),
        ("holdfast drain arena/a --deadline soon", "such as 30s, 5m or 1h"),
        ("holdfast drain arena/a --deadline 0s", "such as 30s, 5m or 1h"),
        ("holdfast drain arena/a --deadline 99999999999999999999d", "such as 30s, 5m or 1h"),
        ("holdfast sessions --limit 0", "1..=10000"),
        ("holdfast --admin nowhere status", "expected HOST:PORT"),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
    assert_eq!(parse("holdfast").unwrap_err().kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
}

#[tokio::test]
async fn every_question_is_answered_by_a_real_server() {
    let proxy = proxy(options(Surface::Admin)).await;
    for line in [
        "holdfast status",
        "holdfast sessions",
        "holdfast drain arena/a --local",
        "holdfast undrain arena/a --local",
    ] {
        assert_eq!(run(&proxy, line).await, Exit::Done, "{line}");
        assert_eq!(execute(ask(line), proxy.address.clone(), false).await, Exit::Done, "{line}");
    }
    assert_eq!(proxy.fleet.orders.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn a_refused_order_is_exit_1_with_the_proxys_words() {
    let proxy = proxy(options(Surface::Admin)).await;
    assert_eq!(run(&proxy, "holdfast drain arena/a").await, Exit::Failed, "documents are files");
    let client = Client::new(proxy.address.clone());
    let order = serde_json::json!({"backend": "arena/z", "local": true});
    let error = client.post::<DrainAnswer>("/drain", &order).await.unwrap_err();
    assert_eq!(error.to_string(), "no backend \"arena/z\"; known: arena/a, arena/b, arena/old");
}

#[tokio::test]
async fn an_order_for_all_proxies_goes_to_the_store() {
    let store = Arc::new(FakeStore::default());
    let drains = DrainWriter::Store(Arc::clone(&store) as Arc<dyn DrainStore>);
    let proxy = proxy(Options { drains, ..options(Surface::Admin) }).await;
    assert_eq!(run(&proxy, "holdfast drain arena/a --deadline 5m --reason deploy").await, Exit::Done);
    let put = store.put.lock().unwrap()[0].clone();
    assert_eq!((put.deadline, put.reason.as_str()), (Some(Duration::from_secs(300)), "deploy"));
    store.failing.store(true, Ordering::Relaxed);
    assert_eq!(run(&proxy, "holdfast drain arena/a").await, Exit::Failed);
}

#[tokio::test]
async fn waiting_ends_when_the_backend_is_empty() {
    let proxy = proxy(options(Surface::Admin)).await;
    proxy.fleet.moves.store(true, Ordering::Relaxed);
    assert_eq!(run(&proxy, "holdfast drain arena/a --local --wait --deadline 30s").await, Exit::Done);
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_with_its_own_exit_code() {
    let proxy = proxy(options(Surface::Admin)).await;
    assert_eq!(run(&proxy, "holdfast drain arena/a --local --wait --deadline 1s").await, Exit::Deadline);
}

#[tokio::test]
async fn nobody_there_is_exit_3_and_names_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [Address::Tcp(closed.to_string()), Address::Unix(folder.path().join("no.sock"))] {
        assert_eq!(execute(Ask::Status, address.clone(), false).await, Exit::Unreachable);
        let error = Client::new(address.clone()).get::<StatusView>("/status").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("can't reach the proxy at {address}: ")), "{error}");
        assert!(error.contains("--admin or HOLDFAST_ADMIN"), "{error}");
    }
}

#[tokio::test]
async fn somebody_else_there_is_said_so() {
    // The health address is HTTP and JSON, and yet not it.
    let health = proxy(options(Surface::Health)).await;
    assert_eq!(run(&health, "holdfast status").await, Exit::Failed);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let stranger = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        stream
    });
    let error = Client::new(address).get::<StatusView>("/status").await.unwrap_err();
    assert_eq!(error.exit(), Exit::Failed);
    assert!(error.to_string().contains("not as a Holdfast admin address"), "{error}");
    stranger.await.unwrap();
}

async fn seen(proxy: &Proxy) -> (StatusView, SessionsView) {
    let client = Client::new(proxy.address.clone());
    (client.get("/status").await.unwrap(), client.get("/sessions?limit=2").await.unwrap())
}

#[tokio::test]
async fn status_reads_well_on_80_columns() {
    let proxy = proxy(options(Surface::Admin)).await;
    let (mut view, _) = seen(&proxy).await;
    (view.uptime_s, view.kept_bytes, view.table.in_force_s) = (7_500, 1_572_864, 61);
    let text = render_status(&view, Some(80));
    let expected = "\
proxy host-a serving, holdfast 1.2.3, up 2h 5m, 2 workers
sessions   6 open, 0 parked, 1.5 MiB kept
table      revision 17 from etcd, in force for 1m 1s, connected
listener   game on 0.0.0.0:7000
refused    backends/arena/x: weight: got -1, expected 0 to 1000000; its last good version holds
drain      arena/a (backend, \"deploy 1.5\"): moving
           4 left, 2 in flight, 20 moved; 3s so far, 57s to the deadline

BACKEND    VERSION  WEIGHT  LINK  SESSIONS  STATE
arena/a    1.4.2       100  up           4  draining (backend), 2 left
arena/b    1.4         100  none         0
arena/old  1.4.2         -  up           4  key gone
";
    assert_eq!(text, expected);
    let drain = view.backends[0].drain.as_mut().unwrap();
    (drain.state, drain.in_flight, drain.moved, drain.reason) = (State::Stuck, 0, 0, String::new());
    let stuck = render_status(&view, Some(80));
    assert!(stuck.contains("arena/a (backend): stuck\n           4 left, 0 in flight; 3s so far"), "{stuck}");
    assert!(stuck.contains("NOBODY CAN TAKE THEM"), "{stuck}");
    view.table.connected = false;
    view.table.silent_s = 90;
    view.table.source_error = Some("connection refused".into());
    let lost = render_status(&view, None);
    assert!(
        lost.contains("NOT CONNECTED for 1m 30s; serving on from this table\n           connection refused"),
        "{lost}"
    );
}

#[tokio::test]
async fn sessions_read_well_on_80_columns() {
    let proxy = proxy(options(Surface::Admin)).await;
    let (_, mut view) = seen(&proxy).await;
    view.sessions[1].client = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".into();
    view.sessions[1].backend = None;
    view.sessions[1].phase = "parked".into();
    view.sessions[0].group = Some("3f2a19c4".repeat(4));
    let text = render_sessions(&view, Some(80));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("SESSION   CLIENT "), "{text}");
    assert!(lines[1].contains("192.0.2.1:5000") && lines[1].ends_with("6 B   7s"), "{text}");
    assert!(render_sessions(&view, None).contains("active, group 3f2a19c4 "), "{text}");
    assert!(lines[2].contains('…') && lines[2].contains("(arena)"), "{text}");
    assert_eq!(lines[3], "2 of 6 sessions; --limit shows more");
    assert!(render_sessions(&view, None).contains("65535"), "a pipe gets all of it");
}

fn draining(state: DrainState) -> DrainStatusView {
    let proxy =
        |proxy: &str, sessions| ProxyDrainView { proxy: proxy.into(), applied: true, sessions, in_flight: 0 };
    DrainStatusView {
        backend: "arena/a".into(),
        state,
        left: 20,
        sessions: 12,
        in_flight: 3,
        drain: None,
        proxies: vec![proxy("host-b", 8), proxy("host-c", 0)],
        attachments: Some(20),
        waits_for: None,
    }
}

fn order() -> DrainAnswer {
    DrainAnswer {
        backend: "arena/a".into(),
        scope: "all".into(),
        changed: true,
        deadline_s: Some(90),
        key: Some("/holdfast/config/drains/arena/a".into()),
        revision: Some(18),
        others: Some(1),
    }
}

#[test]
fn progress_says_where_the_sessions_are_and_what_is_waited_for() {
    let mut view = draining(DrainState::Draining);
    assert_eq!(render_progress(&view), "arena/a: 20 sessions left (12 here, 8 at host-b), 3 on their way");
    (view.proxies, view.left, view.in_flight) = (vec![], 0, 0);
    view.waits_for = Some("the backend's own count".into());
    assert_eq!(render_progress(&view), "arena/a: 0 sessions left; waits for the backend's own count");
    view.proxies = (0..5)
        .map(|n| ProxyDrainView { proxy: format!("p{n}"), applied: true, sessions: 1, in_flight: 0 })
        .collect();
    (view.left, view.sessions, view.waits_for) = (5, 0, None);
    assert_eq!(
        render_progress(&view),
        "arena/a: 5 sessions left (0 here, 1 at p0, 1 at p1, 1 at p2 and more at 2 others)"
    );
}

#[test]
fn the_last_word_says_what_is_true_and_how_to_go_on() {
    let took = Duration::from_millis(1_234);
    let mut empty = DrainStatusView { left: 0, attachments: Some(0), ..draining(DrainState::Empty) };
    assert_eq!(
        render_end(&order(), &empty, took),
        "arena/a is empty after 1.2 s: no proxy has a session there\n"
    );
    let local = DrainAnswer { key: None, revision: None, scope: "local".into(), ..order() };
    let said = render_end(&local, &empty, took);
    assert!(said.contains("this proxy has no session there, and the backend counts none"), "{said}");
    empty.attachments = None;
    assert!(render_end(&local, &empty, took).contains("may have others"));
    let mut late = draining(DrainState::Stuck);
    late.waits_for = Some("another backend that can take its sessions".into());
    assert_eq!(
        render_end(&order(), &late, took),
        "arena/a isn't empty at the deadline, after 1.2 s: 20 sessions left (12 here, 8 at host-b); it waits for \
         another backend that can take its sessions\n\
         They stay there, and no new ones come. Another try: holdfast drain arena/a --wait\n\
         More: holdfast status      lift it: holdfast undrain arena/a\n"
    );
    assert!(render_end(&local, &late, took).contains("holdfast undrain arena/a --local"));
    let lifted = render_end(&order(), &draining(DrainState::Lifted), took);
    assert!(
        lifted.starts_with("the drain of arena/a was lifted after 1.2 s, with 20 sessions left"),
        "{lifted}"
    );
}

#[tokio::test]
async fn waiting_for_a_key_ends_when_every_proxy_says_so() {
    let store = Arc::new(FakeStore::default());
    let drains = DrainWriter::Store(Arc::clone(&store) as Arc<dyn DrainStore>);
    let proxy = proxy(Options { drains, ..options(Surface::Admin) }).await;
    proxy.fleet.moves.store(true, Ordering::Relaxed);
    proxy.fleet.revision.store(18, Ordering::Relaxed);
    let row = |sessions| DrainRow { backend: "arena/a".into(), sessions, in_flight: 0, stuck: false };
    let says = |sessions| ProxyDrains {
        proxy: "host-b".into(),
        applied: 18,
        rows: vec![row(sessions)],
        unlisted: 0,
    };
    *store.proxies.lock().unwrap() = vec![says(7)];
    let line = "holdfast drain arena/a --wait --deadline 1s";
    assert_eq!(run(&proxy, line).await, Exit::Deadline, "host-b has sessions");
    *store.proxies.lock().unwrap() = vec![ProxyDrains { applied: 17, ..says(0) }];
    assert_eq!(run(&proxy, line).await, Exit::Deadline, "host-b hasn't taken the order");
    *store.proxies.lock().unwrap() = vec![says(0)];
    assert_eq!(run(&proxy, line).await, Exit::Done);
}

#[tokio::test]
async fn a_query_that_is_a_slip_is_refused() {
    let proxy = proxy(options(Surface::Admin)).await;
    for query in
        ["", "?backend=arena/a&revison=1", "?revision=1", "?backend=arena/a&revision=x", "?backend=arena"]
    {
        let reply = proxy.get(&format!("/drain{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.body);
    }
    assert_eq!(proxy.get("/drain?backend=arena/a").await.json()["left"], 4);
}

#[test]
fn answers_say_how_to_go_on() {
    let mut answer = order();
    assert_eq!(
        render_order(&answer),
        "arena/a is drained by every proxy, within 1m 30s (key /holdfast/config/drains/arena/a)\n\
         follow it: holdfast status      lift it: holdfast undrain arena/a\n"
    );
    assert_eq!(render_undrain(&answer), "arena/a is no longer drained by key\n");
    (answer.key, answer.scope, answer.changed) = (None, "local".into(), false);
    assert!(
        render_order(&answer).contains("by this proxy alone")
            && render_order(&answer).contains("undrain arena/a --local")
    );
    assert!(render_undrain(&answer).contains("no order of this proxy's own"));
}

#[test]
fn sizes_and_times_are_in_words() {
    assert_eq!([0, 1023, 1024, 1 << 30].map(output::bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 GiB"]);
    assert_eq!([59, 60, 3_600, 90_000].map(output::seconds), ["59s", "1m 0s", "1h 0m", "1d 1h"]);
}
