//! [`Context`]: all that a handler may ask of the world and do to it.
//!
//! Time, random numbers, timers and async work go through here and nowhere else, so that a session is a pure function
//! of its inputs, and of what is recorded of them. What a handler does is only collected ([`Effects`]); it takes effect when the handler has returned,
//! and not at all when it panics.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind};
use holdfast_protocol::message::{Recovery, Subject};
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId, TraceContext};

use crate::game::Tag;
use crate::random::Random;

/// Async work that a handler began.
pub(crate) type Work = Pin<Box<dyn Future<Output = Vec<u8>> + Send + 'static>>;

/// What stays the same as long as a session is here.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The session, or the group.
    pub subject: Subject,
    /// As `ip:port`.
    pub client: Box<str>,
    pub service: Box<str>,
}

impl Place {
    /// The 128 bits of its id, whatever it is.
    pub fn id(&self) -> SessionId {
        match self.subject {
            Subject::Session(session) => session,
            Subject::Group(group) => SessionId(group.0),
        }
    }
}

/// What one handler did.
#[derive(Default)]
pub(crate) struct Effects {
    /// All frames sent, one after the other; a group's with their addresses.
    pub bytes: Vec<u8>,
    /// Their lengths.
    pub lengths: Vec<usize>,
    pub timers: Vec<TimerChange>,
    pub work: Vec<(Tag, Work)>,
    /// What it told of its change of state.
    pub change: Vec<u8>,
    /// What became of a group's members, at level `delta`.
    pub roster: Vec<u8>,
    /// The group that it wants to be in.
    pub join: Option<GroupId>,
    pub close: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerChange {
    Every(Tag, Duration),
    After(Tag, Duration),
    Cancel(Tag),
}

impl Effects {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
        self.timers.clear();
        self.work.clear();
        self.change.clear();
        self.roster.clear();
        self.join = None;
        self.close = false;
    }

    /// Adds a frame of a group's stream.
    pub fn push_addressed(&mut self, kind: AddressedKind, member: SessionId, payload: &[u8]) {
        let head = Addressed::head(kind, member);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
        self.lengths.push(head.len() + payload.len());
    }
}

