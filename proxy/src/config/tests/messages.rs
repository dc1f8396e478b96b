//! What is said of a file that is wrong: line, key, value, expectation; all of it at once.

use super::{SMALLEST, parse};

/// The errors of the smallest file with `more` after it; its first line of `more` is line 11.
fn errors_with(more: &str) -> String {
    parse(&format!("{SMALLEST}{more}")).unwrap_err()
}

/// The smallest file with one text replaced.
fn errors_replacing(from: &str, to: &str) -> String {
    assert!(SMALLEST.contains(from));
    parse(&SMALLEST.replace(from, to)).unwrap_err()
}

#[test]
fn all_errors_of_a_file_are_said_at_once_in_the_order_of_lines() {
    let text = r#"
[proxy]
workers = 0
zone = "eu 1"
colour = "red"

[[listener]]
name = "game"
bind = "7000"

[admin]
bind = "0.0.0.0:9900"

[telemetry]
logs = "xml"
ratio = 1.5
"#;
    let expected = "\
holdfast.toml:2: proxy.id: got nothing, expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit
holdfast.toml:3: proxy.workers: got 0, expected 1 to 256
holdfast.toml:4: proxy.zone: got \"eu 1\", expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit
holdfast.toml:5: proxy.colour: got an unknown key, expected one of id, zone, workers, data_dir
holdfast.toml:9: listener.game.bind: got \"7000\", expected ip:port
holdfast.toml:12: admin.bind: got \"0.0.0.0:9900\", expected a loopback ip:port (127.0.0.1:9900, [::1]:9900) or \
unix:/path: whoever reaches it can drain backends
holdfast.toml:15: telemetry.logs: got \"xml\", expected \"text\" or \"json\"
holdfast.toml:16: telemetry.ratio: got 1.5, expected a number from 0 to 1
holdfast.toml: etcd: got nothing, expected [etcd] or [files], where routing documents come from";
    assert_eq!(parse(text).unwrap_err(), expected);
}

#[test]
fn an_empty_file_is_told_what_the_smallest_has() {
    let errors = parse("").unwrap_err();
    for key in ["proxy.id", "listener", "etcd"] {
        assert!(errors.contains(&format!("holdfast.toml: {key}: got nothing, expected ")), "{errors}");
    }
    assert_eq!(errors.lines().count(), 3, "{errors}");
}

#[test]
fn every_syntax_error_is_said_with_its_line() {
    let errors = parse("[proxy]\nid = host-a\n\n[limits\n").unwrap_err();
    assert!(
        errors.contains("holdfast.toml:2: syntax: got \"id = host-a\", expected valid TOML ("),
        "{errors}"
    );
    assert!(errors.contains("holdfast.toml:4: syntax: got \"[limits\", expected valid TOML ("), "{errors}");
}

#[test]
fn a_key_given_twice_is_refused() {
    let errors = errors_replacing("id = \"host-a\"", "id = \"host-a\"\nid = \"host-b\"");
    assert!(errors.contains("holdfast.toml:4: syntax: got \"id = \\\"host-b\\\"\""), "{errors}");
    assert!(errors.contains("duplicate key"), "{errors}");
}

#[test]
fn two_listeners_of_one_name_are_refused() {
    let errors = errors_with("[[listener]]\nname = \"game\"\nbind = \"0.0.0.0:7001\"\n");
    let expected =
        "holdfast.toml:12: listener.game.name: got \"game\", expected a name that no other listener has";
    assert_eq!(errors, expected);
}

#[test]
fn two_servers_on_one_address_are_refused() {
    let errors = errors_with("[health]\nbind = \"127.0.0.1:7000\"\n");
    let expected = "holdfast.toml:12: health.bind: got 127.0.0.1:7000, expected an address of its own: \
                    listener.game.bind has 0.0.0.0:7000";
    assert_eq!(errors, expected);
}

#[test]
fn documents_come_from_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let errors = errors_with(&format!("[files]\npath = {:?}\n", folder.path()));
    let expected = "holdfast.toml:11: files: got [files] beside [etcd], expected [etcd] or [files], not both: routing \
                    documents come from one place";
    assert_eq!(errors, expected);
}

