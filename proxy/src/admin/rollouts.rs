//! `/rollouts`: what is rolled out, and how far the fleet is. `/rollout`: what an operator says to it.

use super::state::AdminState;
use super::view::{RolloutRequest, RolloutView, RolloutsView, TableAnswer};
use super::writes::{self, How, WriteError};
use crate::rollout::orders::compose;
use crate::rollout::{Progress, stages};
use crate::routing::{Documents, Rollout};

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

/// An operator's word on a rollout, as a change of documents.
pub(super) async fn say(state: &AdminState, request: RolloutRequest) -> Result<TableAnswer, WriteError> {
    let RolloutRequest { service, word, reason, dry_run } = request;
    let progresses = state.rollouts.borrow().clone();
    let wanted = |documents: &Documents| {
        compose(documents, &progresses, &service, word, &reason)
            .map_err(|unfit| WriteError::Invalid(unfit.to_string()))
    };
    writes::change(state, wanted, How { dry_run, ..How::default() }).await
}
