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
            Some(old) if may_thaw && self.kept.is_some() && env.link_is_up(old.link) => self.thaw(env),
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
        if self.park_expired {
            return self.park_is_over(env);
        }
        // Who said "not now" is asked again; all others have to come or change first.
        env.timer(Timer::Answer, std::mem::take(&mut self.may_retry).then_some(RETRY_DELAY));
        if std::mem::replace(&mut self.park_runs, true) {
            return;
        }
        env.timer(Timer::Park, Some(self.service.limits.park_deadline));
        if self.home.is_some() {
            env.timer(Timer::Home, Some(self.service.limits.park_home));
        }
        if self.order.is_some() {
            env.note(Note::HandoffDone(HandoffResult::Parked));
        }
    }

    /// A backend came or changed: a parked session looks again.
    pub fn look_again<E: Effects>(&mut self, env: &mut E) {
        if self.phase == Phase::Parked {
            self.seek(env);
        }
    }

    /// Its turn to go on after a crash has come.
    pub fn recover<E: Effects>(&mut self, env: &mut E) {
        self.look_again(env);
        env.recovery_over();
    }

    pub(super) fn home_is_over<E: Effects>(&mut self, env: &mut E) {
        self.home = None;
        self.look_again(env);
    }

    pub(super) fn park_is_over<E: Effects>(&mut self, env: &mut E) {
        self.park_expired = true;
        if self.phase == Phase::Parked {
            let reason = self.nobody_reason();
            self.end(reason, env);
        }
    }

    /// Why a session that nobody takes ends.
    fn nobody_reason(&self) -> CloseReason {
        if self.kept.is_some() { CloseReason::ParkDeadline } else { CloseReason::NoBackend }
    }
}
