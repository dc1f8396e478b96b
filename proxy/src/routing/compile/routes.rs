//! Which version of each route is in force. Routes are judged by their service and against each other.
//!
//! Two routes that match the same clients are a tie. The one that is in force stays, whatever is written beside it
//! (invariant 7); between newcomers the older revision stays, then the smaller key.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Compiled;
use crate::config::FieldError;
use crate::routing::document::Document;
use crate::routing::documents::{Documents, Good, LastGood};
use crate::routing::table::{Route, RouteMatch, Table};

pub const PREFIX: &str = "routes/";

/// The place that a route takes: no two may have the same.
type Place<'a> = (&'a str, &'a RouteMatch);

struct Contender<'a> {
    key: &'a Arc<str>,
    revision: u64,
    /// The version in the source, if it is right by itself.
    current: Option<&'a Good>,
    last_good: Option<&'a Good>,
    /// Why the version in the source is not in force.
    fault: Option<FieldError>,
    choice: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Current,
    LastGood,
    Out,
}

pub fn settle(compiled: &mut Compiled, documents: &Documents, last_good: &LastGood) {
    let mut contenders: Vec<_> = documents
        .iter()
        .filter(|(key, _)| key.starts_with(PREFIX))
        .map(|(key, entry)| Contender {
            key,
            revision: entry.revision,
            current: entry.parsed.as_ref().ok(),
            last_good: last_good.get(key),
            fault: entry.parsed.as_ref().err().cloned(),
            choice: Choice::Current,
        })
        .collect();
    for contender in &mut contenders {
        contender.judge_alone(&compiled.table);
    }
    // Each round takes at least one version out of the race, and each route has two.
    while settle_ties(&mut contenders, &compiled.table) {}
    for contender in &contenders {
        contender.report(compiled);
    }
}

/// Gives each place to the first in line; the others fall back. Says whether that must be looked at once more.
fn settle_ties(contenders: &mut [Contender<'_>], table: &Table) -> bool {
    contenders.sort_by_key(|contender| (contender.rank(), contender.revision, contender.key.clone()));
    let mut taken: BTreeMap<Place<'_>, &Arc<str>> = BTreeMap::new();
    let mut again = false;
    for contender in contenders {
        let Some(place) = contender.route().map(place) else { continue };
        if let Some(&holder) = taken.get(&place) {
            let expected =
                format!("a listener, sni and source that {holder} does not have already: this is a tie");
            contender.fall_back(FieldError::new("listener", describe(place), expected), table);
            again |= contender.choice == Choice::LastGood;
        } else {
            taken.insert(place, contender.key);
        }
    }
    again
}

impl<'a> Contender<'a> {
    fn chosen(&self) -> Option<&'a Good> {
        match self.choice {
            Choice::Current => self.current,
            Choice::LastGood => self.last_good,
            Choice::Out => None,
        }
    }

    fn route(&self) -> Option<&'a Route> {
        self.chosen().and_then(route_of)
    }

    /// Who keeps a place: what is in force already comes first.
    fn rank(&self) -> u8 {
        match (self.choice, self.last_good.and_then(route_of), self.route()) {
            (Choice::LastGood, ..) => 0,
            (_, Some(old), Some(new)) if place(old) == place(new) => 0,
            (_, Some(_), _) => 1,
            (_, None, _) => 2,
        }
    }

    /// The checks that need no other route.
    fn judge_alone(&mut self, table: &Table) {
        let fault = match (self.fault.take(), self.route()) {
            (Some(fault), _) => Some(fault),
            (None, Some(route)) => unknown_service(route, table),
            (None, None) => None,
        };
        if let Some(fault) = fault {
            self.fall_back(fault, table);
        }
    }

    /// Leaves the chosen version for the next best.
    fn fall_back(&mut self, fault: FieldError, table: &Table) {
        let old_will_do = self.last_good.is_some_and(|old| {
            Some(old) != self.current
                && route_of(old).is_some_and(|route| unknown_service(route, table).is_none())
        });
        self.choice = match self.choice {
            Choice::Current if old_will_do => Choice::LastGood,
            _ => Choice::Out,
        };
        self.fault.get_or_insert(fault);
    }

    fn report(&self, compiled: &mut Compiled) {
        if let Some(fault) = &self.fault {
            compiled.refuse(self.key, fault, self.revision, self.choice == Choice::LastGood);
        }
        match (self.chosen(), self.last_good) {
            (Some(good), _) => compiled.take(self.key, good),
            // Not in force now; it may be again when its service is back.
            (None, Some(old)) => {
                compiled.last_good.insert(self.key.clone(), old.clone());
            }
            (None, None) => {}
        }
    }
}

fn route_of(good: &Good) -> Option<&Route> {
    match &good.document {
        Document::Route(route) => Some(route),
        _ => None,
    }
}

fn unknown_service(route: &Route, table: &Table) -> Option<FieldError> {
    let known = table.services.contains_key(&*route.service);
    (!known)
        .then(|| FieldError::new("service", &route.service, "a service that has a valid services/ document"))
}

fn place(route: &Route) -> Place<'_> {
    (&route.listener, &route.matches)
}

fn describe((listener, matches): Place<'_>) -> String {
    let sni = matches.sni.as_deref().map(|sni| format!(", sni {sni}")).unwrap_or_default();
    let source = matches.source.map(|(base, length)| format!(", source {base}/{length}")).unwrap_or_default();
    format!("listener {listener}{sni}{source}")
}
