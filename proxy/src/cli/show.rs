//! `status` and `sessions`.

use super::client::{Client, ClientError};
use super::output::{self, Align, Table};
use super::registration::registration_line;
use super::{Exit, output::count};
use crate::admin::view::{
    BackendView, DrainProgress, HeldView, RefusedView, SessionsView, StatusView, TableView, UnfitView,
};
use crate::drain::progress::State;
use crate::worker::command::SessionView;

pub(super) async fn status(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let view: StatusView = client.get("/status").await?;
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&render_status(&view, output::columns()))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn sessions(client: &Client, limit: u16, json: bool) -> Result<Exit, ClientError> {
    let view: SessionsView = client.get(&format!("/sessions?limit={limit}")).await?;
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&render_sessions(&view, output::columns()))?;
    }
    Ok(Exit::Done)
}

pub(super) fn render_status(view: &StatusView, columns: Option<usize>) -> String {
    let mut text = format!(
        "proxy {} {}, holdfast {}, up {}, {}\n",
        view.proxy,
        view.state,
        view.version,
        output::seconds(view.uptime_s),
        count(view.workers, "worker"),
    );
    text.push_str(&format!(
        "sessions   {} open, {} parked, {} kept\n",
        view.sessions,
        view.parked,
        output::bytes(view.kept_bytes)
    ));
    if view.groups > 0 {
        text.push_str(&format!(
            "groups     {}, {} in them\n",
            view.groups,
            count(view.group_members, "session")
        ));
    }
    text.push_str(&format!("table      {}\n", table_line(&view.table)));
    if let Some(registration) = &view.registration {
        text.push_str(&format!("registered {}\n", registration_line(registration)));
    }
    for listener in &view.listeners {
        text.push_str(&format!("listener   {} on {}\n", listener.name, listener.address));
    }
    for RefusedView { key, error, last_good, .. } in &view.refused {
        let instead = if *last_good { "; its last good version holds" } else { "; nothing stands for it" };
        text.push_str(&format!("refused    {key}: {error}{instead}\n"));
    }
    for HeldView { service, why, .. } in &view.held {
        let why = why.join("; ");
        text.push_str(&format!("HELD       {service}: {why} (holdfast table held)\n"));
    }
    for warning in &view.warnings {
        text.push_str(&format!("warning    {warning}\n"));
    }
    for backend in &view.backends {
        if let Some(drain) = &backend.drain {
            text.push_str(&render_drain(backend, drain));
        }
    }
    text.push('\n');
    text.push_str(&render_backends(&view.backends, columns));
    text
}

/// A drain in two or three lines: what it is for, how far it is, what holds it up.
fn render_drain(backend: &BackendView, drain: &DrainProgress) -> String {
    let why = if drain.reason.is_empty() { String::new() } else { format!(", {:?}", drain.reason) };
    let mut text = format!(
        "drain      {} ({}{why}): {}\n",
        backend.backend,
        backend.draining.join(", "),
        drain.state.name()
    );
    let mut figures = vec![format!("{} left", drain.left), format!("{} in flight", drain.in_flight)];
    let more = [
        (drain.moved, "moved"),
        (drain.parked, "parked"),
        (drain.ended, "ended"),
        (drain.thawed, "thawed and tried again"),
    ];
    figures.extend(
        more.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")),
    );
    let (running, remaining) = (drain.running_ms / 1000, drain.remaining_ms.div_ceil(1000));
    let time = match drain.state {
        State::Drained => String::new(),
        _ if remaining == 0 => "; its deadline is over, what is left stays".to_owned(),
        _ => format!("; {} so far, {} to the deadline", output::seconds(running), output::seconds(remaining)),
    };
    text.push_str(&format!("           {}{time}\n", figures.join(", ")));
    match (&drain.waits_for, drain.state) {
        (_, State::Stuck) => {
            text.push_str("           NOBODY CAN TAKE THEM: no other backend takes these sessions now\n");
        }
        (Some(what), _) => text.push_str(&format!("           waits for {what}\n")),
        (None, _) => {}
    }
    text
}

