//! Whoever looks at a drain sees at once how far it is and what holds it up.

use holdfast_stage::ArenaSpec;
use serde_json::json;

use super::until_moved;
use crate::support::scene::{Scene, Script, clean};

fn drains(scene: &Scene, state: &str) -> u64 {
    scene.metric("holdfast_drains", &format!("state=\"{state}\""))
}

#[test]
fn that_nobody_can_take_the_players_is_said_at_once_and_not_at_the_deadline() {
    let mut scene = Script::new("progress").arenas([ArenaSpec::new("a")]).open();
    let mut players = scene.players(20);
    players.begin("stuck").unwrap();
    scene.drain_with("a", &json!({"deadline_s": 600, "reason": "deploy 1.5"}));
    scene.wait("the drain is stuck", |scene| scene.backend("a")["drain"]["state"] == "stuck");
    let drain = scene.backend("a")["drain"].clone();
    assert_eq!((&drain["left"], &drain["in_flight"], &drain["moved"]), (&json!(20), &json!(0), &json!(0)));
    assert_eq!(drain["reason"], "deploy 1.5");
    assert!(drain["remaining_ms"].as_u64().unwrap() > 500_000, "{drain}");
    let said = scene.holdfast(&["status"]);
    assert!(said.out.contains("arena/a (key, \"deploy 1.5\"): stuck"), "{said:?}");
    assert!(said.out.contains("NOBODY CAN TAKE THEM"), "{said:?}");
    scene.wait_log("nobody can take the sessions that are left");
    scene.wait("all are known to have nowhere to go", |scene| {
        scene.metric("holdfast_drain_sessions_homeless", "") == 20
    });
    assert_eq!((drains(&scene, "stuck"), scene.metric("holdfast_drain_sessions_left", "")), (1, 20));

    scene.join(ArenaSpec::new("b"));
    scene.wait_settled("b", 20);
    until_moved(&mut players, 20);
    scene.wait("the drain is done", |scene| drains(scene, "drained") == 1);
    let drain = scene.backend("a")["drain"].clone();
    assert_eq!(
        (&drain["moved"], &drain["left"], &drain["state"]),
        (&json!(20), &json!(0), &json!("drained"))
    );
    assert_eq!(scene.metric("holdfast_drain_sessions_left", ""), 0);
    scene.undrain("a");
    scene.wait_log("drain lifted");
    assert_eq!((scene.metric("holdfast_drains", ""), &scene.backend("a")["drain"]), (0, &json!(null)));
    clean(players);
}

#[test]
fn figures_add_up_while_a_drain_runs_and_the_log_hears_of_it_once_a_second() {
    let pace = json!({"drain": {"per_second": 20}});
    let script = Script::new("progress").arenas([ArenaSpec::new("a")]).service(pace);
    let mut scene = script.open();
    let players = scene.players(60);
    scene.join(ArenaSpec::new("b"));
    scene.drain("a");
    let mut seen = 0;
    scene.wait("the drain is done", |scene| {
        let drain = scene.backend("a")["drain"].clone();
        let number = |name: &str| drain[name].as_u64().unwrap_or(0);
        let (left, moved, in_flight) = (number("left"), number("moved"), number("in_flight"));
        if left > 0 && moved > 0 {
            seen += 1;
            // One that is being frozen is both on a and in flight.
            let (least, most) = (left + moved, left + moved + in_flight);
            assert!(least <= 60 && most >= 60, "{drain}");
        }
        drain["state"] == "drained"
    });
    assert!(seen > 3, "it was never seen running");
    scene.wait_log("drained");
    // Three seconds at 20 a second.
    let lines = scene.log().lines().filter(|line| line.contains("drain goes on")).count();
    assert!((1..=12).contains(&lines), "{lines} lines of progress");
    clean(players);
}

#[test]
fn sessions_that_come_back_are_counted_as_such() {
    let mut scene = Script::new("progress").arenas([ArenaSpec::new("a")]).open();
    let players = scene.players(10);
    scene.join(ArenaSpec::new("b").flags(["--refuse-attach"]));
    scene.drain("a");
    scene.wait("each has come back", |scene| scene.backend("a")["drain"]["thawed"].as_u64() >= Some(10));
    assert_eq!(scene.backend("a")["drain"]["moved"], 0);
    let said = scene.holdfast(&["status"]);
    assert!(said.out.contains("thawed and tried again"), "{said:?}");
    scene.undrain("a");
    scene.wait_settled("a", 10);
    clean(players);
}
