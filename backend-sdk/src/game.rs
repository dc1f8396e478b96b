//! What a game implements: [`Game`] opens sessions, a [`Session`] is one player's.
//!
//! Handlers are synchronous and run one at a time per session, each to its end. Nothing in here knows about links.

use std::fmt;

use holdfast_protocol::GroupId;

use crate::context::Context;
use crate::group::{Group, GroupContext};

/// A game server: opens one [`Session`] for each player that arrives.
///
/// It is shared by all links (`&self`), so what players share between them lives here, behind a lock. Note that such
/// shared things don't move with a session; only what [`Session::snapshot`] returns does.
pub trait Game: Send + Sync + 'static {
    type Session: Session;

    /// A player arrives: fresh, or with the state that another process wrote.
    ///
    /// Timers set here start, frames sent here leave and work spawned here begins when the player's live input may
    /// begin, which is a moment later.
    ///
    /// At the levels `replay` and `delta` a session that is opened from a state goes on as if it had never left: frames
    /// sent here are then dropped. And it must open alike each time: what it does may depend on the opening and the
    /// context, but for [`Context::epoch`].
    ///
    /// # Errors
    /// A [`Refusal`]: the proxy takes the player to another backend, or back to where they were.
    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Self::Session, Refusal>;

    /// A group (a match, a room) is formed, or comes with the state that another process wrote. Only asked with
    /// [`crate::Builder::groups`].
    ///
    /// All that is said of [`Self::open`] holds. A new group has no members: the first one [`Group::joined`] right after.
    ///
    /// # Errors
    /// A [`Refusal`]: the proxy tries another backend, or leaves the players as they were.
    fn open_group(
        &self,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Box<dyn Group>, Refusal> {
        let _ = (opening, context);
        Err(Refusal::for_good("this game has no groups"))
    }
}

/// One player's game, from [`Game::open`] on.
///
/// A panic in a handler ends this session alone.
pub trait Session: Send + 'static {
    /// A frame came from the player.
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>);

    /// A timer that [`Context::every`] or [`Context::after`] set is due.
    fn timer(&mut self, timer: Tag, context: &mut Context<'_>) {
        let _ = (timer, context);
    }

    /// Work that [`Context::spawn`] began has come back.
    fn finished(&mut self, work: Tag, result: &[u8], context: &mut Context<'_>) {
        let _ = (work, result, context);
    }

    /// The wish for this group ([`Context::join`]) can't be met; it stands no longer. The session goes on as it is.
    fn join_refused(&mut self, group: GroupId, reason: &str, context: &mut Context<'_>) {
        let _ = (group, reason, context);
    }

    /// Level `delta` alone ([`crate::Builder::deltas`]): does to the state what an input did that told this `change` by
    /// [`Context::change`]. Called when a session is brought back after a crash, in the order of the inputs, after
    /// [`Game::open`]; not for inputs that told no change.
    ///
    /// [`Context::now`] and [`Context::input`] are that input's. What it sends is dropped (the player has it), and so is
    /// a close. Timers need not be set again, the SDK knows them; work may be begun again under the same tag, and runs if
    /// its result isn't among the changes that follow.
    ///
    /// # Panics
    /// Unless it is implemented. As in every handler, that ends the session.
    fn apply(&mut self, change: &[u8], context: &mut Context<'_>) {
        let _ = (change, context);
        panic!("Builder::deltas was called, but Session::apply is not implemented");
    }

    /// All that [`Game::open`] needs to go on from here in another process, in a format of the game's own.
    ///
    /// Called between two inputs. Frames that were sent but haven't left yet are kept by the SDK and needn't be in it.
    fn snapshot(&self) -> Vec<u8>;

    /// The session is over: the player left, or [`Context::close`] was called. Nothing comes after it.
    ///
    /// Not called when the session goes on elsewhere: then it is only dropped.
    fn closed(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }
}

/// How a session begins in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// A new player.
    Fresh,
    /// A player who has played before, but whose state could not be kept.
    Lost,
    /// The bytes of an earlier [`Session::snapshot`]; [`Context::state_format`] names their format.
    State(&'a [u8]),
    /// Level `checkpoint`, after a crash: the bytes of the last snapshot that was kept. What happened since is lost,
    /// though the player has seen it.
    Recovered(&'a [u8]),
}

/// Why [`Game::open`] takes a player not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether asking this process again later may help.
    pub retry: bool,
    /// For the operator: it stands in the proxy's log.
    pub reason: String,
}

impl Refusal {
    /// Not now (full, still loading): this process may be asked again later.
    pub fn for_now(reason: impl Into<String>) -> Self {
        Self { retry: true, reason: reason.into() }
    }

    /// Not in this process, whenever it is asked (the state can't be read).
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self { retry: false, reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Names a timer or a piece of spawned work within one session. The game chooses the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
