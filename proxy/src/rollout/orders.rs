//! What an operator's word on a rollout writes: `start`, `pause`, `resume`, `abort`, `promote` as a change of documents.
//! Pure; it is judged and written as every other change of documents is.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Progresses, State};
use crate::routing::document::Document;
use crate::routing::edit::Edit;
use crate::routing::table::{Rollout, Route};
use crate::routing::{Documents, documents::Entry};

/// The largest share that a route may give.
const MAX_SHARE: u64 = 1_000_000;
/// What `promote` gives to the new version where a route has no shares: any number would do.
const WHOLE_SHARE: u64 = 100;

/// What somebody says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Fields of the rollout's document. `from` may be missing where there is one version to come from; `attempt` is
    /// counted on by itself.
    Start(Map<String, Value>),
    Pause,
    Resume,
    Abort,
    /// `early`: though its last step isn't over.
    Promote {
        early: bool,
    },
}

/// Why there is nothing to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

type Fields = Map<String, Value>;

/// The edit that does what `word` says of `service`'s rollout, with `reason` in its document.
///
/// # Errors
/// There is no rollout, or it is in no state for this; in words that say what to do instead.
pub fn compose(
    documents: &Documents,
    progresses: &Progresses,
    service: &str,
    word: Word,
    reason: &str,
) -> Result<Edit, Unfit> {
    let orders = Orders { documents, progresses, service, key: format!("rollouts/{service}") };
    match word {
        Word::Start(fields) => orders.start(fields, reason),
        Word::Pause => orders.pause(reason),
        Word::Resume => orders.resume(reason),
        Word::Abort => orders.abort(reason),
        Word::Promote { early } => orders.promote(early),
    }
}

struct Orders<'a> {
    documents: &'a Documents,
    progresses: &'a Progresses,
    service: &'a str,
    key: String,
}

