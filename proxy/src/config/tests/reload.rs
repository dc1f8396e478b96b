//! What a reload can change, and what needs a restart.

use super::super::{Config, TlsFiles};
use super::{SMALLEST, parse};

fn changes(old: &Config, new: &Config) -> Vec<String> {
    Config::difference(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn equal_files_have_no_difference() {
    let config = parse(SMALLEST).unwrap();
    assert!(changes(&config, &config).is_empty());
}

#[test]
fn a_changed_key_is_named_with_its_old_and_new_value() {
    let old = parse(SMALLEST).unwrap();
    let new = parse(&format!("{}[limits]\nshutdown_deadline_s = 60\n", SMALLEST.replace(":7000", ":7001")))
        .unwrap();
    let expected = [
        "needs restart: limits.shutdown_deadline_s (was 30, is 60)",
        "needs restart: listener.game.bind (was 0.0.0.0:7000, is 0.0.0.0:7001)",
    ];
    assert_eq!(changes(&old, &new), expected);
}

#[test]
fn a_new_listener_needs_a_restart() {
    let old = parse(SMALLEST).unwrap();
    let new = parse(&format!("{SMALLEST}[[listener]]\nname = \"b\"\nbind = \"0.0.0.0:7001\"\n")).unwrap();
    let expected = [
        "needs restart: listener.b.backlog (was nothing, is 1024)",
        "needs restart: listener.b.bind (was nothing, is 0.0.0.0:7001)",
    ];
    assert_eq!(changes(&old, &new), expected);
}

#[test]
fn another_certificate_is_taken_live_but_tls_is_not_switched_on_live() {
    let with_tls = |name: &str| {
        let mut config = parse(SMALLEST).unwrap();
        config.listeners[0].tls = Some(TlsFiles { certificate: name.into(), key: "k".into() });
        config
    };
    let expected = ["in force: listener.game.tls.certificate (was a, is b)"];
    assert_eq!(changes(&with_tls("a"), &with_tls("b")), expected);
    let switched_on = changes(&parse(SMALLEST).unwrap(), &with_tls("a"));
    assert_eq!(switched_on[0], "needs restart: listener.game.tls.certificate (was nothing, is a)");
}
