//! Whose turn it is to go on after a crash. Mirrors `worker::recovery`, for the one service there is.

use std::collections::VecDeque;

use super::super::io::Io;
use super::Worker;
use super::hub::Hub;
use super::seat::Seat;
use crate::session::{Phase, Session, Suspicion};

const LEVELS: usize = 3;
const SUSPICIONS: [Suspicion; LEVELS] = [Suspicion::None, Suspicion::Once, Suspicion::Again];

/// Where a session stands that its backend's crash has thrown out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Waiting(Suspicion),
    UnderWay(Suspicion, u64),
    Over(Suspicion),
    /// It had its turn, and there was no backend.
    Stalled(Suspicion),
}

#[derive(Debug, Default)]
pub struct Recoveries {
    queues: [VecDeque<usize>; LEVELS],
    pub under_way: [u32; LEVELS],
    pub bytes_under_way: u64,
    stalled: Vec<usize>,
}

impl Recoveries {
    fn next(&mut self, most: u32, most_bytes: u64) -> Option<(usize, Suspicion)> {
        let total: u32 = self.under_way.iter().sum();
        if total >= most.max(1) || (total > 0 && self.bytes_under_way >= most_bytes) {
            return None;
        }
        let may = [true, self.under_way[2] == 0, total == 0];
        (0..LEVELS).filter(|level| may[*level]).find_map(|level| {
            let key = self.queues[level].pop_front()?;
            Some((key, SUSPICIONS[level]))
        })
    }
}

impl Worker {
    pub fn recover_some(&mut self, io: &mut Io) {
        let most = self.hub.service.limits.recoveries_in_flight;
        while let Some((key, suspicion)) = self.hub.recoveries.next(most, self.hub.pool_bytes) {
            self.drive(key, io, |session, fx| {
                if fx.seat.recovery != Some(Place::Waiting(suspicion)) {
                    return;
                }
                let bytes = session.kept_bytes();
                fx.hub.recoveries.under_way[suspicion as usize] += 1;
                fx.hub.recoveries.bytes_under_way += bytes;
                fx.seat.recovery = Some(Place::UnderWay(suspicion, bytes));
                session.recover(fx);
            });
        }
    }

    /// A backend came or changed: those that found none may have one now.
    pub fn recoveries_may_go_on(&mut self) {
        for key in std::mem::take(&mut self.hub.recoveries.stalled) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if let Some(Place::Stalled(suspicion)) = slot.seat.recovery {
                slot.seat.recovery = Some(Place::Waiting(suspicion));
                self.hub.recoveries.queues[suspicion as usize].push_back(key);
            }
        }
    }
}

impl Hub {
    pub fn await_recovery(&mut self, key: usize, seat: &mut Seat, suspicion: Suspicion) {
        self.leave_recovery(seat);
        seat.recovery = Some(Place::Waiting(suspicion));
        self.recoveries.queues[suspicion as usize].push_back(key);
    }

    pub fn recovery_over(&mut self, seat: &mut Seat) {
        if let Some(Place::UnderWay(suspicion, bytes)) = seat.recovery {
            self.recoveries.under_way[suspicion as usize] -= 1;
            self.recoveries.bytes_under_way -= bytes;
            seat.recovery = Some(Place::Over(suspicion));
        }
    }

    pub fn leave_recovery(&mut self, seat: &mut Seat) {
        self.recovery_over(seat);
        seat.recovery = None;
    }

    /// Who is at a backend has recovered; who is parked again keeps its place in the order.
    pub fn settle_recovery(&mut self, session: &Session, key: usize, seat: &mut Seat) {
        let Some(place) = seat.recovery else { return };
        let parked = *session.phase() == Phase::Parked;
        match place {
            Place::Over(suspicion) | Place::UnderWay(suspicion, _) if parked => {
                self.recovery_over(seat);
                seat.recovery = Some(Place::Stalled(suspicion));
                self.recoveries.stalled.push(key);
            }
            Place::Over(_) => self.leave_recovery(seat),
            Place::Waiting(_) | Place::Stalled(_) if !parked => self.leave_recovery(seat),
            Place::Waiting(_) | Place::Stalled(_) | Place::UnderWay(..) => {}
        }
    }
}
