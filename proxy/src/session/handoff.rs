//! Leaving a backend: freeze, take the state, and what happens when that fails.

use holdfast_protocol::Epoch;
use holdfast_protocol::message::{Attached, Credit, Freeze, Message, Recovery, Rule, State, Thaw};

use super::effects::{Effects, LinkId, Note, Step, Timer};
use super::state::Incoming;
use super::{Client, Frozen, Order, Otherwise, Phase, Session};
use crate::telemetry::counters::{CloseReason, HandoffCause, HandoffResult};

/// What came of the order to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    Yes,
    /// It isn't active, or there is no room for its state: ask again later.
    NotNow,
}

impl Session {
    /// Begins to leave the backend. The caller has made sure that there is somewhere to go, or that parking is meant.
    pub fn leave<E: Effects>(&mut self, order: Order, env: &mut E) -> Begun {
        let Phase::Active { link } = self.phase else { return Begun::NotNow };
        if !env.link_is_up(link) {
            return Begun::NotNow;
        }
        let expected = self.expected_state_bytes();
        if !env.reserve(expected, self.freed_by_state()) {
            return Begun::NotNow;
        }
        self.abandon_checkpoint(env);
        self.order = Some(order);
        self.home = (order.otherwise == Otherwise::ParkForHome).then_some(link);
        self.tried.clear();
        self.phase = Phase::Freezing { link, reserved_bytes: expected, incoming: None };
        env.note(Note::Freezing(order.cause));
        self.send_freeze(link, expected, env);
        #[cfg(test)]
        self.boards_too_early(link, env);
        Begun::Yes
    }

    pub(super) fn send_freeze<E: Effects>(&mut self, link: LinkId, credit_bytes: u64, env: &mut E) {
        let trace = env.trace(Step::Freeze);
        let (subject, epoch, client_seq) = (self.subject(), self.epoch, self.outbound.sent());
        env.send(link, &Message::Freeze(Freeze { subject, epoch, client_seq, credit_bytes, trace }));
        env.timer(Timer::Answer, Some(self.service.limits.freeze_timeout));
    }

    pub(super) fn state_chunk<E: Effects>(
        &mut self,
        link: LinkId,
        chunk: &State<'_>,
        env: &mut E,
    ) -> Result<(), Rule> {
        let max_bytes = self.service.limits.max_state_bytes;
        if !chunk.is_final && !matches!(self.phase, Phase::Freezing { .. } | Phase::Thawing { .. }) {
            return self.checkpoint_chunk(link, chunk, env);
        }
        let (acked, sent, echo) = (self.outbound.acked(), self.outbound.sent(), self.inbound.echo());
        let (base, had) = (self.journal.base(), self.journal.records.had());
        let records = base.record_seq..=had;
        // A change that the attachment was given and hasn't begun is given again, and with it all that it covers.
        let leaves_out = self.journal.level == Recovery::Delta && chunk.record_seq < had;
        let (clients, servers) = if leaves_out {
            (base.client_seq..=sent, base.server_seq..=echo)
        } else {
            (acked..=sent, echo..=echo)
        };
        let (subject, epoch, freed) = (self.subject(), self.epoch, self.freed_by_state());
        let (reserved_bytes, incoming) = match &mut self.phase {
            Phase::Freezing { reserved_bytes, incoming, .. } => (reserved_bytes, incoming),
            // The answer to a freeze that was given up.
            Phase::Thawing { .. } => return Ok(()),
            _ => return Err(Rule::StateUnasked),
        };
        if !chunk.is_final {
            // Of a checkpoint that the freeze has put an end to.
            return Ok(());
        }
        if incoming.is_none() {
            let covers = clients.contains(&chunk.client_seq) && records.contains(&chunk.record_seq);
            if !covers || !servers.contains(&chunk.server_seq) {
                return Err(Rule::StateOverrun);
            }
            env.note(Note::StateBegins);
            self.last_state_bytes = Some(chunk.total_bytes);
            if chunk.total_bytes > max_bytes {
                // The operator hears of it; the session goes on where its state needn't travel.
                env.note(Note::StateTooLarge { link, total_bytes: chunk.total_bytes, max_bytes });
                self.give_up_freeze(link, env);
                return Ok(());
            }
            if chunk.total_bytes > *reserved_bytes {
                let more = chunk.total_bytes - *reserved_bytes;
                if !env.reserve(more, freed) {
                    // Tried again when there is room for its real size.
                    self.give_up_freeze(link, env);
                    return Ok(());
                }
                *reserved_bytes = chunk.total_bytes;
                env.send(link, &Message::Credit(Credit { subject, epoch, bytes: more }));
            }
        }
        let whole = incoming.get_or_insert_with(|| Incoming::begin(chunk)).add(chunk, *reserved_bytes)?;
        if whole {
            self.state_is_whole(link, env);
        }
        Ok(())
    }

