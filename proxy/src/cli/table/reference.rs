//! `table schema` and `table reference`: what may be written, said without asking a proxy.

use std::fs;
use std::path::Path;

use crate::cli::Exit;
use crate::cli::client::ClientError;
use crate::cli::output;
use crate::reference;
use crate::routing::document::schema::{KINDS, Kind};

/// A kind by its name in keys.
pub(super) fn kind(text: &str) -> Result<&'static Kind, String> {
    Kind::of_name(text).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

pub(super) fn schema(kind: Option<&Kind>) -> Result<Exit, ClientError> {
    output::print(&format!("{:#}\n", reference::schema(kind)))?;
    Ok(Exit::Done)
}

pub(super) fn reference(folder: Option<&Path>) -> Result<Exit, ClientError> {
    let Some(folder) = folder else {
        output::print(&reference::page())?;
        return Ok(Exit::Done);
    };
    for (name, text) in reference::files() {
        let path = folder.join(name);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.map_err(|error| ClientError::Here(format!("{}: {error}", path.display())))?;
    }
    Ok(Exit::Done)
}