#[test]
fn a_missing_folder_of_documents_is_refused() {
    let errors =
        errors_replacing("[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]", "[files]\npath = \"nowhere\"");
    let expected = "holdfast.toml:10: files.path: got \"nowhere\" (no such folder), expected a folder of documents: \
                    services/, backends/, routes/";
    assert_eq!(errors, expected);
}

#[test]
fn a_listener_without_a_usable_name_is_told_by_its_number() {
    let errors = errors_replacing("name = \"game\"", "name = \"a/b\"");
    assert!(
        errors.starts_with("holdfast.toml:6: listener[0].name: got \"a/b\", expected 1 to 64 letters"),
        "{errors}"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_was_expected() {
    for (more, expected) in [
        ("[limits]\nmax_sessions = \"10\"", "limits.max_sessions: got \"10\", expected 1 to 1000000"),
        ("[limits]\nmax_sessions = -1", "limits.max_sessions: got -1, expected 1 to 1000000"),
        ("[limits]\nmax_sessions = 99999999999999999999", "got 99999999999999999999, expected 1 to 1000000"),
        ("[limits]\nmax_sessions = [1, true]", "limits.max_sessions: got [1, true], expected 1 to 1000000"),
        ("[telemetry]\nlogs = 1979-05-27", "telemetry.logs: got 1979-05-27, expected \"text\" or \"json\""),
        ("[telemetry]\nratio = nan", "telemetry.ratio: got nan, expected a number from 0 to 1"),
        (
            "[telemetry]\nlog_filter = \"verbose\"",
            "telemetry.log_filter: got \"verbose\", expected levels (error,",
        ),
        ("[[health]]\nbind = \"127.0.0.1:1\"", "health: got [a table], expected a table"),
        ("[local]\nbackend = \"arena\"", "local.backend: got \"arena\", expected service/name"),
        (
            "[local]\nbackend = \"arena/a\"",
            "local.address: got nothing, expected host:port, [ipv6]:port or unix:/path",
        ),
        (
            "[listeners]\nx = 1",
            "listeners: got an unknown key, expected one of proxy, local, listener, etcd, files",
        ),
    ] {
        let errors = errors_with(more);
        assert!(errors.contains(expected), "{more}: {errors}");
    }
}

#[test]
fn a_listener_that_is_not_an_array_of_tables_is_refused() {
    for text in ["listener = 5\n", "listener = [5]\n", "[listener]\nname = \"game\"\n"] {
        let errors =
            parse(&format!("{text}[proxy]\nid = \"a\"\n[etcd]\nendpoints = [\"http://e:1\"]\n")).unwrap_err();
        assert!(errors.contains("holdfast.toml:1: listener: got "), "{errors}");
        assert!(errors.ends_with("expected tables, each under [[listener]]"), "{errors}");
    }
}

#[test]
fn an_unknown_key_does_not_show_its_value() {
    let errors = errors_with("password = \"hunter2\"\n");
    assert!(
        errors.starts_with("holdfast.toml:11: etcd.password: got an unknown key, expected one of "),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn etcd_is_addressed_by_whole_urls() {
    for endpoint in ["127.0.0.1:2379", "https://127.0.0.1:2379", "http://127.0.0.1", "http://a:1/x"] {
        let errors = errors_replacing("http://127.0.0.1:2379", endpoint);
        let expected = format!(
            "holdfast.toml:10: etcd.endpoints: got [\"{endpoint}\"], expected 1 to 16 of \"http://host:port\" (https \
             needs [etcd.tls])"
        );
        assert_eq!(errors, expected);
    }
    let errors = errors_with("root = \"holdfast/\"\n");
    assert!(
        errors.starts_with("holdfast.toml:11: etcd.root: got \"holdfast/\", expected \"/\" and a name"),
        "{errors}"
    );
}

#[test]
fn a_long_value_is_cut_short() {
    let errors = errors_with(&format!("root = \"{}\"\n", "x".repeat(10_000)));
    assert!(errors.len() < 300, "{errors}");
}
