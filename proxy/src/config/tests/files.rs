//! Files that the configuration names: certificates, keys, passwords.

use std::fs;
use std::path::Path;

use super::super::{Config, Source, TlsFiles};
use super::SMALLEST;

/// Writes a certificate and its key.
fn write_pair(folder: &Path, name: &str) {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join(format!("{name}.pem")), pair.cert.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
}

/// The smallest file, in `folder`, with `more` after it.
fn parse_in(folder: &Path, more: &str) -> Result<Config, String> {
    let errors = Config::parse(&format!("{SMALLEST}{more}"), &folder.join("holdfast.toml"));
    let prefix = format!("{}/", folder.display());
    errors.map_err(|errors| errors.to_string().replace(&prefix, ""))
}

/// A listener with TLS; its certificate stands on line 14, its key on line 15.
fn with_tls(certificate: &str, key: &str) -> String {
    format!(
        "[[listener]]\nname = \"safe\"\nbind = \"127.0.0.1:7443\"\ntls.certificate = \"{certificate}\"\n\
         tls.key = \"{key}\"\n"
    )
}

#[test]
fn a_certificate_with_its_key_is_taken_and_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    let config = parse_in(folder.path(), &with_tls("a.pem", "a.key")).unwrap();
    let files = config.listeners[1].tls.clone().unwrap();
    assert_eq!(files.certificate, folder.path().join("a.pem"));
    let before = files.read().unwrap().cert;
    write_pair(folder.path(), "a");
    assert_ne!(files.read().unwrap().cert, before, "a renewed certificate is seen");
}

#[test]
fn a_tls_file_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    let expected = "holdfast.toml:14: listener.safe.tls.certificate: got \"none.pem\" (No such file or directory (os \
                    error 2)), expected a readable file of at most 1 MiB";
    assert_eq!(parse_in(folder.path(), &with_tls("none.pem", "a.key")).unwrap_err(), expected);
    let errors = parse_in(folder.path(), &with_tls("a.pem", "none.key")).unwrap_err();
    assert!(
        errors.starts_with("holdfast.toml:15: listener.safe.tls.key: got \"none.key\" (No such file"),
        "{errors}"
    );
}

#[test]
fn a_tls_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    fs::create_dir(folder.path().join("folder")).unwrap();
    let errors = parse_in(folder.path(), &with_tls("folder", "a.key")).unwrap_err();
    assert!(errors.contains(".tls.certificate: got \"folder\" (Is a directory"), "{errors}");
    let errors = parse_in(folder.path(), &with_tls("/dev/zero", "a.key")).unwrap_err();
    assert!(errors.contains("got \"/dev/zero\" (more than 1 MiB), expected a readable file"), "{errors}");
    fs::write(folder.path().join("huge.pem"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
    let errors = parse_in(folder.path(), &with_tls("huge.pem", "a.key")).unwrap_err();
    assert!(
        errors.contains(".tls.certificate: got \"huge.pem\" (more than 1 MiB), expected a readable"),
        "{errors}"
    );
}

#[test]
fn a_tls_file_that_is_not_pem_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    fs::write(folder.path().join("text"), "no certificate").unwrap();
    let errors = parse_in(folder.path(), &with_tls("text", "a.key")).unwrap_err();
    assert!(errors.contains("got \"text\" (no certificate in it), expected PEM certificates"), "{errors}");
    let errors = parse_in(folder.path(), &with_tls("a.pem", "text")).unwrap_err();
    assert!(errors.contains(".tls.key: got \"text\" ("), "{errors}");
    assert!(errors.ends_with("expected a PEM private key (PKCS #8, PKCS #1 or SEC 1)"), "{errors}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    write_pair(folder.path(), "b");
    let errors = parse_in(folder.path(), &with_tls("a.pem", "b.key")).unwrap_err();
    assert!(errors.starts_with("holdfast.toml:15: listener.safe.tls.key: got \"b.key\" ("), "{errors}");
    assert!(errors.ends_with("expected the private key of the certificate in a.pem"), "{errors}");
}

#[test]
fn a_certificate_without_a_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    let more = with_tls("a.pem", "a.key").replace("tls.key = \"a.key\"\n", "");
    assert!(
        parse_in(folder.path(), &more)
            .unwrap_err()
            .contains("listener.safe.tls.key: got nothing, expected a path")
    );
}

#[test]
fn etcd_may_have_a_login_and_tls() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a");
    fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let more = "username = \"proxy\"\npassword_file = \"password\"\n\
                [etcd.tls]\nca = \"a.pem\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    let text = format!("{SMALLEST}{more}").replace("http://", "https://");
    let config = Config::parse(&text, &folder.path().join("holdfast.toml")).unwrap();
    let Source::Etcd(etcd) = &config.source else { panic!("not etcd") };
    assert_eq!(etcd.login.as_ref().unwrap().password().unwrap(), "hunter2");
    let tls = etcd.tls.as_ref().unwrap();
    let files = TlsFiles { certificate: folder.path().join("a.pem"), key: folder.path().join("a.key") };
    assert_eq!((tls.ca.clone(), tls.identity.clone()), (folder.path().join("a.pem"), Some(files)));
    assert!(!format!("{:?}", config.keys()).contains("hunter2"));
}

#[test]
fn half_a_login_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let errors = parse_in(folder.path(), "username = \"proxy\"\n").unwrap_err();
    let expected =
        "holdfast.toml:9: etcd.password_file: got nothing, expected it beside username: a login needs both";
    assert_eq!(errors, expected);
    fs::write(folder.path().join("empty"), "\n").unwrap();
    let errors = parse_in(folder.path(), "username = \"proxy\"\npassword_file = \"empty\"\n").unwrap_err();
    assert!(
        errors.contains("etcd.password_file: got \"empty\" (empty or not UTF-8), expected a file"),
        "{errors}"
    );
}
