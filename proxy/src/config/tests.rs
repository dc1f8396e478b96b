//! Promises of the bootstrap file.

mod files;
mod messages;
mod reload;
mod samples;

use std::path::Path;

use super::{AdminBind, Config, LogFormat, Source};

const SMALLEST: &str = r#"
[proxy]
id = "host-a"

[[listener]]
name = "game"
bind = "0.0.0.0:7000"

[etcd]
endpoints = ["http://127.0.0.1:2379"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("holdfast.toml")).map_err(|errors| errors.to_string())
}

#[test]
fn the_smallest_file_has_sane_defaults() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(&*config.proxy.id, "host-a");
    assert_eq!(config.proxy.workers, 1);
    assert_eq!(config.proxy.data_dir, Path::new("/var/lib/holdfast/host-a"));
    assert_eq!((config.proxy.zone, config.local), (None, None));
    assert_eq!(&*config.listeners[0].name, "game");
    assert_eq!(config.listeners[0].bind.to_string(), "0.0.0.0:7000");
    assert_eq!(config.listeners[0].tls, None);
    assert_eq!(config.health.to_string(), "127.0.0.1:9901");
    assert_eq!(config.admin.to_string(), "127.0.0.1:9900");
    assert_eq!(config.telemetry.logs, LogFormat::Text);
    let Source::Etcd(etcd) = config.source else { panic!("not etcd") };
    assert_eq!(etcd.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!((&*etcd.root, etcd.login, etcd.tls), ("/holdfast", None, None));
}

#[test]
fn what_a_file_says_is_taken() {
    let text = r#"
        [proxy]
        id = "host-a"
        zone = "eu-1"
        workers = 4
        data_dir = "data"
        [local]
        backend = "arena/a"
        address = "unix:/run/arena.sock"
        [[listener]]
        name = "game"
        bind = "[::1]:0"
        backlog = 16
        [files]
        path = "."
        [health]
        bind = "0.0.0.0:9901"
        [admin]
        bind = "unix:/run/holdfast.sock"
        [telemetry]
        logs = "json"
        log_filter = "warn,holdfast=debug"
        ratio = 1
        [limits]
        kept_bytes = 0x4000_0000
        shutdown_deadline_s = 0
    "#;
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(text, &folder.path().join("holdfast.toml")).unwrap();
    assert_eq!(config.proxy.zone.as_deref(), Some("eu-1"));
    assert_eq!(config.proxy.workers, 4);
    assert_eq!(
        config.proxy.data_dir,
        folder.path().join("data"),
        "a relative path starts at the file's folder"
    );
    let local = config.local.unwrap();
    assert_eq!(
        (local.backend.to_string(), local.address.to_string()),
        ("arena/a".into(), "unix:/run/arena.sock".into())
    );
    assert_eq!(config.listeners[0].backlog, 16);
    assert_eq!(config.source, Source::Files { path: folder.path().join(".") });
    assert_eq!(config.admin, AdminBind::Unix("/run/holdfast.sock".into()));
    assert_eq!((config.telemetry.logs, config.telemetry.ratio), (LogFormat::Json, 1.0));
    assert_eq!(config.limits.kept_bytes, 1 << 30);
    assert!(config.limits.shutdown_deadline.is_zero());
}
