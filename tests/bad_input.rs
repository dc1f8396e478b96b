//! Whatever comes over the wire, from clients or backends: what is wrong ends alone, and says whose fault it was.

mod from_backends;
mod from_clients;
mod handshakes;

use holdfast_protocol::message::Rule;
use holdfast_stage::Players;
use serde_json::json;

use crate::support::scene::{Scene, Script, clean};

/// Arenas with players on listener `game`, and the odd service on listener `odd`.
fn scene() -> Scene {
    Script::new("bad-input").listener("odd").open().with_odd_service(&json!({}))
}

/// Faults that backends have committed.
fn faults(scene: &Scene, scope: &str) -> u64 {
    scene.metric("holdfast_faults_total", &format!("scope=\"{scope}\""))
}

/// How often that one rule was broken.
fn broken(scene: &Scene, scope: &str, rule: Rule) -> u64 {
    let labels = format!("scope=\"{scope}\",rule=\"{}\"", rule.name());
    scene.metric("holdfast_faults_total", &labels)
}

/// The players on the other backends were never touched, and the proxy is well.
fn unharmed(scene: &mut Scene, players: Players) {
    let verdict = clean(players);
    assert_eq!(scene.metric("holdfast_handoffs_total", "cause=\"operator\""), 0);
    assert!(verdict.frames > 0);
    assert!(scene.proxy.process().is_running());
    assert!(!scene.log().contains("panicked"), "the proxy panicked");
}
