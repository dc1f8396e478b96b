//! Who may order a drain, and what each is told.

use holdfast_stage::http;
use serde_json::{Value, json};

use super::{empty, until_moved};
use crate::support::scene::{Script, clean, moved};

#[test]
fn drain_local_and_undrain_local_work_from_the_command_line() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(40);
    let leaving = scene.sessions_on("a");
    players.begin("local").unwrap();
    let said = scene.holdfast(&["drain", "arena/a", "--local", "--wait", "--reason", "by hand"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("arena/a is empty after"), "{said:?}");
    scene.wait_settled("b", 40);
    until_moved(&mut players, leaving);
    assert_eq!(scene.backend("a")["draining"], json!(["local"]));

    let said = scene.holdfast(&["undrain", "arena/a", "--local", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["changed"], &answer["scope"]), (&json!(true), &json!("local")));
    players.add(20, None).unwrap();
    scene.wait_settled("a", 20);
    let said = scene.holdfast(&["undrain", "arena/a", "--local"]);
    assert!(said.code == Some(0) && said.out.contains("had no order of this proxy's own"), "{said:?}");
    assert_eq!(moved(&clean(players), "local"), leaving);
}

#[test]
fn a_drain_order_that_cannot_be_carried_out_is_refused_with_the_reason() {
    let scene = Script::new("drain").open();
    let said = scene.holdfast(&["drain", "arena/nobody", "--local"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("arena/nobody") && said.err.contains("arena/a"), "{said:?}");
    // Documents are files here, and people write those.
    let said = scene.holdfast(&["drain", "arena/a"]);
    assert!(said.code == Some(1) && said.err.contains("--local"), "{said:?}");
    let said = scene.holdfast(&["drain", "arena"]);
    assert!(said.code == Some(2) && said.err.contains("SERVICE/BACKEND"), "{said:?}");
    let said = scene.holdfast(&["--admin", "127.0.0.1:1", "drain", "arena/a", "--local"]);
    assert!(said.code == Some(3) && said.err.contains("127.0.0.1:1"), "{said:?}");
    assert_eq!(scene.backend("a")["draining"], json!([]));
}

#[test]
fn post_drain_orders_this_proxy_alone() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(20);
    let leaving = scene.sessions_on("a");
    players.begin("posted").unwrap();
    let body = json!({"backend": "arena/a", "local": true, "reason": "by post", "deadline_s": 30});
    let answer = http::post(&scene.proxy.admin(), "/drain", &body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json().unwrap()["deadline_s"], 30);
    scene.wait_settled("b", 20);
    until_moved(&mut players, leaving);
    assert!(scene.log().contains("by post"), "the reason isn't in the log");
    assert_eq!(moved(&clean(players), "posted"), leaving);
}

#[test]
fn each_cause_of_a_drain_is_lifted_alone() {
    let mut scene = Script::new("drain").open();
    let mut players = scene.players(20);
    empty(&mut scene, &mut players, "a", "b");
    assert_eq!(scene.holdfast(&["drain", "arena/a", "--local"]).code, Some(0));
    assert_eq!(scene.backend("a")["draining"], json!(["key", "local"]));
    scene.undrain("a");
    assert_eq!(scene.backend("a")["draining"], json!(["local"]));
    players.add(10, None).unwrap();
    scene.wait_settled("b", 30);
    assert_eq!(scene.holdfast(&["undrain", "arena/a", "--local"]).code, Some(0));
    players.add(10, None).unwrap();
    scene.wait_settled("a", 10);
    clean(players);
}
