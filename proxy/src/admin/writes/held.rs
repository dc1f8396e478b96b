//! `GET /held` and `POST /accept`: changes that wait for a yes, and the yes.

use super::super::inspect::held as held_views;
use super::super::state::AdminState;
use super::super::view::{AcceptAnswer, AcceptRequest, HeldsView, ProxyHeldView};
use super::{ProxyWord, TableWriter, WriteError, commit, in_time};
use crate::config::FieldError;
use crate::routing::Documents;
use crate::routing::document::RawAccept;
use crate::routing::edit::Edit;
use crate::routing::plan::accept_document;
use crate::routing::slips::Held;

/// What is held here, and what other proxies say they hold.
pub(in crate::admin) async fn held(state: &AdminState) -> HeldsView {
    let others = others(state).await;
    let published = state.published();
    let accepts = published.held.iter().map(|held| (held.service.to_string(), held.accept.clone()));
    HeldsView {
        held: held_views(&published.held),
        accepts: accepts.collect(),
        proxies: others
            .into_iter()
            .map(|word| ProxyHeldView { proxy: word.proxy, held: word.held })
            .collect(),
    }
}

/// The other proxies that hold something.
async fn others(state: &AdminState) -> Vec<ProxyWord> {
    let mut proxies = match &state.tables {
        TableWriter::Files(_) => Vec::new(),
        // With etcd away this proxy's own word is all there is.
        TableWriter::Store(store) => in_time(store.proxies()).await.unwrap_or_default(),
    };
    proxies.retain(|word| word.proxy != state.proxy_id && !word.held.is_empty());
    proxies
}

/// Nothing is, or it is by others: a yes says to which versions, and only who holds them knows.
async fn nothing_held(state: &AdminState, service: Option<String>) -> WriteError {
    let mut others = others(state).await;
    let of = service.map_or_else(String::new, |service| {
        let prefix = format!("{service}: ");
        others.retain(|word| word.held.iter().any(|held| held.starts_with(&prefix)));
        format!(" of {service}")
    });
    if others.is_empty() {
        return WriteError::NothingHeld(of);
    }
    let names: Vec<_> = others.iter().map(|word| &*word.proxy).collect();
    let names = names.join(", ");
    WriteError::NothingHeld(format!(
        "{of} by this proxy, but by {names}: accept it there, --admin says where"
    ))
}

/// Says yes to what is held of a service, or of all: every proxy that holds the same lets it through.
pub(in crate::admin) async fn accept(
    state: &AdminState,
    request: AcceptRequest,
) -> Result<AcceptAnswer, WriteError> {
    let published = state.published();
    let meant = |held: &&Held| request.service.as_ref().is_none_or(|service| **service == *held.service);
    let held: Vec<_> = published.held.iter().filter(meant).cloned().collect();
    if held.is_empty() {
        return Err(nothing_held(state, request.service).await);
    }
    let raw = |held: &Held| RawAccept { reason: request.reason.clone(), ..held.accept.clone() };
    raw(&held[0]).check()?;
    let documents = |now: &Documents| -> Result<Vec<_>, FieldError> {
        held.iter().map(|held| accept_document(now, &held.service, &raw(held))).collect()
    };
    match &state.tables {
        TableWriter::Files(folder) => {
            let documents = documents(&Documents::default())?;
            let files =
                documents.iter().map(|(key, text)| format!("{key}.json: {}", String::from_utf8_lossy(text)));
            let files = files.collect();
            Err(WriteError::AcceptInFiles { folder: folder.display().to_string(), files })
        }
        TableWriter::Store(store) => {
            let listing = in_time(store.read()).await?;
            let documents = documents(&listing.documents)?;
            let edit = Edit(documents.into_iter().map(|(key, text)| (key, Some(text))).collect());
            let revision = commit(store.as_ref(), &listing, edit).await?;
            Ok(AcceptAnswer { accepted: held_views(&held), revision })
        }
    }
}
