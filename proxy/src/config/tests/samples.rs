//! The samples in `config/` at the root of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Config;
use crate::framing::RawFraming;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn shown(line: &str) -> Option<&str> {
    line.strip_prefix('#')
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '['))
}

/// A sample with every setting that it only shows (`#key = value`, `#[section]`) switched on.
fn switched_on(text: &str) -> String {
    text.lines().map(|line| shown(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_sample_is_valid_as_it_stands() {
    for name in ["holdfast.toml", "sidecar.toml", "node.toml", "gateway.toml"] {
        let config = Config::load(&folder().join(name)).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!config.listeners.is_empty());
    }
}

/// A folder with every file that the commented sample names.
fn named_files() -> tempfile::TempDir {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("documents")).unwrap();
    fs::write(files.path().join("cert.pem"), pair.cert.pem()).unwrap();
    fs::write(files.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(files.path().join("password"), "secret").unwrap();
    fs::write(files.path().join("token"), "secret").unwrap();
    files
}

#[test]
fn what_the_commented_sample_only_shows_is_valid_too() {
    let text = switched_on(&fs::read_to_string(folder().join("holdfast.toml")).unwrap());
    let files = named_files();
    for other in ["etcd", "files"] {
        let text = without_section(&text, other);
        // Backends are registered in etcd.
        let text = if other == "etcd" { without_section(&text, "register") } else { text };
        Config::parse(&text, &files.path().join("holdfast.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn the_commented_sample_shows_every_key_there_is() {
    let text = switched_on(&fs::read_to_string(folder().join("holdfast.toml")).unwrap());
    let files = named_files();
    // A key that can't be in every section: each answers with the keys that it knows.
    let sections: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
    let asking = sections.iter().fold(text.clone(), |text, header| {
        text.replace(&format!("\n{header}\n"), &format!("\n{header}\nnonsense = 1\n"))
    });
    let errors = Config::parse(&asking, &files.path().join("holdfast.toml")).unwrap_err().errors;
    let mut answers = 0;
    for error in errors.iter().filter(|error| error.error.field.ends_with(".nonsense")) {
        let after = error.line.unwrap();
        let section: Vec<&str> =
            asking.lines().skip(after).take_while(|line| !line.starts_with('[')).collect();
        for key in error.error.expected.trim_start_matches("one of ").split(", ").filter(|key| *key != "tls")
        {
            let is_shown = section.iter().any(|line| line.starts_with(&format!("{key} = ")));
            assert!(is_shown, "{key} isn't in the section of {}", error.error.field);
        }
        answers += 1;
    }
    assert_eq!((answers, sections.len()), (14, 14));
}

#[test]
fn the_commented_sample_states_the_real_defaults() {
    let path = folder().join("holdfast.toml");
    let text = fs::read_to_string(&path).unwrap();
    let named = named_files();
    let stated = Config::parse(&text, &path).unwrap();
    let smallest = "[proxy]\nid = \"host-a\"\n[[listener]]\nname = \"game\"\nbind = \"0.0.0.0:7000\"\n\
                    [files]\npath = \"documents\"\n";
    let default = Config::parse(smallest, &path).unwrap();
    assert_eq!(Config::difference(&default, &stated), []);

    let etcd = |text: &str| {
        let config = Config::parse(text, &named.path().join("holdfast.toml")).unwrap();
        config
            .keys()
            .into_iter()
            .filter(|(key, _)| key == "etcd.root" || key.ends_with("_s"))
            .collect::<Vec<_>>()
    };
    let smallest =
        smallest.replace("[files]\npath = \"documents\"", "[etcd]\nendpoints = [\"http://127.0.0.1:1\"]");
    let shown = without_section(&switched_on(&text), "files");
    let plain = without_section(&without_section(&shown, "register"), "events");
    assert_eq!(etcd(&plain), etcd(&smallest));
    let registered = Config::parse(&shown, &named.path().join("holdfast.toml")).unwrap().register.unwrap();
    let least = "[local]\nbackend = \"arena/a\"\naddress = \"h:1\"\n[register]\nadvertise = \"h:1\"\n";
    let least = Config::parse(&format!("{smallest}{least}"), &path).unwrap().register.unwrap();
    assert_eq!((registered.weight, registered.ttl), (least.weight, least.ttl));
    let timeout = |text: &str| {
        let config = Config::parse(text, &named.path().join("holdfast.toml")).unwrap();
        config.events.webhook.unwrap().timeout
    };
    let least = format!("{smallest}[events]\nwebhook = \"http://127.0.0.1:9095/events\"\n");
    assert_eq!(timeout(&shown), timeout(&least));
}

/// A TOML text without one table and those under it.
fn without_section(text: &str, name: &str) -> String {
    let mut dropped = false;
    let keep = |line: &&str| {
        if line.starts_with('[') {
            dropped = line.starts_with(&format!("[{name}]")) || line.starts_with(&format!("[{name}."));
        }
        !dropped
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_sample_document_is_json_and_its_framing_is_valid() {
    let mut found = 0;
    for service in fs::read_dir(folder().join("documents/services")).unwrap() {
        let text = fs::read_to_string(service.unwrap().path()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let framing: RawFraming = serde_json::from_value(document["framing"].clone()).unwrap();
        framing.check().unwrap();
        found += 1;
    }
    for name in ["backends/arena/a.json", "backends/arena/b.json", "routes/public.json"] {
        let text = fs::read_to_string(folder().join("documents").join(name)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
    }
    assert!(found > 0);
}
