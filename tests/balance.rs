//! How a service's backends share its players: by the policy in its document, gently with who is fresh, and never above
//! what one of them is to have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use holdfast_stage::{ArenaSpec, Players, PlayersSpec};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::scene::{SOON, Scene, Script, clean};

fn trio() -> [ArenaSpec; 3] {
    ["a", "b", "c"].map(ArenaSpec::new)
}

fn balancing(policy: &str) -> Value {
    json!({"balance": {"policy": policy}})
}

/// Players at a leisurely rate: where they are is what counts.
fn crowd(scene: &Scene, count: usize) -> Players {
    let spec = PlayersSpec::new([scene.proxy.address()], count).rate_hz(5.0);
    Players::start(&scene.stage, &spec).unwrap()
}

fn on(scene: &Scene, arenas: &[&str]) -> Vec<u64> {
    arenas.iter().map(|arena| scene.sessions_on(arena)).collect()
}

/// Somebody from that address of this machine, who says nothing.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// The backends at which each client address plays.
fn places(scene: &Scene) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let mut places: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for session in scene.sessions() {
        let client: SocketAddr = session["client"].as_str().unwrap().parse().unwrap();
        places.entry(client.ip()).or_default().insert(session["backend"].to_string());
    }
    places
}

fn wait_over(scene: &mut Scene) {
    scene.wait("the rebalancing is over", |scene| scene.metric("holdfast_rebalancing", "") == 0);
}

/// A change that gives everybody another look; they play on meanwhile.
fn is_settled(scene: &mut Scene, players: &mut Players, all: u64) {
    let before = scene.handoffs("rebalance", "");
    let listener = format!("elsewhere-{}", players.progress().unwrap().sent);
    scene.applied(|scene| {
        let elsewhere = json!({"listener": listener, "service": "arena"});
        scene.documents.put("routes/elsewhere", &elsewhere).unwrap();
    });
    wait_over(scene);
    let now = players.progress().unwrap();
    players.wait_until("they play on", SOON, |later| later.replied >= now.replied + 5 * all).unwrap();
    assert_eq!(scene.handoffs("rebalance", ""), before, "somebody was moved though nothing was to be gained");
}

#[test]
fn with_hash_by_client_an_address_plays_at_one_backend_wherever_else_it_connects_from() {
    let service = json!({"balance": {"policy": "hash", "key": "client"}});
    let mut scene = Script::new("balance").arenas(trio()).workers(2).service(service).open();
    let address = scene.proxy.address();
    let connect = || (1..=20).flat_map(|last| [from(last, address), from(last, address)]);
    let first: Vec<_> = connect().collect();
    scene.wait("all are in", |scene| scene.in_phase("active") == 40);
    let before = places(&scene);
    assert!(before.values().all(|places| places.len() == 1), "{before:?}");
    let used: BTreeSet<_> = before.values().flatten().collect();
    assert_eq!((before.len(), used.len()), (20, 3), "{before:?}");
    drop(first);
    scene.wait("all are gone", |scene| scene.sessions().is_empty());
    let _second: Vec<_> = connect().collect();
    scene.wait("all are in again", |scene| scene.in_phase("active") == 40);
    assert_eq!(places(&scene), before, "they come back to where they were");
}

#[test]
fn round_robin_gives_each_its_turns_whoever_has_left() {
    let mut scene = Script::new("balance").arenas(trio()).service(balancing("round_robin")).open();
    let address = scene.proxy.address();
    let come = |scene: &mut Scene, count: usize, all: usize| {
        let came: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        scene.wait("all are in", |scene| scene.in_phase("active") == all);
        came
    };
    let first = come(&mut scene, 9, 9);
    assert_eq!(on(&scene, &["a", "b", "c"]), [3, 3, 3]);
    // Three leave the same backend; the next three go round all the same.
    let ports = |scene: &Scene| -> BTreeSet<String> {
        let sessions = scene.sessions();
        let of_a = sessions.iter().filter(|session| session["backend"] == "arena/a");
        of_a.map(|session| session["client"].as_str().unwrap().to_owned()).collect()
    };
    let of_a = ports(&scene);
    let first: Vec<_> =
        first.into_iter().filter(|one| !of_a.contains(&one.local_addr().unwrap().to_string())).collect();
    scene.wait("a is empty", |scene| scene.sessions_on("a") == 0);
    let second = come(&mut scene, 3, 9);
    assert_eq!(on(&scene, &["a", "b", "c"]), [1, 4, 4]);
    drop((first, second));
}

#[test]
fn who_plays_is_moved_to_its_hashs_place_and_then_stays() {
    let service = json!({"balance": {"policy": "hash"}, "rebalance": {"per_second": 500}});
    let mut scene = Script::new("balance").service(service).open();
    let mut players = crowd(&scene, 90);
    scene.join(ArenaSpec::new("c"));
    // 30 expected with a standard deviation of 4.5.
    scene.wait("about a third on c", |scene| scene.sessions_on("c") >= 10);
    wait_over(&mut scene);
    let (there, moves) = (scene.sessions_on("c"), scene.handoffs("rebalance", "moved"));
    assert_eq!(there, moves, "only those move whose place it is");
    is_settled(&mut scene, &mut players, 90);
    clean(players);
}

