//! [`Actor`]: the game behind an attachment: one player's session, or a [`Crowd`], which is a group's game with its
//! members.
//!
//! The attachment knows only frames; a crowd reads their addresses. Invariant: what the game knows as a member, the
//! roster has; whoever isn't in it is neither heard nor sent to.

mod roster;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Arrival, Departure, parts};
use holdfast_protocol::message::Rule;
use holdfast_protocol::{GroupId, SessionId};

pub(crate) use self::roster::{Member, Roster};
use super::attachment::{Input, call, caught};
use super::bytes::BytesError;
use super::envelope::{self, Envelope, Keep};
use super::fault::Fault;
use crate::context::{Context, Effects};
use crate::game::{Refusal, Session};
use crate::group::{Group, GroupContext, Newcomer};
use crate::settings::Settings;

/// What an arrival has around its state: the client's address, the format's name, and their lengths.
const ARRIVAL_ROOM_BYTES: u64 = 256 * 1024;

pub(crate) enum Actor<S> {
    Alone(S),
    Crowd(Box<Crowd>),
}

impl<S: Session> Actor<S> {
    /// Calls the handler that the input is for.
    pub fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Result<(), Fault> {
        match self {
            Self::Alone(session) => call(session, input, context),
            Self::Crowd(crowd) => crowd.handle(input, context),
        }
    }

    pub fn snapshot(&self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Alone(session) => caught("snapshot", || session.snapshot()),
            Self::Crowd(crowd) => crowd.snapshot(),
        }
    }

    /// Does once more what an input changed, at level `delta`.
    pub fn apply(&mut self, roster: &[u8], change: &[u8], context: &mut Context<'_>) -> Result<(), Fault> {
        match self {
            Self::Alone(_) if change.is_empty() => Ok(()),
            Self::Alone(session) => caught("apply", || session.apply(change, context)),
            Self::Crowd(crowd) => crowd.apply(roster, change, context),
        }
    }
}

/// A group's game, and who is in it.
pub(crate) struct Crowd {
    group: GroupId,
    game: Box<dyn Group>,
    roster: Roster,
    settings: Arc<Settings>,
}

