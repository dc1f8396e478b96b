//! [`Group`]: sessions that share a state (a match, a room) and move together.
//!
//! A group is a session with many players: its inputs run one at a time, in the order in which the proxy read its
//! members' frames, and it moves, thaws and recovers whole.

mod context;

use std::time::SystemTime;

use holdfast_protocol::SessionId;

pub use self::context::GroupContext;
use crate::game::{Refusal, Tag};

/// A group's game, from [`crate::Game::open_group`] on.
///
/// A panic in a handler ends this group alone. The proxy lets go of a group when its last member has left.
pub trait Group: Send + 'static {
    /// A player arrives, with what their session's `snapshot` was. From here on they are a member: their frames come
    /// here, and they can be sent to; what they had been sent before leaves first.
    ///
    /// Timers and unfinished work of the session that they were are gone: the group sets its own.
    ///
    /// # Errors
    /// A [`Refusal`]: they aren't taken and go on alone, as they were, and their session is told
    /// ([`crate::Session::join_refused`]). Frames sent to them here are dropped; whatever else this handler did stands.
    fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal>;

    /// A frame came from a member.
    fn frame(&mut self, member: SessionId, frame: &[u8], context: &mut GroupContext<'_>);

    /// The player is gone; last chance to save. Not called for who leaves by [`GroupContext::leave`] or is closed by
    /// [`GroupContext::close`].
    ///
    /// They are a member until this returns. What is sent to them arrives if they have only ended their sending side.
    fn left(&mut self, member: SessionId, context: &mut GroupContext<'_>);

    /// A timer that [`GroupContext::every`] or [`GroupContext::after`] set is due.
    fn timer(&mut self, timer: Tag, context: &mut GroupContext<'_>) {
        let _ = (timer, context);
    }

    /// Work that [`GroupContext::spawn`] began has come back.
    fn finished(&mut self, work: Tag, result: &[u8], context: &mut GroupContext<'_>) {
        let _ = (work, result, context);
    }

    /// Level `delta` alone: does to the state what an input did that told this `change` by [`GroupContext::change`]; as
    /// [`crate::Session::apply`]. Of an input that made somebody a member the change must tell what they came with.
    /// [`GroupContext::members`] are those after the input; leaving and closing are known to the SDK and do nothing here.
    ///
    /// # Panics
    /// Unless it is implemented. As in every handler, that ends the group.
    fn apply(&mut self, change: &[u8], context: &mut GroupContext<'_>) {
        let _ = (change, context);
        panic!("Builder::deltas was called, but Group::apply is not implemented");
    }

    /// All that [`crate::Game::open_group`] needs to go on from here in another process: what the members share, and
    /// each member's own. Who the members are is kept by the SDK too.
    fn snapshot(&self) -> Vec<u8>;
}

/// A player who arrives in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newcomer<'a> {
    pub session: SessionId,
    /// Their address as `ip:port`.
    pub client: &'a str,
    /// When their session began.
    pub opened: SystemTime,
    /// The name of the format of `state`.
    pub format: &'a str,
    /// What their [`crate::Session::snapshot`] was.
    pub state: &'a [u8],
}
