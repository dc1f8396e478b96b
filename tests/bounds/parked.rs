//! Many sessions that no backend can take: they wait within the bound, and come back whole.

use holdfast_stage::{Arena, ArenaSpec, Players, PlayersSpec, arena_service, usage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::{MIB, kept, play_on};
use crate::support::scene::{SOON, Script, clean};

/// What each session costs beside what it keeps: its socket, its task, its place.
const PLACE_BYTES: u64 = 4096;
const OTHER_FILES: u64 = 200;

/// As many as there are descriptors for, in the proxy and in the players' process.
fn crowd() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Whatever is started from here on inherits it.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHER_FILES).min(10_000)).unwrap()
}

#[test]
fn ten_thousand_parked_sessions_stay_within_the_bound_and_all_come_back() {
    const BOUND: u64 = 96 * MIB;
    let count = crowd();
    let sessions = count as u64;
    let pace =
        json!({"drain": {"per_second": 100_000, "in_flight": 1024}, "limits": {"max_sessions": 10_000}});
    let script = Script::new("bounds").arenas([ArenaSpec::new("a")]).service(pace).listener("odd");
    let config = format!("[limits]\nkept_bytes = {BOUND}\nmax_sessions = 11000\n");
    let mut scene = script.config(&config).open();
    let lobby = Arena::start(&scene.stage, ArenaSpec::new("lobby")).unwrap();
    scene.applied(|scene| scene.documents.put("services/lobby", &arena_service(&json!({}))).unwrap());
    scene.applied(|scene| scene.documents.put("backends/lobby/l", &lobby.document()).unwrap());
    let route = json!({"listener": "odd", "service": "lobby"});
    scene.applied(|scene| scene.documents.put("routes/lobby", &route).unwrap());
    let spec = PlayersSpec::new([scene.proxy.listener("odd").unwrap()], 20);
    let mut others = Players::start_as(&scene.stage, "others", &spec).unwrap();
    let pid = scene.proxy.process().pid().unwrap();
    let rss = |_: &()| usage(pid).unwrap().rss_bytes;
    let empty = rss(&());
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(0.2);
    let mut players = Players::start(&scene.stage, &spec).unwrap();
    scene.arena("a").process().terminate().unwrap();
    scene.wait("all are parked", |scene| scene.metric("holdfast_parked_sessions", "") == sessions);
    scene.arena("a").process().wait(SOON).unwrap();
    play_on(&mut others, 200);
    let (held, grown) = (kept(&scene), rss(&()).saturating_sub(empty));
    assert!(held >= sessions * 4096, "their states are here: {held} bytes");
    assert!(held <= BOUND, "{held} bytes");
    assert!(
        grown <= BOUND + sessions * PLACE_BYTES,
        "{grown} bytes for {sessions} sessions, {held} bytes held"
    );
    scene.arena("a").start_again().unwrap();
    scene.wait("nobody is parked", |scene| scene.metric("holdfast_parked_sessions", "") == 0);
    let back = |now: &holdfast_stage::Progress| now.disconnects == 0 && now.replied >= sessions;
    players.wait_until("they play on", SOON, back).unwrap();
    assert_eq!(clean(players).sessions, sessions);
    clean(others);
}
