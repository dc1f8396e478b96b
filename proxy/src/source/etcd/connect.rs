//! A client with the options that make a dead or hung etcd noticeable.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::EtcdError;
use crate::config::FieldError;
use crate::config::{Etcd, EtcdTls};

/// Connects anew: passwords and certificates are read again, so that they may be renewed.
pub async fn connect(config: &Etcd) -> Result<Client, EtcdError> {
    let options = options(config)?;
    // Without a login this doesn't touch the network; with one it asks for a token.
    let connecting = Client::connect(&config.endpoints, Some(options));
    within("connect", config.connect_timeout + config.request_timeout, connecting).await
}

/// Every request has a deadline of its own: the client's would also end streams.
pub async fn within<T, E: Into<EtcdError>>(
    request: &'static str,
    timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, EtcdError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(EtcdError::Timeout { request, timeout }),
    }
}

fn options(config: &Etcd) -> Result<ConnectOptions, EtcdError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_keep_alive(config.keep_alive, config.keep_alive_timeout)
        .with_keep_alive_while_idle(false)
        .with_auto_token_refresh(true)
        // A member that is cut off from the others says so instead of going quiet.
        .with_require_leader(true);
    if let Some(login) = &config.login {
        options = options.with_user(&login.username, login.password()?);
    }
    if let Some(tls) = &config.tls {
        options = options.with_tls(tls_options(tls)?);
    }
    Ok(options)
}

fn tls_options(tls: &EtcdTls) -> Result<TlsOptions, EtcdError> {
    let read = |field: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            FieldError::new(field, format!("{} ({error})", path.display()), "a readable PEM file")
        })
    };
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(read("etcd.tls.ca", &tls.ca)?));
    if let Some(identity) = &tls.identity {
        let certificate = read("etcd.tls.certificate", &identity.certificate)?;
        options = options.identity(Identity::from_pem(certificate, read("etcd.tls.key", &identity.key)?));
    }
    Ok(options)
}
