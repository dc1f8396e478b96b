//! Ejections by an operator: keys that every proxy follows.

use std::sync::Arc;
use std::time::Duration;

use super::drains::known_backend;
use super::drains::{
    DrainStore, DrainWriter, EjectionKey, MAX_REASON_BYTES, OrderError, STORE_TIMEOUT, StoreFuture,
};
use super::state::AdminState;
use super::view::{EjectAnswer, EjectRequest, UnejectRequest};
use crate::routing::BackendId;
use crate::routing::document::ejection;

const MAX_FOR_S: u64 = 24 * 60 * 60;

pub(super) async fn eject(state: &AdminState, request: EjectRequest) -> Result<EjectAnswer, OrderError> {
    if let Some(seconds) = request.for_s
        && !(1..=MAX_FOR_S).contains(&seconds)
    {
        let expected = "whole seconds from 1 to 86400 (a day)";
        return Err(OrderError::Invalid { field: "for_s", value: seconds.to_string(), expected });
    }
    if request.reason.len() > MAX_REASON_BYTES || request.reason.contains(char::is_control) {
        let value = format!("{} bytes long", request.reason.len());
        return Err(OrderError::Invalid {
            field: "reason",
            value,
            expected: "one line of at most 256 bytes",
        });
    }
    let backend = known_backend(state, &request.backend).await?;
    let store = store(state, &backend, "write")?;
    let time = request.for_s.map(Duration::from_secs);
    let key = EjectionKey { backend: backend.clone(), reason: request.reason, time };
    let (key, until) = in_time(store.eject(key)).await?;
    Ok(EjectAnswer { backend: backend.to_string(), key, changed: true, until: until.map(ejection::written) })
}

/// Also of a backend that is gone: its key may have stayed.
pub(super) async fn uneject(state: &AdminState, request: UnejectRequest) -> Result<EjectAnswer, OrderError> {
    let backend = super::drains::parse_backend(&request.backend)?;
    let table = Arc::clone(&state.published().table);
    if !table.ejections.contains_key(&backend) {
        known_backend(state, &request.backend).await?;
    }
    let store = store(state, &backend, "delete")?;
    let (key, changed) = in_time(store.uneject(backend.clone())).await?;
    Ok(EjectAnswer { backend: backend.to_string(), key, changed, until: None })
}

fn store<'a>(
    state: &'a AdminState,
    backend: &BackendId,
    what: &'static str,
) -> Result<&'a dyn DrainStore, OrderError> {
    match &state.drains {
        DrainWriter::Store(store) => Ok(store.as_ref()),
        DrainWriter::Files(folder) => {
            let path =
                folder.join("ejections").join(&*backend.service).join(format!("{}.json", backend.name));
            Err(OrderError::Folder { what, path: path.display().to_string() })
        }
    }
}

async fn in_time<T>(future: StoreFuture<'_, T>) -> Result<T, OrderError> {
    match tokio::time::timeout(STORE_TIMEOUT, future).await {
        Ok(result) => result.map_err(|error| OrderError::Ejection(error.to_string())),
        Err(_) => Err(OrderError::Ejection(format!("no answer within {} s", STORE_TIMEOUT.as_secs()))),
    }
}
