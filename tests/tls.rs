//! Players may speak TLS to a listener; its certificate is renewed without dropping anybody.

use holdfast_stage::{Signal, free_address};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::impostor::{Heard, Impostor};
use crate::support::scene::{Scene, Script, clean, odd_service};
use crate::support::tls::{Identity, TlsClient};

/// Listener `tls` with a certificate for these names, in front of the odd service.
struct Guarded {
    scene: Scene,
    address: std::net::SocketAddr,
    identity: Identity,
}

fn guarded(names: &[&str]) -> Guarded {
    let (identity, address) = (Identity::new(names), free_address().unwrap());
    let listener = format!(
        "[limits]\ntls_handshake_timeout_s = 1\n\n[[listener]]\nname = \"tls\"\nbind = \"{address}\"\n\n\
         [listener.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n"
    );
    let script = Script::new("tls").config(&listener);
    let scene = script.file("cert.pem", &identity.certificate).file("key.pem", &identity.key).open();
    scene.applied(|scene| scene.documents.put("services/odd", &odd_service(&json!({}))).unwrap());
    Guarded { scene, address, identity }
}

/// Adds an echo, and a route to it with more fields.
fn echo(scene: &Scene, version: &str, more: Value) -> Impostor {
    let impostor = Impostor::turning(|_, _| ());
    let mut route = json!({"listener": "tls", "service": "odd", "versions": {version: 1}});
    route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut backend = impostor.document();
    backend["version"] = json!(version);
    scene.documents.put(&format!("backends/odd/{version}"), &backend).unwrap();
    scene.documents.put(&format!("routes/tls-{version}"), &route).unwrap();
    impostor
}

fn wait_routes(scene: &mut Scene, count: usize) {
    scene.wait("the routes are in force", |scene| {
        let routes = scene.proxy.admin_json("/routes").unwrap();
        let known = routes["services"].as_array().unwrap().iter().find(|it| it["name"] == "odd").cloned();
        routes["routes"].as_array().unwrap().len() == count
            && known.is_some_and(|it| it["backends"] == count as u64 - 1)
    });
}

fn reload(scene: &mut Scene, identity: &Identity, key: &str) {
    scene.stage.write("cert.pem", &identity.certificate).unwrap();
    scene.stage.write("key.pem", key).unwrap();
    scene.proxy.process().signal(Signal::HUP).unwrap();
}

#[test]
fn players_speak_tls_and_are_routed_by_the_name_they_ask_for() {
    let Guarded { mut scene, address, identity } =
        guarded(&["one.example.com", "two.example.com", "deep.two.example.com"]);
    let one = echo(&scene, "1", json!({"sni": "one.example.com"}));
    let two = echo(&scene, "2", json!({"sni": "*.two.example.com"}));
    let rest = echo(&scene, "3", json!({}));
    wait_routes(&mut scene, 4);
    for (name, backend) in
        [("one.example.com", &one), ("deep.two.example.com", &two), ("two.example.com", &rest)]
    {
        let mut client = TlsClient::connect(address, name, &[&identity]).unwrap();
        let line = format!("hello {name}\n");
        client.send(line.as_bytes());
        client.expect(line.as_bytes());
        let frame = Heard::Frame(line.trim_end().as_bytes().to_vec());
        backend.wait(name, |heard| *heard == frame);
    }
}

#[test]
fn sighup_swaps_the_certificate_and_the_open_session_goes_on() {
    let Guarded { mut scene, address, identity } = guarded(&["play.example.com"]);
    let _echo = echo(&scene, "1", json!({}));
    wait_routes(&mut scene, 2);
    let mut before = TlsClient::connect(address, "play.example.com", &[&identity]).unwrap();
    before.send(b"before\n");
    before.expect(b"before\n");
    assert!(before.met(&identity));
    let renewed = Identity::new(&["play.example.com"]);
    reload(&mut scene, &renewed, &renewed.key);
    scene.wait_log("config read again");
    let mut after = TlsClient::connect(address, "play.example.com", &[&renewed]).unwrap();
    assert!(after.met(&renewed));
    for client in [&mut before, &mut after] {
        client.send(b"after\n");
        client.expect(b"after\n");
    }
    assert!(
        TlsClient::connect(address, "play.example.com", &[&identity]).is_err(),
        "the old one is still shown"
    );
}

#[test]
fn a_key_that_does_not_fit_keeps_the_old_certificate_and_says_so() {
    let Guarded { mut scene, address, identity } = guarded(&["play.example.com"]);
    let _echo = echo(&scene, "1", json!({}));
    wait_routes(&mut scene, 2);
    let renewed = Identity::new(&["play.example.com"]);
    reload(&mut scene, &renewed, &identity.key);
    scene.wait_log("not reloaded");
    assert!(scene.log().contains("key"), "the log doesn't say what is wrong");
    let mut client = TlsClient::connect(address, "play.example.com", &[&identity]).unwrap();
    assert!(client.met(&identity));
    client.send(b"hello\n");
    client.expect(b"hello\n");
}

#[test]
fn plain_bytes_and_silence_on_a_tls_port_harm_nobody() {
    let Guarded { mut scene, address, identity } = guarded(&["play.example.com"]);
    let _echo = echo(&scene, "1", json!({}));
    wait_routes(&mut scene, 2);
    let players = scene.players(20);
    let mut plain = Client::connect(address);
    plain.send(b"GET / HTTP/1.1\r\n\r\n");
    plain.until_closed();
    scene.wait_log("TLS handshake failed");
    let mut silent = Client::connect(address);
    assert!(silent.until_closed().is_empty());
    scene.wait_log("TLS handshake took too long");
    let mut client = TlsClient::connect(address, "play.example.com", &[&identity]).unwrap();
    client.send(b"hello\n");
    client.expect(b"hello\n");
    clean(players);
}
