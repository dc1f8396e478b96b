//! `GET /held` and `POST /accept`: changes that wait for a yes, and the yes.

use super::super::inspect::held as held_views;
use super::super::state::AdminState;
use super::super::view::{AcceptAnswer, AcceptRequest, HeldsView, ProxyHeldView};
use super::{TableWriter, WriteError, commit, in_time};
use crate::routing::document::RawAccept;
use crate::routing::edit::Edit;
use crate::routing::plan::accept_document;
use crate::routing::slips::Held;

/// What is held here, and what other proxies say they hold.
pub(in crate::admin) async fn held(state: &AdminState) -> HeldsView {
    let proxies = match &state.tables {
        TableWriter::Files(_) => Vec::new(),
        // With etcd away this proxy's own word is all there is.
        TableWriter::Store(store) => in_time(store.proxies()).await.unwrap_or_default(),
    };
    let others = proxies.into_iter().filter(|word| word.proxy != state.proxy_id && !word.held.is_empty());
    let published = state.published();
    let accepts = published.held.iter().map(|held| (held.service.to_string(), held.accept.clone()));
    HeldsView {
        held: held_views(&published.held),
        accepts: accepts.collect(),
        proxies: others.map(|word| ProxyHeldView { proxy: word.proxy, held: word.held }).collect(),
    }
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
        let of = request.service.map_or_else(String::new, |service| format!(" of {service}"));
        return Err(WriteError::NothingHeld(of));
    }
    let raw = |held: &Held| RawAccept { reason: request.reason.clone(), ..held.accept.clone() };
    raw(&held[0]).check()?;
    let documents: Vec<_> = held.iter().map(|held| accept_document(&held.service, &raw(held))).collect();
    match &state.tables {
        TableWriter::Files(folder) => {
            let files =
                documents.iter().map(|(key, text)| format!("{key}.json: {}", String::from_utf8_lossy(text)));
            let files = files.collect();
            Err(WriteError::AcceptInFiles { folder: folder.display().to_string(), files })
        }
        TableWriter::Store(store) => {
            let listing = in_time(store.read()).await?;
            let edit = Edit(documents.into_iter().map(|(key, text)| (key, Some(text))).collect());
            let revision = commit(store.as_ref(), &listing, edit).await?;
            Ok(AcceptAnswer { accepted: held_views(&held), revision })
        }
    }
}
