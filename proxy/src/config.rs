//! The bootstrap file, `holdfast.toml`: read once, checked into domain types that can't be wrong.
//!
//! All that is wrong with a file is said at once, each with its line, key, value and what was expected. What a file
//! doesn't say has a default; the smallest has an id, one listener, and `[etcd]` or `[files]`.

mod addresses;
mod difference;
mod errors;
mod events;
pub mod field_error;
mod file;
mod hooks;
mod limits;
mod proxy;
mod reader;
mod register;
mod source;
mod telemetry;
mod tls;
mod token;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use addresses::{AdminBind, Listener};
pub use difference::Change;
pub use errors::{ConfigError, ConfigErrors};
pub use events::{EventWebhook, Events};
pub use field_error::FieldError;
pub use hooks::Hooks;
pub use limits::Limits;
pub use proxy::{Local, ProxyConfig};
pub use register::Register;
pub use source::{Etcd, EtcdLogin, EtcdTls, Source};
pub use telemetry::{LogFormat, Telemetry};
pub use tls::{TlsFiles, read_certificates};
pub use token::TokenFile;

use reader::{Reader, Section};

/// A checked bootstrap file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file this was read from.
    pub file: PathBuf,
    pub proxy: ProxyConfig,
    /// The backend beside this proxy, if there is one.
    pub local: Option<Local>,
    /// How that backend is made known to all proxies, if this one does it.
    pub register: Option<Register>,
    /// At least one; names and addresses are unique.
    pub listeners: Vec<Listener>,
    pub source: Source,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub health: std::net::SocketAddr,
    /// Where everything else is served.
    pub admin: AdminBind,
    /// How alerts come in.
    pub hooks: Hooks,
    /// Where it is told what happens.
    pub events: Events,
    pub telemetry: Telemetry,
    pub limits: Limits,
}

impl Config {
    /// Reads and checks a file, and the certificates, keys and passwords that it names.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = file::read_text(path).map_err(|why| {
            let error = FieldError::new("file", why, file::EXPECTED);
            ConfigErrors::new(path, vec![ConfigError { line: None, error }])
        })?;
        Self::parse(&text, path)
    }

    /// As [`Config::load`], of a text that stands (or is to stand) in `path`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let reader = Reader::new(text, folder);
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        syntax_errors.iter().for_each(|error| reader.refuse_syntax(error));
        let config =
            if syntax_errors.is_empty() { read(reader.root(document.get_ref()), path) } else { None };
        let errors = reader.into_errors();
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors::new(path, errors)),
        }
    }
}

/// Reads every section, also after an error, so that all errors are found; `None` only after an error.
fn read(mut root: Section<'_>, path: &Path) -> Option<Config> {
    let proxy = ProxyConfig::read(root.section("proxy"));
    let local = Local::read(root.section("local"));
    let mut binds = addresses::Binds::default();
    let listeners = addresses::read_listeners(&mut root, &mut binds);
    let source = Source::read(&mut root);
    let register = Register::read(root.section("register"), local.as_ref(), proxy.as_ref(), &source);
    let health = addresses::read_health(root.section("health"), &mut binds);
    let admin = addresses::read_admin(root.section("admin"), &mut binds);
    let hooks = Hooks::read(root.section("hooks"), &mut binds);
    let events = Events::read(root.section("events"));
    let telemetry = Telemetry::read(root.section("telemetry"));
    let limits = Limits::read(root.section("limits"));
    root.finish();
    let (proxy, source, file) = (proxy?, source?, path.to_owned());
    Some(Config {
        file,
        proxy,
        local,
        register,
        listeners,
        source,
        health,
        admin,
        hooks,
        events,
        telemetry,
        limits,
    })
}
