//! One service before and after a change: what is in force of it, and what its source has now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Verdict;
use crate::routing::document::Document;
use crate::routing::documents::{Documents, Good, LastGood, below};
use crate::routing::table::{Backend, BackendId, Route};

/// Of one service: the documents in force, by key.
pub struct Scene<'a> {
    documents: &'a Documents,
    in_force: &'a LastGood,
    service: Option<(&'a Arc<str>, &'a Good)>,
    /// Those that are drained aren't among them.
    backends: BTreeMap<&'a Arc<str>, (&'a Good, &'a Backend)>,
    routes: BTreeMap<&'a Arc<str>, (&'a Good, &'a Route)>,
    /// Backends that the source has: whether in force or new, but none that is drained.
    listed: BTreeSet<&'a Arc<str>>,
    /// Any of these takes new sessions.
    takes_sessions: bool,
}

/// The scenes of all services that something is in force of.
pub fn of_services<'a>(documents: &'a Documents, in_force: &'a LastGood) -> BTreeMap<Arc<str>, Scene<'a>> {
    let mut scenes: BTreeMap<Arc<str>, Scene<'a>> = BTreeMap::new();
    let drained = drained(documents, in_force);
    let empty = || Scene::empty(documents, in_force);
    for (key, good) in in_force {
        match &good.document {
            Document::Service(service) => {
                scenes.entry(service.name.clone()).or_insert_with(empty).service = Some((key, good));
            }
            Document::Backend(backend) if !drained.contains(&backend.id) => {
                let scene = scenes.entry(backend.id.service.clone()).or_insert_with(empty);
                scene.backends.insert(key, (good, backend));
            }
            Document::Route(route) => {
                let scene = scenes.entry(route.service.clone()).or_insert_with(empty);
                scene.routes.insert(key, (good, route));
            }
            _ => {}
        }
    }
    for (key, _) in documents.below("backends/") {
        if let Some(backend) = backend_now(documents, in_force, key)
            && !drained.contains(&backend.id)
            && let Some(scene) = scenes.get_mut(&backend.id.service)
        {
            scene.listed.insert(key);
            scene.takes_sessions |= backend.weight > 0;
        }
    }
    scenes
}

/// Those that somebody has ordered to be drained, before this change or with it.
fn drained<'a>(documents: &'a Documents, in_force: &'a LastGood) -> BTreeSet<&'a BackendId> {
    let ordered = |good: &'a Good| match &good.document {
        Document::Drain(order) => Some(&order.backend),
        _ => None,
    };
    let before = below(in_force, "drains/").map(|(_, good)| good);
    let now = documents.below("drains/").filter_map(|(_, entry)| entry.parsed.as_ref().ok());
    before.chain(now).filter_map(ordered).collect()
}

/// The version of a backend that the source's documents would put in force.
fn backend_now<'a>(documents: &'a Documents, in_force: &'a LastGood, key: &str) -> Option<&'a Backend> {
    match good_now(documents, in_force, key).map(|good| &good.document) {
        Some(Document::Backend(backend)) => Some(backend),
        _ => None,
    }
}

fn route_now<'a>(documents: &'a Documents, in_force: &'a LastGood, key: &str) -> Option<&'a Route> {
    match good_now(documents, in_force, key).map(|good| &good.document) {
        Some(Document::Route(route)) => Some(route),
        _ => None,
    }
}

/// A bad version leaves its last good one in force.
fn good_now<'a>(documents: &'a Documents, in_force: &'a LastGood, key: &str) -> Option<&'a Good> {
    let entry = documents.get(key)?;
    entry.parsed.as_ref().ok().or_else(|| in_force.get(key))
}

impl<'a> Scene<'a> {
    fn empty(documents: &'a Documents, in_force: &'a LastGood) -> Self {
        Self {
            documents,
            in_force,
            service: None,
            backends: BTreeMap::new(),
            routes: BTreeMap::new(),
            listed: BTreeSet::new(),
            takes_sessions: false,
        }
    }

