//! `/sessions`, `/backends`, `/routes`, `/status`: the table and the workers' answers, put together.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::ask::{AskError, ask};
use super::health::{seconds_since, table};
use super::state::AdminState;
use super::view::{
    BackendView, BackendsView, DrainProgress, DrainView, HeldView, LinkView, ListenerView, RefusedView,
    RouteView, RoutesView, ServiceView, SessionsView, StatusView, UnfitView,
};
use crate::routing::document::ejection;
use crate::routing::fitness::Unfit;
use crate::routing::slips::Held;
use crate::routing::table::{OnCrash, Prefer};
use crate::routing::{Backend, BackendAddress, BackendId, DrainOrder, Refusal, Route, Service, Table};
use crate::source::Published;
use crate::source::etcd::RegistrarHandle;
use crate::worker::command::Command;

pub(super) async fn sessions(state: &AdminState, limit: usize) -> Result<SessionsView, AskError> {
    let answers = ask(state.running_workers(), |answer| Command::Sessions { limit, answer }).await?;
    let mut sessions: Vec<_> = answers.into_iter().flatten().collect();
    // Players before mirrors, should there not be room for all.
    sessions.sort_by_key(|session| session.mirror_of.is_some());
    sessions.truncate(limit);
    let players = sessions.iter().filter(|session| session.mirror_of.is_none()).count();
    let total = state.sum(|counters| &counters.sessions).max(players as u64);
    Ok(SessionsView { sessions, total })
}

pub(super) async fn backends(state: &AdminState) -> Result<BackendsView, AskError> {
    let links = ask(state.running_workers(), |answer| Command::Links { answer }).await?;
    let mut backends = join_links(&state.published().table, links.into_iter().flatten());
    for (id, unfit) in state.fitness.borrow().iter() {
        let name = id.to_string();
        if let Some(backend) = backends.iter_mut().find(|backend| backend.backend == name) {
            backend.unfit.push(unfit_view(unfit));
        }
    }
    Ok(BackendsView { backends })
}

pub(super) async fn status(state: &AdminState) -> Result<StatusView, AskError> {
    let BackendsView { backends } = backends(state).await?;
    let published = state.published();
    let phase = if state.stopping.load(Ordering::Acquire) {
        "stopping"
    } else if super::health::ready(state).ready {
        "serving"
    } else {
        "starting"
    };
    let listener = |info: &super::ListenerInfo| ListenerView {
        name: info.name.clone(),
        address: info.address.to_string(),
    };
    Ok(StatusView {
        proxy: state.proxy_id.clone(),
        version: state.version.to_owned(),
        state: phase.to_owned(),
        uptime_s: seconds_since(state.started_at),
        workers: state.workers.len() as u64,
        sessions: state.sum(|counters| &counters.sessions),
        parked: state.sum(|counters| &counters.parked),
        groups: state.sum(|counters| &counters.groups),
        group_members: state.sum(|counters| &counters.group_members),
        kept_bytes: state.sum(|counters| &counters.kept_bytes),
        listeners: state.listeners.iter().map(listener).collect(),
        table: table(state, &published),
        registration: state.registration.as_ref().map(RegistrarHandle::show),
        backends,
        refused: refused(&published),
        warnings: warnings(&published),
        held: held(&published.held),
    })
}

pub(super) fn routes(state: &AdminState) -> RoutesView {
    let published = state.published();
    let in_force = &published.table;
    let here = |route: &Route| state.listeners.iter().any(|listener| listener.name == *route.listener);
    let backends_of =
        |service: &Service| in_force.backends.keys().filter(|id| id.service == service.name).count();
    RoutesView {
        table: table(state, &published),
        routes: in_force.routes.values().map(|route| route_view(route, here(route))).collect(),
        services: in_force
            .services
            .values()
            .map(|service| service_view(service, backends_of(service)))
            .collect(),
        drains: in_force.drains.values().map(|order| drain_view(order)).collect(),
        refused: refused(&published),
        warnings: warnings(&published),
        held: held(&published.held),
    }
}

fn refused(published: &Published) -> Vec<RefusedView> {
    let view = |refusal: &Refusal| RefusedView {
        key: refusal.key.clone(),
        error: format!("{}: got {}, expected {}", refusal.field, refusal.value, refusal.expected),
        since: refusal.since,
        last_good: refusal.last_good,
    };
    published.refused.iter().map(view).collect()
}

/// What is held, as it is shown.
pub(super) fn held(held: &[Held]) -> Vec<HeldView> {
    const LISTED: usize = 100;
    let view = |held: &Held| HeldView {
        service: held.service.to_string(),
        since: held.since,
        since_ms: held.since_ms,
        why: held.why.clone(),
        keys: held.keys.iter().take(LISTED).map(ToString::to_string).collect(),
        keys_unlisted: held.keys.len().saturating_sub(LISTED) as u64,
    };
    held.iter().map(view).collect()
}

fn warnings(published: &Published) -> Vec<String> {
    published.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.text)).collect()
}

fn route_view(route: &Route, here: bool) -> RouteView {
    RouteView {
        name: route.name.to_string(),
        listener: route.listener.to_string(),
        here,
        service: route.service.to_string(),
        versions: route.versions.iter().map(|(version, share)| (version.to_string(), *share)).collect(),
        prefer: match route.prefer {
            Prefer::Local => "local",
            Prefer::Zone => "zone",
            Prefer::None => "none",
        }
        .to_owned(),
        sni: route.matches.sni.as_deref().map(str::to_owned),
        source: route.matches.source.map(|(address, prefix)| format!("{address}/{prefix}")),
    }
}

