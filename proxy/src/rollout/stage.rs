//! What workers do for a rollout: the shares by which they place players, or the order to bring them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::progress::{Progresses, State};
use crate::routing::table::{Rollout, Table};

/// By service.
pub type Stages = BTreeMap<String, Arc<Stage>>;

/// Version -> share.
pub type Shares = BTreeMap<Arc<str>, u32>;

/// One rollout, as it concerns sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub from: Arc<str>,
    pub to: Arc<str>,
    /// Of what `from` has: 0 to 100.
    pub percent: u32,
    /// The rollout is given up, for this reason: nobody stays on `to`.
    pub back: Option<String>,
    /// Live sessions move towards the shares.
    pub moves: bool,
    /// Moves begun per second on one worker, if the rollout says.
    pub per_second: Option<u32>,
}

/// The stages of all rollouts in `table`. One whose progress isn't known has brought nobody anywhere.
#[must_use]
pub fn stages(table: &Table, progresses: &Progresses) -> Stages {
    let stage = |plan: &Rollout| {
        let progress = progresses.get(&*plan.service).filter(|progress| progress.is_of(plan));
        let given_up = progress.filter(|progress| progress.state.is_given_up());
        let has_begun = |state| matches!(state, State::Running | State::Paused | State::Done);
        let begun = progress.filter(|progress| has_begun(progress.state));
        let percent = begun.map_or(0, |progress| progress.percent);
        Stage {
            from: plan.from.clone(),
            to: plan.to.clone(),
            percent: percent.min(100),
            back: given_up.map(|progress| progress.reason.clone()),
            moves: begun.is_some(),
            per_second: plan.per_second,
        }
    };
    table.rollouts.iter().map(|(service, plan)| (service.clone(), Arc::new(stage(plan)))).collect()
}

impl Stage {
    /// The shares of a route under this rollout; `None`: it is none of its business.
    ///
    /// What the route gives to both versions is divided between them; other versions keep theirs. A route without
    /// shares has the two versions only.
    #[must_use]
    pub fn shares(&self, route: &Shares) -> Option<Shares> {
        if route.is_empty() {
            return Some([(self.from.clone(), 100 - self.percent), (self.to.clone(), self.percent)].into());
        }
        let own = *route.get(&self.from).filter(|&&share| share > 0)?;
        let both = own + route.get(&self.to).copied().unwrap_or(0);
        // A share is at most a million, so a hundred times two of them fit.
        let mut shares: Shares =
            route.iter().map(|(version, share)| (version.clone(), share * 100)).collect();
        shares.insert(self.from.clone(), both * (100 - self.percent));
        shares.insert(self.to.clone(), both * self.percent);
        Some(shares)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage(percent: u32) -> Stage {
        Stage { from: "1".into(), to: "2".into(), percent, back: None, moves: true, per_second: None }
    }

    fn shares(list: &[(&str, u32)]) -> Shares {
        list.iter().map(|(version, share)| ((*version).into(), *share)).collect()
    }

    #[test]
    fn a_route_without_shares_has_the_two_versions_only() {
        assert_eq!(stage(5).shares(&Shares::new()), Some(shares(&[("1", 95), ("2", 5)])));
    }

    #[test]
    fn a_route_that_gives_the_old_version_nothing_is_left_alone() {
        assert_eq!(stage(5).shares(&shares(&[("3", 1)])), None);
        assert_eq!(stage(5).shares(&shares(&[("1", 0), ("3", 1)])), None);
    }

    proptest! {
        #[test]
        fn the_sum_of_all_shares_is_kept_and_other_versions_keep_theirs(
            own in 1..=1_000_000u32, new in 0..=1_000_000u32, other in 0..=1_000_000u32, percent in 0..=100u32,
        ) {
            let route = shares(&[("1", own), ("2", new), ("3", other)]);
            let shares = stage(percent).shares(&route).unwrap();
            let sum = |shares: &Shares| shares.values().map(|&share| u64::from(share)).sum::<u64>();
            prop_assert_eq!(sum(&shares), 100 * sum(&route));
            prop_assert_eq!(shares["3"], 100 * other);
            prop_assert_eq!(u64::from(shares["2"]) * 100, u64::from(percent) * 100 * u64::from(own + new));
        }
    }
}