/// A handler's view of its session and of the world. Never blocks.
pub struct Context<'a> {
    pub(crate) place: &'a Place,
    pub(crate) epoch: Epoch,
    pub(crate) input: u64,
    /// Last client frame that was begun.
    pub(crate) processed: Seq,
    /// The group that it wants to be in.
    pub(crate) wish: Option<GroupId>,
    pub(crate) now: SystemTime,
    /// Whether the handler has asked for the time.
    pub(crate) asked: Cell<bool>,
    pub(crate) recovery: Recovery,
    pub(crate) trace: TraceContext,
    pub(crate) state_format: &'a str,
    pub(crate) random: &'a mut Random,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    /// The session's id: the same from the player's connect to the end, whichever process serves it.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.place.id()
    }

    /// The player's address as `ip:port`.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.place.client
    }

    /// The service through which the player came.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.place.service
    }

    /// Grows each time the session changes its process, and each time a move is called off. A store that refuses
    /// writes of an older epoch is safe from a process that doesn't know yet that it has been replaced.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Numbers the session's inputs (frames, timers, results of work), also across moves: (session, input) names this
    /// call of a handler for good, and is the key to make an effect outside the game idempotent with.
    ///
    /// It grows with each input; in [`crate::Game::open`] it is that of the last input before (0: none).
    #[must_use]
    pub fn input(&self) -> u64 {
        self.input
    }

    /// Sends a frame to the player. Never blocks and never fails; frames arrive in the order of these calls.
    ///
    /// A frame over the link's limit ends this session (it could never be delivered).
    pub fn send(&mut self, frame: &[u8]) {
        self.effects.bytes.extend_from_slice(frame);
        self.effects.lengths.push(frame.len());
    }

    /// Ends the session once all that was sent has left. [`crate::Session::closed`] is called right after this handler.
    pub fn close(&mut self) {
        self.effects.close = true;
    }

    /// Asks that the session be in this group: a wish, which stands until it is met or refused. The last one wins.
    ///
    /// When the wish is met, the session's state goes to [`crate::Group::joined`] of that group, in this process or
    /// another, and the session here is dropped, as in any move. If it can't ever be met,
    /// [`crate::Session::join_refused`] says why. Until then the session goes on as it is.
    ///
    /// The wish moves with the session's state. In [`crate::Game::open`] from a state at levels `replay` and `delta` this
    /// does nothing, as sending does.
    pub fn join(&mut self, group: GroupId) {
        self.effects.join = Some(group);
    }

    /// The group that the session is to be in, as far as that isn't met.
    #[must_use]
    pub fn wish(&self) -> Option<GroupId> {
        self.effects.join.or(self.wish)
    }

    /// Calls [`crate::Session::timer`] each `period` (at least a millisecond), beginning one period from now. A timer
    /// that has the tag already is replaced. Periods that were missed are skipped, not made up for.
    pub fn every(&mut self, tag: Tag, period: Duration) {
        self.effects.timers.push(TimerChange::Every(tag, period));
    }

    /// Calls [`crate::Session::timer`] once, after `delay`. A timer that has the tag already is replaced.
    pub fn after(&mut self, tag: Tag, delay: Duration) {
        self.effects.timers.push(TimerChange::After(tag, delay));
    }

    /// Removes the timer that has the tag, if there is one.
    pub fn cancel(&mut self, tag: Tag) {
        self.effects.timers.push(TimerChange::Cancel(tag));
    }

    /// The time at which this input was taken. Use this, not the clock: it is the same when the input is replayed.
    ///
    /// At level `replay` a player's frame whose handler asks is recorded with the time (about 70 bytes to the proxy);
    /// one whose handler doesn't costs nothing. In [`crate::Game::open`] of a session that can be replayed it is when the
    /// session began, or when its state was taken: opening it again is the same.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.asked.set(true);
        self.now
    }

    /// A random number. Use this, not a generator of your own: it is the same when the input is replayed.
    ///
    /// The generator belongs to the session, moves with its state and begins from the session's id: good for games,
    /// not for secrets. What [`crate::Game::open`] draws from a saved state is not counted.
    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// Tells what this input changes in the session's state, for [`crate::Session::apply`]: at level `delta` it is kept
    /// together with the frames sent. The bytes of several calls are joined. At other levels it does nothing.
    pub fn change(&mut self, change: &[u8]) {
        if self.wants_change() {
            self.effects.change.extend_from_slice(change);
        }
    }

    /// Whether [`Self::change`] is of use: the session is at level `delta`.
    #[must_use]
    pub fn wants_change(&self) -> bool {
        self.recovery == Recovery::Delta
    }

    /// Runs async work (a database, a web service) beside the session; what it returns comes back as an input:
    /// [`crate::Session::finished`] with the same tag.
    ///
    /// Unfinished work doesn't move with the session: note in the state what is under way, and let
    /// [`crate::Game::open`] begin it again under the same tag. Work whose result was recorded isn't begun again: the
    /// result is given once more. When the session is closed, the work runs to its end and its result is
    /// dropped. Work that panics ends the session.
    pub fn spawn(&mut self, tag: Tag, work: impl Future<Output = Vec<u8>> + Send + 'static) {
        self.effects.work.push((tag, Box::pin(work)));
    }

    /// The trace context of this input, for calls to other systems; all zero when there is none.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.trace
    }

    /// The name of the format of the bytes in [`crate::Opening::State`]; empty outside of `open`.
    #[must_use]
    pub fn state_format(&self) -> &str {
        self.state_format
    }
}

impl Context<'_> {
    /// The same context, for as long as a wrapper of it lives.
    pub(crate) fn reborrow(&mut self) -> Context<'_> {
        Context { asked: self.asked.clone(), random: self.random, effects: self.effects, ..*self }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("subject", &self.place.subject)
            .field("epoch", &self.epoch)
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}