fn table_line(table: &TableView) -> String {
    let source = &table.source;
    let contact = match (table.connected, source.as_str()) {
        (true, "files") => "watched".to_owned(),
        (true, _) => "connected".to_owned(),
        (false, _) => {
            format!("NOT CONNECTED for {}; serving on from this table", output::seconds(table.silent_s))
        }
    };
    let in_force = output::seconds(table.in_force_s);
    let mut line = match table.origin.as_str() {
        "none" => format!("none yet from {source}, {contact}"),
        "disk" => {
            format!("revision {} from disk, in force for {in_force}, {source} {contact}", table.revision)
        }
        _ => format!("revision {} from {source}, in force for {in_force}, {contact}", table.revision),
    };
    if let Some(error) = &table.source_error {
        line.push_str(&format!("\n           {error}"));
    }
    line
}

fn render_backends(backends: &[BackendView], columns: Option<usize>) -> String {
    if backends.is_empty() {
        return "no backends: none are in the table\n".to_owned();
    }
    let mut table = Table::new([
        ("BACKEND", Align::Left),
        ("VERSION", Align::Left),
        ("WEIGHT", Align::Right),
        ("LINK", Align::Left),
        ("SESSIONS", Align::Right),
        ("STATE", Align::Left),
    ]);
    for backend in backends {
        table.row([
            backend.backend.clone(),
            backend.version.clone().unwrap_or_else(|| "-".to_owned()),
            backend.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string()),
            backend.link.clone(),
            backend.sessions.to_string(),
            backend_state(backend),
        ]);
    }
    table.render(columns)
}

fn backend_state(backend: &BackendView) -> String {
    let mut parts = Vec::new();
    if !backend.draining.is_empty() {
        parts.push(format!("draining ({}), {} left", backend.draining.join(", "), backend.left));
    }
    for UnfitView { cause, reason, until, .. } in &backend.unfit {
        let until = until.as_ref().map_or_else(String::new, |until| format!(", until {until}"));
        parts.push(format!("unfit ({cause}): {reason}{until}"));
    }
    if !backend.at_bound.is_empty() {
        parts.push(format!("full ({})", backend.at_bound.join(", ")));
    }
    if let Some(load) = backend.load_permille {
        parts.push(format!("load {}.{} %", load / 10, load % 10));
    }
    if !backend.in_table {
        parts.push("key gone".to_owned());
    }
    if backend.link != "up"
        && let Some(error) = &backend.last_error
    {
        parts.push(error.clone());
    }
    parts.join("; ")
}

/// Of who is in a group: the group's, and which it is.
fn phase(session: &SessionView) -> String {
    let with = |what: &str, id: &str| {
        format!("{}, {what} {}", session.phase, id.chars().take(8).collect::<String>())
    };
    match (&session.group, &session.mirror_of) {
        (Some(group), _) => with("group", group),
        (None, Some(player)) => with("mirror of", player),
        (None, None) => session.phase.clone(),
    }
}

pub(super) fn render_sessions(view: &SessionsView, columns: Option<usize>) -> String {
    if view.sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new([
        ("SESSION", Align::Left),
        ("CLIENT", Align::Left),
        ("BACKEND", Align::Left),
        ("PHASE", Align::Left),
        ("KEPT", Align::Right),
        ("AGE", Align::Right),
    ]);
    for session in &view.sessions {
        table.row([
            session.id.chars().take(8).collect(),
            session.client.clone(),
            session.backend.clone().unwrap_or_else(|| format!("({})", session.service)),
            phase(session),
            output::bytes(session.kept_bytes),
            output::seconds(session.age_s),
        ]);
    }
    let mut text = table.render(columns);
    let shown = view.sessions.iter().filter(|session| session.mirror_of.is_none()).count() as u64;
    if shown < view.total {
        text.push_str(&format!("{shown} of {} sessions; --limit shows more\n", view.total));
    }
    text
}
