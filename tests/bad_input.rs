//! Whatever comes over the wire, from clients or backends: what is wrong ends alone, and says whose fault it was.

mod from_backends;
mod from_clients;
mod handshakes;

use holdfast_stage::Players;
use serde_json::json;

use crate::support::client::Client;
use crate::support::impostor::Impostor;
use crate::support::scene::{Scene, Script, clean};

/// Arenas with players on listener `game`, and a service `odd` of lines of at most 1000 bytes on listener `odd`.
fn scene() -> Scene {
    let mut scene = Script::new("bad-input").listener("odd").open();
    let service = json!({
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
    scene.documents.put("services/odd", &service).unwrap();
    scene.documents.put("routes/odd", &json!({"listener": "odd", "service": "odd"})).unwrap();
    scene.wait("the odd route is in force", |scene| {
        scene.proxy.admin_json("/routes").unwrap()["routes"].as_array().unwrap().len() == 2
    });
    scene
}

fn odd_client(scene: &Scene) -> Client {
    Client::connect(scene.proxy.listener("odd").unwrap())
}

/// Makes the impostor the only backend of the odd service.
fn cast(scene: &Scene, name: &str, impostor: &Impostor) {
    scene.applied(|scene| {
        scene.documents.put(&format!("backends/odd/{name}"), &impostor.document()).unwrap();
    });
}

fn dismiss(scene: &Scene, name: &str) {
    scene.applied(|scene| scene.documents.delete(&format!("backends/odd/{name}")).unwrap());
}

/// Faults that backends have committed.
fn faults(scene: &Scene, scope: &str) -> u64 {
    scene.metric("holdfast_faults_total", &format!("scope=\"{scope}\""))
}

/// The players on the other backends were never touched, and the proxy is well.
fn unharmed(scene: &mut Scene, players: Players) {
    let verdict = clean(players);
    assert_eq!(scene.metric("holdfast_handoffs_total", "cause=\"operator\""), 0);
    assert!(verdict.frames > 0);
    assert!(scene.proxy.process().is_running());
    assert!(!scene.log().contains("panicked"), "the proxy panicked");
}