impl Orders<'_> {
    fn start(&self, mut fields: Fields, reason: &str) -> Result<Edit, Unfit> {
        let service = self.service;
        if self.documents.get(&format!("services/{service}")).is_none() {
            return Err(Unfit(format!(
                "there is no services/{service} (`holdfast table list services` has them)"
            )));
        }
        let Some(to) = fields.get("to").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Unfit("to which version? `to` isn't given".to_owned()));
        };
        if !fields.contains_key("from") {
            fields.insert("from".into(), self.version_in_use(&to)?.into());
        }
        if let Ok((_, known)) = self.rollout() {
            let state = self.state(&known);
            if matches!(state, Some(State::Running | State::Paused | State::Aborting | State::Done)) {
                let (from, state) = (&known.from, state.map_or("", State::name));
                return Err(Unfit(format!(
                    "{} from {from} to {} is {state}: promote it or abort it first",
                    self.key, known.to
                )));
            }
            // One that was given up stays so, unless it is another attempt.
            if fields["from"] == *known.from && to == *known.to {
                let given = fields.get("attempt").and_then(Value::as_u64).unwrap_or(0);
                fields.insert("attempt".into(), given.max(known.attempt + 1).into());
            }
        }
        fields.remove("order");
        set_reason(&mut fields, reason);
        Ok(self.written(&fields))
    }

    /// The one version that the service's players are on by its routes; without shares there, by its backends.
    fn version_in_use(&self, to: &str) -> Result<String, Unfit> {
        let mut versions = BTreeSet::new();
        for (_, route) in self.routes() {
            versions.extend(
                route.versions.iter().filter(|(_, share)| **share > 0).map(|(name, _)| name.to_string()),
            );
        }
        if versions.is_empty() {
            for document in self.good().filter_map(|(_, document)| match document {
                Document::Backend(backend) if *backend.id.service == *self.service => Some(backend),
                _ => None,
            }) {
                versions.insert(document.version.to_string());
            }
        }
        versions.remove(to);
        let found: Vec<_> = versions.into_iter().collect();
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => Err(Unfit(format!(
                "from which version? {} has no version but {to}: say --from",
                self.service
            ))),
            more => Err(Unfit(format!(
                "from which version? {} has {}: say --from",
                self.service,
                more.join(", ")
            ))),
        }
    }

    fn pause(&self, reason: &str) -> Result<Edit, Unfit> {
        let (fields, plan) = self.rollout()?;
        match self.state(&plan) {
            Some(state @ (State::Aborting | State::Aborted | State::Refused | State::Done)) => {
                Err(Unfit(format!("{} is {}: there is nothing to pause", self.key, state.name())))
            }
            _ => Ok(self.ordered(fields, "pause", reason)),
        }
    }

    fn resume(&self, reason: &str) -> Result<Edit, Unfit> {
        let (fields, plan) = self.rollout()?;
        match self.state(&plan) {
            Some(state @ (State::Aborting | State::Aborted)) => Err(Unfit(format!(
                "{} is {}: `holdfast rollout start` begins it anew",
                self.key,
                state.name()
            ))),
            Some(state @ (State::Running | State::Done)) => {
                Err(Unfit(format!("{} is {}: there is nothing to resume", self.key, state.name())))
            }
            // The same document once more ends a pause of the controller's own, and lets it judge anew.
            _ => Ok(self.ordered(fields, "run", reason)),
        }
    }

    fn abort(&self, reason: &str) -> Result<Edit, Unfit> {
        let (fields, plan) = self.rollout()?;
        match self.state(&plan) {
            Some(state @ (State::Aborting | State::Aborted)) => {
                Err(Unfit(format!("{} is {} already", self.key, state.name())))
            }
            _ => Ok(self.ordered(fields, "abort", reason)),
        }
    }

    /// The routes give to the new version what both had; the rollout's document goes.
    fn promote(&self, early: bool) -> Result<Edit, Unfit> {
        let (_, plan) = self.rollout()?;
        match self.state(&plan) {
            Some(State::Done) => {}
            Some(State::Running | State::Paused) if early => {}
            Some(state @ (State::Running | State::Paused)) => {
                return Err(Unfit(format!(
                    "{} is {}, its last step isn't over: --now promotes it all the same",
                    self.key,
                    state.name()
                )));
            }
            Some(state) => {
                return Err(Unfit(format!("{} is {}: there is nothing to promote", self.key, state.name())));
            }
            None => return Err(Unfit(format!("{} hasn't begun: there is nothing to promote", self.key))),
        }
        let mut edit = Edit::default();
        for (key, entry) in self.documents.iter().filter(|(key, _)| key.starts_with("routes/")) {
            // One that is refused as it stands can't be rewritten without guessing what was meant.
            let Ok(fields) = fields_of(entry) else { continue };
            if fields.get("service").and_then(Value::as_str) != Some(self.service) {
                continue;
            }
            if let Err(fault) = &entry.parsed {
                return Err(Unfit(format!("{key} can't be promoted as it is refused: {fault}")));
            }
            if let Some(promoted) = promoted(fields, &plan) {
                edit.0.insert(key.clone(), Some(pretty(&promoted)));
            }
        }
        edit.0.insert(self.key.as_str().into(), None);
        Ok(edit)
    }

    /// The document as it stands, and what it says.
    fn rollout(&self) -> Result<(Fields, Arc<Rollout>), Unfit> {
        let Some(entry) = self.documents.get(&self.key) else {
            return Err(Unfit(format!("there is no {}: nothing is rolled out", self.key)));
        };
        let refused = |fault: String| Unfit(format!("{} is refused: {fault}", self.key));
        let good = entry.parsed.as_ref().map_err(|fault| refused(fault.to_string()))?;
        let Document::Rollout(plan) = &good.document else {
            return Err(refused("it is no rollout".to_owned()));
        };
        Ok((fields_of(entry)?, Arc::clone(plan)))
    }

    fn state(&self, plan: &Rollout) -> Option<State> {
        self.progresses
            .get(self.service)
            .filter(|progress| progress.is_of(plan))
            .map(|progress| progress.state)
    }

    fn good(&self) -> impl Iterator<Item = (&Arc<str>, &Document)> {
        self.documents.iter().filter_map(|(key, entry)| Some((key, &entry.parsed.as_ref().ok()?.document)))
    }

    fn routes(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Route>)> {
        self.good().filter_map(|(key, document)| match document {
            Document::Route(route) if *route.service == *self.service => Some((key, route)),
            _ => None,
        })
    }

    fn ordered(&self, mut fields: Fields, order: &str, reason: &str) -> Edit {
        fields.insert("order".into(), order.into());
        set_reason(&mut fields, reason);
        self.written(&fields)
    }

    fn written(&self, fields: &Fields) -> Edit {
        Edit([(self.key.as_str().into(), Some(pretty(fields)))].into())
    }
}

/// `None`: the route gives the old version nothing, so the rollout was none of its business.
fn promoted(mut route: Fields, plan: &Rollout) -> Option<Fields> {
    let shares = route.entry("versions").or_insert_with(|| json!({}));
    if shares.is_null() {
        *shares = json!({});
    }
    let shares = shares.as_object_mut()?;
    let share = |shares: &Fields, version: &str| shares.get(version).and_then(Value::as_u64).unwrap_or(0);
    if shares.is_empty() {
        shares.insert(plan.to.to_string(), WHOLE_SHARE.into());
        return Some(route);
    }
    let own = share(shares, &plan.from);
    if own == 0 {
        return None;
    }
    let both = (own + share(shares, &plan.to)).min(MAX_SHARE);
    shares.remove(&*plan.from);
    shares.insert(plan.to.to_string(), both.into());
    Some(route)
}

fn set_reason(fields: &mut Fields, reason: &str) {
    if reason.is_empty() {
        fields.remove("reason");
    } else {
        fields.insert("reason".into(), reason.into());
    }
}

fn fields_of(entry: &Entry) -> Result<Fields, Unfit> {
    let raw = entry.source.as_ref().map_err(|fault| Unfit(fault.to_string()))?;
    serde_json::from_slice(raw).map_err(|error| Unfit(error.to_string()))
}

fn pretty(fields: &Fields) -> Arc<[u8]> {
    let mut text = serde_json::to_vec_pretty(fields).expect("JSON can be written as JSON");
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests;
