//! A session's arrival: its state is collected, the game opens it, and it is inert until START.

use holdfast_protocol::message::{Rule, State};
use holdfast_protocol::{Epoch, TraceContext};
use tracing::Span;

use super::super::desk::Desk;
use super::super::envelope;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::input::caught;
use super::{Attachment, Held, Phase};
use crate::context::Context;
use crate::game::{Game, Opening, Refusal};
use crate::trace;

/// What the session opens with, and how much of it is there.
#[derive(Debug)]
pub(crate) enum Loading {
    Fresh,
    Lost,
    State { bytes: Vec<u8>, total: usize, format: Box<str>, span: Option<Span> },
}

/// What came of opening.
pub(crate) enum Opened {
    Inert,
    Refused(Refusal),
}

/// Numbers of inputs after a loss begin at the epoch times this: beyond all that an earlier attachment gave.
const INPUTS_PER_EPOCH_BITS: u32 = 32;
const MAX_FORMAT_BYTES: usize = 256;

impl Loading {
    pub fn state(
        session: holdfast_protocol::SessionId,
        total: usize,
        format: &str,
        trace: TraceContext,
    ) -> Self {
        let format = format.chars().take(MAX_FORMAT_BYTES).collect();
        let span = trace::restore(session, trace);
        Self::State { bytes: Vec::new(), total, format, span }
    }

    /// Bytes that it will take.
    pub fn total(&self) -> u64 {
        match self {
            Self::Fresh | Self::Lost => 0,
            Self::State { total, .. } => *total as u64,
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Fresh | Self::Lost => true,
            Self::State { bytes, total, .. } => bytes.len() == *total,
        }
    }
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
        let Phase::Loading(Loading::State { bytes, total, .. }) = &mut self.phase else {
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
        Ok(bytes.len() == *total)
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
            Loading::Fresh => self.call_open(game, desk, Opening::Fresh, "").map(|session| (session, false)),
            Loading::Lost => {
                self.inputs = first_input_after_loss(self.epoch);
                self.call_open(game, desk, Opening::Lost, "").map(|session| (session, false))
            }
            Loading::State { bytes, format, span, .. } => {
                let _entered = span.as_ref().map(Span::enter);
                if let Some(span) = span {
                    span.record("bytes", bytes.len());
                }
                self.open_state(game, desk, bytes, format)
            }
        };
        let session = match outcome {
            Ok(session) => session,
            Err(refusal) => {
                desk.effects.clear();
                return Ok(Opened::Refused(refusal));
            }
        };
        let (session, close) = session;
        self.phase = Phase::Inert(session, Held { close, ..Held::default() });
        if self.settle(desk, TraceContext::NONE)? {
            self.finish(desk)?;
        }
        Ok(Opened::Inert)
    }

    fn open_state<G: Game<Session = S>>(
        &mut self,
        game: &G,
        desk: &mut Desk,
        bytes: &[u8],
        format: &str,
    ) -> Result<(S, bool), Refusal> {
        let envelope = envelope::parse(bytes).map_err(|error| Refusal::for_good(error.to_string()))?;
        self.inputs = envelope.inputs;
        for (trace, frame) in envelope.unsent {
            self.outbox.push(&mut desk.pool, Kind::Data, trace, frame);
        }
        let session = self.call_open(game, desk, Opening::State(envelope.snapshot), format)?;
        Ok((session, envelope.close))
    }

    fn call_open<G: Game<Session = S>>(
        &self,
        game: &G,
        desk: &mut Desk,
        opening: Opening<'_>,
        format: &str,
    ) -> Result<S, Refusal> {
        let mut context = Context {
            place: &self.place,
            epoch: self.epoch,
            input: self.inputs,
            now: desk.now.wall,
            trace: TraceContext::NONE,
            state_format: format,
            random: &mut desk.random,
            effects: &mut desk.effects,
        };
        caught("open", || game.open(opening, &mut context))
            .unwrap_or_else(|fault| Err(Refusal::for_good(fault.text)))
    }
}

fn first_input_after_loss(epoch: Epoch) -> u64 {
    epoch.0.checked_shl(INPUTS_PER_EPOCH_BITS).unwrap_or(u64::MAX / 2)
}
