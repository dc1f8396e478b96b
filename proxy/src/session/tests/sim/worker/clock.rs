//! What is due when. Mirrors `worker::clock`.

use std::time::Duration;

use holdfast_protocol::message::{Message, Ping};

use super::super::io::{Event, Io};
use super::Worker;
use super::hub::LinkState;
use super::seat::TIMERS;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const RETURN_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    pub fn set_clock(&mut self, io: &mut Io) {
        let (now, start) = (self.hub.now, self.hub.start);
        let timers = self.hub.timers.first().map(|(due, ..)| *due);
        let drains = self.hub.draining.iter().filter_map(|id| {
            let due = self.hub.link(*id).drain.as_ref()?.due(start + now)?;
            Some(due.saturating_duration_since(start))
        });
        let returns = self.may_bring_back().then_some(now);
        let due = [timers, drains.min(), returns, self.hub.owed_due, Some(self.next_look)];
        let due = due.into_iter().flatten().min();
        if let Some(due) = due
            && self.clock_due.is_none_or(|before| due < before)
        {
            self.clock_due = Some(due);
            io.at(due, Event::Clock(self.hub.index));
        }
    }

    pub fn on_time(&mut self, io: &mut Io) {
        let now = self.hub.now;
        if self.clock_due.is_none_or(|due| due > now) {
            return;
        }
        self.clock_due = None;
        while let Some((due, key, index)) = self.hub.timers.first().copied().filter(|timer| timer.0 <= now) {
            self.hub.timers.remove(&(due, key, index));
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.seat.timers[index] = None;
            }
            io.trace
                .event(now, "timer", &[key as u64, index as u64], || format!("s{key} {:?}", TIMERS[index]));
            self.drive(key, io, |session, fx| session.timer(TIMERS[index], fx));
        }
        if self.hub.owed_due.is_some_and(|due| due <= now) {
            self.send_owed_acks(io);
        }
        self.run_drains(io);
        self.bring_back(io);
        if self.next_look <= now {
            self.next_look = now + LOOK_EVERY;
            self.look_after_links(io);
            self.look_for_hangups(io);
            self.look_after_groups(io);
            self.look_after_parked(io);
        }
    }

    fn look_after_parked(&mut self, io: &mut Io) {
        if self.hub.parked > 0 && self.hub.now >= self.next_return {
            self.next_return = self.hub.now + RETURN_EVERY;
            self.sessions_may_return();
            self.bring_back(io);
        }
    }

    fn send_owed_acks(&mut self, io: &mut Io) {
        self.hub.owed_due = None;
        for key in std::mem::take(&mut self.hub.owed_acks) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.seat.owes_ack = false;
                self.drive(key, io, |session, fx| session.send_ack(fx));
            }
        }
    }

    fn look_after_links(&mut self, io: &mut Io) {
        let now = self.hub.now;
        let liveness = self.hub.service.limits.liveness;
        for id in self.hub.link_ids() {
            let link = self.hub.link_mut(id);
            if link.state != LinkState::Up {
                continue;
            }
            let silence = now - link.last_heard;
            let asked = link.pinged.is_some_and(|at| now - at >= liveness / 2);
            let stuck = link.stuck_since.is_some_and(|since| now - since >= liveness);
            if silence >= liveness && asked {
                link.doomed = true;
                io.trace.event(now, "silent", &[u64::from(id.0)], || format!("b{} {silence:?}", id.0));
                self.backend_gone(id, io);
            } else if silence >= liveness / 3 && link.pinged.is_none() {
                link.pinged = Some(now);
                self.hub.say(id, &Message::Ping(Ping { nonce: 0 }));
            } else if stuck {
                link.doomed = true;
            }
        }
    }
}
