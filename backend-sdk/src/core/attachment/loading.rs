//! A session's arrival: its state is collected, the game opens it, and it is inert until START.
//!
//! Invariant: at the levels that bring a session back exactly, opening it is the same for the same ATTACH and STATE, and
//! leaves no trace in what is numbered on from the state: not in the random numbers, not in its handlers' work.

use std::time::SystemTime;

use holdfast_protocol::message::{Attach, Recovery, Rule, State, Subject};
use holdfast_protocol::{Epoch, SessionId, TraceContext};
use tracing::Span;

use super::super::crowd::{Actor, Roster, open_crowd};
use super::super::desk::Desk;
use super::super::envelope::{self, Envelope};
use super::super::fault::Fault;
use super::closing::Ending;
use super::input::caught;
use super::moment::Moment;
use super::{Attachment, Held, Phase};
use crate::context::{Context, Effects};
use crate::game::{Game, Opening, Refusal};
use crate::group::GroupContext;
use crate::random::Random;
use crate::trace;

/// What the session opens with, and how much of it is there.
#[derive(Debug)]
pub(crate) enum Loading {
    Fresh,
    Lost,
    State(Arriving),
}

/// A state that is arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    bytes: Vec<u8>,
    total: usize,
    format: Box<str>,
    span: Option<Span>,
    /// What came after it is lost: the game is to be told.
    recovered: bool,
}

/// What came of opening.
pub(crate) enum Opened {
    Inert,
    Refused(Refusal),
}

/// Numbers of inputs after a loss begin at the epoch times this: beyond all that an earlier attachment gave.
const INPUTS_PER_EPOCH_BITS: u32 = 32;
/// Where they begin if the session can be replayed from there, under another epoch.
const INPUTS_AFTER_LOSS: u64 = 1 << 62;
const INPUTS_PER_SEQ_BITS: u32 = 16;
const MAX_FORMAT_BYTES: usize = 256;

impl Loading {
    pub fn state(total: usize, attach: &Attach<'_>) -> Self {
        let id = match attach.subject {
            Subject::Session(session) => session,
            Subject::Group(group) => SessionId(group.0),
        };
        let format = attach.format.chars().take(MAX_FORMAT_BYTES).collect();
        let span = trace::restore(id, attach.trace);
        let (bytes, recovered) = (Vec::new(), attach.lost);
        Self::State(Arriving { bytes, total, format, span, recovered })
    }

    /// Bytes that it will take.
    pub fn total(&self) -> u64 {
        match self {
            Self::Fresh | Self::Lost => 0,
            Self::State(state) => state.total as u64,
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Fresh | Self::Lost => true,
            Self::State(state) => state.bytes.len() == state.total,
        }
    }

    /// Whether the player hears what the game sends in `open`. A session that is brought back exactly hears only what
    /// it heard before, and then it was perhaps not opened there, but went on.
    fn is_heard(&self, recovery: Recovery) -> bool {
        match self {
            Self::Fresh | Self::Lost => true,
            Self::State(_) => !is_exact(recovery),
        }
    }
}

/// Whether the level brings a session back as it was.
pub(super) fn is_exact(recovery: Recovery) -> bool {
    matches!(recovery, Recovery::Replay | Recovery::Delta)
}

impl<S: crate::game::Session> Attachment<S> {
    /// Bytes of state that this attachment waits for, or holds unopened.
    pub fn loading_bytes(&self) -> u64 {
        match &self.phase {
            Phase::Loading(loading) => loading.total(),
            Phase::Inert(..) | Phase::Active(_) | Phase::Frozen(..) | Phase::Closing => 0,
        }
    }

    /// Takes a chunk of state; says whether it was the last.
    pub fn collect(&mut self, state: &State<'_>) -> Result<bool, Fault> {
        let phase = self.phase_name();
        let Phase::Loading(Loading::State(Arriving { bytes, total, .. })) = &mut self.phase else {
            return Err(Fault::unexpected("STATE", phase));
        };
        let fits = state.total_bytes == *total as u64
            && state.offset_bytes == bytes.len() as u64
            && state.chunk.len() <= *total - bytes.len();
        if !fits {
            let (offset, length) = (state.offset_bytes, state.chunk.len());
            let (had, said) = (bytes.len(), state.total_bytes);
            let text = format!(
                "state chunk of {length} bytes at {offset} of {said}, expected offset {had} of {total}"
            );
            return Err(Fault::new(Rule::StateOverrun, text));
        }
        bytes.extend_from_slice(state.chunk);
        let is_whole = bytes.len() == *total;
        if is_exact(self.recovery) {
            self.records.covered(state.record_seq);
        }
        Ok(is_whole)
    }

