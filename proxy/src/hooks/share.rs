//! How many backends of a service alerts may take out of service: an alert that fires for all of them at once must not
//! leave the players without any.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::routing::{BackendId, Fitness, Table};

/// The backends of one service, and how many of them may be out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub max_percent: u32,
    pub backends: BTreeSet<Arc<str>>,
    /// Those that take no players even without an order: unfit, or of weight 0.
    pub out: BTreeSet<Arc<str>>,
}

impl Share {
    #[must_use]
    pub fn of(service: &Arc<str>, max_percent: u32, table: &Table, fitness: &Fitness) -> Self {
        let first = BackendId { service: Arc::clone(service), name: "".into() };
        let all = || table.backends.range(first.clone()..).take_while(|(id, _)| id.service == *service);
        let out = all().filter(|(id, backend)| backend.weight == 0 || !fitness.is_fit(id));
        Self {
            max_percent,
            backends: all().map(|(id, _)| Arc::clone(&id.name)).collect(),
            out: out.map(|(id, _)| Arc::clone(&id.name)).collect(),
        }
    }

    /// Whether `name` may be taken out beside those that orders keep out already.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn allows(&self, name: &str, ordered: &BTreeSet<String>) -> Result<(), String> {
        let is_out =
            |other: &&Arc<str>| ***other == *name || self.out.contains(*other) || ordered.contains(&***other);
        let (out, all) = (self.backends.iter().filter(is_out).count(), self.backends.len());
        if out >= all {
            return Err(format!("none of {all} backends would be left in service"));
        }
        if out * 100 > self.max_percent as usize * all {
            let percent = self.max_percent;
            return Err(format!("{out} of {all} backends would be out of service, more than {percent} %"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(all: &[&str], out: &[&str], ordered: &[&str], max_percent: u32) -> Result<(), String> {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let share = Share { max_percent, backends: names(all), out: names(out) };
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
}
