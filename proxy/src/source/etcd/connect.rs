//! A client with the options that make a dead or hung etcd noticeable.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::EtcdError;
use crate::config::FieldError;
use crate::config::{Etcd, EtcdTls};

/// Connects anew: passwords and certificates are read again, so that they may be renewed.
pub async fn connect(config: &Etcd) -> Result<Client, EtcdError> {
    let options = options(config)?;
    let endpoint = first_to_answer(config).await;
    // Without a login this doesn't touch the network; with one it asks for a token.
    let connecting = Client::connect([endpoint], Some(options));
    within("connect", config.connect_timeout + config.request_timeout, connecting).await
}

/// The endpoint of which the node takes a connection first. All of a client's requests go there: one that has the
/// others, too, keeps sending some to a node that is dead, so that whatever takes a few requests hardly ever succeeds.
async fn first_to_answer(config: &Etcd) -> &str {
    let any = config.endpoints.get(fastrand::usize(..config.endpoints.len().max(1)));
    let any = any.map_or("", String::as_str);
    if config.endpoints.len() < 2 {
        return any;
    }
    let mut knocks = JoinSet::new();
    for (index, endpoint) in config.endpoints.iter().enumerate() {
        let address = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, address)| address).to_owned();
        knocks.spawn(async move { TcpStream::connect(address).await.map(|_| index) });
    }
    let first = async {
        while let Some(knocked) = knocks.join_next().await {
            if let Ok(Ok(index)) = knocked {
                return config.endpoints.get(index);
            }
        }
        None
    };
    // With none, any of them says why.
    let first = tokio::time::timeout(config.connect_timeout, first).await.ok().flatten();
    first.map_or(any, String::as_str)
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
