//! Where routing documents come from: `[etcd]` or `[files]`.

use std::path::PathBuf;
use std::time::Duration;

use super::FieldError;
use super::reader::{Section, text_that};
use super::tls::{self, TlsFiles};
use crate::routing::address::is_host_and_port;

/// Where routing documents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Etcd(Box<Etcd>),
    /// A folder that mirrors the keys; each file is a document, its name the key with `.json`.
    Files {
        path: PathBuf,
    },
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Each `http://host:port`, or each `https://host:port` if `tls` is set.
    pub endpoints: Vec<String>,
    /// Begins with a slash, doesn't end with one.
    pub root: String,
    pub login: Option<EtcdLogin>,
    pub tls: Option<EtcdTls>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    /// Silence after which a ping is sent, so that a hung etcd is noticed.
    pub keep_alive: Duration,
    /// How long the ping may stay unanswered.
    pub keep_alive_timeout: Duration,
}

/// Who to be, for an etcd with authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    pub username: String,
    pub password_file: PathBuf,
}

/// How to trust etcd, and be trusted by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    pub ca: PathBuf,
    /// The client's own certificate, where etcd asks for one.
    pub identity: Option<TlsFiles>,
}

impl EtcdLogin {
    /// Reads the password anew; a newline at its end isn't part of it.
    ///
    /// # Errors
    /// The file is missing, unreadable, empty or not UTF-8; the field is `password_file`.
    pub fn password(&self) -> Result<String, FieldError> {
        let bytes = tls::read_file("password_file", &self.password_file)?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            let got = format!("\"{}\" (empty or not UTF-8)", self.password_file.display());
            return Err(FieldError::new("password_file", got, "a file with the password in it"));
        }
        Ok(password.to_owned())
    }
}

impl Source {
    pub(super) fn read(root: &mut Section<'_>) -> Option<Self> {
        let (etcd, files) = (root.section("etcd"), root.section("files"));
        match (etcd.is_there(), files.is_there()) {
            (true, false) => Some(Self::Etcd(Box::new(Etcd::read(etcd)))),
            (false, true) => read_files(files),
            (false, false) => {
                // Either may stand there as something that isn't a table, which has been said.
                if !root.has("etcd") && !root.has("files") {
                    root.refuse(FieldError::missing(
                        "etcd",
                        "[etcd] or [files], where routing documents come from",
                    ));
                }
                None
            }
            (true, true) => {
                let why = "[etcd] or [files], not both: routing documents come from one place";
                root.refuse(FieldError::new("files", "[files] beside [etcd]", why));
                Etcd::read(etcd);
                read_files(files);
                None
            }
        }
    }
}

fn read_files(mut section: Section<'_>) -> Option<Source> {
    let path = section.required_path("path");
    if let Some(path) = path.as_deref().filter(|path| !path.is_dir()) {
        let got = format!("\"{}\" (no such folder)", path.display());
        section.refuse(FieldError::new("path", got, "a folder of documents: services/, backends/, routes/"));
    }
    section.finish();
    path.map(|path| Source::Files { path })
}

impl Etcd {
    fn read(mut section: Section<'_>) -> Self {
        let login = read_login(&mut section);
        let tls = read_tls(&mut section);
        let scheme = if section.has("tls") { "https://" } else { "http://" };
        let expected = format!(
            "1 to 16 of \"{scheme}host:port\" ({} [etcd.tls])",
            if section.has("tls") { "as there is" } else { "https needs" }
        );
        let endpoints = section.required("endpoints", expected, |value| {
            let items = value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            let items: Vec<String> = items.collect::<Option<_>>()?;
            let right = |item: &String| item.strip_prefix(scheme).is_some_and(is_host_and_port);
            ((1..=16).contains(&items.len()) && items.iter().all(right)).then_some(items)
        });
        let root = section.optional("root", "\"/\" and a name, with no \"/\" at its end", text_that(is_root));
        let etcd = Self {
            endpoints: endpoints.unwrap_or_default(),
            root: root.unwrap_or_else(|| "/holdfast".to_owned()),
            login,
            tls,
            connect_timeout: section.seconds("connect_timeout_s", 5, 1..=600),
            request_timeout: section.seconds("request_timeout_s", 5, 1..=600),
            keep_alive: section.seconds("keep_alive_s", 6, 1..=600),
            keep_alive_timeout: section.seconds("keep_alive_timeout_s", 3, 1..=600),
        };
        section.finish();
        etcd
    }
}

fn is_root(text: &str) -> bool {
    text.len() > 1
        && text.len() <= 256
        && text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn read_login(section: &mut Section<'_>) -> Option<EtcdLogin> {
    for (key, other) in [("username", "password_file"), ("password_file", "username")] {
        if section.has(key) && !section.has(other) {
            section.refuse(FieldError::missing(other, format!("it beside {key}: a login needs both")));
        }
    }
    let username = section.optional("username", "a user of etcd", text_that(|text| !text.is_empty()));
    let password_file = section.path("password_file");
    let login = EtcdLogin { username: username?, password_file: password_file? };
    login.password().map_err(|error| section.refuse(error)).ok()?;
    Some(login)
}

fn read_tls(section: &mut Section<'_>) -> Option<EtcdTls> {
    let mut tls = section.section("tls");
    if !tls.is_there() {
        return None;
    }
    let ca = tls.required_path("ca");
    if let Some(Err(error)) = ca.as_deref().map(|path| tls::read_certificates("ca", path)) {
        tls.refuse(error);
    }
    let identity = if tls.has("certificate") || tls.has("key") {
        TlsFiles::read_section(&mut tls)
    } else {
        tls.path("certificate");
        tls.path("key");
        None
    };
    tls.finish();
    Some(EtcdTls { ca: ca?, identity })
}
