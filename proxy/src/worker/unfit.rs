//! What this worker does about unfit backends: whose sessions leave, and since when.

use std::sync::Arc;

use super::Worker;
use super::hub::Hub;
use crate::routing::Fitness;
use crate::routing::table::WhenEjected;
use crate::session::LinkId;

impl Worker {
    pub(super) fn fitness_changed(&mut self, fitness: Arc<Fitness>) {
        self.hub.fitness = fitness;
        for id in self.hub.link_ids() {
            self.hub.mark_unfit(id);
        }
        // Only now is it known who is unfit: nobody moves from one such backend to another.
        for id in self.hub.link_ids() {
            self.review_drain(id);
        }
        self.sessions_may_return();
        self.bring_back();
        self.rebalance_soon();
    }
}

impl Hub {
    pub fn is_fit(&self, link: LinkId) -> bool {
        self.fitness.is_fit(&self.link(link).backend.id)
    }

    /// Its sessions leave an unfit backend if its service says so.
    pub(super) fn mark_unfit(&mut self, id: LinkId) {
        let backend = &self.link(id).backend.id;
        let service = self.table.services.get(&*backend.service);
        let moves = service.is_some_and(|service| service.health.when_ejected == WhenEjected::Move);
        let unfit = self.fitness.of(backend).first().filter(|_| moves);
        let reason = unfit.map(|unfit| unfit.reason.clone());
        self.link_mut(id).causes.unfit = reason;
    }
}
