//! `/rollouts`: what is rolled out, and how far the fleet is.

use super::state::AdminState;
use super::view::{RolloutView, RolloutsView};
use crate::rollout::{Progress, stages};
use crate::routing::Rollout;

pub(super) fn all(state: &AdminState) -> RolloutsView {
    let table = state.published().table.clone();
    let progresses = state.rollouts.borrow().clone();
    let stages = stages(&table, &progresses);
    let view = |plan: &Rollout| RolloutView {
        service: plan.service.to_string(),
        from: plan.from.to_string(),
        to: plan.to.to_string(),
        steps: plan.steps.clone(),
        interval_s: plan.interval.as_secs(),
        order: format!("{:?}", plan.order).to_lowercase(),
        percent: stages.get(&*plan.service).map_or(0, |stage| stage.percent),
        progress: progresses
            .get(&*plan.service)
            .filter(|progress| progress.is_of(plan))
            .map(|progress| Progress::clone(progress)),
    };
    RolloutsView { rollouts: table.rollouts.values().map(|plan| view(plan)).collect() }
}
