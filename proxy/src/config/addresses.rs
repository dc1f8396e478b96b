//! `[[listener]]`, `[health]` and `[admin]`: the addresses that this proxy owns.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::FieldError;
use super::reader::{Section, parsed, text_that};
use super::tls::TlsFiles;
use crate::routing::address::{NAME, is_name, unix_path};

/// The most listeners of one proxy.
const MAX_LISTENERS: usize = 64;
const HEALTH_PORT: u16 = 9901;
const ADMIN_PORT: u16 = 9900;
const BIND: &str = "ip:port";

/// A public address, and the name by which routes know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: Arc<str>,
    /// Port 0 takes a free one.
    pub bind: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// Connections that the kernel may hold until they are accepted.
    pub backlog: u32,
}

/// Where the admin server listens; nothing but this host can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminBind {
    /// A loopback address; port 0 takes a free one.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for AdminBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Every usable listener; names are unique.
pub(super) fn read_listeners(root: &mut Section<'_>, binds: &mut Binds) -> Vec<Listener> {
    let sections = root.sections("listener");
    if !root.has("listener") {
        root.refuse(FieldError::missing(
            "listener",
            "at least one [[listener]] with a name and a bind address",
        ));
    } else if sections.len() > MAX_LISTENERS {
        let got = format!("{} listeners", sections.len());
        root.refuse(FieldError::new("listener", got, format!("at most {MAX_LISTENERS}")));
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for mut section in sections {
        let name = section.required("name", NAME, text_that(is_name));
        if let Some(name) = &name {
            section.rename(format!("listener.{name}"));
            if listeners.iter().any(|listener| *listener.name == **name) {
                section.wrong("name", "a name that no other listener has");
            }
        }
        let bind = section.required("bind", BIND, parsed);
        if let Some(bind) = bind {
            binds.take(&section, bind);
        }
        let backlog = section.number("backlog", 1024, 1..=65_535);
        let tls = read_tls(section.section("tls"));
        section.finish();
        if let (Some(name), Some(bind)) = (name, bind) {
            let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
            listeners.push(Listener { name: name.into(), bind, tls, backlog });
        }
    }
    listeners
}

fn read_tls(mut section: Section<'_>) -> Option<TlsFiles> {
    if !section.is_there() {
        return None;
    }
    let files = TlsFiles::read_section(&mut section);
    section.finish();
    files
}

pub(super) fn read_health(mut section: Section<'_>, binds: &mut Binds) -> SocketAddr {
    let bind = section.optional("bind", BIND, parsed);
    let bind = bind.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, HEALTH_PORT).into());
    binds.take(&section, bind);
    section.finish();
    bind
}

pub(super) fn read_admin(mut section: Section<'_>, binds: &mut Binds) -> AdminBind {
    let expected = "a loopback ip:port (127.0.0.1:9900, [::1]:9900) or unix:/path: \
                    whoever reaches it can drain backends";
    let bind = section.optional("bind", expected, |value| {
        let text = value.as_str()?;
        match unix_path(text) {
            Some(path) => Some(AdminBind::Unix(path)),
            None => text.parse().ok().filter(|bind: &SocketAddr| bind.ip().is_loopback()).map(AdminBind::Tcp),
        }
    });
    let bind = bind.unwrap_or_else(|| AdminBind::Tcp((Ipv4Addr::LOCALHOST, ADMIN_PORT).into()));
    if let AdminBind::Tcp(bind) = &bind {
        binds.take(&section, *bind);
    }
    section.finish();
    bind
}

/// The addresses asked for so far. No two servers of this process may have the same one: the kernel would say so less
/// plainly, and later.
#[derive(Default)]
pub(super) struct Binds(Vec<(String, SocketAddr)>);

impl Binds {
    /// Takes a section's `bind`, or the default of one that doesn't say.
    pub(super) fn take(&mut self, section: &Section<'_>, bind: SocketAddr) {
        let owner = self.0.iter().find(|(_, taken)| overlap(*taken, bind));
        if let Some((owner, taken)) = owner {
            let expected = format!("an address of its own: {owner} has {taken}");
            section.refuse(FieldError::new("bind", bind, expected));
        }
        self.0.push((section.path_of("bind"), bind));
    }
}

/// A wildcard address holds its port on every other one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}
