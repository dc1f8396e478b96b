//! SIGHUP: the config is read and checked again, certificates are swapped; what can't change live is reported.

use crate::config::Config;

use super::listeners::{LiveTls, server_config};

/// Reads everything anew. What can't be used changes nothing, and is logged.
pub fn reload(config: &mut Config, tls: &mut LiveTls) {
    let fresh = match Config::load(&config.file) {
        Ok(fresh) => fresh,
        Err(errors) => return tracing::error!("config not reloaded, the last one stays in force: {errors}"),
    };
    let changes = Config::difference(config, &fresh);
    for change in &changes {
        if change.needs_restart {
            tracing::warn!(key = %change.key, old = ?change.old, new = ?change.new, "changed in the file: needs a restart");
        } else {
            tracing::info!(key = %change.key, old = ?change.old, new = ?change.new, "changed");
        }
    }
    let mut certificates = 0;
    for listener in &fresh.listeners {
        let (Some(files), Some(live)) = (&listener.tls, tls.get(&listener.name)) else { continue };
        match server_config(files) {
            Ok(server) => {
                live.store(server);
                certificates += 1;
            }
            Err(error) => tracing::error!(listener = %listener.name, "certificate not reloaded: {error:#}"),
        }
    }
    tracing::info!(changes = changes.len(), certificates, "config read again");
    *config = fresh;
}
