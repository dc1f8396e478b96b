//! Taking a checkpoint: asked for at an interval and when what is kept nears its bound, taken while the session plays.

use std::time::Duration;

use holdfast_protocol::message::{self, Credit, Message, Rule, State};

use super::effects::{Effects, LinkId, Note, Timer};
use super::journal::Checkpoint;
use super::state::Incoming;
use super::{Phase, Session};

impl Session {
    /// Bytes kept since the last state.
    pub(super) fn journal_bytes(&self) -> u64 {
        let kept = self.outbound.kept_bytes() + self.journal.records.kept_bytes() + self.inbound.hash_bytes();
        kept as u64
    }

    /// Of them, what a state would cover now.
    fn trimmable_bytes(&self) -> u64 {
        self.journal_bytes().saturating_sub(self.queued_bytes())
    }

    /// What a state frees when it is whole.
    pub(super) fn freed_by_state(&self) -> u64 {
        self.trimmable_bytes() + self.journal.state_bytes()
    }

    /// What may be kept since the last state: of a group, as much for each who was a member since.
    pub(super) fn journal_bound(&self) -> u64 {
        let clients = self.riders().map_or(1, |riders| riders.most().max(1));
        self.service.limits.max_journal_bytes.saturating_mul(clients as u64)
    }

    /// So much is kept that the client isn't read until there is a checkpoint.
    pub(super) fn journal_is_full(&self) -> bool {
        self.journal.is_kept() && self.journal_bytes() >= self.journal_bound()
    }

    /// Something came or went: the clock is set, or a checkpoint asked for at once.
    pub(super) fn look_after_journal<E: Effects>(&mut self, env: &mut E) {
        if !self.journal.is_kept() {
            return;
        }
        let Phase::Active { link } = self.phase else { return };
        if !self.journal.clock_runs && self.is_ahead_of(self.journal.base()) {
            self.journal.clock_runs = true;
            env.timer(Timer::Checkpoint, Some(self.first_interval()));
        }
        let (bytes, bound) = (self.journal_bytes(), self.journal_bound());
        if self.journal.too_large && bytes >= bound {
            self.give_up_journal(link, env);
        } else if bytes > bound / 2
            && self.trimmable_bytes() >= bound / 8
            && self.journal.checkpoint.is_none()
        {
            self.ask_checkpoint(link, env);
        }
    }

    /// Sessions that begin (or move) together are to take their checkpoints one after the other.
    fn first_interval(&self) -> Duration {
        let share = 128 + u32::from(self.id().0[0] ^ self.id().0[15]) / 2;
        self.service.limits.checkpoint_interval * share / 256
    }

    pub(super) fn checkpoint_is_due<E: Effects>(&mut self, env: &mut E) {
        self.journal.clock_runs = false;
        let is_ahead = self.is_ahead_of(self.journal.base());
        if !is_ahead {
            self.rest();
        }
        let Phase::Active { link } = self.phase else { return };
        if !self.journal.is_kept() || !is_ahead {
            return;
        }
        match &mut self.journal.checkpoint {
            None => self.ask_checkpoint(link, env),
            Some(checkpoint) if checkpoint.incoming.is_some() => self.grant_checkpoint(link, env),
            // Its backend takes its time: others may have the room meanwhile.
            Some(checkpoint) => env.unreserve(std::mem::take(&mut checkpoint.reserved_bytes)),
        }
        self.journal.clock_runs = true;
        env.timer(Timer::Checkpoint, Some(self.service.limits.checkpoint_interval));
        self.look_after_journal(env);
    }

    /// Memory is short, and much of it is kept of this session. `false`: a state would help, and has no room.
    pub fn make_room<E: Effects>(&mut self, env: &mut E) -> bool {
        let Phase::Active { link } = self.phase else { return true };
        let helps = self.journal.is_kept() && !self.journal.too_large && self.trimmable_bytes() > 0;
        if !helps || self.journal.checkpoint.is_some() || !env.link_is_up(link) {
            return true;
        }
        self.ask_checkpoint(link, env);
        self.journal.checkpoint.is_some()
    }

    /// Nothing came in a whole interval, or memory is short: room that is empty is given back.
    pub fn rest(&mut self) {
        self.outbound.rest();
        self.inbound.rest();
        self.journal.records.rest();
    }

