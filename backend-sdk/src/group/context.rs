//! [`GroupContext`]: all that a group's handler may ask of the world and do to it.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use holdfast_protocol::codec::addressed::AddressedKind;
use holdfast_protocol::{Epoch, GroupId, SessionId, TraceContext};

use crate::context::Context;
use crate::core::{CLOSED_BY_GAME, Roster, depart, departing};
use crate::game::Tag;

/// A handler's view of its group and of the world. Never blocks.
///
/// What has the same name in [`Context`] does the same, for the group.
pub struct GroupContext<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) group: GroupId,
    pub(crate) roster: &'a mut Roster,
    /// Members may go: not while the group is opened, or a change is applied.
    pub(crate) lets_go: bool,
}

impl GroupContext<'_> {
    /// The group's id: the same whichever process serves it. A match-maker chose it.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = SessionId> + '_ {
        self.roster.members()
    }

    /// Whether this player is a member.
    #[must_use]
    pub fn is_member(&self, member: SessionId) -> bool {
        self.roster.has(member)
    }

    /// The service through which the players came.
    #[must_use]
    pub fn service(&self) -> &str {
        self.context.service()
    }

    /// Grows each time the group changes its process, and each time a move is called off; see [`Context::epoch`].
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.context.epoch()
    }

    /// Numbers the group's inputs, also across moves; see [`Context::input`].
    #[must_use]
    pub fn input(&self) -> u64 {
        self.context.input()
    }

    /// Sends a frame to a member. Never blocks and never fails; to who isn't a member it does nothing.
    ///
    /// A frame over the link's limit ends the group (it could never be delivered).
    pub fn send(&mut self, member: SessionId, frame: &[u8]) {
        if self.roster.hears(member) {
            self.context.effects.push_addressed(AddressedKind::Frame, member, frame);
        }
    }

    /// Sends a frame to every member.
    pub fn broadcast(&mut self, frame: &[u8]) {
        for member in self.roster.members().filter(|&member| self.roster.hears(member)) {
            self.context.effects.push_addressed(AddressedKind::Frame, member, frame);
        }
    }

    /// Takes a member out: their session goes on alone with this state ([`crate::Game::open`] is given it as
    /// [`crate::Opening::State`], in the format that this build writes), perhaps in another process. Frames that they
    /// have sent and no handler has begun are the first that it gets.
    ///
    /// The group's next input waits until the proxy is being told. For who isn't a member, who is being told of in
    /// [`crate::Group::left`], and in [`crate::Game::open_group`] and [`crate::Group::apply`] it does nothing. At level
    /// `delta` the state travels in the input's record, and has its limit.
    pub fn leave(&mut self, member: SessionId, state: &[u8]) {
        if !self.lets_go || self.roster.is_ending(member) {
            return;
        }
        let Some(kept) = self.roster.remove(member, &mut self.context) else { return };
        let state = departing(&kept, self.context.now(), state);
        depart(member, &state, &mut self.context);
    }

    /// Ends a member's session once all that was sent to them has left. For who isn't a member, and where
    /// [`Self::leave`] does nothing, it does nothing.
    pub fn close(&mut self, member: SessionId) {
        if self.lets_go
            && !self.roster.is_ending(member)
            && self.roster.remove(member, &mut self.context).is_some()
        {
            self.context.effects.push_addressed(AddressedKind::Close, member, CLOSED_BY_GAME.as_bytes());
        }
    }

    /// Calls [`crate::Group::timer`] each `period`; see [`Context::every`].
    pub fn every(&mut self, tag: Tag, period: Duration) {
        self.context.every(tag, period);
    }

    /// Calls [`crate::Group::timer`] once, after `delay`.
    pub fn after(&mut self, tag: Tag, delay: Duration) {
        self.context.after(tag, delay);
    }

    /// Removes the timer that has the tag, if there is one.
    pub fn cancel(&mut self, tag: Tag) {
        self.context.cancel(tag);
    }

    /// The time at which this input was taken; see [`Context::now`].
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.context.now()
    }

    /// A random number of the group's own generator; see [`Context::random`].
    pub fn random(&mut self) -> u64 {
        self.context.random()
    }

    /// Tells what this input changes in the group's state, for [`crate::Group::apply`]; see [`Context::change`].
    pub fn change(&mut self, change: &[u8]) {
        self.context.change(change);
    }

    /// Whether [`Self::change`] is of use: the group is at level `delta`.
    #[must_use]
    pub fn wants_change(&self) -> bool {
        self.context.wants_change()
    }

    /// Runs async work beside the group; its result comes to [`crate::Group::finished`]; see [`Context::spawn`].
    pub fn spawn(&mut self, tag: Tag, work: impl Future<Output = Vec<u8>> + Send + 'static) {
        self.context.spawn(tag, work);
    }

    /// The trace context of this input, for calls to other systems; all zero when there is none.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.context.trace()
    }

    /// The name of the format of the bytes in [`crate::Opening::State`]; empty outside of `open_group`.
    #[must_use]
    pub fn state_format(&self) -> &str {
        self.context.state_format()
    }
}

impl fmt::Debug for GroupContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupContext")
            .field("group", &self.group)
            .field("epoch", &self.context.epoch)
            .field("input", &self.context.input)
            .finish_non_exhaustive()
    }
}