/// Lets the game open a group whose members are these.
pub(crate) fn open_crowd(
    group: GroupId,
    mut roster: Roster,
    settings: &Arc<Settings>,
    context: &mut Context<'_>,
    open: impl FnOnce(&mut GroupContext<'_>) -> Result<Box<dyn Group>, Refusal>,
) -> Result<Crowd, Refusal> {
    let context = context.reborrow();
    let mut context = GroupContext { context, group, roster: &mut roster, lets_go: false };
    let game = caught("open_group", || open(&mut context)).unwrap_or_else(|fault| {
        // A game that can't open it here hardly can when it is asked again.
        Err(Refusal::for_good(fault.text))
    })?;
    Ok(Crowd { group, game, roster, settings: Arc::clone(settings) })
}

impl Crowd {
    fn call<R>(
        &mut self,
        context: &mut Context<'_>,
        lets_go: bool,
        handler: impl FnOnce(&mut dyn Group, &mut GroupContext<'_>) -> R,
    ) -> Result<R, Fault> {
        let (group, roster) = (self.group, &mut self.roster);
        let mut inner = GroupContext { context: context.reborrow(), group, roster, lets_go };
        let outcome = caught("handler", || handler(&mut *self.game, &mut inner));
        let asked = inner.context.asked.get();
        context.asked.set(asked);
        outcome
    }

    fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Result<(), Fault> {
        match input {
            Input::Frame { frame, .. } => self.frame(frame, context),
            Input::Timer(tag) => self.call(context, true, |game, context| game.timer(tag, context)),
            Input::Finished { tag, result, .. } => {
                self.call(context, true, |game, context| game.finished(tag, result, context))
            }
            // A group has no CLOSE, and asks for no other group.
            Input::Closed | Input::JoinRefused { .. } => Ok(()),
        }
    }

    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) -> Result<(), Fault> {
        let Some(Addressed { kind, member, payload }) = Addressed::parse(frame) else {
            let text = format!("a group's frame of {} bytes that has no address", frame.len());
            return Err(Fault::new(Rule::Malformed, text));
        };
        let is_member = self.roster.has(member);
        match kind {
            AddressedKind::Part | AddressedKind::Passage if is_member => {
                Err(Fault::new(Rule::Malformed, format!("an arrival of {member}, who is a member")))
            }
            AddressedKind::Part => self.part(member, payload, context),
            AddressedKind::Passage => {
                let mut bytes = self.roster.take_parts(member);
                self.check_arriving(bytes.len() + payload.len())?;
                bytes.extend_from_slice(payload);
                self.arrive(member, &bytes, context)
            }
            // Of who has left, or was closed.
            AddressedKind::Frame | AddressedKind::Half | AddressedKind::Close if !is_member => Ok(()),
            AddressedKind::Frame => {
                self.call(context, true, |game, context| game.frame(member, payload, context))
            }
            AddressedKind::Half => {
                self.end(member, true, context)?;
                context.effects.push_addressed(AddressedKind::Close, member, CLOSED_BY_GAME.as_bytes());
                Ok(())
            }
            AddressedKind::Close => self.end(member, false, context),
        }
    }

    fn end(&mut self, member: SessionId, listens: bool, context: &mut Context<'_>) -> Result<(), Fault> {
        self.roster.set_ending(Some((member, listens)));
        self.call(context, true, |game, context| game.left(member, context))?;
        self.roster.set_ending(None);
        self.roster.remove(member, context);
        Ok(())
    }

    fn part(&mut self, member: SessionId, payload: &[u8], context: &mut Context<'_>) -> Result<(), Fault> {
        if payload.is_empty() {
            let text = format!("an empty part of the arrival of {member}, more should follow");
            return Err(Fault::new(Rule::Malformed, text));
        }
        self.check_arriving(self.roster.arriving_bytes() + payload.len())?;
        self.roster.add_part(member, payload, context);
        Ok(())
    }

    fn check_arriving(&self, bytes: usize) -> Result<(), Fault> {
        let max = self.settings.max_state_bytes.saturating_add(ARRIVAL_ROOM_BYTES);
        if bytes as u64 <= max {
            return Ok(());
        }
        let text = format!("{bytes} bytes of arrivals, the limit is {max}");
        Err(Fault::new(Rule::WindowExceeded, text))
    }

    /// A session's state is whole: it is a member, or leaves as it came.
    fn arrive(&mut self, member: SessionId, bytes: &[u8], context: &mut Context<'_>) -> Result<(), Fault> {
        let Some(arrival) = Arrival::parse(bytes) else {
            let text = format!("an arrival of {member}, of {} bytes, that can't be read", bytes.len());
            return Err(Fault::new(Rule::Malformed, text));
        };
        let envelope = match envelope::parse(arrival.state) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(group = %self.group, session = %member, %error, "a newcomer's state can't be read");
                self.roster.forget(member, context);
                depart(member, arrival.state, context);
                return Ok(());
            }
        };
        let reason = match self.obstacle(&arrival, &envelope) {
            Some(reason) => reason,
            None => match self.welcome(member, &arrival, &envelope, context)? {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal.reason,
            },
        };
        tracing::info!(group = %self.group, session = %member, reason, "a newcomer isn't taken");
        self.roster.forget(member, context);
        depart(member, &self.returned(&arrival, envelope, reason), context);
        Ok(())
    }

    /// Why the game needn't be asked.
    fn obstacle(&self, arrival: &Arrival<'_>, envelope: &Envelope<'_>) -> Option<String> {
        let format = format_of(arrival, envelope);
        if !self.settings.reads(format) {
            return Some(format!("state format {format:?} isn't one of {:?}", self.settings.reads_list()));
        }
        let max = self.settings.max_sessions;
        if self.roster.len() >= max {
            return Some(format!("{max} members are the limit"));
        }
        envelope.keep.close.then(|| "the session is ending".into())
    }

    /// Asks the game, with the newcomer as a member.
    fn welcome(
        &mut self,
        member: SessionId,
        arrival: &Arrival<'_>,
        envelope: &Envelope<'_>,
        context: &mut Context<'_>,
    ) -> Result<Result<(), Refusal>, Fault> {
        let Keep { inputs, random, ordinals, .. } = envelope.keep;
        self.roster.join(member, Member { inputs, random, ordinals }, context);
        let before = context.effects.lengths.len();
        for (_, frame) in &envelope.unsent {
            context.effects.push_addressed(AddressedKind::Frame, member, frame);
        }
        let newcomer = Newcomer {
            session: member,
            client: arrival.client,
            opened: SystemTime::UNIX_EPOCH + Duration::from_micros(arrival.opened_us),
            format: format_of(arrival, envelope),
            state: envelope.snapshot,
        };
        let outcome = self.call(context, true, |game, context| game.joined(newcomer, context))?;
        if outcome.is_err() {
            drop_frames(context.effects, before, member);
        }
        Ok(outcome)
    }

    /// The state with which a newcomer who isn't taken goes on: as it came, but that the wish is answered.
    fn returned(&self, arrival: &Arrival<'_>, envelope: Envelope<'_>, reason: String) -> Vec<u8> {
        let format = format_of(arrival, &envelope);
        let format = (format != self.settings.writes_format).then(|| format.to_owned());
        let Envelope { keep, unsent, snapshot } = envelope;
        let refused = if keep.close { keep.refused } else { Some((self.group, shortened(reason))) };
        let keep = Keep { wish: None, refused, format, ..keep };
        envelope::write(&keep, unsent.into_iter(), snapshot)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        self.roster.write(&mut bytes);
        bytes.extend_from_slice(&caught("snapshot", || self.game.snapshot())?);
        Ok(bytes)
    }

    fn apply(&mut self, roster: &[u8], change: &[u8], context: &mut Context<'_>) -> Result<(), Fault> {
        self.roster.apply(roster).map_err(|error: BytesError| {
            Fault::new(Rule::Diverged, format!("a change of the members can't be read: {error}"))
        })?;
        if change.is_empty() {
            return Ok(());
        }
        self.call(context, false, |game, context| game.apply(change, context))
    }
}