#[test]
fn live_players_are_spread_by_their_numbers_where_newcomers_go_in_turn_or_by_draws_and_no_more_than_must() {
    for policy in ["round_robin", "two_choices"] {
        let mut service = balancing(policy);
        service["rebalance"] = json!({"per_second": 500});
        let mut scene = Script::new("balance").service(service).open();
        let mut players = crowd(&scene, 60);
        scene.join(ArenaSpec::new("c"));
        scene.wait("a third each", |scene| {
            on(scene, &["a", "b", "c"]).into_iter().all(|count| count.abs_diff(20) <= 1)
        });
        wait_over(&mut scene);
        let moves = scene.handoffs("rebalance", "");
        assert!((19..=22).contains(&moves), "{policy}: {moves} moves");
        is_settled(&mut scene, &mut players, 60);
        clean(players);
    }
}

#[test]
fn a_fresh_backend_gets_a_tenth_of_its_part_at_first_and_all_of_it_in_time() {
    let service = json!({"balance": {"slow_start_s": 4}});
    let mut scene = Script::new("balance").arenas([ArenaSpec::new("a")]).service(service).open();
    let grown = |scene: &Scene, name: &str| scene.backend(name)["links"][0]["slow_start_percent"].as_u64();
    let mut players = crowd(&scene, 20);
    scene.wait("a is fresh no more", |scene| grown(scene, "a").is_none());
    scene.join(ArenaSpec::new("b"));
    players.add(20, None).unwrap();
    scene.wait("they are in", |scene| scene.in_phase("active") == 40);
    let there = scene.sessions_on("b");
    let percent = grown(&scene, "b").unwrap_or(100);
    let most = 40 * percent / (100 + percent) + 2;
    assert!((1..=most).contains(&there), "{there} of 40, with {percent} % of its weight");
    scene.wait("b is fresh no more", |scene| grown(scene, "b").is_none());
    players.add(20, None).unwrap();
    // Nobody who plays is moved: newcomers fill up what is missing.
    let at_a = 30.max(40 - there);
    scene.wait("both have their part", |scene| on(scene, &["a", "b"]) == [at_a, 60 - at_a]);
    clean(players);
}

#[test]
fn live_players_follow_a_weight_that_grows() {
    let service = json!({"balance": {"slow_start_s": 3}, "rebalance": {"per_second": 500}});
    let mut scene = Script::new("balance").arenas([ArenaSpec::new("a")]).service(service).open();
    let players = crowd(&scene, 40);
    scene.join(ArenaSpec::new("b"));
    scene.wait("both have as many", |scene| {
        on(scene, &["a", "b"]).into_iter().all(|count| count.abs_diff(20) <= 1)
    });
    wait_over(&mut scene);
    clean(players);
}

#[test]
fn a_backend_at_its_breaker_takes_no_more_and_those_who_wait_come_in_as_others_leave() {
    let service = json!({"breakers": {"max_sessions": 3}});
    let mut scene = Script::new("balance").service(service).open();
    let mut come = Vec::new();
    for _ in 0..8 {
        come.push(TcpStream::connect(scene.proxy.address()).unwrap());
    }
    scene.wait("two wait", |scene| scene.in_phase("active") == 6 && scene.in_phase("parked") == 2);
    assert_eq!(on(&scene, &["a", "b"]), [3, 3]);
    scene.wait("both are full", |scene| {
        scene.metric("holdfast_breakers_open", "breaker=\"max_sessions\"") == 2
    });
    assert_eq!(scene.backend("a")["at_bound"], json!(["max_sessions"]));
    let shown = scene.holdfast(&["status"]).out;
    assert_eq!(shown.matches("full (max_sessions)").count(), 2, "{shown}");
    let active: BTreeSet<String> = scene
        .sessions()
        .iter()
        .filter(|session| session["phase"] == "active")
        .map(|session| session["client"].as_str().unwrap().to_owned())
        .collect();
    let mut leaves = 2;
    come.retain(|one| {
        let goes = leaves > 0 && active.contains(&one.local_addr().unwrap().to_string());
        leaves -= u32::from(goes);
        !goes
    });
    scene.wait("those who waited are in", |scene| {
        scene.in_phase("active") == 6 && scene.in_phase("parked") == 0
    });
    assert_eq!(on(&scene, &["a", "b"]), [3, 3]);
}

#[test]
fn a_drain_fills_no_backend_above_its_capacity() {
    let mut scene = Script::new("balance").arenas(trio()).open();
    for (name, capacity) in [("b", 12), ("c", 12)] {
        let mut document = scene.arena(name).document();
        document["capacity"] = json!(capacity);
        scene.applied(|scene| scene.documents.put(&format!("backends/arena/{name}"), &document).unwrap());
    }
    let players = crowd(&scene, 30);
    assert_eq!(on(&scene, &["a", "b", "c"]), [10, 10, 10]);
    scene.drain("a");
    scene.wait("b and c are full", |scene| on(scene, &["b", "c"]) == [12, 12]);
    scene.wait("they say so", |scene| scene.metric("holdfast_breakers_open", "breaker=\"capacity\"") == 2);
    assert_eq!((on(&scene, &["a", "b", "c"]), scene.in_phase("parked")), (vec![6, 12, 12], 0));
    // More room, and the drain goes on.
    let mut document = scene.arena("b").document();
    document["capacity"] = json!(100);
    scene.applied(|scene| scene.documents.put("backends/arena/b", &document).unwrap());
    scene.wait("a is empty", |scene| on(scene, &["a", "b", "c"]) == [0, 18, 12]);
    scene.wait("all are in play", |scene| scene.in_phase("active") == 30);
    clean(players);
}
