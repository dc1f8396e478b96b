//! Whose turn it is to go on after a crash.
//!
//! A crash may take thousands of sessions at once, and the input of one of them may be what caused it. So they go in the
//! order of their suspicion, a bounded number and bounded bytes at once; one that was there at two crashes goes when
//! nobody else is on the way, and until it is over only those beyond suspicion go beside it. Each service has its own
//! lane: what happens to one costs another nothing. Every step is O(1) in the number of sessions. No session is touched
//! in here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Worker;
use super::hub::Hub;
use super::slot::{Seat, SessionKey};
use crate::routing::Service;
use crate::session::{Phase, Session, Suspicion};

/// Turns given before others of this worker get theirs.
const TURNS_AT_ONCE: u32 = 256;
/// Suspicions, least first.
const LEVELS: usize = 3;

/// Where a session stands that its backend's crash has thrown out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Waiting(Suspicion),
    /// Its turn has come, with so many bytes to be given to a backend.
    UnderWay(Suspicion, u64),
    /// Its turn is over; what comes next depends on where the session is.
    Over(Suspicion),
    /// It had its turn, and there was no backend: the next comes when something has changed.
    Stalled(Suspicion),
}

/// The sessions of one service.
#[derive(Debug)]
struct Lane {
    service: Arc<str>,
    /// By suspicion. A session that has ended or gone another way meanwhile is passed over at its turn.
    queues: [VecDeque<SessionKey>; LEVELS],
    under_way: [u32; LEVELS],
    most: u32,
}

impl Lane {
    fn new(service: Arc<str>) -> Self {
        Self { service, queues: Default::default(), under_way: [0; LEVELS], most: 1 }
    }

    /// Takes the session out whose turn it is.
    fn next(&mut self) -> Option<(SessionKey, Suspicion)> {
        let [trusted, suspects, culprits] = &mut self.queues;
        let total: u32 = self.under_way.iter().sum();
        let alone = self.under_way[2] > 0;
        if total >= self.most {
            None
        } else if let Some(key) = trusted.pop_front() {
            Some((key, Suspicion::None))
        } else if alone {
            None
        } else if let Some(key) = suspects.pop_front() {
            Some((key, Suspicion::Once))
        } else if total == 0 {
            culprits.pop_front().map(|key| (key, Suspicion::Again))
        } else {
            None
        }
    }

    fn has_turn(&self) -> bool {
        let total: u32 = self.under_way.iter().sum();
        let [trusted, suspects, culprits] = &self.queues;
        total < self.most
            && (!trusted.is_empty()
                || (self.under_way[2] == 0 && !suspects.is_empty())
                || (total == 0 && !culprits.is_empty()))
    }

    fn is_over(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty) && self.under_way == [0; LEVELS]
    }
}

/// All sessions of a worker that are recovering.
#[derive(Debug, Default)]
pub struct Recoveries {
    /// Only of services that have any; in turn.
    lanes: VecDeque<Lane>,
    bytes_under_way: u64,
    sessions_under_way: u32,
    /// Those that found no backend.
    stalled: Vec<SessionKey>,
}

impl Recoveries {
    pub fn add(&mut self, service: &Service, key: SessionKey, suspicion: Suspicion) {
        self.join(&service.name, service.limits.recoveries_in_flight, key, suspicion);
    }

    /// `most`: sessions of that service that may be on their way at once.
    fn join(&mut self, service: &Arc<str>, most: u32, key: SessionKey, suspicion: Suspicion) {
        let lane = match self.lanes.iter().position(|lane| lane.service == *service) {
            Some(at) => &mut self.lanes[at],
            None => {
                self.lanes.push_back(Lane::new(Arc::clone(service)));
                self.lanes.back_mut().expect("it was pushed just now")
            }
        };
        lane.most = most.max(1);
        lane.queues[suspicion as usize].push_back(key);
    }

    /// The next turn, within `most_bytes` on their way. It must be answered by [`Self::begun`], if the session is still
    /// there and waits.
    pub fn next(&mut self, most_bytes: u64) -> Option<(SessionKey, Suspicion)> {
        if self.is_full(most_bytes) {
            return None;
        }
        for _ in 0..self.lanes.len() {
            let turn = self.lanes.front_mut()?.next();
            self.lanes.rotate_left(1);
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// A session is on its way with that much.
    pub fn begun(&mut self, service: &str, suspicion: Suspicion, bytes: u64) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.service == *service) {
            lane.under_way[suspicion as usize] += 1;
            self.bytes_under_way += bytes;
            self.sessions_under_way += 1;
        }
    }

