//! What is due when: sessions' waits, owed acks, drains' pace, links' liveness. One task sleeps until the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::hub::Timers;
use super::link::LinkState;
use super::link_life::{IDLE_LINK, LIVENESS};
use super::slot::{SessionKey, TIMERS};
use super::{Worker, with_worker};

/// How often links and silent clients are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often parked sessions look for a backend, even if nothing has changed.
const RETURN_EVERY: Duration = Duration::from_secs(1);

/// A checkpoint waits so long for a turn that is taken anyway, so that it wakes neither this worker nor its backend.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(20);

/// Runs what is due, for as long as the worker lives.
pub async fn run(moved: Arc<Notify>) {
    loop {
        let due = with_worker(|worker| worker.clock_due);
        let sleep = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + LOOK_EVERY).into());
        tokio::select! {
            () = sleep => with_worker(Worker::on_time),
            () = moved.notified() => {}
        }
    }
}

impl Worker {
    /// Sets the clock to the first thing due; wakes its task only if that is earlier than what it sleeps for.
    pub(super) fn set_clock(&mut self) {
        let timers = self.hub.timers.first().map(|(due, ..)| *due);
        let checkpoints = self.hub.checkpoints.first().map(|(due, ..)| *due + CHECKPOINT_PATIENCE);
        let now = self.hub.now;
        let drains =
            self.hub.draining.iter().filter_map(|id| self.hub.link(*id).drain.as_ref()?.due(now)).min();
        let rebalances = self.rebalances.values().filter_map(|rebalance| rebalance.due(now)).min();
        let returns = (self.may_bring_back() || self.may_recover()).then_some(self.hub.now);
        let due = [timers, checkpoints, drains, rebalances, returns, self.hub.owed_due, Some(self.next_look)]
            .into_iter()
            .flatten()
            .min();
        let earlier = match (due, self.clock_due) {
            (Some(due), Some(before)) => due < before,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        };
        if earlier {
            self.clock_due = due;
            self.clock_moved.notify_one();
        }
    }

    fn on_time(&mut self) {
        self.clock_due = None;
        let now = self.hub.now;
        while let Some((key, number)) = next_due(&mut self.hub.timers, now) {
            self.timer(key, number);
        }
        self.take_checkpoints();
        if self.hub.owed_due.is_some_and(|due| due <= now) {
            self.send_owed_acks();
        }
        self.run_drains();
        self.run_rebalances();
        self.bring_back();
        if self.next_look <= now {
            self.next_look = now + LOOK_EVERY;
            self.look_after_links();
            self.retire_links();
            self.ask_for_counts();
            self.review_breakers();
            self.look_for_hangups();
            self.look_after_groups();
            self.look_at_memory();
            self.look_after_parked();
            self.look_at_stop();
        }
    }

    /// Asks for the checkpoints that are due.
    pub(super) fn take_checkpoints(&mut self) {
        let now = self.hub.now;
        while let Some((key, number)) = next_due(&mut self.hub.checkpoints, now) {
            self.timer(key, number);
        }
    }

    fn timer(&mut self, key: SessionKey, number: u8) {
        let index = usize::from(number);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.seat.timers[index] = None;
        }
        self.drive(key, |session, fx| session.timer(TIMERS[index], fx));
    }

    /// A backend that refused for now may take a session later, without anything changing that would show.
    fn look_after_parked(&mut self) {
        let now = self.hub.now;
        if self.hub.counters.parked.get() > 0 && now >= self.next_return {
            self.next_return = now + RETURN_EVERY;
            self.sessions_may_return();
            self.bring_back();
        }
    }

    fn send_owed_acks(&mut self) {
        self.hub.owed_due = None;
        for key in std::mem::take(&mut self.hub.owed_acks) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.seat.owes_ack = false;
                self.drive(key, |session, fx| session.send_ack(fx));
            }
        }
    }

    fn look_after_links(&mut self) {
        let now = self.hub.now;
        for id in self.hub.link_ids() {
            let link = self.hub.link(id);
            if link.state != LinkState::Up {
                continue;
            }
            let service = self.hub.table.services.get(&*link.backend.id.service);
            let liveness = service.map_or(LIVENESS, |service| service.limits.liveness);
            let silence = link.silence(now);
            // Its silence counts only if it was asked: this process may have been held up itself.
            let asked = link.pinged.is_some_and(|at| now.saturating_duration_since(at) >= liveness / 2);
            let stuck = link.stuck_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if silence >= liveness && asked {
                tracing::warn!(backend = %link.backend.id, silence_ms = silence.as_millis(), "the backend is silent");
                self.hub.link_mut(id).doom(format!("silent for {} ms", silence.as_millis()));
                self.backend_gone(id);
            } else if silence >= liveness / 3 && link.pinged.is_none() {
                self.ping(id);
            } else if stuck >= liveness {
                let waiting = link.outbox.waiting();
                let reason = format!(
                    "the backend has read nothing for {} ms, {waiting} bytes wait",
                    stuck.as_millis()
                );
                self.hub.link_mut(id).doom(reason);
            } else if link.sessions > 0 || self.hub.is_local(&link.backend.id) || self.is_wanted(id) {
                self.hub.link_mut(id).idle_since = now;
            } else if now.saturating_duration_since(link.idle_since) > IDLE_LINK
                && self.keys_on(id).is_empty()
            {
                self.hub.link_mut(id).doom("idle".to_owned());
            }
        }
    }
}

/// Takes out the first, if its time has come.
fn next_due(timers: &mut Timers, now: Instant) -> Option<(SessionKey, u8)> {
    let (due, key, number) = timers.first().copied()?;
    if due > now {
        return None;
    }
    timers.pop_first();
    Some((key, number))
}
