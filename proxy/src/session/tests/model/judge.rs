//! What is held against the machine: after everything that happens, and where the world comes to rest.

use holdfast_protocol::Epoch;

use super::ghost::Wrong;
use super::world::World;
use crate::session::{Client, Phase, Timer};
use crate::telemetry::counters::CloseReason;

impl World {
    /// What holds after everything that happens.
    pub fn look_over(&mut self) {
        let speakers = self.wires.iter().filter(|wire| {
            let attachment = wire.backend.as_ref().and_then(|backend| backend.attachment.as_ref());
            attachment.is_some_and(|had| had.speaks() && !had.disowned)
        });
        if speakers.count() > 1 {
            self.ghost.wrong(Wrong::TwoActive);
        }
        let phase = self.session.phase();
        let over = *phase == Phase::Ended;
        let state_comes =
            matches!(phase, Phase::Freezing { .. }) || self.session.journal.checkpoint.is_some();
        let sound = (self.seat.reserved > 0) == state_comes
            && self.seat.ended.is_some() == over
            && (self.seat.settled == self.session.link() || matches!(phase, Phase::Closing { .. }))
            && !(matches!(phase, Phase::Active { .. }) && self.seat.timers[Timer::Answer as usize])
            && (*phase != Phase::Parked || self.seat.timers[Timer::Park as usize]);
        if !sound {
            self.ghost.wrong(Wrong::Bookkeeping);
        }
        if let Some(reason) = self.seat.ended
            && !self.may_end(reason)
        {
            self.ghost.wrong(Wrong::Ended);
        }
    }

    fn may_end(&self, reason: CloseReason) -> bool {
        match reason {
            CloseReason::ClientClose | CloseReason::ClientError => self.session.client() != Client::Open,
            CloseReason::BackendClose => self.ghost.game_closed,
            CloseReason::ParkDeadline => self.ghost.deadline_passed,
            CloseReason::NoBackend => self.ghost.deadline_passed || self.ghost.refused_for_good,
            _ => false,
        }
    }

    /// Where it comes to rest, the player plays, and has all that is theirs; or has left, and the game knows it.
    pub fn rests_well(&self) -> bool {
        let mut attached = self.wires.iter().filter_map(|wire| wire.backend.as_ref()?.attachment.as_ref());
        if self.seat.ended.is_some() {
            return attached.next().is_none() && self.was_told();
        }
        let (Phase::Active { .. }, Client::Open) = (self.session.phase(), self.session.client()) else {
            return false;
        };
        let Some(at) = attached.next() else { return false };
        let answered = self.seat.player.seen.map_or(0, |reply| reply.last) == self.seat.player.sent;
        let all = self.ghost.processed + self.ghost.lost == self.seat.player.sent;
        at.is_settled()
            && Epoch(at.epoch()) == self.session.epoch()
            && attached.next().is_none()
            && self.session.is_idle()
            && all
            && (answered || self.ghost.anew)
    }

    /// The game has heard of the player's end, with every frame.
    fn was_told(&self) -> bool {
        let sent = usize::from(self.seat.player.sent);
        let excused =
            self.ghost.deadline_passed || self.ghost.anew || self.ghost.refused_for_good || sent == 0;
        self.ghost.game_closed
            || excused
            || self.ghost.saved.as_ref().is_some_and(|frames| frames.len() == sent)
    }
}
