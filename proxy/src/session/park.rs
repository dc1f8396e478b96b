//! A session that no backend can take yet: it waits in the proxy with its state and its frames, for a bounded time.

use std::time::Duration;

use super::effects::{Effects, Note, Timer};
use super::{Otherwise, Phase, Session};
use crate::telemetry::counters::{CloseReason, HandoffResult};

/// After this a parked session asks again, if a backend that refused it said that asking again may help.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl Session {
    /// Nobody takes the session now: thaw it where it was, or keep it.
    pub(super) fn nobody<E: Effects>(&mut self, env: &mut E) {
        let may_thaw = self.order.is_none_or(|order| order.otherwise == Otherwise::Thaw);
        match self.old {
            Some(old) if may_thaw && self.journal.state.is_some() && env.link_is_up(old.link) => {
                self.thaw(env)
            }
            _ => self.park(env),
        }
    }

    pub(super) fn park<E: Effects>(&mut self, env: &mut E) {
        if let Some(old) = self.old.take() {
            self.release(old.link, old.epoch, env);
        }
        self.phase = Phase::Parked;
        self.tried.clear();
        env.settled(None);
        self.recovery_is_over(env);
        // Who said "not now" is asked again; all others have to come or change first.
        let again = std::mem::take(&mut self.may_retry) && !self.park_expired;
        env.timer(Timer::Answer, again.then_some(RETRY_DELAY));
        if self.begin_stay(env) && self.order.is_some() {
            env.note(Note::HandoffDone(HandoffResult::Parked));
        }
    }

    /// The clocks of a stay in the proxy. `true`: it has only begun.
    pub(super) fn begin_stay<E: Effects>(&mut self, env: &mut E) -> bool {
        if self.park_expired {
            self.park_is_over(env);
            return false;
        }
        if std::mem::replace(&mut self.park_runs, true) {
            return false;
        }
        env.timer(Timer::Park, Some(self.service.limits.park_deadline));
        if self.home.is_some() {
            env.timer(Timer::Home, Some(self.service.limits.park_home));
        }
        true
    }

    /// A backend came or changed: a parked session looks again.
    pub fn look_again<E: Effects>(&mut self, env: &mut E) {
        if self.phase == Phase::Parked && !self.awaits_turn {
            self.seek(env);
        }
    }

    pub(super) fn home_is_over<E: Effects>(&mut self, env: &mut E) {
        self.home = None;
        self.look_again(env);
    }

    pub(super) fn park_is_over<E: Effects>(&mut self, env: &mut E) {
        self.park_expired = true;
        if self.phase == Phase::Parked {
            let reason = self.nobody_reason();
            if !self.has_history() {
                // Who came into a group that never came about goes back to what it was.
                self.dissolve("no backend has taken the group in time", env);
            }
            self.end(reason, env);
        }
    }

    /// Why a session that nobody takes ends.
    fn nobody_reason(&self) -> CloseReason {
        if self.has_history() { CloseReason::ParkDeadline } else { CloseReason::NoBackend }
    }
}