    /// It has arrived, or has failed, or is no more.
    pub fn over(&mut self, service: &str, suspicion: Suspicion, bytes: u64) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.service == *service) {
            let under_way = &mut lane.under_way[suspicion as usize];
            *under_way = under_way.saturating_sub(1);
            self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
            self.sessions_under_way = self.sessions_under_way.saturating_sub(1);
        }
    }

    /// It found no backend.
    pub fn stall(&mut self, key: SessionKey) {
        self.stalled.push(key);
    }

    /// Something has changed for the better: those that found no backend stand in line again.
    pub fn take_stalled(&mut self) -> Vec<SessionKey> {
        std::mem::take(&mut self.stalled)
    }

    /// Whether anybody's turn has come.
    pub fn has_turn(&self, most_bytes: u64) -> bool {
        !self.is_full(most_bytes) && self.lanes.iter().any(Lane::has_turn)
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Forgets the lanes of services that have recovered.
    pub fn tidy(&mut self) {
        self.lanes.retain(|lane| !lane.is_over());
    }

    fn is_full(&self, most_bytes: u64) -> bool {
        self.sessions_under_way > 0 && self.bytes_under_way >= most_bytes
    }
}

impl Worker {
    /// Gives those their turns that may go on now.
    pub(super) fn recover_some(&mut self) {
        if self.hub.recoveries.is_empty() {
            return;
        }
        let most_bytes = self.hub.config.transfer_pool_bytes;
        for _ in 0..TURNS_AT_ONCE {
            let Some((key, suspicion)) = self.hub.recoveries.next(most_bytes) else { break };
            self.give_recovery(key, suspicion);
        }
        self.hub.recoveries.tidy();
    }

    /// Whether a session could recover right now.
    pub(super) fn may_recover(&self) -> bool {
        self.hub.recoveries.has_turn(self.hub.config.transfer_pool_bytes)
    }

    fn give_recovery(&mut self, key: SessionKey, suspicion: Suspicion) {
        self.drive(key, |session, fx| {
            if fx.seat.recovery != Some(Place::Waiting(suspicion)) {
                return;
            }
            // What mirrors bring along holds up no player.
            let bytes = if fx.seat.is_mirror { 0 } else { session.kept_bytes() };
            fx.hub.recoveries.begun(&fx.service.name, suspicion, bytes);
            fx.seat.recovery = Some(Place::UnderWay(suspicion, bytes));
            session.recover(fx);
        });
    }

    /// A backend came or changed: those that found none may have one now.
    pub(super) fn recoveries_may_go_on(&mut self) {
        for key in self.hub.recoveries.take_stalled() {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            if let Some(Place::Stalled(suspicion)) = slot.seat.recovery {
                let service = slot.session.service();
                slot.seat.recovery = Some(Place::Waiting(suspicion));
                self.hub.recoveries.add(service, key, suspicion);
            }
        }
    }
}

impl Hub {
    /// The session's backend has crashed: it stands in line.
    pub fn await_recovery(
        &mut self,
        service: &Service,
        key: SessionKey,
        seat: &mut Seat,
        suspicion: Suspicion,
    ) {
        self.leave_recovery(&service.name, seat);
        seat.recovery = Some(Place::Waiting(suspicion));
        self.counters.recovering.add(1);
        self.recoveries.add(service, key, suspicion);
    }

    /// The attempt is over: the next may have its turn.
    pub fn recovery_over(&mut self, service: &str, seat: &mut Seat) {
        if let Some(Place::UnderWay(suspicion, bytes)) = seat.recovery {
            self.recoveries.over(service, suspicion, bytes);
            seat.recovery = Some(Place::Over(suspicion));
        }
    }

    /// It recovers no more, for whatever reason.
    pub fn leave_recovery(&mut self, service: &str, seat: &mut Seat) {
        self.recovery_over(service, seat);
        if seat.recovery.take().is_some() {
            self.counters.recovering.sub(1);
        }
    }

    /// After each input to a session: who is at a backend has recovered; who is parked again waits for one, and keeps
    /// its place in the order.
    pub fn settle_recovery(&mut self, session: &Session, key: SessionKey, seat: &mut Seat) {
        let Some(place) = seat.recovery else { return };
        let parked = *session.phase() == Phase::Parked;
        let service = &session.service().name;
        match place {
            Place::Over(suspicion) | Place::UnderWay(suspicion, _) if parked => {
                self.recovery_over(service, seat);
                seat.recovery = Some(Place::Stalled(suspicion));
                self.recoveries.stall(key);
            }
            Place::Over(_) => self.leave_recovery(service, seat),
            Place::Waiting(_) | Place::Stalled(_) if !parked => self.leave_recovery(service, seat),
            Place::Waiting(_) | Place::Stalled(_) | Place::UnderWay(..) => {}
        }
    }
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