    fn ask_checkpoint<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let credit_bytes = self.expected_state_bytes();
        if self.journal.too_large
            || !env.link_is_up(link)
            || !env.reserve(credit_bytes, self.freed_by_state())
        {
            return;
        }
        let (subject, epoch) = (self.subject(), self.epoch);
        env.send(link, &Message::Checkpoint(message::Checkpoint { subject, epoch, credit_bytes }));
        self.journal.checkpoint =
            Some(Checkpoint { reserved_bytes: credit_bytes, credit_bytes, incoming: None });
    }

    /// What the next state may weigh.
    pub(super) fn expected_state_bytes(&self) -> u64 {
        let expected = self.last_state_bytes.unwrap_or(self.service.limits.state_size_bytes);
        expected.clamp(1, self.service.limits.max_state_bytes.max(1))
    }

    /// A chunk of the checkpoint that was asked for.
    pub(super) fn checkpoint_chunk<E: Effects>(
        &mut self,
        link: LinkId,
        chunk: &State<'_>,
        env: &mut E,
    ) -> Result<(), Rule> {
        if self.journal.too_large || matches!(self.phase, Phase::Closing { .. }) {
            return Ok(());
        }
        let (base, records) = (self.journal.base(), self.journal.records.had());
        let fits = (base.client_seq..=self.outbound.sent()).contains(&chunk.client_seq)
            && (base.server_seq..=self.inbound.echo()).contains(&chunk.server_seq)
            && (base.record_seq..=records).contains(&chunk.record_seq);
        let freed = self.freed_by_state();
        let Some(checkpoint) = &mut self.journal.checkpoint else { return Err(Rule::StateUnasked) };
        if checkpoint.incoming.is_none() {
            if !fits {
                return Err(Rule::StateOverrun);
            }
            self.last_state_bytes = Some(chunk.total_bytes);
            let max_bytes = self.service.limits.max_state_bytes;
            if chunk.total_bytes > max_bytes {
                // One STATE at a time, and this one never ends: another can't be had from this attachment.
                env.note(Note::StateTooLarge { link, total_bytes: chunk.total_bytes, max_bytes });
                self.abandon_checkpoint(env);
                self.journal.too_large = true;
                self.look_after_journal(env);
                return Ok(());
            }
        }
        let credit_bytes = checkpoint.credit_bytes;
        if checkpoint.reserved_bytes == 0 && env.reserve(credit_bytes, freed) {
            checkpoint.reserved_bytes = credit_bytes;
        }
        let incoming = checkpoint.incoming.get_or_insert_with(|| {
            let is_whole = chunk.offset_bytes == 0
                && chunk.chunk.len() as u64 == chunk.total_bytes
                && chunk.total_bytes <= credit_bytes;
            // What comes whole takes the place of the state before; else that one is needed until the last byte.
            let before = self.journal.state.as_mut().filter(|_| is_whole);
            Incoming::begin_in(before.map_or_else(Vec::new, |state| std::mem::take(&mut state.bytes)), chunk)
        });
        if incoming.add(chunk, credit_bytes)? {
            self.checkpoint_is_whole(link, env);
        } else {
            self.grant_checkpoint(link, env);
        }
        Ok(())
    }

    /// Gives credit for the rest, if its total is known and there is room for it now; else it is tried again later.
    fn grant_checkpoint<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let (subject, epoch) = (self.subject(), self.epoch);
        let freed = self.freed_by_state();
        let Some(checkpoint) = &mut self.journal.checkpoint else { return };
        let total_bytes = checkpoint.incoming.as_ref().map_or(0, Incoming::total_bytes);
        let more = total_bytes.saturating_sub(checkpoint.credit_bytes);
        if more == 0 {
            return;
        }
        // Who holds a part while waiting for the rest keeps others from getting theirs.
        env.unreserve(std::mem::take(&mut checkpoint.reserved_bytes));
        if env.reserve(total_bytes, freed) {
            (checkpoint.reserved_bytes, checkpoint.credit_bytes) = (total_bytes, total_bytes);
            env.send(link, &Message::Credit(Credit { subject, epoch, bytes: more }));
        }
    }

    fn checkpoint_is_whole<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        let Some(Checkpoint { reserved_bytes, incoming: Some(incoming), .. }) =
            self.journal.checkpoint.take()
        else {
            return;
        };
        env.unreserve(reserved_bytes);
        env.note(Note::CheckpointKept { bytes: incoming.total_bytes() });
        self.keep_state(incoming, link, env);
        self.finish_client_close(env);
        self.pump(env);
    }

    /// A state is whole: it is where a restore begins from here on, and what it covers is trimmed.
    pub(super) fn keep_state<E: Effects>(&mut self, incoming: Incoming, link: LinkId, env: &mut E) {
        let state = incoming.into_kept(env.state_format(link));
        self.members_processed(state.client_seq, env);
        self.outbound.release(state.client_seq, env);
        self.outbound.trim(state.client_seq);
        self.inbound.trim_hashes(state.server_seq);
        self.journal.records.trim(state.record_seq);
        self.journal.state = Some(state);
        self.forget_who_left();
        self.lost = false;
        (self.journal.recoveries, self.journal.suspect) = (0, false);
    }

    /// FREEZE, a cut or the end: what has come of it is of no use.
    pub(super) fn abandon_checkpoint<E: Effects>(&mut self, env: &mut E) {
        if let Some(checkpoint) = self.journal.checkpoint.take() {
            env.unreserve(checkpoint.reserved_bytes);
        }
    }

    /// What would be kept has no bound any more.
    pub(super) fn give_up_journal<E: Effects>(&mut self, link: LinkId, env: &mut E) {
        env.note(Note::Unprotected { link });
        // What is on its way of a state is of no use, and no other is asked for.
        self.abandon_checkpoint(env);
        (self.journal.gave_up, self.journal.too_large) = (true, true);
        self.journal.state = None;
        self.outbound.set_keeps(false);
        self.journal.records.forget();
        self.inbound.set_keeps_hashes(false);
        self.rest();
        self.regulate_reading(env);
    }
}