/// Of why somebody isn't taken in.
const REASON_BYTES: usize = 1024;

/// What players are told when the game ends their session.
pub(crate) const CLOSED_BY_GAME: &str = "closed by the game";

/// The state of a member who goes on alone.
pub(crate) fn departing(member: &Member, time: SystemTime, state: &[u8]) -> Vec<u8> {
    let Member { inputs, random, ordinals } = *member;
    let keep = Keep { inputs, random, ordinals, ..Keep::at(time) };
    envelope::write(&keep, std::iter::empty(), state)
}

/// The state of a session that has played alone and done nothing, but that it is this for the game.
pub(crate) fn lone_state(time: SystemTime, state: &[u8]) -> Vec<u8> {
    envelope::write(&Keep::at(time), std::iter::empty(), state)
}

/// Sends a member away with that state.
pub(crate) fn depart(member: SessionId, state: &[u8], context: &mut Context<'_>) {
    let bytes = Departure { client_seq: context.processed, state }.to_bytes();
    for (kind, part) in parts(&bytes) {
        context.effects.push_addressed(kind, member, part);
    }
}

/// A reason travels in a state that is hardly larger than the one that came.
fn shortened(mut reason: String) -> String {
    let end = reason.floor_char_boundary(REASON_BYTES);
    reason.truncate(end);
    reason
}

/// A session that came back from a group keeps the format it had, whatever the backend there writes.
fn format_of<'a>(arrival: &Arrival<'a>, envelope: &'a Envelope<'_>) -> &'a str {
    envelope.keep.format.as_deref().unwrap_or(arrival.format)
}

/// Takes the frames to `member` from the one at `first` on back.
fn drop_frames(effects: &mut Effects, first: usize, member: SessionId) {
    let mut begin: usize = effects.lengths[..first].iter().sum();
    let mut kept = first;
    for at in first..effects.lengths.len() {
        let length = effects.lengths[at];
        let is_theirs = Addressed::parse(&effects.bytes[begin..begin + length])
            .is_some_and(|addressed| addressed.member == member);
        if is_theirs {
            effects.bytes.drain(begin..begin + length);
        } else {
            effects.lengths[kept] = length;
            (kept, begin) = (kept + 1, begin + length);
        }
    }
    effects.lengths.truncate(kept);
}
