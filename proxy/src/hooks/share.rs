//! How many backends of a service alerts may take out of service: an alert that fires for all of them at once must not
//! leave the players without any.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rule::Known;
use crate::rollout::stage::Shares;
use crate::rollout::{Stages, stages};
use crate::routing::{BackendId, Table};

/// The backends of one service, and how many of them may be out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub max_percent: u32,
    pub backends: BTreeSet<Arc<str>>,
    /// Those that take no players even without an order: unfit, or of weight 0.
    pub out: BTreeSet<Arc<str>>,
    /// Those to whose version no route sends anybody, as one that is deployed ahead of its turn.
    pub idle: BTreeSet<Arc<str>>,
}

impl Share {
    #[must_use]
    pub fn of(service: &Arc<str>, max_percent: u32, known: &Known<'_>) -> Self {
        let first = BackendId { service: Arc::clone(service), name: "".into() };
        let all = || known.table.backends.range(first.clone()..).take_while(|(id, _)| id.service == *service);
        let stages = stages(known.table, known.rollouts);
        let out = all().filter(|(id, backend)| backend.weight == 0 || !known.fitness.is_fit(id));
        let mut idle_versions: BTreeSet<_> = all().map(|(_, backend)| &backend.version).collect();
        idle_versions.retain(|version| is_idle(service, version, known.table, &stages));
        let idle = all().filter(|(_, backend)| idle_versions.contains(&backend.version));
        Self {
            max_percent,
            backends: all().map(|(id, _)| Arc::clone(&id.name)).collect(),
            out: out.map(|(id, _)| Arc::clone(&id.name)).collect(),
            idle: idle.map(|(id, _)| Arc::clone(&id.name)).collect(),
        }
    }

    /// Whether `name` may be taken out beside those that orders keep out already.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn allows(&self, name: &str, ordered: &BTreeSet<String>) -> Result<(), String> {
        self.allows_of(&self.backends, "backends", name, ordered)?;
        if self.idle.is_empty() || self.idle.contains(name) {
            return Ok(());
        }
        // Those that no route gives anybody don't stand in for those that have the players.
        let busy = self.backends.difference(&self.idle).cloned().collect();
        self.allows_of(&busy, "backends with a share", name, ordered)
    }

    fn allows_of(
        &self,
        backends: &BTreeSet<Arc<str>>,
        called: &str,
        name: &str,
        ordered: &BTreeSet<String>,
    ) -> Result<(), String> {
        let is_out =
            |other: &&Arc<str>| ***other == *name || self.out.contains(*other) || ordered.contains(&***other);
        let (out, all) = (backends.iter().filter(is_out).count(), backends.len());
        if out >= all {
            return Err(format!("none of {all} {called} would be left in service"));
        }
        if out * 100 > self.max_percent as usize * all {
            let percent = self.max_percent;
            return Err(format!("{out} of {all} {called} would be out of service, more than {percent} %"));
        }
        Ok(())
    }
}