    /// Lets the game open the session, now that all is there.
    pub fn open<G: Game<Session = S>>(&mut self, game: &G, desk: &mut Desk) -> Result<Opened, Fault> {
        let loading = match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Loading(loading) if loading.is_whole() => loading,
            other => {
                self.phase = other;
                return Err(Fault::unexpected("open", "its state is incomplete"));
            }
        };
        let outcome = match &loading {
            Loading::Fresh => self.open_new(game, desk, Opening::Fresh),
            Loading::Lost => {
                self.inputs = self.first_input_after_loss();
                self.open_new(game, desk, Opening::Lost)
            }
            Loading::State(state) => {
                let _entered = state.span.as_ref().map(Span::enter);
                if let Some(span) = &state.span {
                    span.record("bytes", state.bytes.len());
                }
                self.open_state(game, desk, state)
            }
        };
        let mut effects = std::mem::take(&mut desk.effects);
        let opened = match outcome {
            Ok((session, held)) => {
                self.phase = Phase::Inert(session, held);
                self.settle_opening(desk, &mut effects, loading.is_heard(self.recovery))
            }
            Err(refusal) => Ok(Opened::Refused(refusal)),
        };
        effects.clear();
        desk.effects = effects;
        opened
    }

    /// Makes what `open` asked for take effect.
    fn settle_opening(
        &mut self,
        desk: &mut Desk,
        effects: &mut Effects,
        is_heard: bool,
    ) -> Result<Opened, Fault> {
        if !is_heard {
            effects.bytes.clear();
            effects.lengths.clear();
            effects.join = None;
        }
        for change in effects.timers.drain(..) {
            self.timers.change(change, &mut desk.schedule)?;
        }
        self.claim_work(effects.work.drain(..))?;
        self.wish = effects.join.or(self.wish);
        if self.recovery == Recovery::Delta {
            self.record_opening(desk, effects)?;
        } else {
            self.post(desk, effects, TraceContext::NONE)?;
        }
        if effects.close {
            self.finish(desk, Moment::clock(self.opened))?;
        }
        Ok(Opened::Inert)
    }

    fn open_new<G: Game<Session = S>>(
        &mut self,
        game: &G,
        desk: &mut Desk,
        opening: Opening<'_>,
    ) -> Result<(Actor<S>, Held), Refusal> {
        if !is_exact(self.recovery) {
            self.opened = desk.now.wall;
        }
        let now = self.opened;
        Ok((self.call_open(game, desk, (opening, Roster::default()), "", now)?, Held::default()))
    }

    fn open_state<G: Game<Session = S>>(
        &mut self,
        game: &G,
        desk: &mut Desk,
        state: &Arriving,
    ) -> Result<(Actor<S>, Held), Refusal> {
        let parsed = envelope::parse(&state.bytes);
        let Envelope { keep, unsent, snapshot } =
            parsed.map_err(|error| Refusal::for_good(error.to_string()))?;
        self.inputs = keep.inputs;
        self.random = Random::with_state(keep.random);
        self.ordinals = keep.ordinals;
        if keep.close {
            self.ending = Some(Ending { moment: Moment::clock(keep.time), told: keep.closed });
        }
        for (trace, frame) in unsent {
            self.push(desk, trace, frame);
        }
        (self.wish, self.refusal) = (keep.wish, keep.refused.map(Box::new));
        let format = keep.format.as_deref().unwrap_or(&state.format);
        if !desk.settings.reads(format) {
            let reads = desk.settings.reads_list();
            return Err(Refusal::for_good(format!("state format {format:?} isn't one of {reads:?}")));
        }
        let (roster, snapshot) = match self.place.subject {
            Subject::Session(_) => (Roster::default(), snapshot),
            Subject::Group(_) => {
                Roster::parse(snapshot).map_err(|error| Refusal::for_good(error.to_string()))?
            }
        };
        let (mut opening, mut now) = (Opening::State(snapshot), desk.now.wall);
        if state.recovered {
            opening = Opening::Recovered(snapshot);
            self.inputs = self.inputs.max(self.first_input_after_loss());
        } else if is_exact(self.recovery) {
            now = keep.time;
        }
        self.opened = now;
        let session = self.call_open(game, desk, (opening, roster), format, now)?;
        self.random = Random::with_state(keep.random);
        Ok((session, Held { unclaimed: keep.work, ..Held::default() }))
    }

    fn call_open<G: Game<Session = S>>(
        &mut self,
        game: &G,
        desk: &mut Desk,
        (opening, roster): (Opening<'_>, Roster),
        format: &str,
        now: SystemTime,
    ) -> Result<Actor<S>, Refusal> {
        let mut context = Context {
            place: &self.place,
            epoch: self.epoch,
            input: self.inputs,
            processed: self.processed,
            wish: self.wish,
            now,
            asked: std::cell::Cell::new(false),
            recovery: self.recovery,
            trace: TraceContext::NONE,
            state_format: format,
            random: &mut self.random,
            effects: &mut desk.effects,
        };
        match self.place.subject {
            Subject::Session(_) => caught("open", || game.open(opening, &mut context))
                .unwrap_or_else(|fault| Err(Refusal::for_good(fault.text)))
                .map(Actor::Alone),
            Subject::Group(group) => {
                let open = |context: &mut GroupContext<'_>| game.open_group(opening, context);
                open_crowd(group, roster, &desk.settings, &mut context, open)
                    .map(|crowd| Actor::Crowd(Box::new(crowd)))
            }
        }
    }

    /// Beyond all inputs that an earlier attachment had; where the session can be replayed from here, the same then.
    fn first_input_after_loss(&self) -> u64 {
        if !is_exact(self.recovery) {
            return first_input_of_epoch(self.epoch);
        }
        // Seqs go on after a loss, so these are beyond those after an earlier one.
        let seqs = self.processed.0.saturating_add(self.outbox.last_sent().0);
        INPUTS_AFTER_LOSS.saturating_add(seqs.saturating_mul(1 << INPUTS_PER_SEQ_BITS))
    }
}

fn first_input_of_epoch(epoch: Epoch) -> u64 {
    epoch.0.checked_shl(INPUTS_PER_EPOCH_BITS).unwrap_or(u64::MAX / 2)
}
