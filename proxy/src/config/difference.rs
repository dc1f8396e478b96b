//! What changed between two configurations, for a reload: pure, by key.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, EtcdTls, EventWebhook, Events, Hooks, LogFormat, Register, Source, TlsFiles};

/// One key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As in the file; a listener's under its name: `listener.game.bind`.
    pub key: String,
    /// `None`: the key is new.
    pub old: Option<String>,
    /// `None`: the key is gone.
    pub new: Option<String>,
    /// In force only after a restart. A listener's certificate isn't: its files are read anew at each reload.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.needs_restart { "needs restart" } else { "in force" };
        let (old, new) = (self.old.as_deref().unwrap_or("nothing"), self.new.as_deref().unwrap_or("nothing"));
        write!(f, "{effect}: {} (was {old}, is {new})", self.key)
    }
}

impl Config {
    /// Which keys changed, in alphabetical order. The contents of files named by keys aren't compared.
    #[must_use]
    pub fn difference(old: &Self, new: &Self) -> Vec<Change> {
        let (mut old, mut new) = (old.keys(), new.keys());
        let mut keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        let change = |key: String| {
            let (old, new) = (old.remove(&key), new.remove(&key));
            // TLS can't be added to a listener, or taken away, while it is open: only its files can change.
            let live = is_certificate(&key) && old.is_some() && new.is_some();
            (old != new).then_some(Change { needs_restart: !live, key, old, new })
        };
        keys.into_iter().filter_map(change).collect()
    }

    /// Every key with its value in force, defaults included. None is a secret.
    #[must_use]
    pub fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = Keys(BTreeMap::new());
        keys.put("proxy.id", &self.proxy.id);
        keys.put_some("proxy.zone", self.proxy.zone.as_ref());
        keys.put("proxy.workers", self.proxy.workers);
        keys.put("proxy.data_dir", self.proxy.data_dir.display());
        keys.put_some("local.backend", self.local.as_ref().map(|local| &local.backend));
        keys.put_some("local.address", self.local.as_ref().map(|local| &local.address));
        keys.put_register(self.register.as_ref());
        for listener in &self.listeners {
            let name = format!("listener.{}", listener.name);
            keys.put(&format!("{name}.bind"), listener.bind);
            keys.put(&format!("{name}.backlog"), listener.backlog);
            keys.put_tls(&format!("{name}.tls"), listener.tls.as_ref());
        }
        keys.put_source(&self.source);
        keys.put("health.bind", self.health);
        keys.put("admin.bind", &self.admin);
        keys.put_hooks(&self.hooks);
        keys.put_events(&self.events);
        keys.put_telemetry(&self.telemetry);
        keys.put_limits(&self.limits);
        keys.0
    }
}

fn is_certificate(key: &str) -> bool {
    key.starts_with("listener.") && (key.ends_with(".tls.certificate") || key.ends_with(".tls.key"))
}

struct Keys(BTreeMap<String, String>);

impl Keys {
    fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.0.insert(key.to_owned(), value.to_string());
    }

    fn put_some(&mut self, key: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_tls(&mut self, parent: &str, files: Option<&TlsFiles>) {
        if let Some(files) = files {
            self.put(&format!("{parent}.certificate"), files.certificate.display());
            self.put(&format!("{parent}.key"), files.key.display());
        }
    }

    fn put_register(&mut self, register: Option<&Register>) {
        let Some(Register { backend: _, advertise, version, weight, zone, capacity, ttl }) = register else {
            return;
        };
        self.put("register.advertise", advertise);
        self.put_some("register.version", version.as_ref());
        self.put("register.weight", weight);
        self.put_some("register.zone", zone.as_ref());
        self.put_some("register.capacity", capacity.as_ref());
        self.put("register.ttl_s", ttl.as_secs());
    }

    fn put_source(&mut self, source: &Source) {
        let etcd = match source {
            Source::Files { path } => return self.put("files.path", path.display()),
            Source::Etcd(etcd) => etcd,
        };
        self.put("etcd.endpoints", etcd.endpoints.join(", "));
        self.put("etcd.root", &etcd.root);
        self.put_some("etcd.username", etcd.login.as_ref().map(|login| &login.username));
        self.put_some("etcd.password_file", etcd.login.as_ref().map(|login| login.password_file.display()));
        if let Some(EtcdTls { ca, identity }) = &etcd.tls {
            self.put("etcd.tls.ca", ca.display());
            self.put_tls("etcd.tls", identity.as_ref());
        }
        self.put("etcd.connect_timeout_s", etcd.connect_timeout.as_secs());
        self.put("etcd.request_timeout_s", etcd.request_timeout.as_secs());
        self.put("etcd.keep_alive_s", etcd.keep_alive.as_secs());
        self.put("etcd.keep_alive_timeout_s", etcd.keep_alive_timeout.as_secs());
    }

    fn put_hooks(&mut self, Hooks { bind, token }: &Hooks) {
        self.put_some("hooks.bind", bind.as_ref());
        self.put_some("hooks.token_file", token.as_ref());
    }

    fn put_events(&mut self, Events { stdout, webhook, queue }: &Events) {
        self.put("events.stdout", stdout);
        self.put("events.queue", queue);
        if let Some(EventWebhook { url, token, timeout }) = webhook {
            self.put("events.webhook", url);
            self.put_some("events.token_file", token.as_ref());
            self.put("events.timeout_s", timeout.as_secs());
        }
    }

    fn put_telemetry(&mut self, telemetry: &super::Telemetry) {
        let logs = match telemetry.logs {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        self.put("telemetry.logs", logs);
        self.put("telemetry.log_filter", &telemetry.log_filter);
        self.put("telemetry.ratio", telemetry.ratio);
        self.put("telemetry.span_queue", telemetry.span_queue);
        self.put("telemetry.flush_timeout_s", telemetry.flush_timeout.as_secs());
    }

    fn put_limits(&mut self, limits: &super::Limits) {
        self.put("limits.max_sessions", limits.max_sessions);
        self.put("limits.max_groups", limits.max_groups);
        self.put("limits.kept_bytes", limits.kept_bytes);
        self.put("limits.link_outbox_bytes", limits.link_outbox_bytes);
        self.put("limits.transfer_pool_bytes", limits.transfer_pool_bytes);
        self.put("limits.tls_handshake_timeout_s", limits.tls_handshake_timeout.as_secs());
        self.put("limits.shutdown_deadline_s", limits.shutdown_deadline.as_secs());
    }
}
