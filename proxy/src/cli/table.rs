//! `table`: the documents in force and those that were, as an operator reads, compares and writes them.

mod reference;
pub(super) mod write;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use serde::Serialize;

use super::Exit;
use super::client::{Client, ClientError};
use super::output::{self, Align, Table as Columns};
use crate::admin::view::{DocumentView, DocumentsView, TablesView};
use crate::routing::diff::difference;
use crate::routing::document::Key;
use crate::routing::document::schema::Kind;
use crate::routing::{Documents, LastGood, Table, compile};
use crate::source::files::scan;

/// How often `watch` looks.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Read, compare and write the routing documents
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// List the documents in force, with their revisions
    #[command(after_help = "\
Examples:
  holdfast table list
  holdfast table list backends/arena
  holdfast table list --table 41    as it was then")]
    List {
        /// Only keys that begin so
        #[arg(default_value = "", hide_default_value = true, value_name = "PREFIX")]
        prefix: String,
        /// A table of the history instead of the one in force
        #[arg(long, value_name = "N")]
        table: Option<u64>,
    },
    /// Print one document as it was written
    #[command(after_help = "\
Examples:
  holdfast table get routes/public
  holdfast table get routes/public --table 41")]
    Get {
        #[arg(value_name = "KEY")]
        key: String,
        /// A table of the history instead of the one in force
        #[arg(long, value_name = "N")]
        table: Option<u64>,
    },
    /// Write the documents to a folder that mirrors the keys
    #[command(after_help = "\
The folder must be new or empty. It can be checked (`holdfast check DIR`), kept
in git, and served from as [files]. Drains, ejections, rollouts, accepts and
what is registered under a lease are left out.

Examples:
  holdfast table export routing/
  holdfast table export before/ --table 41")]
    Export {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// A table of the history instead of the one in force
        #[arg(long, value_name = "N")]
        table: Option<u64>,
        /// Also orders, and what is registered
        #[arg(long)]
        all: bool,
    },
    /// List the last tables that were in force
    #[command(after_help = "\
This proxy keeps a table on disk for each change, at most one a second, the last
hundred: longer than etcd's own history lasts. Numbers count up, whatever the
revisions do.

Examples:
  holdfast table history
  holdfast table diff 41                    from table 41 to now")]
    History,
    /// Show what differs between two tables, a line each
    #[command(after_help = "\
A table is a number of `table history`, `now`, or a folder of documents.

Examples:
  holdfast table diff 41                    from table 41 to now
  holdfast table diff 41 42
  holdfast table diff now routing/          what a folder would change")]
    Diff {
        #[arg(value_name = "A")]
        from: Which,
        #[arg(value_name = "B", default_value = "now")]
        to: Which,
    },
    /// Print each change as it comes into force
    Watch,
    /// Print the JSON Schema of documents
    #[command(after_help = "\
For editors and for checks in a pipeline; asks no proxy. Without a kind, an
object with the schemas of all.

Examples:
  holdfast table schema routes > routes.schema.json
  holdfast table schema | jq keys")]
    Schema {
        /// services, backends, routes, ...
        #[arg(value_name = "KIND", value_parser = reference::kind)]
        kind: Option<&'static Kind>,
    },
    /// Print the page that explains every key and field
    #[command(after_help = "\
Markdown, of this version; asks no proxy.

Examples:
  holdfast table reference | less
  holdfast table reference --write docs     with the schemas beside it")]
    Reference {
        /// Write it and the schemas to this folder
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
    #[command(flatten)]
    Write(write::WriteCommand),
}

/// A table to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Now,
    Number(u64),
    Folder(PathBuf),
}

impl FromStr for Which {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text, text.parse()) {
            ("now", _) => Self::Now,
            (_, Ok(number)) => Self::Number(number),
            _ => Self::Folder(text.into()),
        })
    }
}

#[derive(Debug, Serialize)]
struct DiffView {
    changes: Vec<String>,
}

pub(super) async fn execute(client: &Client, command: TableCommand, json: bool) -> Result<Exit, ClientError> {
    match command {
        TableCommand::List { prefix, table } => {
            let mut view = documents(client, table).await?;
            view.documents.retain(|document| document.key.starts_with(&prefix));
            print(json, &view, || render_list(&view, output::columns()))?;
        }
        TableCommand::Get { key, table } => {
            let view = documents(client, table).await?;
            let Some(found) = view.documents.iter().find(|document| document.key == key) else {
                let like: Vec<_> = view.documents.iter().map(|document| &*document.key).collect();
                return Err(ClientError::Here(format!("there is no {key}; {}", nearest(&key, &like))));
            };
            print(json, found, || format!("{}\n", found.text.trim_end()))?;
        }
        TableCommand::Export { folder, table, all } => {
            let mut view = documents(client, table).await?;
            view.documents.retain(|document| all || is_configuration(document));
            export(&folder, &view.documents)
                .map_err(|error| ClientError::Here(format!("{}: {error}", folder.display())))?;
            let count = output::count(view.documents.len() as u64, "document");
            print(json, &view, || {
                format!("{count} of revision {} in {}\n", view.revision, folder.display())
            })?;
        }
        TableCommand::History => {
            let view: TablesView = client.get("/tables").await?;
            print(json, &view, || render_history(&view, now_ms(), output::columns()))?;
        }
        TableCommand::Diff { from, to } => {
            let (old, new) = (table(client, from).await?, table(client, to).await?);
            let changes: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
            let view = DiffView { changes };
            print(json, &view, || match &*view.changes {
                [] => "no difference\n".to_owned(),
                changes => changes.iter().map(|change| format!("{change}\n")).collect(),
            })?;
        }
        TableCommand::Watch => watch(client, json).await?,
        TableCommand::Schema { kind } => return reference::schema(kind),
        TableCommand::Reference { write } => return reference::reference(write.as_deref()),
        TableCommand::Write(command) => return write::execute(client, command, json).await,
    }
    Ok(Exit::Done)
}

