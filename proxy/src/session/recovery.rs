//! Going on after a crash: what level of recovery holds, the way back to the last state, and input that is poison.

use holdfast_protocol::codec::capability::GROUPS;
use holdfast_protocol::message::{Record, Recovery};
use holdfast_protocol::{Seq, TraceContext};
use xxhash_rust::xxh3::xxh3_64;

use super::effects::{Effects, LinkId, Note, Suspicion, Timer};
use super::journal::Origin;
use super::outbound::Kind;
use super::records::{self, Records};
use super::{Client, Order, Otherwise, Phase, Session};
use crate::routing::table::OnCrash;
use crate::telemetry::counters::{CloseReason, HandoffCause};

impl Session {
    /// A backend has had something of it that the next one must get from the journal.
    pub(super) fn has_history(&self) -> bool {
        self.journal.state.is_some() || self.journal.is_kept() && self.is_ahead_of(self.journal.origin)
    }

    /// Whether anything happened after these positions.
    pub(super) fn is_ahead_of(&self, base: Origin) -> bool {
        self.outbound.highest() > base.client_seq
            || self.inbound.had() > base.server_seq
            || self.journal.records.had() > base.record_seq
    }

    /// Capabilities without which a backend couldn't go on with it.
    pub(super) fn needs(&self) -> u64 {
        let base = self.journal.base();
        // Client frames alone are what any handoff gives again.
        let made_something =
            self.inbound.had() > base.server_seq || self.journal.records.had() > base.record_seq;
        let replays = made_something && self.journal.is_kept();
        let level = match self.journal.level {
            Recovery::Replay | Recovery::Delta if replays => self.journal.level.needs(),
            _ => 0,
        };
        level | self.needs_to_move()
    }

    /// The same for one whose state covers all that it did.
    #[must_use]
    pub fn needs_to_move(&self) -> u64 {
        if self.is_group() { GROUPS } else { 0 }
    }

    /// A group goes back to no checkpoint: who came and left since would be where the game doesn't expect them.
    fn wanted_level(&self) -> Recovery {
        match self.service.recovery {
            Recovery::Checkpoint if self.is_group() => Recovery::None,
            level => level,
        }
    }

    /// What holds on that link, if the session can go on there at all.
    pub(super) fn level_at<E: Effects>(&self, link: LinkId, env: &mut E) -> Option<Recovery> {
        let (wanted, has) = (self.wanted_level(), env.capabilities(link));
        let takes_frames = env.max_frame_bytes(link) as usize >= self.service.framing.max_frame_bytes();
        if !takes_frames || (self.is_group() && has & GROUPS == 0) {
            return None;
        }
        if has & wanted.needs() == wanted.needs() {
            return Some(wanted);
        }
        if has & self.needs() != self.needs() {
            return None;
        }
        env.note(Note::Unprotected { link });
        Some(Recovery::None)
    }

    /// An attachment is to begin where the kept state ends.
    pub(super) fn begin_at(&mut self, level: Recovery) {
        let base = self.journal.base();
        self.outbound.rewind_to_base();
        self.hold_to(level);
        let last = self.journal.records.had();
        self.journal.records.rewind(last);
        let replays = level == Recovery::Replay;
        self.inbound.attend(if replays { base.server_seq } else { self.inbound.had() });
    }

    /// From here on, what that level needs is kept, and no more.
    pub(super) fn hold_to(&mut self, level: Recovery) {
        self.journal.level = level;
        (self.journal.too_large, self.journal.gave_up) = (false, false);
        self.outbound.set_keeps(level != Recovery::None);
        self.inbound.set_keeps_hashes(level == Recovery::Replay);
        if level == Recovery::None {
            self.rest();
        }
    }