/// The service has routes, and none of them gives that version anything; or it is being given up.
fn is_idle(service: &str, version: &str, table: &Table, stages: &Stages) -> bool {
    let stage = stages.get(service);
    if stage.is_some_and(|stage| stage.back.is_some() && *stage.to == *version) {
        return true;
    }
    let mut routes = table.routes.values().filter(|route| *route.service == *service).peekable();
    let gives_none =
        |versions: &Shares| !versions.is_empty() && versions.get(version).is_none_or(|&share| share == 0);
    routes.peek().is_some()
        && routes.all(|route| {
            let staged = stage.and_then(|stage| stage.shares(&route.versions));
            gives_none(staged.as_ref().unwrap_or(&route.versions))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Progress, Progresses, State};
    use crate::routing::{Documents, Fitness, LastGood, compile};

    fn allows(all: &[&str], out: &[&str], ordered: &[&str], max_percent: u32) -> Result<(), String> {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let share = Share { max_percent, backends: names(all), out: names(out), idle: BTreeSet::new() };
        share.allows("a", &ordered.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_share_holds_from_its_percentage_on() {
        assert_eq!(allows(&["a", "b"], &[], &[], 50), Ok(()));
        assert_eq!(allows(&["a", "b", "c"], &[], &[], 50), Ok(()));
        let refused = allows(&["a", "b", "c"], &[], &["b"], 50).unwrap_err();
        assert_eq!(refused, "2 of 3 backends would be out of service, more than 50 %");
        assert_eq!(allows(&["a", "b", "c"], &[], &["b"], 67), Ok(()));
        assert!(allows(&["a", "b", "c"], &["c"], &["b"], 100).unwrap_err().starts_with("none of 3"));
    }

    #[test]
    fn the_last_backend_stays_whatever_the_share() {
        assert!(allows(&["a"], &[], &[], 100).is_err());
        assert!(allows(&["a", "b"], &["b"], &[], 100).is_err(), "b is unfit");
        assert_eq!(allows(&["a", "b"], &["a"], &[], 50), Ok(()), "it counts once");
        assert_eq!(allows(&["a", "b"], &[], &["gone"], 50), Ok(()), "an order for one that is gone");
    }

    /// Two backends of 1.4, two of 1.5, and these routes and rollouts.
    fn table(more: &[(&str, &str)]) -> Table {
        let mut documents = Documents::default();
        let backends = [("a", "1.4"), ("b", "1.4"), ("c", "1.5"), ("d", "1.5")];
        documents.put("services/arena", br#"{"protocol": "link", "framing": {"kind": "length"}}"#, 1);
        for (port, (name, version)) in (1..).zip(backends) {
            let text = format!(r#"{{"address": "127.0.0.1:{port}", "version": "{version}"}}"#);
            documents.put(&format!("backends/arena/{name}"), text.as_bytes(), 1);
        }
        more.iter().for_each(|(key, text)| documents.put(key, text.as_bytes(), 1));
        let compiled = compile(&documents, &LastGood::new(), 1);
        assert_eq!(compiled.refused, []);
        compiled.table
    }

    fn route(more: &str) -> String {
        format!(r#"{{"listener": "game", "service": "arena"{more}}}"#)
    }

    fn share(table: &Table, rollouts: &Progresses) -> Share {
        Share::of(&"arena".into(), 50, &Known { table, fitness: &Fitness::default(), rollouts })
    }

    fn idle(routes: &[(&str, &str)]) -> String {
        share(&table(routes), &Progresses::default()).idle.iter().map(|name| &**name).collect()
    }

    #[test]
    fn backends_ahead_of_their_turn_do_not_stand_in_for_those_with_the_players() {
        let blue = route(r#", "versions": {"1.4": 100, "1.5": 0}"#);
        let share = share(&table(&[("routes/public", &blue)]), &Progresses::default());
        let allows = |name: &str, ordered: &[&str]| {
            share.allows(name, &ordered.iter().map(|name| (*name).to_owned()).collect())
        };
        assert_eq!(allows("a", &[]), Ok(()), "b stays");
        let refused = allows("b", &["a"]).unwrap_err();
        assert_eq!(refused, "none of 2 backends with a share would be left in service");
        assert_eq!(allows("d", &["c"]), Ok(()), "nobody is sent there");
    }

    #[test]
    fn a_version_is_idle_if_no_route_gives_it_anything() {
        let (blue, green) = (route(r#", "versions": {"1.4": 100}"#), route(r#", "versions": {"1.5": 1}"#));
        let other = green.replace("arena", "lobby");
        let by_name = green.replace(r#""game""#, r#""late""#);
        assert_eq!(idle(&[]), "", "no route says anything");
        assert_eq!(idle(&[("routes/public", &route(""))]), "", "by the backends' weights");
        assert_eq!(idle(&[("routes/public", &blue)]), "cd");
        assert_eq!(idle(&[("routes/public", &blue), ("routes/late", &by_name)]), "");
        let lobby = ("services/lobby", r#"{"protocol": "link", "framing": {"kind": "length"}}"#);
        let other = other.replace(r#""game""#, r#""late""#);
        assert_eq!(idle(&[lobby, ("routes/public", &blue), ("routes/late", &other)]), "cd", "not its route");
    }

    #[test]
    fn a_rollout_makes_its_versions_busy_and_idle_as_it_goes() {
        let blue = route(r#", "versions": {"1.4": 100}"#);
        let plan = ("rollouts/arena", r#"{"from": "1.4", "to": "1.5"}"#);
        let table = table(&[("routes/public", &blue), plan]);
        let idle = |state: State, percent: u32| -> String {
            let mut progress = Progress::begin(&table.rollouts["arena"], 0);
            (progress.state, progress.percent) = (state, percent);
            let rollouts = Progresses::from([("arena".to_owned(), Arc::new(progress))]);
            share(&table, &rollouts).idle.iter().map(|name| &**name).collect()
        };
        assert_eq!(idle(State::Running, 5), "");
        assert_eq!(idle(State::Done, 100), "ab");
        assert_eq!((idle(State::Aborting, 50), idle(State::Aborted, 50)), ("cd".to_owned(), "cd".to_owned()));
    }
}
