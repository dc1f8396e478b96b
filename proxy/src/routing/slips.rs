//! Changes that are hardly meant: most of a service's backends gone, nobody left to pick, a service in use gone.
//!
//! Such a change is held: what it would take out of force stays, all else goes on, until somebody says yes to it or
//! it is taken back. Pure: the same documents in the same order at the same times are judged alike by every proxy.
//!
//! "Most" counts over [`SETTLING`], so that a script that deletes one key after the other is seen for what it is; a
//! slow scale-down isn't held, nor is a replacement by as many others. A drained backend may go: somebody has seen to
//! its sessions.

mod count;
mod scene;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::accept::{Fingerprint, RawAccepted};
use super::document::{Accept, Document, RawAccept};
use super::documents::{Documents, LastGood};
use scene::Scene;

/// How long a removal counts towards the next ones.
pub const SETTLING: Duration = Duration::from_secs(60);

/// What is remembered from one change to the next, over a restart too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    services: BTreeMap<String, Remembered>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// Backends that went lately, by key.
    gone: BTreeMap<String, Gone>,
    hold: Option<Hold>,
}

/// A backend that went, and that nobody has said yes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    at_ms: u64,
    /// Of its last version.
    revision: u64,
}

impl Gone {
    fn is_recent(&self, moment: Moment) -> bool {
        let settling_ms = u64::try_from(SETTLING.as_millis()).unwrap_or(u64::MAX);
        moment.at_ms.saturating_sub(self.at_ms) < settling_ms
    }
}

/// Since when something of a service is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    revision: u64,
    at_ms: u64,
    /// The backends of which too many are gone. It stays while they are held: neither time nor backends that come make
    /// a slip smaller; others are judged by themselves. Empty: none is held for their number.
    base: BTreeSet<String>,
}

/// The change that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub revision: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
}

/// What became of a change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    pub memory: Memory,
    /// One for each service that something of is held.
    pub held: Vec<Held>,
}

/// What is held of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub service: Arc<str>,
    /// Revision of the change with which it began.
    pub since: u64,
    /// When that was, in milliseconds of Unix time.
    pub since_ms: u64,
    /// In words, what the change would do.
    pub why: Vec<String>,
    /// Documents whose version in force stays.
    pub keys: Vec<Arc<str>>,
    /// The document that says yes to it.
    pub accept: RawAccept,
}

impl Held {
    /// `arena: 6 of 10 backends would be gone`
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}", self.service, self.why.join("; "))
    }
}

/// What of a change isn't let through.
#[must_use]
pub fn judge(memory: &Memory, documents: &Documents, in_force: &LastGood, moment: Moment) -> Judgement {
    let mut judgement = Judgement::default();
    for (service, scene) in scene::of_services(documents, in_force) {
        let accept = accept_document(documents, &service);
        let before = memory.services.get(&*service).cloned().unwrap_or_default();
        let (after, held) = judge_service(&service, &scene, &before, accept, moment);
        judgement.held.extend(held);
        if after != Remembered::default() {
            judgement.memory.services.insert(service.to_string(), after);
        }
    }
    judgement
}

/// The documents as they are to be in force: those that are held keep their version.
#[must_use]
pub fn hold(documents: &Documents, in_force: &LastGood, held: &[Held]) -> Documents {
    let mut kept = documents.clone();
    for key in held.iter().flat_map(|held| &held.keys) {
        if let Some(good) = in_force.get(key) {
            kept.put_good(key.clone(), good.clone());
        }
    }
    kept
}

fn accept_document<'a>(documents: &'a Documents, service: &str) -> Option<&'a Accept> {
    match &documents.get(&format!("accepts/{service}"))?.parsed.as_ref().ok()?.document {
        Document::Accept(accept) => Some(accept),
        _ => None,
    }
}

fn judge_service(
    service: &Arc<str>,
    scene: &Scene<'_>,
    before: &Remembered,
    accept: Option<&Accept>,
    moment: Moment,
) -> (Remembered, Option<Held>) {
    let covered =
        |key: &str, from, to: Option<&[u8]>| accept.is_some_and(|accept| accept.covers(key, from, to));
    let scene = scene.without(covered);
    let frozen = before.hold.as_ref().map(|hold| &hold.base).filter(|base| !base.is_empty());
    let mut gone = still_gone(before, frozen, &scene, |key, from| covered(key, from, None), moment);
    let many = count::too_many(&scene, &gone, frozen, moment);
    // Where the hold before is over, what went long ago is, too.
    let of_hold = |key: &str| many.as_ref().is_some_and(|many| many.base.contains(key));
    gone.retain(|key, gone| gone.is_recent(moment) || of_hold(key));
    let mut verdict = Verdict::default();
    if let Some(many) = &many {
        let seconds = SETTLING.as_secs();
        let (removed, all) = (many.removed(&gone), many.base.len());
        verdict.hold(
            many.keys.iter().copied(),
            format!("{removed} of {all} backends would be gone within {seconds} s"),
        );
    }
    scene.judge_rest(service, &mut verdict);
    for key in scene.missing().into_iter().filter(|key| !verdict.keys.contains(*key)) {
        let revision = scene.revision(key);
        gone.insert(key.to_string(), Gone { at_ms: moment.at_ms, revision });
    }
    if verdict.keys.is_empty() {
        return (Remembered { gone, hold: None }, None);
    }
    let first = before.hold.as_ref();
    let hold = Hold {
        revision: first.map_or(moment.revision, |hold| hold.revision),
        at_ms: first.map_or(moment.at_ms, |hold| hold.at_ms),
        base: many.map(|many| many.base).unwrap_or_default(),
    };
    let held = Held {
        service: service.clone(),
        since: hold.revision,
        since_ms: hold.at_ms,
        why: verdict.why,
        accept: yes_to(&scene, &verdict.keys, &gone),
        keys: verdict.keys.into_iter().collect(),
    };
    (Remembered { gone, hold: Some(hold) }, Some(held))
}

/// Which documents stay, and why.
#[derive(Default)]
struct Verdict {
    keys: BTreeSet<Arc<str>>,
    why: Vec<String>,
}

impl Verdict {
    fn hold<'a>(&mut self, keys: impl IntoIterator<Item = &'a Arc<str>>, why: String) {
        self.keys.extend(keys.into_iter().cloned());
        self.why.push(why);
    }
}

/// Those that went before and count still.
fn still_gone(
    before: &Remembered,
    frozen: Option<&BTreeSet<String>>,
    scene: &Scene<'_>,
    accepted: impl Fn(&str, u64) -> bool,
    moment: Moment,
) -> BTreeMap<String, Gone> {
    let counts = |key: &str, gone: &Gone| {
        let counts = gone.is_recent(moment) || frozen.is_some_and(|base| base.contains(key));
        counts && !scene.is_there(key) && !accepted(key, gone.revision)
    };
    let gone = before.gone.iter().filter(|(key, gone)| counts(key, gone));
    gone.map(|(key, gone)| (key.clone(), *gone)).collect()
}

/// The yes to all that is held of a service, and to what led to it: another proxy may hold those instead.
fn yes_to(scene: &Scene<'_>, keys: &BTreeSet<Arc<str>>, gone: &BTreeMap<String, Gone>) -> RawAccept {
    let held = keys.iter().map(|key| {
        let to = scene.source(key).map(|raw| Fingerprint::of(raw).to_string());
        (key.to_string(), RawAccepted { from: scene.revision(key), to })
    });
    let led = gone.iter().map(|(key, gone)| (key.clone(), RawAccepted { from: gone.revision, to: None }));
    RawAccept { changes: led.chain(held).collect(), reason: String::new() }
}
