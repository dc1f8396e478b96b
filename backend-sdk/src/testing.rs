//! Finds, in a unit test, what in a game would make a recovery after a crash lead elsewhere.
//!
//! A [`Script`] of inputs is played once. Then the session is brought back from each of its moments as after a crash
//! there: from the state of that moment, or from nothing, and all that is kept after it. Each time, every frame that the
//! game sends and the state after every input must be what they were; the first that isn't is the [`Difference`].
//!
//! ```
//! # use holdfast_backend::{Context, Game, Opening, Refusal, Session};
//! use holdfast_backend::testing::{Script, check_replay};
//!
//! struct Dice;
//! struct Roll(u64);
//!
//! impl Game for Dice {
//!     type Session = Roll;
//!     fn open(&self, opening: Opening<'_>, _: &mut Context<'_>) -> Result<Roll, Refusal> {
//!         Ok(Roll(match opening {
//!             Opening::Fresh | Opening::Lost => 0,
//!             Opening::State(bytes) | Opening::Recovered(bytes) => bytes.len() as u64,
//!         }))
//!     }
//! }
//!
//! impl Session for Roll {
//!     fn frame(&mut self, _: &[u8], context: &mut Context<'_>) {
//!         self.0 = context.random() % 6;
//!         context.send(&self.0.to_le_bytes());
//!     }
//!     fn snapshot(&self) -> Vec<u8> {
//!         vec![0; self.0 as usize]
//!     }
//! }
//!
//! let script = Script::new().frame("roll").frame("roll");
//! check_replay(|| Dice, &script).unwrap();
//! ```
//!
//! The clock of each run is a simulated one that begins at another date, epochs differ, and each run has a game of its own:
//! what a handler takes from the clock, from the epoch or from what players share shows. Snapshots are compared byte by
//! byte: write unordered collections in a fixed order.

mod group_script;
pub(crate) mod keeper;
mod play;

use std::fmt;
use std::time::Duration;

use holdfast_protocol::SessionId;
use holdfast_protocol::message::{Recovery, Subject};

pub use self::group_script::GroupScript;
use self::play::Play;
use crate::game::{Game, Tag};

/// What happens to a session, in order.
#[derive(Debug, Clone)]
pub struct Script {
    subject: Subject,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Frame(Vec<u8>),
    Wait(Duration),
    Finish(Tag, Vec<u8>),
    Close,
}

impl Default for Script {
    fn default() -> Self {
        Self { subject: Subject::Session(SessionId(*b"session-of-tests")), steps: Vec::new() }
    }
}

impl Script {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The player sends a frame.
    #[must_use]
    pub fn frame(mut self, frame: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Frame(frame.into()));
        self
    }

    /// Time passes: timers are due.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.steps.push(Step::Wait(time));
        self
    }

    /// The oldest spawned work with that tag comes back with this result. Work itself is never run.
    #[must_use]
    pub fn finish(mut self, work: Tag, result: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Finish(work, result.into()));
        self
    }

    /// The player leaves.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.steps.push(Step::Close);
        self
    }
}

/// Where a session that was brought back isn't as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// It was brought back from its state after so many inputs of the script's; `None`: from nothing.
    pub from: Option<usize>,
    /// The input that was given once more, as `client frame 3` or `timer or work after client frame 3`.
    pub input: String,
    pub what: What,
}

/// What is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A server frame, by its number; `None`: it was sent in one run only. A group's begins with what it is (a byte) and
    /// for whom (16 bytes).
    Frame { number: u64, first: Option<Vec<u8>>, again: Option<Vec<u8>> },
    /// What `snapshot` returned after the input.
    State { first: Vec<u8>, again: Vec<u8> },
    /// The session ended, or wasn't opened.
    Ended(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(inputs) => write!(f, "brought back from the state after input {inputs}")?,
            None => write!(f, "brought back from its beginning")?,
        }
        write!(f, ", at {}: ", self.input)?;
        let text = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            None => "nothing".to_owned(),
        };
        match &self.what {
            What::Frame { number, first, again } => {
                write!(f, "server frame {number} was {}, is now {}", text(first), text(again))
            }
            What::State { first, again } => {
                write!(f, "the state was \"{}\", is now \"{}\"", first.escape_ascii(), again.escape_ascii())
            }
            What::Ended(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for Difference {}

/// Plays the script at level `replay`, and again from each of its moments.
///
/// `game` makes a game for each run.
///
/// # Errors
/// The first difference.
pub fn check_replay<G: Game>(game: impl Fn() -> G, script: &Script) -> Result<(), Difference> {
    check(&game, script, Recovery::Replay)
}

/// Plays the script at level `delta`, and applies its changes from each of its moments.
///
/// # Errors
/// The first difference.
pub fn check_deltas<G: Game>(game: impl Fn() -> G, script: &Script) -> Result<(), Difference> {
    check(&game, script, Recovery::Delta)
}

/// As [`check_replay`], for a group.
///
/// # Errors
/// The first difference.
pub fn check_group_replay<G: Game>(game: impl Fn() -> G, script: &GroupScript) -> Result<(), Difference> {
    check(&game, &script.0, Recovery::Replay)
}

/// As [`check_deltas`], for a group.
///
/// # Errors
/// The first difference.
pub fn check_group_deltas<G: Game>(game: impl Fn() -> G, script: &GroupScript) -> Result<(), Difference> {
    check(&game, &script.0, Recovery::Delta)
}

fn check<G: Game>(game: &impl Fn() -> G, script: &Script, level: Recovery) -> Result<(), Difference> {
    let first = Play::first(game(), script, level)?;
    for from in std::iter::once(None).chain((0..first.moments()).map(Some)) {
        first.again(game(), from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
