//! [`Moment`]: the time that one input is told, and where it comes from.

use std::time::SystemTime;

use holdfast_protocol::Seq;
use holdfast_protocol::message::{Recovery, Rule};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::Attachment;
use crate::game::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub time: SystemTime,
    pub source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing is recorded of it.
    Clock,
    /// To be recorded if it was asked for.
    Fresh,
    /// From the journal: it was asked for then.
    Given,
    /// The journal goes on but has none here: it wasn't asked for then.
    Missing,
}

impl Moment {
    pub fn clock(time: SystemTime) -> Self {
        Self { time, source: Source::Clock }
    }

    pub fn given(time: SystemTime) -> Self {
        Self { time, source: Source::Given }
    }

    /// Whether the handler of client frame `seq` asked as it did before.
    pub fn check(self, seq: Seq, asked: bool) -> Result<(), Fault> {
        let text = match (self.source, asked) {
            (Source::Given, false) => "left the recorded time unused",
            (Source::Missing, true) => "asked for the time or closed, and has none recorded",
            (Source::Clock | Source::Fresh, _) | (Source::Given, true) | (Source::Missing, false) => {
                return Ok(());
            }
        };
        Err(Fault::new(Rule::Diverged, format!("client frame {seq} {text}")))
    }
}

impl<S: Session> Attachment<S> {
    /// The time for the next client frame (or CLOSE).
    pub(super) fn moment(&mut self, desk: &Desk) -> Moment {
        let now = desk.now.wall;
        if self.recovery != Recovery::Replay {
            return Moment::clock(now);
        }
        if let Some((record, time)) = self.values.take() {
            self.records.processed(record);
            return Moment::given(time);
        }
        let source = if self.records.is_replaying() { Source::Missing } else { Source::Fresh };
        Moment { time: now, source }
    }

    /// The time for an input that no client sent.
    pub(super) fn moment_between(&self, desk: &Desk) -> Moment {
        let is_recorded = self.recovery == Recovery::Replay;
        let source = if is_recorded { Source::Fresh } else { Source::Clock };
        Moment { time: desk.now.wall, source }
    }
}