fn service_view(service: &Service, backends: usize) -> ServiceView {
    ServiceView {
        name: service.name.to_string(),
        recovery: service.recovery.name().to_owned(),
        on_crash: match service.on_crash {
            OnCrash::Fresh => "fresh",
            OnCrash::Close => "close",
        }
        .to_owned(),
        checkpoint_interval_ms: u64::try_from(service.limits.checkpoint_interval.as_millis())
            .unwrap_or(u64::MAX),
        max_journal_bytes: service.limits.max_journal_bytes,
        max_recoveries: service.limits.max_recoveries,
        recoveries_in_flight: service.limits.recoveries_in_flight,
        max_group_members: service.limits.max_group_members,
        backends: backends as u64,
    }
}

fn drain_view(order: &DrainOrder) -> DrainView {
    DrainView {
        backend: order.backend.to_string(),
        deadline_s: order.deadline.map(|deadline| deadline.as_secs()),
        reason: order.reason.clone(),
        instance: order.instance.map(|instance| instance.to_string()),
    }
}

/// The table's backends, and those whose key is gone while a worker still has a link; in the order of their names.
fn join_links(table: &Table, links: impl Iterator<Item = LinkView>) -> Vec<BackendView> {
    let mut by_backend: BTreeMap<String, Vec<LinkView>> = BTreeMap::new();
    for link in links {
        by_backend.entry(link.backend.clone()).or_default().push(link);
    }
    let documents: BTreeMap<String, (&BackendId, &Backend)> =
        table.backends.iter().map(|(id, backend)| (id.to_string(), (id, backend.as_ref()))).collect();
    for name in documents.keys() {
        by_backend.entry(name.clone()).or_default();
    }
    by_backend
        .into_iter()
        .map(|(name, links)| {
            let document = documents.get(&name);
            let ordered = document.is_some_and(|(id, _)| table.drains.contains_key(*id));
            backend_view(name, document.map(|(_, backend)| *backend), ordered, links)
        })
        .collect()
}

fn backend_view(
    name: String,
    document: Option<&Backend>,
    ordered: bool,
    links: Vec<LinkView>,
) -> BackendView {
    let first = |field: fn(&LinkView) -> &Option<String>| links.iter().find_map(|link| field(link).clone());
    let mut draining: Vec<String> = links.iter().flat_map(|link| link.draining.iter().cloned()).collect();
    // Only a worker knows whether a key that names an instance is about this run; without a link there is none.
    if ordered && links.is_empty() {
        draining.push("key".to_owned());
    }
    draining.sort();
    draining.dedup();
    let mut at_bound: Vec<String> = links.iter().filter_map(|link| link.at_bound.clone()).collect();
    at_bound.sort();
    at_bound.dedup();
    let capacity_told = links.iter().find_map(|link| link.capacity_told);
    BackendView {
        in_table: document.is_some(),
        address: document.map(|backend| match &backend.address {
            BackendAddress::Tcp(address) => address.to_string(),
            BackendAddress::Unix(path) => format!("unix:{}", path.display()),
        }),
        version: first(|link| &link.backend_version)
            .or_else(|| document.map(|backend| backend.version.to_string())),
        weight: document.map(|backend| backend.weight),
        zone: document.and_then(|backend| backend.zone.as_deref().map(str::to_owned)),
        link: link_state(&links).to_owned(),
        sessions: links.iter().map(|link| link.sessions).sum(),
        left: links.iter().map(|link| link.left).sum(),
        last_error: first(|link| &link.last_error),
        drain: join_drains(&links),
        attachments: links.iter().filter_map(|link| link.attachments).max(),
        capacity: document.and_then(|backend| backend.capacity).or(capacity_told),
        capacity_told,
        load_permille: links.iter().filter_map(|link| link.load_permille).max(),
        at_bound,
        backend: name,
        draining,
        unfit: Vec::new(),
        links,
    }
}

fn unfit_view(unfit: &Unfit) -> UnfitView {
    UnfitView {
        cause: unfit.cause.name().to_owned(),
        reason: unfit.reason.clone(),
        for_s: seconds_since(unfit.since),
        until: unfit.until.map(ejection::written),
    }
}

/// One drain over all workers: their figures together, and the liveliest state of any.
fn join_drains(links: &[LinkView]) -> Option<DrainProgress> {
    let joined = links.iter().filter_map(|link| link.drain.clone()).reduce(|a, b| {
        let liveliest = if a.state >= b.state { a.clone() } else { b.clone() };
        DrainProgress {
            left: a.left + b.left,
            in_flight: a.in_flight + b.in_flight,
            moved: a.moved + b.moved,
            parked: a.parked + b.parked,
            ended: a.ended + b.ended,
            thawed: a.thawed + b.thawed,
            homeless: a.homeless + b.homeless,
            running_ms: a.running_ms.max(b.running_ms),
            remaining_ms: a.remaining_ms.max(b.remaining_ms),
            ..liveliest
        }
    })?;
    Some(joined)
}

/// The best of the workers' links: one that is up shows that the backend lives.
fn link_state(links: &[LinkView]) -> &'static str {
    let any = |state: &str| links.iter().any(|link| link.link == state);
    match links {
        [] => "none",
        _ if any("up") => "up",
        _ if any("connecting") => "connecting",
        _ => "down",
    }
}