fn print(json: bool, view: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), ClientError> {
    if json {
        output::print_json(view)?
    } else {
        output::print(&text())?
    }
    Ok(())
}

async fn documents(client: &Client, number: Option<u64>) -> Result<DocumentsView, ClientError> {
    let query = number.map_or_else(String::new, |number| format!("?table={number}"));
    client.get(&format!("/documents{query}")).await
}

async fn table(client: &Client, which: Which) -> Result<Table, ClientError> {
    let view = match which {
        Which::Now => documents(client, None).await?,
        Which::Number(number) => documents(client, Some(number)).await?,
        Which::Folder(folder) => return read_folder(&folder),
    };
    Ok(compiled(&view.documents))
}

/// What a proxy has in force, or had. Of what isn't right by itself (a route whose last good version is in force, its
/// service gone) the rest is compared all the same.
fn compiled(documents: &[DocumentView]) -> Table {
    let mut set = Documents::default();
    for document in documents {
        set.put(&document.key, document.text.as_bytes(), document.revision);
    }
    compile(&set, &LastGood::new(), 0).table
}

fn read_folder(folder: &Path) -> Result<Table, ClientError> {
    let found = scan(folder).map_err(|error| ClientError::Here(format!("{}: {error}", folder.display())))?;
    let mut set = Documents::default();
    found.iter().for_each(|(key, content)| content.put(&mut set, key, 1));
    whole(&set)
}

/// Their table, if each of them holds.
fn whole(documents: &Documents) -> Result<Table, ClientError> {
    let compiled = compile(documents, &LastGood::new(), 0);
    if compiled.refused.is_empty() {
        return Ok(compiled.table);
    }
    let lines: Vec<_> = compiled.refused.iter().map(ToString::to_string).collect();
    Err(ClientError::Here(lines.join("\n")))
}

/// Somebody's to write and to keep, not ordered for a time, nor registered.
fn is_configuration(document: &DocumentView) -> bool {
    !document.leased && Key::parse(&document.key).is_ok_and(|key| !key.is_order())
}

fn export(folder: &Path, documents: &[DocumentView]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(std::io::Error::other("not empty, expected a new or empty folder"));
    }
    for document in documents {
        let path = folder.join(format!("{}.json", document.key));
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, &document.text)?;
    }
    Ok(())
}

async fn watch(client: &Client, json: bool) -> Result<(), ClientError> {
    let mut before = documents(client, None).await?;
    let mut old = compiled(&before.documents);
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let view = documents(client, None).await?;
        if view.applied_ms == before.applied_ms && view.revision == before.revision {
            continue;
        }
        let new = compiled(&view.documents);
        for change in difference(&old, &new) {
            let line =
                Line { revision: view.revision, applied_ms: view.applied_ms, change: change.to_string() };
            print(json, &line, || format!("revision {}: {change}\n", view.revision))?;
        }
        (before, old) = (view, new);
    }
}

#[derive(Debug, Serialize)]
struct Line {
    revision: u64,
    applied_ms: u64,
    change: String,
}

fn render_list(view: &DocumentsView, columns: Option<usize>) -> String {
    let mut table = Columns::new([("KEY", Align::Left), ("REVISION", Align::Right)]);
    for document in &view.documents {
        table.row([document.key.clone(), document.revision.to_string()]);
    }
    table.render(columns)
}

fn render_history(view: &TablesView, now_ms: u64, columns: Option<usize>) -> String {
    if view.tables.is_empty() {
        return "no table yet\n".to_owned();
    }
    let mut table =
        Columns::new([("TABLE", Align::Right), ("REVISION", Align::Right), ("IN FORCE SINCE", Align::Left)]);
    for past in &view.tables {
        let ago = output::seconds(now_ms.saturating_sub(past.applied_ms) / 1000);
        table.row([past.number.to_string(), past.revision.to_string(), format!("{ago} ago")]);
    }
    table.render(columns)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What may have been meant.
fn nearest(key: &str, keys: &[&str]) -> String {
    let kind = key.split('/').next().unwrap_or_default();
    let of_kind: Vec<_> =
        keys.iter().filter(|other| other.split('/').next() == Some(kind)).copied().collect();
    match of_kind.len() {
        0 => "`holdfast table list` has all keys".to_owned(),
        1..=10 => format!("of {kind} there are {}", of_kind.join(", ")),
        more => format!("`holdfast table list {kind}/` has {more}"),
    }
}

#[cfg(test)]
mod tests;
