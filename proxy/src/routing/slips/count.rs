//! Whether too many of a service's backends would be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scene::Scene;
use super::{Gone, Moment};

/// Backends that may not go for their number.
pub struct TooMany<'a> {
    pub keys: BTreeSet<&'a Arc<str>>,
    /// Those of which no more than half may be gone.
    pub base: BTreeSet<String>,
}

impl TooMany<'_> {
    /// How many of the base would be gone.
    pub fn removed(&self, gone: &BTreeMap<String, Gone>) -> usize {
        removed(&self.keys, gone.keys().filter(|key| self.base.contains(*key)))
    }
}

/// What of the backends that the source lacks has to stay. `frozen`: of these some are held already.
pub fn too_many<'a>(
    scene: &Scene<'a>,
    gone: &BTreeMap<String, Gone>,
    frozen: Option<&BTreeSet<String>>,
    moment: Moment,
) -> Option<TooMany<'a>> {
    let missing: BTreeSet<_> = scene.missing().into_iter().collect();
    let held = frozen.and_then(|frozen| still_too_many(scene, &missing, gone, frozen));
    // A hold that nobody looks after swallows no later removal of another backend.
    let is_held = |key: &Arc<str>| held.as_ref().is_some_and(|held| held.keys.contains(key));
    let others: BTreeSet<_> = missing.iter().copied().filter(|key| !is_held(key)).collect();
    let lately = || gone.iter().filter(|(_, gone)| gone.is_recent(moment)).map(|(key, _)| key);
    let all = scene.backends().chain(scene.listed()).map(ToString::to_string);
    let base: BTreeSet<_> = all.chain(lately().cloned()).collect();
    let more = is_most(&others, removed(&others, lately()), &base).then(|| TooMany { keys: others, base });
    match (held, more) {
        (Some(mut held), Some(more)) => {
            held.keys.extend(more.keys);
            held.base.extend(more.base);
            Some(held)
        }
        (held, more) => held.or(more),
    }
}

/// What is held goes on being so while it is most of what it was: neither time nor others that come make it less.
fn still_too_many<'a>(
    scene: &Scene<'_>,
    missing: &BTreeSet<&'a Arc<str>>,
    gone: &BTreeMap<String, Gone>,
    frozen: &BTreeSet<String>,
) -> Option<TooMany<'a>> {
    let keys: BTreeSet<_> = missing.iter().copied().filter(|key| frozen.contains(&***key)).collect();
    let gone = || gone.keys().filter(|key| frozen.contains(*key));
    // Who was let go with a yes, or drained since, isn't counted any more.
    let base: BTreeSet<_> = frozen.iter().filter(|key| scene.has(key)).chain(gone()).cloned().collect();
    is_most(&keys, removed(&keys, gone()), &base).then_some(TooMany { keys, base })
}

/// One that went stands in force again after a start from an older table: it counts once.
fn removed<'a>(keys: &BTreeSet<&Arc<str>>, gone: impl Iterator<Item = &'a String>) -> usize {
    let keys: BTreeSet<&str> = keys.iter().map(|key| &***key).collect();
    keys.len() + gone.filter(|gone| !keys.contains(&***gone)).count()
}

fn is_most(keys: &BTreeSet<&Arc<str>>, removed: usize, base: &BTreeSet<String>) -> bool {
    !keys.is_empty() && 2 * removed > base.len()
}