    /// STATE(final) is here: the proxy is the owner now.
    fn state_is_whole<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let phase = std::mem::replace(&mut self.phase, Phase::Parked);
        let Phase::Freezing { reserved_bytes, incoming: Some(incoming), .. } = phase else { return };
        env.unreserve(reserved_bytes);
        env.timer(Timer::Answer, None);
        env.note(Note::StateKept { bytes: incoming.total_bytes() });
        self.old = Some(self.freeze_frame(link));
        self.keep_state(incoming, link, env);
        #[cfg(test)]
        self.err_if_planted(env);
        self.outbound.rewind_to_base();
        self.rest();
        env.settled(None);
        if self.client == Client::Gone && self.outbound.is_empty() {
            // The game was told before it froze: it has saved, and there is nobody to go on for.
            self.journal.state = None;
            return self.finish_client_close(env);
        }
        if self.order.is_some_and(|order| order.otherwise == Otherwise::Board) {
            // A group takes a state and client frames, and can't make up for what a recovery was still to give it.
            return if self.state_is_all() { self.board(env) } else { self.thaw(env) };
        }
        if self.home == Some(link) { self.park(env) } else { self.seek(env) }
    }

    /// Nothing that was recorded, and nothing that the client has had, came after the kept state.
    fn state_is_all(&self) -> bool {
        let base = self.journal.base();
        self.journal.records.had() == base.record_seq && self.inbound.had() == base.server_seq
    }

    /// The freeze didn't end, or its state doesn't fit now: go on where we are.
    fn give_up_freeze<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        self.drop_reservation(env);
        self.old = Some(self.freeze_frame(link));
        self.thaw(env);
    }

    /// The current attachment, as it stands.
    fn freeze_frame(&self, link: LinkId) -> Frozen {
        Frozen {
            link,
            epoch: self.epoch,
            level: self.journal.level,
            server_seq: self.inbound.echo(),
            last_to_give: self.journal.records.last_to_give(),
        }
    }

    pub(super) fn drop_reservation<E: Effects>(&mut self, env: &mut E) {
        if let Phase::Freezing { reserved_bytes, .. } = self.phase {
            env.unreserve(reserved_bytes);
        }
    }

    /// Asks the old backend to go on with the session, under a fresh epoch.
    pub(super) fn thaw<E: Effects>(&mut self, env: &mut E) {
        let Some(old) = self.old.take() else { return self.park(env) };
        self.epoch = self.epoch.next();
        self.hold_to(old.level);
        self.inbound.attend(old.server_seq);
        self.journal.records.rewind(old.last_to_give);
        self.phase = Phase::Thawing { link: old.link, old_epoch: old.epoch };
        env.settled(Some(old.link));
        self.send_thaw(old.link, old.epoch, env);
    }

    pub(super) fn send_thaw<E: Effects>(&mut self, link: LinkId, old_epoch: Epoch, env: &mut E) {
        // Acks that went down with a link while it was frozen are said again after START.
        self.inbound.forget_ack();
        self.journal.records.forget_ack();
        let message = Thaw {
            subject: self.subject(),
            old_epoch,
            epoch: self.epoch,
            client_seq: self.outbound.acked(),
            server_seq: self.inbound.echo(),
            record_seq: self.journal.records.had(),
            server_window_bytes: self.inbound.open_window(self.service.limits.server_window_bytes),
            trace: env.trace(Step::Thaw),
        };
        env.send(link, &Message::Thaw(message));
        self.wait_for_thaw(env);
    }

    /// The input that held up the freeze holds up its end, too; and chunks of the state may be on the way before the
    /// answer. Where a journal is kept the session can go on without; else only the link's death may cost the state.
    fn wait_for_thaw<E: Effects>(&self, env: &mut E) {
        let limits = &self.service.limits;
        let patience = 2 * limits.freeze_timeout;
        let keeps = self.journal.is_kept();
        env.timer(Timer::Answer, Some(if keeps { patience } else { patience.max(limits.park_deadline) }));
    }

    /// ATTACHED, the answer to ATTACH, to THAW or to ATTACH(resume).
    pub(super) fn attached<E: Effects>(
        &mut self,
        link: LinkId,
        attached: &Attached,
        env: &mut E,
    ) -> Result<(), Rule> {
        let answers_resume = std::mem::take(&mut self.resuming);
        let answers = match self.phase {
            Phase::Attaching { .. } if self.chunks_left() => return Err(Rule::Unexpected),
            Phase::Attaching { .. } => true,
            // One of the old epoch answers the ATTACH(resume) that was to keep this thaw possible.
            Phase::Thawing { .. } => true,
            // Its THAW may have crossed with the backend's CLOSE.
            Phase::Closing { .. } => return Ok(()),
            _ => answers_resume,
        };
        if !answers {
            return Err(Rule::AttachedTwice);
        }
        self.acked(attached.client_seq, attached.epoch, env)?;
        match self.phase {
            Phase::Attaching { .. } => self.taken_over(link, env),
            Phase::Thawing { .. } if attached.epoch == self.epoch => self.thawed(link, env),
            _ => {}
        }
        Ok(())
    }

    /// START follows here, too: if the one before FREEZE went down with a link, the attachment is inert still, and if
    /// it didn't, START says nothing new.
    fn thawed<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        if self.journal.level == Recovery::None {
            self.journal.state = None;
        }
        self.outbound.rewind();
        if self.order.take().is_some() {
            env.note(Note::HandoffDone(HandoffResult::Thawed));
        }
        self.replay(link, env);
    }

    /// The backend that this session depends on is gone.
    pub fn attachment_lost<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        if matches!(self.phase, Phase::Attaching { link: at, .. } if at == link) {
            // It was never refused: whoever runs there next may take it.
            self.may_retry = true;
        }
        self.attachment_failed(link, env);
    }

    /// Its attachment is over, and the backend may well be there still.
    pub(super) fn attachment_failed<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        if self.old.is_some_and(|old| old.link == link) {
            self.old = None;
        }
        match self.phase {
            Phase::Attaching { link: at, .. } if at == link => self.try_next(link, env),
            // The handoff isn't over, and the state is as it was. After a crash that would be an endless march.
            Phase::Replaying { link: at }
                if at == link && self.journal.state.is_some() && self.moves_by_plan() =>
            {
                // Each backend on the way may have gone down with its input.
                match self.journal.is_kept().then(|| self.suspect(true, env)) {
                    Some(None) => self.end(CloseReason::Poison, env),
                    _ => self.try_next(link, env),
                }
            }
            Phase::Replaying { link: at }
            | Phase::Active { link: at }
            | Phase::Freezing { link: at, .. }
            | Phase::Thawing { link: at, .. }
                if at == link =>
            {
                self.crash(link, env);
            }
            _ => {}
        }
    }

    /// A handoff is under way that no crash began; without a journal, also one that a crash began.
    fn moves_by_plan(&self) -> bool {
        self.order.is_some_and(|order| order.cause != HandoffCause::Crash || !self.journal.is_kept())
    }

    pub(super) fn answer_is_late<E: Effects>(&mut self, env: &mut E) {
        match self.phase {
            Phase::Attaching { link, asked, .. } => {
                env.note(Note::Late { link });
                if asked {
                    self.release(link, self.epoch, env);
                }
                self.may_retry = true;
                self.try_next(link, env);
            }
            Phase::Freezing { link, .. } => {
                env.note(Note::Late { link });
                self.give_up_freeze(link, env);
            }
            // A cut has a deadline of its own, and loses nothing until then.
            Phase::Thawing { link, .. } if !env.link_is_up(link) => self.wait_for_thaw(env),
            Phase::Thawing { link, .. } => {
                env.note(Note::Late { link });
                self.release(link, self.epoch, env);
                self.crash(link, env);
            }
            Phase::Replaying { link } if self.journal.state.is_some() || self.journal.is_kept() => {
                env.note(Note::Late { link });
                self.release(link, self.epoch, env);
                self.may_retry = true;
                self.attachment_lost(link, env);
            }
            Phase::Parked => self.look_again(env),
            _ => {}
        }
    }
}