    pub(super) fn record_again<'a>(&self, entry: &records::Entry<'a>) -> Record<'a> {
        Record {
            subject: self.subject,
            epoch: self.epoch,
            seq: entry.seq,
            after_client_seq: entry.after_client_seq,
            kind: entry.kind,
            member: entry.member,
            again: true,
            bytes: entry.bytes,
        }
    }

    /// The backend is gone, or its attachment has failed.
    pub(super) fn crash<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.note(Note::Lost { link });
        self.drop_reservation(env);
        self.abandon_checkpoint(env);
        let on_its_way = self.recovering.is_some();
        self.recovery_is_over(env);
        self.phase = Phase::Parked;
        env.timer(Timer::Answer, None);
        env.timer(Timer::Checkpoint, None);
        self.journal.clock_runs = false;
        if let Some(old) = self.old.take() {
            // What it holds is older than what the target did with it.
            self.release(old.link, old.epoch, env);
        }
        self.home = None;
        self.tried.clear();
        self.order = Some(Order { cause: HandoffCause::Crash, otherwise: Otherwise::Park });
        env.settled(None);
        if self.journal.is_kept() {
            return self.await_turn(on_its_way, env);
        }
        if self.journal.state.is_some() {
            self.outbound.rewind_to_base();
            return self.seek(env);
        }
        match self.service.on_crash {
            OnCrash::Close => self.end(CloseReason::Crash, env),
            OnCrash::Fresh if self.is_group() => {
                self.dissolve("no backend takes the group", env);
                self.end(CloseReason::Crash, env);
            }
            OnCrash::Fresh => {
                // A backend that fails whatever it is given would be asked again for ever.
                self.journal.recoveries += 1;
                if self.journal.recoveries > self.service.limits.max_recoveries {
                    return self.end(CloseReason::Crash, env);
                }
                self.begin_anew(env);
            }
        }
    }

    /// Counts a backend that went down with this session on it, or `None`: once more is too often.
    /// Who was `on_its_way` was being given input, new or not; who played and had none that isn't known to be harmless is a
    /// bystander, whom no number of crashes makes guilty.
    pub(super) fn suspect<E: Effects>(&mut self, on_its_way: bool, env: &mut E) -> Option<Suspicion> {
        let first = self.outbound.first_unprocessed().map(|entry| (entry.seq, xxh3_64(entry.frame)));
        if self.outbound.processed()
            > std::mem::replace(&mut self.journal.processed, self.outbound.processed())
        {
            // What was suspected has been processed since, and did no harm.
            (self.journal.recoveries, self.journal.suspect) = (0, false);
        }
        if first.is_none() && !on_its_way {
            self.journal.suspect = false;
            return Some(Suspicion::None);
        }
        self.journal.recoveries += 1;
        if self.journal.recoveries > self.service.limits.max_recoveries {
            let (seq, hash) = first.unwrap_or((self.outbound.acked(), 0));
            env.note(Note::Poison { seq, hash });
            return None;
        }
        let was_suspect = std::mem::replace(&mut self.journal.suspect, first.is_some());
        Some(match (first, was_suspect) {
            (None, _) => Suspicion::None,
            (Some(_), false) => Suspicion::Once,
            (Some(_), true) => Suspicion::Again,
        })
    }

    /// Recoveries are paced, and input that may be poison comes last: it waits for its turn.
    fn await_turn<E: Effects>(&mut self, on_its_way: bool, env: &mut E) {
        let Some(suspicion) = self.suspect(on_its_way, env) else {
            return self.end(CloseReason::Poison, env);
        };
        self.outbound.rewind_to_base();
        self.awaits_turn = true;
        self.begin_stay(env);
        if self.phase == Phase::Parked {
            env.await_recovery(suspicion);
        }
    }

    /// Its turn to go on after a crash has come; who found no backend in one gets another when there may be one.
    pub fn recover<E: Effects>(&mut self, env: &mut E) {
        self.awaits_turn = false;
        if self.phase != Phase::Parked {
            return env.recovery_over();
        }
        let suspect = self.journal.suspect;
        self.recovering = Some(if suspect { self.outbound.highest() } else { Seq::NONE });
        self.seek(env);
    }

    /// It is live, or has processed something: the turn may be over.
    pub(super) fn recovery_goes_on<E: Effects>(&mut self, env: &mut E) {
        if let Some(until) = self.recovering
            && matches!(self.phase, Phase::Active { .. })
            && self.outbound.acked() >= until
        {
            self.recovery_is_over(env);
        }
    }

    /// The turn is over, well or not.
    pub(super) fn recovery_is_over<E: Effects>(&mut self, env: &mut E) {
        if self.recovering.take().is_some() {
            env.recovery_over();
        }
    }

    /// A replay led elsewhere: what is kept is of no use, and the crash path is to do without.
    pub(super) fn diverged<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let (seq, record) = (self.inbound.echo().next(), self.journal.records.had());
        env.note(Note::Diverged { link, seq, record });
        self.abandon_checkpoint(env);
        self.journal.level = Recovery::None;
        self.journal.state = None;
    }

    /// The state is gone, and what was on its way to it.
    fn begin_anew<E: Effects>(&mut self, env: &mut E) {
        let frames = self.outbound.lose_sent(env);
        env.note(Note::FramesLost(frames));
        self.outbound.set_keeps(false);
        // Nothing of the earlier ones is left: they are numbered from 1 again.
        self.journal.records = Records::default();
        self.inbound.set_keeps_hashes(false);
        self.inbound.attend(self.inbound.had());
        self.journal.origin = Origin {
            client_seq: self.outbound.acked(),
            server_seq: self.inbound.had(),
            record_seq: Seq::NONE,
        };
        self.journal.logic = None;
        self.journal.suspect = false;
        self.lost = true;
        if !self.ends_with_what_is_lost(env) {
            self.seek(env);
        }
    }

    /// The end of the client's stream may have gone down with a backend: the next game hasn't heard that nothing more
    /// will come. `true`: nobody is left to go on for.
    pub(super) fn ends_with_what_is_lost<E: Effects>(&mut self, env: &mut E) -> bool {
        if !self.outbound.is_empty() {
            return false;
        }
        match self.client {
            Client::Open => {}
            Client::Half => self.outbound.push(Kind::CloseHalf, &[], TraceContext::default(), 0, env),
            Client::Gone => {
                self.end(self.ending.unwrap_or(CloseReason::Crash), env);
                return true;
            }
        }
        false
    }
}
