//! What is held against the three machines: after everything that happens, and where the world comes to rest.

use holdfast_protocol::message::Subject;

use super::super::ghost::Wrong;
use super::actor::GROUP;
use super::backend::Attachment;
use super::world::{PARTY, World, subject};
use crate::session::{Phase, Session, Timer};

impl World {
    fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.wires.iter().filter_map(|wire| wire.backend.as_ref()).flat_map(|backend| &backend.attachments)
    }

    /// What holds after everything that happens.
    pub fn look_over(&mut self) {
        let speak =
            |who: usize| self.attachments().filter(|had| had.subject == subject(who) && had.speaks()).count();
        let twice = (0..3).any(|who| speak(who) > 1);
        // Who is played in the group isn't played alone, wherever.
        let here_and_there = (0..2_u8).any(|player| {
            let in_group = self.attachments().any(|had| had.speaks() && had.actor.plays(player));
            let alone = speak(usize::from(player)) > 0;
            alone && (in_group || self.seats[usize::from(player)].aboard)
        });
        if twice {
            self.ghost.wrong(Wrong::TwoActive);
        }
        if here_and_there {
            self.ghost.wrong(Wrong::Torn);
        }
        for who in 0..3 {
            let Some(machine) = &self.machines[who] else { continue };
            if !self.is_sound(who, machine) {
                self.ghost.wrong(Wrong::Bookkeeping);
                return;
            }
            if who != PARTY && *machine.phase() == Phase::Ended {
                self.ghost.wrong(Wrong::Ended);
                return;
            }
        }
    }

    fn is_sound(&self, who: usize, machine: &Session) -> bool {
        let (seat, phase) = (&self.seats[who], machine.phase());
        let over = *phase == Phase::Ended;
        let members = machine.riders().map_or(0, |riders| riders.len());
        let aboard = self.seats.iter().filter(|seat| seat.aboard).count();
        (seat.reserved > 0) == matches!(phase, Phase::Freezing { .. })
            && seat.ended.is_some() == over
            && seat.settled == machine.link()
            && seat.aboard == machine.is_aboard()
            && !(matches!(phase, Phase::Active { .. }) && seat.timers[Timer::Answer as usize])
            && (*phase != Phase::Parked || seat.timers[Timer::Park as usize])
            && (who != PARTY || members == aboard)
    }

    /// Where it comes to rest, everybody plays in one place, and has all that is theirs.
    pub fn rests_well(&self) -> bool {
        let mut places = 0;
        for who in 0..3 {
            let Some(machine) = &self.machines[who] else { continue };
            if machine.is_aboard() {
                continue;
            }
            places += 1;
            let there = self.attachments().find(|had| had.subject == subject(who));
            let plays = matches!(machine.phase(), Phase::Active { .. }) && machine.is_idle();
            let settled = there.is_some_and(|had| had.is_settled() && had.epoch == machine.epoch().0);
            if !plays || !settled {
                return false;
            }
        }
        let all_answered = self.seats[..PARTY]
            .iter()
            .all(|seat| seat.anew || seat.player.seen.map_or(0, |reply| reply.last) == seat.player.sent);
        let members_match = (0..2_u8).all(|player| {
            let crowd = self.attachments().find(|had| had.subject == Subject::Group(GROUP));
            self.seats[usize::from(player)].aboard == crowd.is_some_and(|had| had.actor.plays(player))
        });
        let nobody_waits = self.seats.iter().all(|seat| !seat.wanted);
        self.attachments().count() == places && all_answered && members_match && nobody_waits
    }
}