    /// Without what may go out of force as `accepted` says: key, revision in force, bytes that come instead.
    pub fn without(&self, accepted: impl Fn(&str, u64, Option<&[u8]>) -> bool) -> Self {
        let stays = |key: &Arc<str>, good: &Good| !accepted(key, good.revision, self.source(key));
        let backends = self.backends.iter().filter(|(key, (good, _))| stays(key, good));
        let routes = self.routes.iter().filter(|(key, (good, _))| stays(key, good));
        Self {
            service: self.service.filter(|(key, good)| stays(key, good)),
            backends: backends.map(|(key, found)| (*key, *found)).collect(),
            routes: routes.map(|(key, found)| (*key, *found)).collect(),
            listed: self.listed.clone(),
            ..*self
        }
    }

    pub fn is_there(&self, key: &str) -> bool {
        self.documents.get(key).is_some()
    }

    /// Whether the backend counts: in force, not drained, not let go.
    pub fn has(&self, key: &str) -> bool {
        let key: Arc<str> = key.into();
        self.backends.contains_key(&key)
    }

    pub fn backends(&self) -> impl Iterator<Item = &'a Arc<str>> {
        self.backends.keys().copied()
    }

    /// Those of the source.
    pub fn listed(&self) -> impl Iterator<Item = &'a Arc<str>> {
        self.listed.iter().copied()
    }

    /// Backends in force that the source hasn't any more.
    pub fn missing(&self) -> Vec<&'a Arc<str>> {
        self.backends().filter(|key| !self.is_there(key)).collect()
    }

    /// Of the version in force.
    pub fn revision(&self, key: &str) -> u64 {
        self.in_force.get(key).map_or(0, |good| good.revision)
    }

    /// What the source has under a key.
    pub fn source(&self, key: &str) -> Option<&'a [u8]> {
        self.documents.get(key)?.source.as_ref().ok().map(|raw| &**raw)
    }

    /// All but the number of backends.
    pub fn judge_rest(&self, service: &Arc<str>, verdict: &mut Verdict) {
        let had = |(_, backend): &(&Good, &Backend)| backend.weight > 0;
        if !self.takes_sessions && self.backends.values().any(had) {
            let taking = self.backends.iter().filter(|(_, found)| had(found)).map(|(key, _)| *key);
            verdict.hold(taking, "no backend with a weight above 0 would be left".to_owned());
        }
        if let Some((key, _)) =
            self.service.filter(|(key, _)| !self.is_there(key) && !self.backends.is_empty())
        {
            let count = self.backends.len();
            verdict.hold([key], format!("{key} would be gone, with {} in force", counted(count)));
        }
        if self.loses_its_routes(service) && !self.backends.is_empty() {
            let routes = self.routes.keys().copied().filter(|key| !self.is_there(key));
            verdict.hold(routes, format!("no route would lead to {service}"));
        }
        for (key, (_, old)) in &self.routes {
            let Some(new) = route_now(self.documents, self.in_force, key) else { continue };
            if new != *old && self.leads_somewhere(old) && !self.leads_somewhere(new) {
                let versions: Vec<_> = new.versions.keys().map(|version| &**version).collect();
                let text = match &*versions {
                    [] => format!("{key}: no backend of {} takes sessions", new.service),
                    versions => {
                        format!(
                            "{key}: no backend of {} takes sessions of {}",
                            new.service,
                            versions.join(", ")
                        )
                    }
                };
                verdict.hold([*key], text);
            }
        }
    }

    /// All routes are gone that led here, and none has come.
    fn loses_its_routes(&self, service: &Arc<str>) -> bool {
        !self.routes.is_empty()
            && self.routes.keys().all(|key| !self.is_there(key))
            && !self.documents.below("routes/").any(|(key, _)| {
                route_now(self.documents, self.in_force, key).is_some_and(|route| route.service == *service)
            })
    }

    /// Some backend takes sessions of this route, in force or in the source.
    fn leads_somewhere(&self, route: &Route) -> bool {
        let prefix = format!("backends/{}/", route.service);
        let takes = |backend: &Backend| {
            let share = route.versions.get(&backend.version).copied();
            backend.weight > 0 && (route.versions.is_empty() || share > Some(0))
        };
        let mut in_force = below(self.in_force, &prefix).filter_map(|(_, good)| match &good.document {
            Document::Backend(backend) => Some(&**backend),
            _ => None,
        });
        in_force.any(takes)
            || self
                .documents
                .below(&prefix)
                .filter_map(|(key, _)| backend_now(self.documents, self.in_force, key))
                .any(takes)
    }
}

fn counted(backends: usize) -> String {
    format!("{backends} backend{}", if backends == 1 { "" } else { "s" })
}
